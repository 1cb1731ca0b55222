//! The troubleshooting: each symptom is brought about by a commit, is told by somebody, and is cured by a commit.

use std::{collections::BTreeSet, os::unix::fs::MetadataExt as _, process::Command};

use serde_json::{Value, json};
use trustweave_testbed::{
    Cluster,
    authority::Authority,
    federation::{CLASS_NAME, Federation, SPIRE_NAMESPACE, trust_domain},
};

use super::{
    setup::NAME,
    story::{
        Commit, declaration, endpoint, federates_with, host, overlay, registration,
        registration_path, topology, trust_domains, until_federates_with,
    },
};
use crate::{
    ONE, TWO, holds_current_keys,
    made_up::Publisher,
    managed::{EXPOSED, get, told_in},
    rotate,
};

/// The workload that the symptoms are shown by.
const WORKLOAD: &str = "frontend-client";

/// What `trustweave status` says of a cluster, and its exit code.
fn status(cluster: &Cluster) -> (Option<i32>, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_trustweave"))
        .args(["status", "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .output()
        .unwrap();
    (run.status.code(), String::from_utf8(run.stdout).unwrap())
}

/// What `OpenShift`'s router says of the Route.
async fn router_says(cluster: &Cluster, host: &str, admitted: bool, reason: &str, message: &str) {
    let status = json!({"status": {"ingress": [{
        "host": host, "routerName": "default",
        "conditions": [{
            "type": "Admitted", "status": if admitted { "True" } else { "False" },
            "reason": reason, "message": message,
        }],
    }]}});
    let (namespace, status) = (
        format!("--namespace={SPIRE_NAMESPACE}"),
        format!("--patch={status}"),
    );
    let patch = [
        "patch",
        "route",
        NAME,
        "--subresource=status",
        "--type=merge",
        &namespace,
        &status,
    ];
    cluster.kubectl(&patch).await.unwrap();
}

async fn until_route_has(federation: &Federation, cluster: &Cluster, host: &str) {
    federation
        .until(&format!("the Route to have the host {host}"), async || {
            let route = get(cluster, "route", NAME).await;
            Ok((route["spec"]["host"] == host).then_some(()))
        })
        .await
        .unwrap();
}

/// A name that somebody else has in the second cluster.
fn taken() -> String {
    format!("federation.{}", trust_domain(TWO))
}

/// Has somebody else take the name. Of two Routes with one host the older one has it.
pub(super) async fn a_name_is_taken(federation: &Federation) {
    let other = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"}},
        {
            "apiVersion": "route.openshift.io/v1", "kind": "Route",
            "metadata": {"name": "shop", "namespace": "web"},
            "spec": {"host": taken(), "to": {"kind": "Service", "name": "shop"}},
        },
    ]});
    let cluster = federation.testbed.cluster(TWO).unwrap();
    cluster.kubectl_apply(&other.to_string()).await.unwrap();
}

