//! `trustweave doctor` on a federation that works, and on each way of breaking it.
//!
//! What it names then is a table of docs/doctor.md; `TRUSTWEAVE_WRITE_DOCS=1` writes the table anew.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use serde_json::{Value, json};
use trustweave::model::bundle::Bundle;
use trustweave_testbed::{
    Cluster, Distribution, Installed, ServerObjects,
    federation::{Federation, SPIRE_NAMESPACE, trust_domain},
};

use super::{
    ONE, TWO, asking, holds_current_keys,
    managed::{get, patch},
    plan, progress, relationship, rotate,
};

/// The page with the table.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/doctor.md");

/// Around the table.
const MARKS: [&str; 2] = ["<!-- shown by tests/e2e/doctor.rs -->\n", "<!-- end -->\n"];

/// Asks the doctor about both clusters and the repository, and returns the exit code and the checks that
/// failed.
fn doctor(federation: &Federation) -> anyhow::Result<(Option<i32>, BTreeSet<String>, Value)> {
    let run = asking(federation, "doctor").output()?;
    let errors = String::from_utf8_lossy(&run.stderr);
    let answer: Value = serde_json::from_slice(&run.stdout)
        .map_err(|error| anyhow::anyhow!("{error}: {errors}"))?;
    let examined = answer["examined"].as_array().into_iter().flatten();
    let checks = examined.flat_map(|it| it["checks"].as_array().into_iter().flatten());
    let failed = checks.filter(|it| it["status"] == "failed");
    let failed = failed.map(|it| it["id"].as_str().unwrap_or_default().to_owned());
    let failed = failed.collect();
    Ok((run.status.code(), failed, answer))
}

/// What was broken and found, in the words of the documentation.
#[derive(Default)]
struct Shown {
    found: Vec<(String, BTreeSet<String>)>,
    /// Where the doctor named something else: told at the end, all at once.
    wrong: Vec<String>,
}

impl Shown {
    /// Waits until the doctor names exactly these.
    async fn names(&mut self, federation: &Federation, broken: &str, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|it| (*it).to_owned()).collect();
        let what = format!("the doctor to name {expected:?} when {broken}");
        let named = federation.until(&what, async || {
            let (_, failed, answer) = doctor(federation)?;
            anyhow::ensure!(failed == expected, "it names {failed:?}: {answer:#}");
            Ok(Some(()))
        });
        match named.await {
            Ok(()) => self.found.push((broken.to_owned(), expected)),
            Err(error) => self.wrong.push(format!("{error:#}")),
        }
    }

    /// Waits until nothing is wrong any more.
    async fn cured(&mut self, federation: &Federation) {
        federation
            .until("the doctor to find nothing", async || {
                let (_, failed, answer) = doctor(federation)?;
                anyhow::ensure!(failed.is_empty(), "it names {failed:?}: {answer:#}");
                Ok(Some(()))
            })
            .await
            .unwrap();
    }

    fn table(&self) -> String {
        let mut table = "| What is broken | What the doctor names |\n|---|---|\n".to_owned();
        for (broken, names) in &self.found {
            let names: Vec<String> = names.iter().map(|it| format!("`{it}`")).collect();
            let _ = writeln!(table, "| {broken} | {} |", names.join(", "));
        }
        table
    }
}

/// Leads to the first cluster's endpoint, as people do by hand.
async fn lead_to_endpoint(cluster: &Cluster) {
    let metadata = json!({"name": "spire-server-federation", "namespace": SPIRE_NAMESPACE});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {
        "selector": {"app": "spire-server"},
        "ports": [{"name": "federation", "port": 8443, "targetPort": "federation"}],
    }});
    let route = json!({"apiVersion": "route.openshift.io/v1", "kind": "Route", "metadata": metadata, "spec": {
        "host": format!("federation.{}", cluster.spire.trust_domain()),
        "to": {"kind": "Service", "name": "spire-server-federation"},
        "port": {"targetPort": "federation"},
        "tls": {"termination": "passthrough", "insecureEdgeTerminationPolicy": "Redirect"},
    }});
    for object in [service, route] {
        cluster.kubectl_apply(&object.to_string()).await.unwrap();
    }
}

/// Changes an object for the time of a check, and puts it back as it was.
struct Edited<'a> {
    cluster: &'a Cluster,
    kind: &'static str,
    before: Value,
}

impl<'a> Edited<'a> {
    async fn new(cluster: &'a Cluster, kind: &'static str, name: &str, edit: Value) -> Self {
        let before = get(cluster, kind, name).await;
        patch(cluster, kind, name, "merge", &edit).await;
        Self {
            cluster,
            kind,
            before,
        }
    }

