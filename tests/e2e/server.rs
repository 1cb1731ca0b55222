//! The SPIRE server of an installation that nobody else keeps: the agent has it serve its bundle, and gives
//! it back as it was.

use serde_json::{Value, json};
use trustweave::{
    cluster::{Cluster as _, Conflicts, KubeCluster, Mode},
    model::manifest::ObjectRef,
};
use trustweave_testbed::{
    Cluster, DataVolume, Distribution, Installed, ServerObjects,
    federation::{Federation, SPIRE_NAMESPACE},
};

use super::{
    ONE, TWO, condition, holds_current_keys,
    managed::{
        CONFIGURED, EXPOSED, configuration, declare, get, grant, passes, patch, told, versions,
    },
    plan, progress, rotate,
};

/// What the agent's objects are called.
const NAME: &str = "spire-server-federation";

/// What a managed server consists of.
const PARTS: [(&str, &str); 4] = [
    ("configmap", "spire-server"),
    ("statefulset", "spire-server"),
    ("service", NAME),
    ("route", NAME),
];

/// Clusters of which the first has this installation, and no edge between them but the example's.
async fn prepared(objects: ServerObjects, clusters: usize) -> Federation {
    let mut plan = plan().with_clusters(clusters);
    plan.clusters[0].installed = Installed::Objects(objects);
    let federation = Federation::prepare(plan, &progress).await.unwrap();
    grant(&federation, &["", "route", "ingress", "gateway"]).await;
    federation
}

fn one(federation: &Federation) -> &Cluster {
    federation.testbed.cluster(ONE).unwrap()
}

/// `server.federation` of a configuration, which goes without it then.
fn federation_of(configuration: &mut Value) -> Option<Value> {
    let server = configuration["server"].as_object_mut().unwrap();
    server.shift_remove("federation")
}

/// The pods' template of the server.
async fn template(cluster: &Cluster) -> Value {
    let set = get(cluster, "statefulset", "spire-server").await;
    set["spec"]["template"].clone()
}

/// Changes the port of the endpoint in the server's configuration by hand.
async fn edit_port(cluster: &Cluster, port: u16) {
    let mut conf: Value = serde_json::from_str(&configuration(cluster).await).unwrap();
    conf["server"]["federation"]["bundle_endpoint"]["port"] = json!(port);
    let data = json!({"data": {"server.conf": format!("{conf:#}")}});
    patch(cluster, "configmap", "spire-server", "merge", &data).await;
}

