//! What a federation is measured by: how long things take, and what they cost.
//!
//! Times are from the deed (a commit, a rotation that SPIRE has made) to its effect as a client sees it, asked for
//! every 50 ms and more.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::federation::{CLUSTERS, Federation, PATIENCE, peer_of, trust_domain};
use crate::wait_until;

/// The keys of a bundle document in a comparable form.
fn keys(bundle: &Value) -> Vec<String> {
    let mut keys: Vec<_> = bundle["keys"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|key| format!("{} {} {} {}", key["use"], key["kid"], key["x5c"], key["x"]))
        .collect();
    keys.sort();
    keys
}

/// Waits until a cluster's SPIRE holds exactly the keys that the peer's SPIRE has now.
pub async fn same_keys(federation: &Federation, cluster: &str, peer: &str) -> anyhow::Result<()> {
    let (cluster, peer) = (
        federation.testbed.cluster(cluster)?,
        federation.testbed.cluster(peer)?,
    );
    let expected = keys(&peer.spire.own_bundle().await?);
    let what = format!(
        "SPIRE of {} to hold the keys of {}",
        cluster.name(),
        peer.name()
    );
    wait_until(&what, PATIENCE, async || {
        let held = cluster
            .spire
            .federated_bundle(peer.spire.trust_domain())
            .await?;
        Ok(held.filter(|held| keys(held) == expected).map(drop))
    })
    .await
}

/// A commit to main until the object that it adds is in cluster-1.
pub async fn commit_to_applied(federation: &Federation) -> anyhow::Result<Duration> {
    let git = &federation.testbed.git;
    let overlay = "clusters/cluster-1/kustomization.yaml";
    let before = git.show("main", overlay).await?;
    let name = format!("note-{}", git.log("main").await?.len());
    let after = before.replacen("resources:", &format!("resources:\n  - {name}.yaml"), 1);
    ensure!(
        before != after,
        "the overlay of cluster-1 has no `resources:`"
    );
    let account = format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n  namespace: federation-demo\n"
    );
    let path = format!("clusters/cluster-1/{name}.yaml");
    let begun = Instant::now();
    let files = [(overlay, after.as_str()), (path.as_str(), account.as_str())];
    git.commit("main", &files, "Add a service account to cluster-1")
        .await?;
    let cluster = federation.testbed.cluster(CLUSTERS[0])?;
    let get = [
        "get",
        "serviceaccount",
        name.as_str(),
        "--namespace=federation-demo",
    ];
    wait_until("the commit to be applied", PATIENCE, async || {
        Ok(cluster.kubectl(&get).await.is_ok().then_some(()))
    })
    .await?;
    Ok(begun.elapsed())
}

/// A rotation in the SPIRE of cluster-2: until its commit is in git, and until the SPIRE of cluster-1 holds the key.
pub async fn rotation(federation: &Federation) -> anyhow::Result<(Duration, Duration)> {
    let branch = format!("trustweave/{}", trust_domain(CLUSTERS[1]));
    let git = &federation.testbed.git;
    let commits = git.log(&branch).await?.len();
    let spire = &federation.testbed.cluster(CLUSTERS[1])?.spire;
    spire.rotate_x509().await?;
    let begun = Instant::now();
    let published = async {
        wait_until("the rotation to be published", PATIENCE, async || {
            Ok((git.log(&branch).await?.len() > commits).then_some(()))
        })
        .await?;
        anyhow::Ok(begun.elapsed())
    };
    let delivered = async {
        same_keys(federation, CLUSTERS[0], CLUSTERS[1]).await?;
        anyhow::Ok(begun.elapsed())
    };
    let times = tokio::try_join!(published, delivered)?;
    let made = git.log(&branch).await?.len() - commits;
    ensure!(made == 1, "{made} commits for one rotation");
    Ok(times)
}

/// The same without an agent in cluster-1: until SPIRE's own poll has brought the key.
pub async fn polling(federation: &Federation) -> anyhow::Result<Duration> {
    let spire = &federation.testbed.cluster(CLUSTERS[1])?.spire;
    spire.rotate_x509().await?;
    let begun = Instant::now();
    same_keys(federation, CLUSTERS[0], CLUSTERS[1]).await?;
    Ok(begun.elapsed())
}

/// How many writes a pass makes over a commit that changes nothing for cluster-1.
pub async fn writes_of_a_pass_with_nothing_to_do(federation: &Federation) -> anyhow::Result<u64> {
    let metric = "trustweave_writes_total";
    let before = federation.metric(CLUSTERS[0], metric).await?;
    let files = [("docs/note.md", "nothing that a cluster applies\n")];
    let commit = federation
        .testbed
        .git
        .commit("main", &files, "Add a note")
        .await?;
    wait_until("the note to be in force", PATIENCE, async || {
        let status = federation
            .status(CLUSTERS[0], "gitsync", "trustweave")
            .await?;
        Ok((status["revision"] == commit.as_str()).then_some(()))
    })
    .await?;
    let after = federation.metric(CLUSTERS[0], metric).await?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    Ok((after - before).max(0.0) as u64)
}

/// Waits until a workload of each cluster holds exactly what the other's agent published last.
pub async fn confirmed(federation: &Federation) -> anyhow::Result<()> {
    for cluster in CLUSTERS {
        let peer = federation
            .status(peer_of(cluster), "gitsync", "trustweave")
            .await?;
        let published = &peer["published"];
        let version = format!("{}.{}", published["epoch"], published["serial"]);
        federation
            .peer_until(cluster, peer_of(cluster), "Confirmed", |status| {
                let conditions = status["conditions"].as_array().into_iter().flatten();
                status["version"] == version.as_str()
                    && conditions
                        .filter(|condition| condition["type"] == "Confirmed")
                        .any(|condition| condition["status"] == "True")
            })
            .await?;
    }
    Ok(())
}

/// Resident memory of a process in KiB.
pub fn resident(process: u32) -> anyhow::Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))
        .context("read the memory of the agent")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.context("the memory of the agent is not told")
}