    async fn put_back(self) {
        let name = self.before["metadata"]["name"].as_str().unwrap();
        let mut parts = serde_json::Map::new();
        for part in ["spec", "data"] {
            if let Some(value) = self.before.get(part) {
                let value = json!({"op": "replace", "path": format!("/{part}"), "value": value});
                parts.insert(part.to_owned(), value);
            }
        }
        let patches: Value = parts.into_iter().map(|(_, value)| value).collect();
        patch(self.cluster, self.kind, name, "json", &patches).await;
    }
}

/// A registration beside the example's.
async fn register(cluster: &Cluster, spec: Value) {
    let mut object = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID",
        "metadata": {"name": "by-hand"},
        "spec": {
            "className": cluster.spire.class_name(),
            "spiffeIDTemplate": format!("spiffe://{}/by-hand/{{{{ .PodMeta.Name }}}}", cluster.spire.trust_domain()),
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "federation-demo"}},
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    cluster.kubectl_apply(&object.to_string()).await.unwrap();
}

async fn unregister(cluster: &Cluster) {
    let arguments = ["delete", "clusterspiffeid", "by-hand"];
    cluster.kubectl(&arguments).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_names_each_cause_and_nothing_on_a_healthy_federation() {
    let mut objects = ServerObjects::new(Distribution::Custom);
    objects.bundle_endpoint = true;
    let mut plan = plan().with_installed(&Installed::Objects(objects));
    plan.endpoints = true;
    let mut federation = Federation::prepare(plan, &progress).await.unwrap();
    for name in [ONE, TWO] {
        lead_to_endpoint(federation.testbed.cluster(name).unwrap()).await;
        federation.start_agent(name).unwrap();
    }
    federation.federated().await.unwrap();
    let mut shown = Shown::default();
    shown.cured(&federation).await;
    let (code, _, _) = doctor(&federation).unwrap();
    assert_eq!(code, Some(0));

    // From here on nobody cures anything.
    for name in [ONE, TWO] {
        federation.agent(name).unwrap().kill().unwrap();
    }
    relationships(&federation, &mut shown).await;
    registrations(&federation, &mut shown).await;
    server(&federation, &mut shown).await;
    outage(&mut federation, &mut shown).await;

    assert!(shown.wrong.is_empty(), "{}", shown.wrong.join("\n\n"));
    let table = shown.table();
    let page = fs::read_to_string(PAGE).unwrap();
    let (head, rest) = page.split_once(MARKS[0]).unwrap();
    let (documented, tail) = rest.split_once(MARKS[1]).unwrap();
    if std::env::var_os("TRUSTWEAVE_WRITE_DOCS").is_some() {
        let page = format!("{head}{}{table}{}{tail}", MARKS[0], MARKS[1]);
        fs::write(PAGE, page).unwrap();
    } else {
        assert_eq!(
            documented, table,
            "docs/doctor.md: TRUSTWEAVE_WRITE_DOCS=1 writes it anew"
        );
    }
}

/// The declared address is the server's own, which no Route leads to: where it can't be asked, that is
/// named as well (`relationship-current-address`).
async fn relationships(federation: &Federation, shown: &mut Shown) {
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let peer = trust_domain(TWO);
    let kind = "clusterfederatedtrustdomain";
    let live = relationship(federation, ONE, TWO).await;
    let delivered = live["spec"]["trustDomainBundle"].as_str().unwrap();
    let bundle = Bundle::parse(delivered.as_bytes()).unwrap();
    let mut unhinted = bundle.clone();
    unhinted.refresh_hint = None;
    let mut slow = bundle;
    slow.refresh_hint = Some(86_400);
    let text = |bundle: &Bundle| String::from_utf8(bundle.canonical()).unwrap();
    let url = cluster_url(federation, TWO);
    let edits: [(&str, Value, &[&str]); 7] = [
        (
            "a relationship of another class",
            json!({"className": "spire-spire"}),
            &[
                "registration-peers",
                "relationship-both-ways",
                "relationship-class",
            ],
        ),
        (
            "a pasted bundle that is not JSON: SPIRE's relationship is deleted",
            json!({"trustDomainBundle": "-----BEGIN CERTIFICATE-----"}),
            &["relationship-current-address", "relationship-valid"],
        ),
        (
            "a pasted `{}`",
            json!({"trustDomainBundle": "{}"}),
            &["relationship-current-address", "relationship-valid"],
        ),
        (
            "an empty bundle: nothing of the peer is trusted",
            json!({"trustDomainBundle": "{\"keys\": [], \"spiffe_refresh_hint\": 60}",
                   "bundleEndpointURL": format!("{url}/#by-hand")}),
            &[
                "bundle-delivered",
                "bundle-usable",
                "relationship-current-address",
                "relationship-current-keys",
            ],
        ),
        (
            "a bundle as `bundle show` prints it, without a refresh hint",
            json!({"trustDomainBundle": text(&unhinted)}),
            &["bundle-hint"],
        ),
        (
            "a refresh hint of a day",
            json!({"trustDomainBundle": text(&slow)}),
            &["bundle-hint"],
        ),
        (
            "a URL with a path",
            json!({"bundleEndpointURL": format!("{url}/bundle")}),
            &[
                "endpoint-reachable",
                "relationship-address",
                "relationship-current-address",
            ],
        ),
    ];
    for (broken, spec, expected) in edits {
        let edited = Edited::new(cluster, kind, &peer, json!({"spec": spec})).await;
        shown.names(federation, broken, expected).await;
        edited.put_back().await;
        shown.cured(federation).await;
    }

    let mut second = live.clone();
    second["metadata"] = json!({"name": "by-hand"});
    cluster.kubectl_apply(&second.to_string()).await.unwrap();
    let broken = "a second relationship for the same trust domain";
    shown
        .names(federation, broken, &["relationship-unique"])
        .await;
    cluster.kubectl(&["delete", kind, "by-hand"]).await.unwrap();

    // Its registrations still federate with who is no longer related.
    cluster.kubectl(&["delete", kind, &peer]).await.unwrap();
    let broken = "a relationship that was deleted while registrations name the peer";
    let expected = ["registration-peers", "relationship-both-ways"];
    shown.names(federation, broken, &expected).await;
    let mut again = live.clone();
    let metadata = again["metadata"].as_object_mut().unwrap();
    metadata.retain(|key, _| matches!(key.as_str(), "name" | "labels" | "annotations"));
    cluster.kubectl_apply(&again.to_string()).await.unwrap();
    shown.cured(federation).await;
}

fn cluster_url(federation: &Federation, name: &str) -> String {
    federation
        .testbed
        .cluster(name)
        .unwrap()
        .spire
        .bundle_endpoint_url()
}

async fn registrations(federation: &Federation, shown: &mut Shown) {
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let peer = trust_domain(TWO);
    for (broken, spec, expected) in [
        (
            "a registration that federates with a trust domain without a bundle",
            json!({"federatesWith": [peer, "nobody.test"]}),
            &["registration-accepted", "registration-peers"][..],
        ),
        (
            "a registration without a class",
            json!({"className": ""}),
            &["registration-class"],
        ),
        (
            "a registration whose template can't be rendered",
            json!({"spiffeIDTemplate": "spiffe://{{ .Nothing }}/x"}),
            &["registration-rendered"],
        ),
        (
            "a registration whose selector matches no pod",
            json!({"podSelector": {"matchLabels": {"app": "misspelt"}}}),
            &["registration-selects"],
        ),
        (
            "a registration for a namespace that the controller manager ignores",
            json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}),
            &["registration-selects"],
        ),
    ] {
        register(cluster, spec).await;
        shown.names(federation, broken, expected).await;
        unregister(cluster).await;
    }
    shown.cured(federation).await;

    let all = ["get", "clusterspiffeids", "--output=json"];
    let all: Value = serde_json::from_str(&cluster.kubectl(&all).await.unwrap()).unwrap();
    let mut edited = Vec::new();
    for object in all["items"].as_array().unwrap() {
        let probe = object["metadata"]["annotations"]["trustweave.dev/pushed"].is_string();
        let name = object["metadata"]["name"].as_str().unwrap();
        if !probe && object["spec"]["federatesWith"].is_array() {
            let edit = json!({"spec": {"federatesWith": null}});
            edited.push(Edited::new(cluster, "clusterspiffeid", name, edit).await);
        }
    }
    assert!(!edited.is_empty(), "{all:#}");
    let broken =
        "workloads that have an SVID and no federated bundle: nobody federates with the peer";
    shown.names(federation, broken, &["peer-named"]).await;
    for edited in edited {
        edited.put_back().await;
    }
    shown.cured(federation).await;
}

