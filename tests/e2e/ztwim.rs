//! The SPIRE server under the operator of `OpenShift`'s zero trust workload identity manager: the agent and the
//! operator's stand-in keep the same installation.

use serde_json::{Value, json};
use trustweave_testbed::{
    Cluster, Installed,
    federation::{Federation, Plan, trust_domain},
    operator::{CREATE_ONLY_ANNOTATION, OperatorVersion},
};

use super::{
    ONE, TWO, condition, holds_current_keys, in_force,
    managed::{self, CONFIGURED, EXPOSED, get, grant, patch, told, versions},
    plan, progress, relationship, rotate,
};

/// Everything that either of the two writes.
const WRITTEN: [(&str, &str); 5] = [
    ("spireserver", "cluster"),
    ("configmap", "spire-server"),
    ("statefulset", "spire-server"),
    ("service", "spire-server"),
    ("route", "spire-server-federation"),
];

/// Two clusters; the first is the operator's, and its agent has these rights to manage the server.
async fn prepared(version: OperatorVersion, rights: &[&str]) -> Federation {
    let mut plan: Plan = plan();
    plan.clusters[0].installed = Installed::Operator(version);
    let federation = Federation::prepare(plan, &progress).await.unwrap();
    grant(&federation, rights).await;
    federation
}

/// Declares the operator's cluster, with these members of `bundleEndpoint`.
async fn declare(federation: &Federation, endpoint: &Value, message: &str) -> String {
    managed::declare(federation, "ztwim", endpoint, message).await
}