/// Waits until the port of the endpoint is what is declared.
async fn until_port_is_back(federation: &Federation) {
    federation
        .until("the port of the endpoint to be put back", async || {
            let conf: Value = serde_json::from_str(&configuration(one(federation)).await)?;
            let port = &conf["server"]["federation"]["bundle_endpoint"]["port"];
            Ok((port == 8443).then_some(()))
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_nothing_the_bundle_is_served_and_polled_and_everything_comes_back() {
    let mut federation = prepared(ServerObjects::new(Distribution::Custom), 2).await;
    let cluster = one(&federation);
    let (text, pods) = (configuration(cluster).await, template(cluster).await);
    let endpoint = json!({
        "url": cluster.spire.bundle_endpoint_url(), "refreshHint": 60, "expose": "none",
    });
    declare(&federation, "custom", &endpoint, "Have the server managed").await;
    federation.start_agent(ONE).unwrap();
    federation.start_agent(TWO).unwrap();
    told(&federation, CONFIGURED, "InForce").await;
    told(&federation, EXPOSED, "InCluster").await;
    let cluster = one(&federation);
    assert_eq!(cluster.spire.server_starts(), 2);
    let written = configuration(cluster).await;
    let (mut before, mut after): (Value, Value) = (
        serde_json::from_str(&text).unwrap(),
        serde_json::from_str(&written).unwrap(),
    );
    assert_eq!(federation_of(&mut before), None);
    assert_eq!(
        federation_of(&mut after),
        Some(json!({"bundle_endpoint": {
            "address": "0.0.0.0", "port": 8443, "refresh_hint": "60s",
            "profile": [{"https_spiffe": {}}],
        }}))
    );
    assert_eq!(before.to_string(), after.to_string());

    // The peer polls it: git is away.
    federation.federated().await.unwrap();
    federation.testbed.git.stop().await.unwrap();
    rotate(&federation, ONE).await;
    holds_current_keys(&federation, TWO, ONE).await;
    federation.testbed.git.start().await.unwrap();

    // Another URL alone restarts nothing, another port does, once.
    let mut other = endpoint.clone();
    other["port"] = json!(9444);
    declare(&federation, "custom", &other, "Use another port").await;
    federation
        .until("the other port", async || {
            let running = cluster.spire.configuration()?;
            let port = &running["server"]["federation"]["bundle_endpoint"]["port"];
            Ok((port.as_u64().is_some() && cluster.spire.server_starts() == 3).then_some(()))
        })
        .await
        .unwrap();
    told(&federation, CONFIGURED, "InForce").await;
    let ports = template(cluster).await["spec"]["containers"][0]["ports"].to_string();
    assert!(ports.contains("9444") && !ports.contains("8443"), "{ports}");
    let service = get(cluster, "service", NAME).await;
    let ports = service["spec"]["ports"].as_array().unwrap();
    assert!(ports.len() == 1 && ports[0]["port"] == 9444, "{ports:?}");
    let status = federation.status(ONE, "gitsync", "trustweave").await;
    let reverts = status.unwrap()["server"]["reverts"].clone();
    assert_eq!(reverts, Value::Null);

    let mut dismissed = endpoint;
    dismissed["manage"] = json!(false);
    declare(&federation, "custom", &dismissed, "Dismiss the agent").await;
    federation
        .until("everything to be given back", async || {
            let status = federation.status(ONE, "gitsync", "trustweave").await?;
            Ok(status.get("server").is_none().then_some(()))
        })
        .await
        .unwrap();
    assert_eq!(configuration(cluster).await, text);
    assert_eq!(template(cluster).await, pods);
    assert!(get(cluster, "service", NAME).await.is_null());
    let map = get(cluster, "configmap", "spire-server").await;
    let annotations = map["metadata"]["annotations"].to_string();
    assert!(!annotations.contains("trustweave"), "{annotations}");
    cluster.spire.until_rolled_out().await.unwrap();
    assert_eq!(cluster.spire.server_starts(), 4);
    let status = federation.status(ONE, "gitsync", "trustweave").await;
    assert!(condition(&status.unwrap(), CONFIGURED).is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_edit_of_each_piece_is_put_back_and_a_second_one_ends_it() {
    let mut federation = prepared(ServerObjects::new(Distribution::Custom), 1).await;
    let endpoint = json!({"url": "https://federation.cluster-1.test", "expose": "route"});
    declare(&federation, "custom", &endpoint, "Have the server managed").await;
    federation.start_agent(ONE).unwrap();
    told(&federation, CONFIGURED, "InForce").await;
    let cluster = one(&federation);
    let route = get(cluster, "route", NAME).await;
    assert_eq!(route["spec"]["host"], "federation.cluster-1.test");
    assert_eq!(route["spec"]["tls"]["termination"], "passthrough");

    // Passes, and no write.
    let before = versions(cluster, &PARTS).await;
    passes(&federation, 3).await;
    assert_eq!(versions(cluster, &PARTS).await, before);
    assert_eq!(cluster.spire.server_starts(), 2);

    edit_port(cluster, 1).await;
    until_port_is_back(&federation).await;
    let selector = json!({"spec": {"selector": {"app": "nobody"}}});
    patch(cluster, "service", NAME, "merge", &selector).await;
    let edge = json!({"spec": {"tls": {"termination": "edge"}}});
    patch(cluster, "route", NAME, "merge", &edge).await;
    federation
        .until("the Service and the Route to be put back", async || {
            let service = get(cluster, "service", NAME).await;
            let route = get(cluster, "route", NAME).await;
            let right = service["spec"]["selector"]["app"] == "spire-server"
                && route["spec"]["tls"]["termination"] == "passthrough";
            Ok(right.then_some(()))
        })
        .await
        .unwrap();
    let arguments = ["delete", "service", NAME];
    let namespace = format!("--namespace={SPIRE_NAMESPACE}");
    assert_eq!(
        cluster.spire.server_starts(),
        2,
        "nothing of that restarts it"
    );

    let ports = template(cluster).await["spec"]["containers"][0]["ports"].clone();
    let mut ports = ports.as_array().unwrap().iter();
    let index = ports.position(|it| it["containerPort"] == 8443).unwrap();
    let path = format!("/spec/template/spec/containers/0/ports/{index}");
    let removed = json!([{"op": "remove", "path": path}]);
    patch(cluster, "statefulset", "spire-server", "json", &removed).await;
    federation
        .until("the port to be put back", async || {
            let ports = template(cluster).await["spec"]["containers"][0]["ports"].to_string();
            Ok(ports.contains("8443").then_some(()))
        })
        .await
        .unwrap();
    told(&federation, CONFIGURED, "InForce").await;

    // A second revert ends it, also after a restart of the agent.
    edit_port(cluster, 2).await;
    let said = told(&federation, CONFIGURED, "Fought").await;
    assert!(said.contains("kubectl-patch"), "{said}");
    cluster
        .kubectl(&[arguments.as_slice(), &[namespace.as_str()]].concat())
        .await
        .unwrap();
    told(&federation, EXPOSED, "Fought").await;
    federation.agent(ONE).unwrap().kill().unwrap();
    federation.start_agent(ONE).unwrap();
    passes(&federation, 2).await;
    let cluster = one(&federation);
    assert!(configuration(cluster).await.contains("\"port\": 2"));
    let status = federation.status(ONE, "gitsync", "trustweave").await;
    assert_eq!(condition(&status.unwrap(), CONFIGURED)["reason"], "Fought");

    // Until somebody says so.
    let annotate = [
        "annotate",
        "gitsync",
        "trustweave",
        "trustweave.dev/resume-server=1",
    ];
    cluster.kubectl(&annotate).await.unwrap();
    until_port_is_back(&federation).await;
    told(&federation, EXPOSED, "Exposed").await;

    // Each way out takes the place of the former.
    let gateway = json!({"gateway": {"parentRefs": [{"name": "edge", "namespace": "gateways"}]}});
    let ingress = json!({"ingress": {"className": "nginx"}});
    let mut endpoint = endpoint;
    for (expose, kind, former) in [
        (ingress, Some("ingress"), "route"),
        (gateway, Some("tlsroute"), "ingress"),
        (json!("loadBalancer"), None, "tlsroute"),
    ] {
        endpoint["expose"] = expose;
        declare(&federation, "custom", &endpoint, "Expose it otherwise").await;
        federation
            .until(&format!("{} instead", endpoint["expose"]), async || {
                let there = match kind {
                    Some(kind) => !get(cluster, kind, NAME).await.is_null(),
                    None => get(cluster, "service", NAME).await["spec"]["type"] == "LoadBalancer",
                };
                let gone = get(cluster, former, NAME).await.is_null();
                Ok((there && gone).then_some(()))
            })
            .await
            .unwrap();
    }
    told(&federation, EXPOSED, "NoAddress").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_over_what_somebody_else_wrote_meanwhile() {
    let objects = ServerObjects::new(Distribution::Custom);
    let federation = prepared(objects, 1).await;
    let cluster = one(&federation);
    let kubeconfig = cluster.kubeconfig().to_owned();
    let port = KubeCluster::connect(Some(kubeconfig), None).await.unwrap();
    let read = get(cluster, "configmap", "spire-server").await;
    let reference = ObjectRef::of(&read).unwrap();
    let other = json!({"data": {"other": "1"}});
    patch(cluster, "configmap", "spire-server", "merge", &other).await;
    let version = &read["metadata"]["resourceVersion"];
    let late = json!({"metadata": {"resourceVersion": version}, "data": {"server.conf": "{}"}});
    let refused = port.edit(&reference, &late).await.unwrap_err();
    assert!(refused.is_outdated(), "{refused}");
    assert_eq!(configuration(cluster).await, read["data"]["server.conf"]);

    // Nor is an object made anew of the few fields that are the agent's.
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "spire-server", "namespace": SPIRE_NAMESPACE, "uid": "another"},
    });
    port.apply(&set, Conflicts::Take, Mode::Persist)
        .await
        .unwrap_err();
    set["metadata"]["name"] = json!("gone");
    port.apply(&set, Conflicts::Take, Mode::Persist)
        .await
        .unwrap_err();
    assert!(get(cluster, "statefulset", "gone").await.is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_would_lose_the_datastore_is_refused_until_it_is_accepted() {
    let mut objects = ServerObjects::new(Distribution::Custom);
    objects.data = DataVolume::EmptyDir;
    let mut federation = prepared(objects, 1).await;
    let mut endpoint = json!({"url": "https://federation.cluster-1.test", "expose": "none"});
    declare(&federation, "custom", &endpoint, "Have the server managed").await;
    federation.start_agent(ONE).unwrap();
    let said = told(&federation, CONFIGURED, "RestartRefused").await;
    for part in [
        "datastore.sqlite3",
        "keys.json",
        "emptyDir",
        "acceptDataLoss: true",
    ] {
        assert!(said.contains(part), "{said}");
    }
    passes(&federation, 1).await;
    let cluster = one(&federation);
    assert!(!configuration(cluster).await.contains("federation"));
    assert_eq!(cluster.spire.server_starts(), 1);

    endpoint["acceptDataLoss"] = json!(true);
    declare(&federation, "custom", &endpoint, "Accept the loss").await;
    told(&federation, CONFIGURED, "InForce").await;
    assert_eq!(cluster.spire.server_starts(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_was_made_by_hand_is_adopted_without_a_write_or_a_restart() {
    let mut objects = ServerObjects::new(Distribution::Helm);
    objects.bundle_endpoint = true;
    let mut federation = prepared(objects, 1).await;
    let cluster = one(&federation);
    // As the seed has it.
    let by_hand = json!({
        "apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": NAME, "namespace": SPIRE_NAMESPACE},
                "spec": {
                    "type": "ClusterIP",
                    "ports": [{"name": "federation", "port": 8443, "protocol": "TCP", "targetPort": 8443}],
                    "selector": {"app.kubernetes.io/name": "server"},
                },
            },
            {
                "apiVersion": "route.openshift.io/v1", "kind": "Route",
                "metadata": {"name": NAME, "namespace": SPIRE_NAMESPACE},
                "spec": {
                    "host": "federation.cluster-1.test",
                    "to": {"kind": "Service", "name": NAME},
                    "port": {"targetPort": "federation"},
                    "tls": {"termination": "passthrough", "insecureEdgeTerminationPolicy": "Redirect"},
                },
            },
        ],
    });
    cluster.kubectl_apply(&by_hand.to_string()).await.unwrap();
    let before = versions(cluster, &PARTS).await;
    let endpoint = json!({
        "url": "https://federation.cluster-1.test", "refreshHint": 60, "expose": "route",
    });
    declare(&federation, "helm", &endpoint, "Have the server managed").await;
    federation.start_agent(ONE).unwrap();
    told(&federation, CONFIGURED, "InForce").await;
    told(&federation, EXPOSED, "Exposed").await;
    passes(&federation, 2).await;
    let cluster = one(&federation);
    assert_eq!(versions(cluster, &PARTS).await, before);
    assert_eq!(cluster.spire.server_starts(), 1);

    // What others made stays when the agent is dismissed.
    let mut dismissed = endpoint;
    dismissed["manage"] = json!(false);
    let commit = declare(&federation, "helm", &dismissed, "Dismiss the agent").await;
    super::in_force(&federation, ONE, &commit).await;
    passes(&federation, 1).await;
    assert_eq!(versions(cluster, &PARTS).await, before);
}