/// The server's configuration with an edit.
async fn configured(cluster: &Cluster, edit: impl FnOnce(&mut Value)) -> Value {
    let map = get(cluster, "configmap", "spire-server").await;
    let mut conf: Value =
        serde_json::from_str(map["data"]["server.conf"].as_str().unwrap()).unwrap();
    edit(&mut conf);
    json!({"data": {"server.conf": format!("{conf:#}")}})
}

async fn server(federation: &Federation, shown: &mut Shown) {
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let (service, route) = ("spire-server-federation", "spire-server-federation");
    for (broken, kind, name, edit, expected) in [
        (
            "a Service whose selector matches no server",
            "service",
            service,
            json!({"spec": {"selector": {"app": "misspelt"}}}),
            &["endpoint-exposed", "endpoint-service"][..],
        ),
        (
            "a Route that ends TLS",
            "route",
            route,
            json!({"spec": {"tls": {"termination": "edge"}}}),
            &["endpoint-passthrough"],
        ),
        (
            "a Route to another port",
            "route",
            route,
            json!({"spec": {"port": {"targetPort": "grpc"}}}),
            &["endpoint-exposed"],
        ),
    ] {
        let edited = Edited::new(cluster, kind, name, edit).await;
        shown.names(federation, broken, expected).await;
        edited.put_back().await;
        shown.cured(federation).await;
    }

    // A second passes, as the time of a write has whole ones.
    let edit = configured(cluster, |conf| {
        conf["server"]["federation"]["federatesWith"] = json!({});
    });
    let edited = Edited::new(cluster, "configmap", "spire-server", edit.await).await;
    let broken = "a misspelt name in the configuration, and no restart since";
    let expected = ["configuration-in-force", "configuration-spelt"];
    shown.names(federation, broken, &expected).await;
    edited.put_back().await;
    let broken = "a configuration that was changed after the server's start";
    shown
        .names(federation, broken, &["configuration-in-force"])
        .await;
    restart(cluster).await;
    shown.cured(federation).await;

    let peer = federation.testbed.cluster(TWO).unwrap();
    let edit = configured(cluster, |conf| {
        conf["server"]["federation"]["federates_with"] = json!({peer.spire.trust_domain(): {
            "bundle_endpoint_url": "https://old.example.org",
            "bundle_endpoint_profile": {"https_spiffe": {
                "endpoint_spiffe_id": peer.spire.bundle_endpoint_spiffe_id(),
            }},
        }});
    });
    let edited = Edited::new(cluster, "configmap", "spire-server", edit.await).await;
    restart(cluster).await;
    let broken =
        "`federates_with` in the configuration, with another address than the relationship's";
    shown
        .names(federation, broken, &["relationship-polled"])
        .await;
    edited.put_back().await;
    restart(cluster).await;
    shown.cured(federation).await;
}