async fn patch_server(cluster: &Cluster, change: &Value) {
    patch(cluster, "spireserver", "cluster", "merge", change).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_serves_the_bundle_as_declared_and_nobody_writes_twice() {
    let mut federation = prepared(OperatorVersion::WithFederation, &["ztwim"]).await;
    let url = federation
        .testbed
        .cluster(ONE)
        .unwrap()
        .spire
        .bundle_endpoint_url();
    let endpoint = json!({"url": url, "refreshHint": 60, "expose": "none"});
    declare(&federation, &endpoint, "Let the agent manage the server").await;
    federation.start_agent(ONE).unwrap();
    federation.start_agent(TWO).unwrap();
    let said = told(&federation, CONFIGURED, "Irreversible").await;
    assert!(said.contains("acceptIrreversible: true"), "{said}");
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let server = get(cluster, "spireserver", "cluster").await;
    assert_eq!(server["spec"].get("federation"), None);

    let mut accepted = endpoint.clone();
    accepted["acceptIrreversible"] = json!(true);
    declare(&federation, &accepted, "Accept what can't be taken back").await;
    told(&federation, CONFIGURED, "Configured").await;
    let server = get(cluster, "spireserver", "cluster").await;
    let expected = json!({
        "bundleEndpoint": {"profile": "https_spiffe", "refreshHint": 60},
        "managedRoute": "false",
    });
    assert_eq!(server["spec"]["federation"], expected);
    let spire = &cluster.spire;
    federation
        .until("one restart of the server", async || {
            spire.until_rolled_out().await?;
            let configuration = spire.configuration()?;
            Ok(configuration["server"]["federation"]
                .is_object()
                .then_some(()))
        })
        .await
        .unwrap();
    federation.federated().await.unwrap();
    rotate(&federation, ONE).await;
    holds_current_keys(&federation, TWO, ONE).await;

    // Passes of both, and no write.
    federation
        .until("the operator to be ready", async || {
            let server = get(cluster, "spireserver", "cluster").await;
            Ok((condition(&server["status"], "Ready")["status"] == "True").then_some(()))
        })
        .await
        .unwrap();
    let operator = spire.operator().unwrap();
    let (before, written) = (versions(cluster, &WRITTEN).await, operator.actions());
    for pass in 0..5 {
        let file = [("notes.txt", format!("pass {pass}"))];
        let file = file.each_ref().map(|(path, text)| (*path, text.as_str()));
        let git = &federation.testbed.git;
        let commit = git.commit("main", &file, "Have a pass made").await.unwrap();
        in_force(&federation, ONE, &commit).await;
        operator.reconcile().await.unwrap();
    }
    assert_eq!(versions(cluster, &WRITTEN).await, before);
    assert_eq!(operator.actions(), written);
    assert_eq!(spire.server_starts(), 2);

    // By hand: put back.
    let edited = json!({"spec": {"federation": {"bundleEndpoint": {"refreshHint": 300}}}});
    patch_server(cluster, &edited).await;
    federation
        .until("the hand edit to be put back", async || {
            let server = get(cluster, "spireserver", "cluster").await;
            let hint = &server["spec"]["federation"]["bundleEndpoint"]["refreshHint"];
            Ok((hint == 60).then_some(()))
        })
        .await
        .unwrap();

    // Dismissed: told what stays.
    let mut dismissed = accepted;
    dismissed["manage"] = json!(false);
    dismissed
        .as_object_mut()
        .unwrap()
        .remove("acceptIrreversible");
    declare(&federation, &dismissed, "Dismiss the agent").await;
    federation
        .until("the event about what stays", async || {
            let events = cluster.kubectl(&["get", "events", "--output=json"]).await?;
            let told = events.contains("its operator lets nobody remove it");
            Ok(told.then_some(()))
        })
        .await
        .unwrap();
    let server = get(cluster, "spireserver", "cluster").await;
    assert_eq!(server["spec"]["federation"], expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_of_the_operator_breaks_no_url_and_a_moved_route_is_told() {
    let mut federation = prepared(OperatorVersion::BeforeFederation, &["", "route", "ztwim"]).await;
    let former = "https://by-hand.example.org";
    let endpoint = json!({"url": former, "expose": "route", "acceptIrreversible": true});
    declare(&federation, &endpoint, "Let the agent manage the server").await;
    federation.start_agent(ONE).unwrap();
    federation.start_agent(TWO).unwrap();
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let operator = cluster.spire.operator().unwrap();

    // The operator would undo it, so nothing is written.
    let said = told(&federation, CONFIGURED, "OperatorWouldUndo").await;
    assert!(said.contains(CREATE_ONLY_ANNOTATION), "{said}");
    assert!(
        get(cluster, "route", "spire-server-federation")
            .await
            .is_null()
    );

    // In create-only mode it looks on.
    patch_server(
        cluster,
        &json!({"metadata": {"annotations": {CREATE_ONLY_ANNOTATION: "true"}}}),
    )
    .await;
    federation
        .until("the server to be configured by hand", async || {
            cluster.spire.until_rolled_out().await?;
            let served = cluster.spire.configuration()?["server"]["federation"].is_object();
            Ok(served.then_some(()))
        })
        .await
        .unwrap();
    let route = get(cluster, "route", "spire-server-federation").await;
    assert_eq!(route["spec"]["host"], "by-hand.example.org");
    let status = federation
        .status(ONE, "gitsync", "trustweave")
        .await
        .unwrap();
    let said = condition(&status, CONFIGURED)["message"].as_str().unwrap();
    assert!(said.contains("create-only mode"), "{said}");

    // Upgraded, it makes everything anew; the agent goes its way, and the URL stays what it was.
    operator.upgrade().await.unwrap();
    federation
        .until("the endpoint by the operator", async || {
            let server = get(cluster, "spireserver", "cluster").await;
            Ok((server["spec"]["federation"]["managedRoute"] == "false").then_some(()))
        })
        .await
        .unwrap();
    told(&federation, EXPOSED, "Exposed").await;
    let route = get(cluster, "route", "spire-server-federation").await;
    assert_eq!(route["spec"]["host"], "by-hand.example.org");

    // Somebody lets the operator have the Route.
    patch_server(
        cluster,
        &json!({"spec": {"federation": {"managedRoute": "true"}}}),
    )
    .await;
    let said = told(&federation, EXPOSED, "RouteMoved").await;
    let host = format!("federation.{}", trust_domain(ONE));
    let file = format!("trust-domains/{}/trust-domain.yaml", trust_domain(ONE));
    for part in [former, &file, &format!("to https://{host}")] {
        assert!(said.contains(part), "{said}");
    }

    // What it says repairs every peer's URL.
    let repaired = format!("https://{host}");
    let mut endpoint = endpoint;
    endpoint["url"] = json!(repaired);
    declare(&federation, &endpoint, "Follow the Route").await;
    told(&federation, EXPOSED, "Exposed").await;
    federation
        .until("the peer's URL", async || {
            let relationship = relationship(&federation, TWO, ONE).await;
            let url = relationship["spec"]["bundleEndpointURL"].as_str();
            let follows = url.is_some_and(|url| url.starts_with(&repaired));
            Ok(follows.then_some(()))
        })
        .await
        .unwrap();
}
