//! The agent as users install it: two replicas of a Deployment made from `deploy/`, with exactly its rights, on real
//! nodes; and the example's workloads, which call each other across clusters by mutual TLS.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]
#![expect(
    clippy::print_stderr,
    reason = "a slow first build must be seen to progress"
)]

use trustweave_testbed::federation::{CLUSTERS, peer_of, trust_domain};
use trustweave_testbed::measure::{
    Measured as _, confirmed, rotation, rotation_without_git, same_keys,
};
use trustweave_testbed::nodes::federation::{Federation, NAMESPACE, Plan, SOURCES};
use trustweave_testbed::nodes::workloads;

/// The cluster whose keys rotate: its workload serves, and that of the other one calls.
const ROTATING: &str = CLUSTERS[1];

fn progress(line: &str) {
    eprintln!("{line}");
}

/// The serials of what a cluster published, the first one first.
async fn serials(federation: &Federation, cluster: &str) -> Vec<usize> {
    let branch = format!("trustweave/{}", trust_domain(cluster));
    let subjects = federation.nodes.git.log(&branch).await.unwrap();
    let serials = subjects.iter().rev();
    let serials = serials.filter_map(|subject| subject.rsplit_once("serial "));
    serials.map(|(_, serial)| serial.parse().unwrap()).collect()
}

/// How often each container of a cluster's agents was started again, and the pods that they are in.
async fn agents(federation: &Federation, cluster: &str) -> (String, Vec<String>) {
    let restarts = [
        "get",
        "pods",
        &format!("--namespace={NAMESPACE}"),
        "--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}",
    ];
    let restarts = federation.kubectl(cluster, &restarts).await.unwrap();
    (restarts, federation.pods(cluster).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployed_agents_federate_their_clusters_and_are_upgraded_unnoticed() {
    let project = env!("CARGO_MANIFEST_DIR");
    let plan = Plan {
        trustweave: env!("CARGO_BIN_EXE_trustweave").into(),
        workloads: workloads::build(project.as_ref()).unwrap(),
        project: project.into(),
    };
    let federation = Federation::prepare(plan, &progress).await.unwrap();
    federation.install().await.unwrap();
    for cluster in CLUSTERS {
        federation.one_leads(cluster).await.unwrap();
        federation.bundle_served(cluster).await.unwrap();
    }
    federation.federated().await.unwrap();
    for cluster in CLUSTERS {
        same_keys(&federation, cluster, peer_of(cluster))
            .await
            .unwrap();
    }
    confirmed(&federation).await.unwrap();
    let calls = federation.calls().await.unwrap();
    progress(&format!("{}\n{}", calls.answered, calls.refused));

    for source in SOURCES {
        let read = federation.read_by(ROTATING, source).await.unwrap();
        federation.unharmed(rotation(&federation)).await.unwrap();
        progress(&format!("a rotation was read by {read}"));
    }
    // The endpoint that the agents set up is reached from the other cluster.
    let polled = federation.unharmed(rotation_without_git(&federation));
    progress(&format!(
        "SPIRE polled it after {:?}",
        polled.await.unwrap()
    ));

    let (restarts, former) = agents(&federation, ROTATING).await;
    assert_eq!(restarts, "0 0");
    let upgraded =
        async { tokio::try_join!(federation.upgrade("upgraded"), rotation(&federation)) };
    federation.unharmed(upgraded).await.unwrap();
    for cluster in CLUSTERS {
        federation.one_leads(cluster).await.unwrap();
    }
    confirmed(&federation).await.unwrap();
    let (restarts, pods) = agents(&federation, ROTATING).await;
    assert_eq!(restarts, "0 0");
    assert!(!pods.iter().any(|pod| former.contains(pod)), "{pods:?}");
    // One for the start, and one for each rotation.
    assert_eq!(
        serials(&federation, ROTATING).await,
        (1..=6).collect::<Vec<_>>()
    );
}
