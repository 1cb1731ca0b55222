//! The document that the project began with, on how two clusters are federated by hand, walked from its first step to
//! the end of its troubleshooting: what people did there, commits do here. `docs/by-hand.md` tells it to people.

mod keeping;
mod setup;
mod story;
mod troubleshooting;

use trustweave_testbed::{Distribution, Installed, ServerObjects, federation::Federation};

use super::{
    ONE, TWO, condition,
    managed::{configuration, grant_in},
    plan, progress,
};

/// The clusters, each with its peer and the workload that runs in it.
const CLUSTERS: [(&str, &str, &str); 2] =
    [(ONE, TWO, "frontend-client"), (TWO, ONE, "backend-server")];

/// Two clusters whose SPIRE serves no bundle, an agent in each, and a repository without a commit.
async fn begin() -> Federation {
    let installed = Installed::Objects(ServerObjects::new(Distribution::Custom));
    let plan = plan().with_installed(&installed);
    let mut federation = Federation::prepare_empty(plan, &progress).await.unwrap();
    troubleshooting::a_name_is_taken(&federation).await;
    for (name, ..) in CLUSTERS {
        let cluster = federation.testbed.cluster(name).unwrap();
        let configuration = configuration(cluster).await;
        assert!(!configuration.contains("federation"), "{configuration}");
        assert_eq!(cluster.spire.server_starts(), 1);
        grant_in(cluster, &["", "route"]).await;
        federation.start_agent(name).unwrap();
    }
    for (name, ..) in CLUSTERS {
        // What people put into `signers`.
        let signer = federation
            .until("the agent to show its key", async || {
                let status = federation.status(name, "gitsync", "trustweave").await?;
                let message = condition(&status, "Ready")["message"].to_string();
                anyhow::ensure!(message.contains("no such branch yet"), "it says {message}");
                Ok(status["signer"].as_str().map(str::to_owned))
            })
            .await
            .unwrap();
        assert_eq!(
            signer.trim(),
            federation.signer(name).unwrap().public.trim()
        );
    }
    federation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_that_people_did_by_hand_is_a_commit() {
    let federation = begin().await;
    setup::the_bundles_are_served_and_published(&federation).await;
    setup::the_bundles_are_exchanged(&federation).await;
    setup::the_workloads_are_registered(&federation).await;
    keeping::rotations_arrive_by_polling_alone(&federation).await;
    keeping::nobody_writes_any_more(&federation).await;
    keeping::hand_edits_are_put_back(&federation).await;
    troubleshooting::an_endpoint_that_is_not_reachable(&federation).await;
    troubleshooting::entries_that_are_not_created(&federation).await;
    troubleshooting::a_peer_that_is_not_ready(&federation).await;
    troubleshooting::a_workload_without_the_peers_bundle(&federation).await;
    setup::the_peer_is_in_the_servers_own_configuration(&federation).await;
}
