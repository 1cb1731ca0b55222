//! The agent as users install it: a Deployment made from `deploy/`, on real nodes.

#![expect(
    clippy::print_stderr,
    reason = "a slow first build must be seen to progress"
)]

use trustweave_testbed::nodes::federation::{Federation, NAMESPACE, Plan};

#[tokio::test]
async fn deployed_agents_federate_their_clusters() {
    let plan = Plan::new(env!("CARGO_BIN_EXE_trustweave"), env!("CARGO_MANIFEST_DIR"));
    let federation = Federation::start(plan, &|line| eprintln!("{line}"))
        .await
        .unwrap();
    federation.federated().await.unwrap();

    let [first, second] = federation.nodes.clusters() else {
        unreachable!("two clusters")
    };
    for (cluster, peer) in [(first, second), (second, first)] {
        let held = cluster
            .spire
            .federated_bundle(peer.spire.trust_domain())
            .await
            .unwrap()
            .unwrap();
        let own = peer.spire.own_bundle().await.unwrap();
        assert_eq!(held["keys"], own["keys"]);
        let restarts = cluster
            .kubectl(&[
                "get",
                "pods",
                &format!("--namespace={NAMESPACE}"),
                "--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}",
            ])
            .await
            .unwrap();
        // Of both replicas: none has one.
        assert_eq!(restarts, "0 0");
    }
}