/// "Bundle Endpoint Not Accessible: created, but the bundle is not updating."
pub(super) async fn an_endpoint_that_is_not_reachable(federation: &Federation) {
    let [one, two] = trust_domains();
    let (cluster, router) = (
        federation.testbed.cluster(TWO).unwrap(),
        &federation.testbed.router,
    );
    let taken = taken();
    let moved = declaration(federation, TWO, &endpoint(TWO, &taken), &[&one]);
    Commit::make(federation, "Give cluster-2 a shorter name", &[moved]).await;
    until_route_has(federation, cluster, &taken).await;
    let why = "route shop already exposes the host and is older";
    router_says(cluster, &taken, false, "HostAlreadyClaimed", why).await;

    // It is told where the endpoint is.
    let said = told_in(federation, TWO, EXPOSED, "NotAdmitted").await;
    assert!(said.contains("HostAlreadyClaimed"), "{said}");
    let (code, text) = status(cluster);
    assert_eq!(code, Some(1), "{text}");
    let told = format!("EndpointExposed: {said}");
    assert!(text.contains(&told), "{text}");

    // SPIRE's polls fail, and git brings the rotation.
    federation
        .until("the peer's SPIRE to poll in vain", async || {
            Ok((router.asked(&taken).refused > 0).then_some(()))
        })
        .await
        .unwrap();
    let before = federation.status(ONE, "trustpeer", &two).await.unwrap();
    rotate(federation, TWO).await;
    holds_current_keys(federation, ONE, TWO).await;
    let peer = federation
        .peer_until(ONE, TWO, "another serial", |status| {
            status["version"] != before["version"]
        })
        .await
        .unwrap();
    assert_eq!(peer["phase"], "Federated");
    assert_eq!(router.asked(&taken).led, 0);

    let own = host(TWO);
    let back = declaration(federation, TWO, &endpoint(TWO, &own), &[&one]);
    let subject = "Give cluster-2 its own name back";
    let commit = Commit::make(federation, subject, &[back]).await;
    until_route_has(federation, cluster, &own).await;
    router_says(cluster, &own, true, "", "").await;
    told_in(federation, TWO, EXPOSED, "Exposed").await;
    let led = router.asked(&own).led;
    federation
        .until("the peer's SPIRE to be led to the endpoint", async || {
            Ok((router.asked(&own).led > led).then_some(()))
        })
        .await
        .unwrap();
    commit.replaces(
        "endpoint not accessible",
        "curl the Route, read the server's log, repair the Route (meanwhile git delivered a rotation)",
    );
}

/// The counts that SPIRE's controller manager keeps of the registration.
async fn stats(cluster: &Cluster) -> Value {
    let registration = get(cluster, "clusterspiffeid", WORKLOAD).await;
    registration["status"]["stats"].clone()
}

/// "Registration Entries Not Created: the ClusterSPIFFEID exists but entries do not show."
pub(super) async fn entries_that_are_not_created(federation: &Federation) {
    let [_, two] = trust_domains();
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let right = registration(ONE, WORKLOAD, &[&two]);
    for (mistake, wrong, count, expected, broken, cured) in [
        (
            ".PodMeta.Namespace",
            ".PodMeta.Namspace",
            "podEntryRenderFailures",
            1,
            "Misspell the template",
            "Spell the template right",
        ),
        (
            "app: frontend-client",
            "app: frontend",
            "podsSelected",
            0,
            "Select by a label that no pod has",
            "Select by the pods' label",
        ),
    ] {
        let text = right.replacen(mistake, wrong, 1);
        assert_ne!(text, right);
        Commit::make(federation, broken, &[(registration_path(ONE), text)]).await;
        federation
            .until(
                "the entry to go, and the registration to say why",
                async || {
                    let entry = federates_with(federation, ONE, WORKLOAD).await?;
                    let stats = stats(cluster).await;
                    anyhow::ensure!(stats[count].as_u64().unwrap_or(0) == expected, "{stats}");
                    Ok(entry.is_none().then_some(()))
                },
            )
            .await
            .unwrap();
        let files = [(registration_path(ONE), right.clone())];
        let commit = Commit::make(federation, cured, &files).await;
        until_federates_with(federation, ONE, WORKLOAD, &[&two]).await;
        commit.replaces(
            "entries not created",
            &format!(
                "kubectl get clusterspiffeid -o yaml ({count}: {expected}), edit, kubectl apply"
            ),
        );
    }
}