async fn restart(cluster: &Cluster) {
    let namespace = format!("--namespace={SPIRE_NAMESPACE}");
    let arguments = ["rollout", "restart", "statefulset/spire-server", &namespace];
    cluster.kubectl(&arguments).await.unwrap();
    cluster.spire.until_rolled_out().await.unwrap();
}

/// The peer rotates twice while nothing brings its keys, and then its endpoint is down.
async fn outage(federation: &mut Federation, shown: &mut Shown) {
    let two = federation.testbed.cluster(TWO).unwrap();
    two.kubectl(&[
        "scale",
        "statefulset/spire-server",
        "--replicas=0",
        &format!("--namespace={SPIRE_NAMESPACE}"),
    ])
    .await
    .unwrap();
    let broken = "a SPIRE server that is down";
    shown
        .names(
            federation,
            broken,
            &[
                "endpoint-reachable",
                "relationship-current-address",
                "server-ready",
            ],
        )
        .await;
    two.kubectl(&[
        "scale",
        "statefulset/spire-server",
        "--replicas=1",
        &format!("--namespace={SPIRE_NAMESPACE}"),
    ])
    .await
    .unwrap();
    two.spire.until_rolled_out().await.unwrap();
    shown.cured(federation).await;

    rotate(federation, TWO).await;
    let broken =
        "a rotation that the agents have not published: the way from SPIRE to git is stuck";
    shown.names(federation, broken, &["bundle-current"]).await;
    federation.start_agent(ONE).unwrap();
    federation.start_agent(TWO).unwrap();
    holds_current_keys(federation, ONE, TWO).await;
    shown.cured(federation).await;

    federation.testbed.git.stop().await.unwrap();
    let broken = "a git server that does not answer";
    shown.names(federation, broken, &["agent-ready"]).await;
    federation.testbed.git.start().await.unwrap();
    shown.cured(federation).await;

    let declaration = {
        let mut declaration = federation.declaration(TWO).unwrap();
        declaration["spec"]["signers"] = json!([federation.signer(ONE).unwrap().public.trim()]);
        declaration
    };
    federation
        .declare(TWO, &declaration, "Name another signer")
        .await
        .unwrap();
    let broken = "a bundle that nobody signed whom its trust domain declares";
    shown
        .names(
            federation,
            broken,
            &["agent-ready", "bundle-verified", "peers-sound"],
        )
        .await;
}
