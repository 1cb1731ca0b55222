//! What is told at both levels: who trusts whom, and what stands in git.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;
use trustweave_testbed::federation::{CLUSTERS, PATIENCE, peer_of, trust_domain};
use trustweave_testbed::measure::Measured;

use super::figures::{headline, print_indented, seconds};

/// What `trustweave verify` says where a key came although no endpoint serves it.
pub(super) const BY_GIT: &str = "the keys came by git";

/// A table of the directions of trust; `took` is how long both took to come about.
pub(super) async fn who_trusts_whom(
    measured: &impl Measured,
    took: Duration,
) -> anyhow::Result<()> {
    println!(
        "   {:44} {:44} {:10} {:7} {:13} {:9} AFTER",
        "WORKLOADS OF", "TRUST", "PHASE", "VERSION", "DIGEST", "CONFIRMED"
    );
    for cluster in CLUSTERS {
        let peer = trust_domain(peer_of(cluster));
        let status = measured.status(cluster, "trustpeer", &peer).await?;
        let text = |name: &str| status[name].as_str().unwrap_or("-").to_owned();
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let confirmed = conditions
            .filter(|condition| condition["type"] == "Confirmed")
            .find_map(|condition| condition["status"].as_str())
            .unwrap_or("-");
        println!(
            "   {:44} {:44} {:10} {:7} {:13} {confirmed:9} {}",
            trust_domain(cluster),
            peer,
            text("phase"),
            text("version"),
            text("shortDigest"),
            seconds(took)
        );
        ensure!(
            text("phase") == "Federated",
            "{cluster} is not federated with {peer}"
        );
    }
    Ok(())
}

/// `trustweave verify` waits for a rotation in cluster-2, and proves both directions with it.
pub(super) async fn verify_a_rotation(
    measured: &impl Measured,
    trustweave: &Path,
) -> anyhow::Result<String> {
    let rotating = CLUSTERS[1];
    let mut command = Command::new(trustweave);
    command
        .args(["verify", "--revision", "main", "--rotation"])
        .arg(trust_domain(rotating))
        .arg("--repo")
        .arg(measured.git().path());
    for cluster in CLUSTERS {
        command
            .arg("--kubeconfig")
            .arg(measured.kubeconfig(cluster)?);
    }
    let mut verify = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start trustweave verify")?;
    let mut told = BufReader::new(verify.stderr.take().context("no stderr")?).lines();
    let waits = async {
        let mut all = Vec::new();
        while let Some(line) = told.next_line().await? {
            if line.starts_with("waiting for the next bundle") {
                return Ok(());
            }
            all.push(line);
        }
        bail!("verify ended before it waited: {}", all.join("\n"))
    };
    timeout(PATIENCE, waits)
        .await
        .context("verify does not say that it waits")??;
    measured.server(rotating)?.rotate_x509().await?;
    let output = timeout(2 * PATIENCE, verify.wait_with_output())
        .await
        .context("verify does not see the rotation arrive")??;
    let text = String::from_utf8(output.stdout).context("no text")?;
    print_indented(&text);
    ensure!(output.status.success(), "verify: {}", output.status);
    Ok(text)
}

/// The publications of both trust domains, each signed by its agent.
pub(super) async fn history(measured: &impl Measured) -> anyhow::Result<()> {
    let git = measured.git();
    for cluster in CLUSTERS {
        let signers = measured.directory().join("allowed_signers");
        let key = measured.signer(cluster)?;
        std::fs::write(&signers, format!("trustweave {key}\n")).context("write the signers")?;
        let program = format!("gpg.ssh.allowedSignersFile={}", signers.display());
        let branch = format!("trustweave/{}", trust_domain(cluster));
        println!("   {branch}");
        let log = git
            .git(&[
                "-c",
                &program,
                "log",
                "--format=%h %cI signature %G?  %s",
                &branch,
            ])
            .await?;
        print_indented(&log);
        ensure!(
            log.lines().all(|line| line.contains(" signature G ")),
            "a commit of {branch} is not signed by its agent"
        );
    }
    Ok(())
}

/// What kubectl shows of the agents' own kinds.
pub(super) async fn what_clusters_say(measured: &impl Measured) -> anyhow::Result<()> {
    headline("what the clusters say");
    for name in CLUSTERS {
        println!("   {name}");
        for kind in ["gitsyncs", "trustpeers"] {
            print_indented(&measured.kubectl(name, &["get", kind]).await?);
        }
    }
    Ok(())
}
