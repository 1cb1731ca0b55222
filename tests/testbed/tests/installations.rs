//! SPIRE servers that are present as the objects of real installations: what the objects say is what runs.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]
#![expect(
    clippy::print_stderr,
    reason = "a slow first build must be seen to progress"
)]

use std::time::Duration;

use serde_json::{Value, json};
use trustweave_testbed::federation::cluster_spec;
use trustweave_testbed::operator::{CREATE_ONLY_ANNOTATION, OperatorVersion};
use trustweave_testbed::{
    Cluster, DataVolume, Distribution, Installed, ServerObjects, Testbed, wait_until,
};

const SOON: Duration = Duration::from_secs(40);

async fn start(name: &str, installed: Installed) -> Testbed {
    let mut spec = cluster_spec(name);
    spec.installed = installed;
    Testbed::start(&[spec], &|line| eprintln!("{line}"))
        .await
        .unwrap()
}

async fn get(cluster: &Cluster, kind: &str, name: &str) -> Value {
    let found = find(cluster, kind, name).await.unwrap();
    found.unwrap()
}

async fn find(cluster: &Cluster, kind: &str, name: &str) -> anyhow::Result<Option<Value>> {
    let namespace = format!("--namespace={}", cluster.spire.namespace());
    let arguments = [
        "get",
        kind,
        name,
        "--ignore-not-found",
        "--output=json",
        &namespace,
    ];
    let found = cluster.kubectl(&arguments).await?;
    Ok((!found.is_empty())
        .then(|| serde_json::from_str(&found))
        .transpose()?)
}

async fn patch(cluster: &Cluster, kind: &str, name: &str, patch: &Value) -> anyhow::Result<()> {
    let namespace = format!("--namespace={}", cluster.spire.namespace());
    let text = patch.to_string();
    let arguments = [
        "patch",
        kind,
        name,
        "--type=merge",
        "--patch",
        &text,
        &namespace,
    ];
    cluster.kubectl(&arguments).await.map(drop)
}

/// The server's configuration with a change.
async fn configure(cluster: &Cluster, change: impl FnOnce(&mut Value)) {
    let live = get(cluster, "configmap", "spire-server").await;
    let mut configuration: Value =
        serde_json::from_str(live["data"]["server.conf"].as_str().unwrap()).unwrap();
    change(&mut configuration);
    let data = json!({"data": {"server.conf": format!("{configuration:#}")}});
    patch(cluster, "configmap", "spire-server", &data)
        .await
        .unwrap();
}

/// A new pod template.
async fn restart(cluster: &Cluster, text: &str) {
    let template = json!({"spec": {"template": {"metadata": {"annotations": {"test": text}}}}});
    patch(cluster, "statefulset", "spire-server", &template)
        .await
        .unwrap();
}

async fn serves_its_bundle(cluster: &Cluster) -> bool {
    let address = cluster.spire.bundle_endpoint_url();
    let address = address.trim_start_matches("https://");
    tokio::net::TcpStream::connect(address).await.is_ok()
}