/// The same symptom by another cause: a peer whose bundle SPIRE does not have. By hand no new pod would get an
/// identity; here the peer is held back, and nothing else.
pub(super) async fn a_peer_that_is_not_ready(federation: &Federation) {
    let [one, two] = trust_domains();
    let third = trust_domain("cluster-3");
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let publisher = Publisher::new(federation);
    let files = [
        topology(&[[&one, &two], [&one, &third]]),
        declaration(federation, ONE, &endpoint(ONE, &host(ONE)), &[&two, &third]),
        publisher.declaration(&third, &json!("none"), &one),
        (
            registration_path(ONE),
            registration(ONE, WORKLOAD, &[&two, &third]),
        ),
    ];
    let commit = Commit::make(federation, "Federate with cluster-3 as well", &files).await;
    let waits = format!("ClusterSPIFFEID.spire.spiffe.io {WORKLOAD}");
    let peer = federation
        .trust_domain_until(ONE, &third, "the registration to be held back", |status| {
            status["heldBack"] == json!([waits])
        })
        .await
        .unwrap();
    assert_eq!(peer["phase"], "Pending");
    until_federates_with(federation, ONE, WORKLOAD, &[&two]).await;
    let (code, text) = status(cluster);
    assert_eq!(code, Some(1), "{text}");
    let told = format!("{waits} waits for {third}");
    assert!(text.contains(&told), "{text}");
    // Whose move it is: its agent's.
    let authority = Authority::new(&third).unwrap();
    publisher
        .publish(federation, &authority, &json!("none"))
        .await;
    until_federates_with(federation, ONE, WORKLOAD, &[&two, &third]).await;
    commit.replaces(
        "entries not created (peer without a bundle)",
        "find out which name in federatesWith has no bundle, fetch that bundle, paste it (here the peer is held back, \
         `trustweave status` says so, and its agent's first publication ends it)",
    );
}

/// "Workloads Not Receiving Federated Bundles: an SVID, but no federated trust bundle."
pub(super) async fn a_workload_without_the_peers_bundle(federation: &Federation) {
    let [own, two] = trust_domains();
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let spire = &cluster.spire;
    // What users grant for a kind that the example's overlays do not have.
    let kind = "--resource=clusterstaticentries.spire.spiffe.io";
    let verbs = "--verb=get,list,watch,create,patch,delete";
    let (role, account) = (
        "--clusterrole=static-entries",
        "--serviceaccount=trustweave-system:trustweave-sync",
    );
    for grant in [
        ["create", "clusterrole", "static-entries", verbs, kind],
        [
            "create",
            "clusterrolebinding",
            "static-entries",
            role,
            account,
        ],
    ] {
        cluster.kubectl(&grant).await.unwrap();
    }
    spire.start_agent().await.unwrap();

    let entry = |annotations: Value| {
        let user = std::fs::metadata("/proc/self").unwrap().uid();
        let entry = json!({
            "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterStaticEntry",
            "metadata": {"name": "batch-job", "annotations": annotations},
            "spec": {
                "className": CLASS_NAME,
                "parentID": spire.agent_id(),
                "spiffeID": format!("spiffe://{own}/batch-job"),
                "selectors": [format!("unix:uid:{user}")],
            },
        });
        let path = format!("clusters/{ONE}/batch-job.yaml");
        (path, format!("{entry:#}\n"))
    };
    let resources = [
        "../../base/namespace",
        "../../base/frontend-client/workload",
        "cluster-spiffe-id.yaml",
        "batch-job.yaml",
    ];
    let files = [overlay(ONE, &resources), entry(json!({}))];
    Commit::make(federation, "Register the batch job", &files).await;
    let holds = async |expected: &BTreeSet<String>| {
        let what = format!("the batch job to hold the bundles of {expected:?}");
        federation
            .until(&what, async || {
                let view = spire.workload_view().await?;
                let found: BTreeSet<String> = view.x509.into_keys().collect();
                anyhow::ensure!(view.spiffe_id.ends_with("/batch-job"), "{}", view.spiffe_id);
                anyhow::ensure!(found == *expected, "it has {found:?}");
                Ok(Some(()))
            })
            .await
            .unwrap();
    };
    holds(&BTreeSet::from([own.clone()])).await;

    let files = [entry(json!({"trustweave.dev/federates-with": "all"}))];
    let subject = "Let the batch job trust every peer";
    let commit = Commit::make(federation, subject, &files).await;
    holds(&BTreeSet::from([
        own.clone(),
        two,
        trust_domain("cluster-3"),
    ]))
    .await;
    commit.replaces(
        "no federated bundle",
        "look for federatesWith in `spire-server entry show`, add it, kubectl apply",
    );
}
