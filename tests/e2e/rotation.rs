//! The loop: declared in git, federated in SPIRE, rotated in SPIRE, published in git, delivered to the peer.

use std::{fs, process::Command};

use trustweave_testbed::federation::trust_domain;

use super::{
    ONE, TWO, condition, federated, held, holds_current_keys, own, plan, publication, rotate,
    rules::{Rule, shows},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trust_follows_a_rotation_through_git_alone() {
    let _shown = shows(&[Rule::SameBytes]);
    // Without endpoints SPIRE can't poll: whatever it learns, it learns from git.
    let federation = federated(plan()).await;
    let git = &federation.testbed.git;
    for (cluster, peer) in [(ONE, TWO), (TWO, ONE)] {
        holds_current_keys(&federation, cluster, peer).await;
        assert_eq!(git.log(&publication::branch(peer)).await.unwrap().len(), 1);
    }

    // The registrations of the overlay name the peer now, and SPIRE has their entries.
    for (cluster, peer) in [(ONE, TWO), (TWO, ONE)] {
        let spire = &federation.testbed.cluster(cluster).unwrap().spire;
        let workload = format!("spiffe://{}/ns/federation-demo/sa/", trust_domain(cluster));
        federation
            .until(
                &format!("an entry of {cluster}'s workload that federates"),
                async || {
                    let entries = spire.entries().await?;
                    let federating = entries.iter().any(|entry| {
                        let text = entry.to_string();
                        let id = format!(
                            "spiffe://{}{}",
                            entry["spiffe_id"]["trust_domain"]
                                .as_str()
                                .unwrap_or_default(),
                            entry["spiffe_id"]["path"].as_str().unwrap_or_default()
                        );
                        id.starts_with(&workload) && text.contains(&trust_domain(peer))
                    });
                    Ok(federating.then_some(()))
                },
            )
            .await
            .unwrap();
    }

    let before = own(&federation, TWO).await;
    rotate(&federation, TWO).await;
    holds_current_keys(&federation, ONE, TWO).await;
    assert_ne!(held(&federation, ONE, TWO).await.unwrap(), before);

    // One commit per rotation and no other, on each branch.
    let branch = publication::branch(TWO);
    assert_eq!(git.log(&branch).await.unwrap().len(), 2);
    let other = publication::branch(ONE);
    assert_eq!(git.log(&other).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_and_attestations_verify_with_ssh_keygen_alone() {
    let _shown = shows(&[Rule::Signers]);
    let federation = federated(plan()).await;
    let git = &federation.testbed.git;
    let branch = publication::branch(ONE);
    let directory = federation.testbed.directory();
    let signers = directory.join("allowed_signers");
    let key = &federation.signer(ONE).unwrap().public;
    fs::write(&signers, format!("agent {key}\n")).unwrap();

    let program = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    git.git(&["-c", &program, "verify-commit", &branch])
        .await
        .unwrap();

    for file in ["bundle.attestation.json", "bundle.attestation.json.sig"] {
        fs::write(directory.join(file), git.show(&branch, file).await.unwrap()).unwrap();
    }
    let statement = fs::File::open(directory.join("bundle.attestation.json")).unwrap();
    let verified = Command::new("ssh-keygen")
        .args([
            "-Y",
            "verify",
            "-I",
            "agent",
            "-n",
            "bundle@trustweave.dev",
            "-f",
        ])
        .arg(&signers)
        .arg("-s")
        .arg(directory.join("bundle.attestation.json.sig"))
        .stdin(statement)
        .output()
        .unwrap();
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_workload_holds_is_read_back() {
    let _shown = shows(&[Rule::Confirmed]);
    let mut plan = plan();
    (plan.endpoints, plan.workloads) = (true, true);
    let federation = federated(plan).await;
    for (cluster, peer) in [(ONE, TWO), (TWO, ONE)] {
        federation
            .peer_until(cluster, peer, "Confirmed", |status| {
                condition(status, "Confirmed")["status"] == "True"
            })
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_over_what_is_in_force_writes_nothing() {
    let _shown = shows(&[Rule::SameBytes]);
    let federation = federated(plan()).await;
    for cluster in [ONE, TWO] {
        federation
            .until("the metrics to stand still", async || {
                let writes = federation
                    .metric(cluster, "trustweave_writes_total")
                    .await?;
                let passes = federation
                    .metric(cluster, "trustweave_passes_total")
                    .await?;
                let peers = federation.status(cluster, "gitsync", "trustweave").await?;
                let settled = condition(&peers, "Ready")["status"] == "True";
                Ok((settled && writes > 0.0 && passes > 1.0).then_some(()))
            })
            .await
            .unwrap();
    }
    let writes = federation
        .metric(ONE, "trustweave_writes_total")
        .await
        .unwrap();
    let commit = federation
        .testbed
        .git
        .commit(
            "main",
            &[("docs/note.md", "nothing that a cluster applies\n")],
            "Add a note",
        )
        .await
        .unwrap();
    federation
        .until("the commit to be in force", async || {
            let status = federation.status(ONE, "gitsync", "trustweave").await?;
            Ok((status["revision"] == commit.as_str()).then_some(()))
        })
        .await
        .unwrap();
    let after = federation
        .metric(ONE, "trustweave_writes_total")
        .await
        .unwrap();
    assert!(
        (after - writes).abs() < 0.5,
        "{writes} writes before, {after} after"
    );
}
