//! What may happen at any moment: kills, and parts that are away.

use trustweave_testbed::federation::Federation;

use super::{
    ONE, TWO, condition, federated, holds_current_keys, plan, publication,
    rules::{Rule, shows},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_everything_converges_and_nothing_is_doubled() {
    let _shown = shows(&[Rule::Restart, Rule::SameBytes]);
    let mut federation = Federation::start(plan(), &super::progress).await.unwrap();
    // Again and again while the federation comes up: each kill is at another moment, told by the log.
    for marker in [
        "the agent starts",
        "references changed",
        "delivered",
        "published the own bundle",
    ] {
        for name in [ONE, TWO] {
            let log = federation.log(name).unwrap().to_owned();
            federation
                .until(&format!("`{marker}` in the log of {name}"), async || {
                    let text = std::fs::read_to_string(&log).unwrap_or_default();
                    Ok(text.contains(marker).then_some(()))
                })
                .await
                .unwrap();
            federation.agent(name).unwrap().kill().unwrap();
            federation.start_agent(name).unwrap();
        }
    }
    federation.federated().await.unwrap();
    for (cluster, peer) in [(ONE, TWO), (TWO, ONE)] {
        holds_current_keys(&federation, cluster, peer).await;
        let branch = publication::branch(peer);
        assert_eq!(federation.testbed.git.log(&branch).await.unwrap().len(), 1);
        let cluster = federation.testbed.cluster(cluster).unwrap();
        for kind in ["clusterfederatedtrustdomains", "trustpeers"] {
            let names = cluster
                .kubectl(&["get", kind, "--output=name"])
                .await
                .unwrap();
            assert_eq!(names.lines().count(), 1, "{kind}: {names}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_while_git_and_the_api_server_are_away_arrives_afterwards() {
    let _shown = shows(&[Rule::Restart]);
    let federation = federated(plan()).await;
    let (one, two) = (
        federation.testbed.cluster(ONE).unwrap(),
        federation.testbed.cluster(TWO).unwrap(),
    );
    federation.testbed.git.stop().await.unwrap();
    federation
        .until("git's absence to be reported", async || {
            let status = federation.status(ONE, "gitsync", "trustweave").await?;
            Ok((condition(&status, "Fetched")["status"] == "False").then_some(()))
        })
        .await
        .unwrap();
    two.spire.rotate_x509().await.unwrap();
    one.stop_api_server().await.unwrap();
    federation.testbed.git.start().await.unwrap();
    let branch = publication::branch(TWO);
    federation
        .until("the rotation to be published", async || {
            let log = federation.testbed.git.log(&branch).await?;
            Ok((log.len() == 2).then_some(()))
        })
        .await
        .unwrap();
    one.start_api_server().await.unwrap();
    holds_current_keys(&federation, ONE, TWO).await;
    assert_eq!(federation.testbed.git.log(&branch).await.unwrap().len(), 2);
    let status = federation
        .status(ONE, "gitsync", "trustweave")
        .await
        .unwrap();
    assert_eq!(condition(&status, "Fetched")["status"], "True");
}