fn keys(bundle: &Value) -> String {
    let keys = bundle["keys"].as_array().unwrap().iter();
    let mut keys: Vec<String> = keys.map(Value::to_string).collect();
    keys.sort();
    keys.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_what_its_objects_say() {
    let objects = ServerObjects::new(Distribution::Custom);
    let testbed = start("custom", Installed::Objects(objects)).await;
    let cluster = &testbed.clusters()[0];
    let spire = &cluster.spire;
    let before = spire.own_bundle().await.unwrap();
    assert_eq!(spire.server_starts(), 1);
    assert!(!serves_its_bundle(cluster).await);

    let endpoint = json!({"bundle_endpoint": {
        "address": "0.0.0.0", "port": 8443, "profile": [{"https_spiffe": {}}],
    }});
    configure(cluster, |it| it["server"]["federation"] = endpoint).await;
    let running = spire.configuration().unwrap();
    assert_eq!(running["server"].get("federation"), None, "no restart yet");

    restart(cluster, "one").await;
    spire.until_rolled_out().await.unwrap();
    assert_eq!(spire.server_starts(), 2);
    assert!(serves_its_bundle(cluster).await);
    assert_eq!(keys(&spire.own_bundle().await.unwrap()), keys(&before));

    configure(cluster, |it| it["server"]["trust_domain"] = json!("")).await;
    assert_eq!(spire.server_starts(), 2);
    restart(cluster, "two").await;
    wait_until("the server to be in a crash loop", SOON, async || {
        let pod = get(cluster, "pod", "spire-server-0").await;
        let server = &pod["status"]["containerStatuses"][0];
        let looping = server["state"]["waiting"]["reason"] == "CrashLoopBackOff";
        Ok((looping && server["restartCount"].as_u64() >= Some(2)).then_some(()))
    })
    .await
    .unwrap();
    let set = get(cluster, "statefulset", "spire-server").await;
    assert_eq!(set["status"].get("readyReplicas"), None);

    // A container that is started again reads its ConfigMap again.
    let trust_domain = json!(spire.trust_domain());
    configure(cluster, |it| it["server"]["trust_domain"] = trust_domain).await;
    spire.until_rolled_out().await.unwrap();
    assert_eq!(keys(&spire.own_bundle().await.unwrap()), keys(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_dir_is_lost_with_its_pod() {
    let mut objects = ServerObjects::new(Distribution::Helm);
    objects.data = DataVolume::EmptyDir;
    objects.bundle_endpoint = true;
    let testbed = start("helm", Installed::Objects(objects)).await;
    let cluster = &testbed.clusters()[0];
    assert!(serves_its_bundle(cluster).await);
    let before = cluster.spire.own_bundle().await.unwrap();
    restart(cluster, "one").await;
    cluster.spire.until_rolled_out().await.unwrap();
    let after = cluster.spire.own_bundle().await.unwrap();
    assert_ne!(keys(&after), keys(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_puts_back_what_it_generates() {
    let installed = Installed::Operator(OperatorVersion::WithFederation);
    let testbed = start("operator", installed).await;
    let cluster = &testbed.clusters()[0];
    let spire = &cluster.spire;
    let operator = spire.operator().unwrap();
    assert!(!serves_its_bundle(cluster).await);

    // By hand: a change is gone at once, and nothing else happens.
    let before = get(cluster, "configmap", "spire-server").await;
    configure(cluster, |it| it["server"]["log_level"] = json!("error")).await;
    wait_until("the operator to put it back", SOON, async || {
        let now = get(cluster, "configmap", "spire-server").await;
        Ok((now["data"] == before["data"]).then_some(()))
    })
    .await
    .unwrap();

    // By its own object.
    let federation = json!({"bundleEndpoint": {"refreshHint": 60}});
    let federated = json!({"spec": {"federation": federation}});
    patch(cluster, "spireserver", "cluster", &federated)
        .await
        .unwrap();
    wait_until("the endpoint", SOON, async || {
        spire.until_rolled_out().await?;
        Ok(serves_its_bundle(cluster).await.then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(spire.server_starts(), 2);
    // Created in the same pass, after what the endpoint is served from.
    let route = wait_until("the operator to create its route", SOON, async || {
        find(cluster, "route", "spire-server-federation").await
    })
    .await
    .unwrap();
    let host = format!("federation.{}", spire.trust_domain());
    assert_eq!(route["spec"]["host"], host);

    // Once nothing differs, nothing is written.
    wait_until("the operator to be ready", SOON, async || {
        let server = get(cluster, "spireserver", "cluster").await;
        let conditions = server["status"]["conditions"].as_array().unwrap().clone();
        let ready = conditions.iter().find(|it| it["type"] == "Ready");
        Ok((ready.unwrap()["status"] == "True").then_some(()))
    })
    .await
    .unwrap();
    let written = operator.actions();
    for _ in 0..5 {
        operator.reconcile().await.unwrap();
    }
    assert_eq!(operator.actions(), written);

    // What can't be taken back.
    for change in [
        json!({"spec": {"federation": null}}),
        json!({"spec": {"federation": {"bundleEndpoint": {"profile": "https_web", "httpsWeb": {"servingCert": {}}}}}}),
        json!({"spec": {"federation": {"bundleEndpoint": {"refreshHint": 5}}}}),
        json!({"spec": {"federation": {"managedRoute": "yes"}}}),
    ] {
        let refused = patch(cluster, "spireserver", "cluster", &change).await;
        assert!(refused.is_err(), "{change}");
    }

    // In create-only mode it looks on.
    operator.set_create_only(true).await.unwrap();
    configure(cluster, |it| it["server"]["log_level"] = json!("error")).await;
    operator.reconcile().await.unwrap();
    let frozen = get(cluster, "configmap", "spire-server").await;
    assert_ne!(frozen["data"], before["data"]);
    assert!(
        !operator
            .actions()
            .iter()
            .skip(written.len())
            .any(|it| it.verb == "update")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_of_the_operator_takes_over_a_route_of_its_name() {
    let installed = Installed::Operator(OperatorVersion::BeforeFederation);
    let testbed = start("upgraded", installed).await;
    let cluster = &testbed.clusters()[0];
    let federated = json!({"spec": {"federation": {"bundleEndpoint": {}}}});
    patch(cluster, "spireserver", "cluster", &federated)
        .await
        .unwrap();
    let server = get(cluster, "spireserver", "cluster").await;
    assert_eq!(server["spec"].get("federation"), None, "an unknown field");

    let create_only = json!({"metadata": {"annotations": {CREATE_ONLY_ANNOTATION: "true"}}});
    patch(cluster, "spireserver", "cluster", &create_only)
        .await
        .unwrap();
    configure(cluster, |it| it["server"]["log_level"] = json!("error")).await;
    let operator = cluster.spire.operator().unwrap();
    operator.reconcile().await.unwrap();
    let kept = get(cluster, "configmap", "spire-server").await;
    assert!(kept["data"].to_string().contains("error"));

    let route = json!({
        "apiVersion": "route.openshift.io/v1",
        "kind": "Route",
        "metadata": {"name": "spire-server-federation", "namespace": cluster.spire.namespace()},
        "spec": {
            "host": "by-hand.example.org",
            "to": {"kind": "Service", "name": "spire-server-federation"},
            "port": {"targetPort": "federation"},
            "tls": {"termination": "passthrough", "insecureEdgeTerminationPolicy": "Redirect"},
        },
    });
    cluster.kubectl_apply(&route.to_string()).await.unwrap();
    operator.upgrade().await.unwrap();
    let replaced = get(cluster, "configmap", "spire-server").await;
    assert!(!replaced["data"].to_string().contains("\\\"error"));
    patch(cluster, "spireserver", "cluster", &federated)
        .await
        .unwrap();
    wait_until("the Route's new host", SOON, async || {
        let route = get(cluster, "route", "spire-server-federation").await;
        let host = format!("federation.{}", cluster.spire.trust_domain());
        Ok((route["spec"]["host"] == host).then_some(()))
    })
    .await
    .unwrap();
}
