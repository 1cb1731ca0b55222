//! Two identities: the agent's own can't write what overlays have, and who applies overlays can do
//! nothing else.

use serde_json::Value;
use trustweave_testbed::federation::{Federation, trust_domain};

use super::{ONE, TWO, federated, holds_current_keys, plan, rotate};

const OVERLAY: &str = "clusters/cluster-1/kustomization.yaml";

/// What is not granted, and what is.
const EXTRA: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: refused\n  namespace: federation-demo\n\
     ---\napiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: allowed\n  namespace: federation-demo\n";

async fn kubectl(federation: &Federation, arguments: &[&str]) -> anyhow::Result<String> {
    let cluster = federation.testbed.cluster(ONE)?;
    cluster.kubectl(arguments).await
}

async fn exists(federation: &Federation, kind: &str, name: &str) -> bool {
    let get = ["get", kind, name, "--namespace=federation-demo"];
    kubectl(federation, &get).await.is_ok()
}

/// Whether an identity of deploy/ may do something, in the cluster or in its own namespace.
async fn may(federation: &Federation, account: &str, verb: &str, resource: &str) -> bool {
    let user = format!("--as=system:serviceaccount:trustweave-system:{account}");
    let ask = ["auth", "can-i", verb, resource, &user];
    let place = "--namespace=trustweave-system";
    // It exits with 1 for no.
    kubectl(federation, &[ask.as_slice(), &[place]].concat())
        .await
        .is_ok_and(|answer| answer.trim() == "yes")
}

/// Waits for a failure that says all of this, and returns it.
async fn failure(federation: &Federation, parts: &[&str]) -> String {
    federation
        .until(&format!("a failure with {parts:?}"), async || {
            let status = federation.status(ONE, "gitsync", "trustweave").await?;
            let failures = status["failures"].as_array().cloned().unwrap_or_default();
            let mut texts = failures.iter().filter_map(Value::as_str);
            let found = texts.find(|text| parts.iter().all(|part| text.contains(part)));
            anyhow::ensure!(found.is_some(), "the failures are {failures:#?}");
            Ok(found.map(str::to_owned))
        })
        .await
        .unwrap()
}

/// Adds objects to the overlay.
async fn add(federation: &Federation, objects: &str) {
    let git = &federation.testbed.git;
    let base = git.show("main", OVERLAY).await.unwrap();
    let with = base.replacen("resources:", "resources:\n  - extra.yaml", 1);
    let files = [
        (OVERLAY, with.as_str()),
        ("clusters/cluster-1/extra.yaml", objects),
    ];
    git.commit("main", &files, "Add objects").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_identity_can_do_its_own_part_only() {
    let federation = federated(plan()).await;
    for (verb, resource, own, sync) in [
        ("patch", "deployments.apps", false, true),
        ("patch", "services", false, true),
        ("delete", "namespaces", false, true),
        ("patch", "trustpeers.trustweave.dev/status", true, false),
        ("patch", "gitsyncs.trustweave.dev/trustweave", true, false),
        ("patch", "gitsyncs.trustweave.dev/other", false, false),
        (
            "update",
            "leases.coordination.k8s.io/trustweave",
            true,
            false,
        ),
        ("update", "leases.coordination.k8s.io/other", false, false),
        (
            "impersonate",
            "serviceaccounts/trustweave-sync",
            true,
            false,
        ),
        ("impersonate", "serviceaccounts/trustweave", false, false),
        ("impersonate", "users", false, false),
        (
            "patch",
            "clusterfederatedtrustdomains.spire.spiffe.io",
            true,
            false,
        ),
        (
            "patch",
            "clusterstaticentries.spire.spiffe.io",
            false,
            false,
        ),
        ("get", "secrets", false, false),
        ("create", "pods/exec", false, false),
    ] {
        for (account, expected) in [("trustweave", own), ("trustweave-sync", sync)] {
            let found = may(&federation, account, verb, resource).await;
            assert_eq!(found, expected, "{account}: {verb} {resource}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_right_is_named_with_the_command_that_grants_it() {
    let federation = federated(plan()).await;
    add(&federation, EXTRA).await;
    let told = failure(
        &federation,
        &[
            "apply ConfigMap federation-demo/refused: the ServiceAccount trustweave-system/trustweave-sync \
             may not patch configmaps in the namespace federation-demo",
            "kubectl create clusterrole",
        ],
    )
    .await;
    // The rest goes on.
    assert!(exists(&federation, "serviceaccount", "allowed").await);
    let (_, commands) = told.split_once("need: ").unwrap();
    for command in commands.split(" && ") {
        let words: Vec<_> = command.split_whitespace().collect();
        assert_eq!(words[0], "kubectl");
        kubectl(&federation, &words[1..]).await.unwrap();
    }
    federation
        .until("what was granted to be applied", async || {
            Ok(exists(&federation, "configmap", "refused")
                .await
                .then_some(()))
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_to_impersonate_overlays_stand_still_and_peers_go_on() {
    let federation = federated(plan()).await;
    let role = ["role", "trustweave", "--namespace=trustweave-system"];
    let rules = "--output=jsonpath={.rules[*].verbs[0]}";
    let verbs = kubectl(&federation, &[&["get"], role.as_slice(), &[rules]].concat()).await;
    let verbs = verbs.unwrap();
    let index = verbs
        .split_whitespace()
        .position(|verb| verb == "impersonate");
    let patch = format!(
        "--patch=[{{\"op\": \"remove\", \"path\": \"/rules/{}\"}}]",
        index.unwrap()
    );
    let patch = [&["patch"], role.as_slice(), &["--type=json", &patch]].concat();
    kubectl(&federation, &patch).await.unwrap();
    add(&federation, EXTRA).await;
    failure(
        &federation,
        &["the ServiceAccount trustweave-system/trustweave may not impersonate serviceaccounts"],
    )
    .await;
    rotate(&federation, TWO).await;
    holds_current_keys(&federation, ONE, TWO).await;
    let peer = federation
        .status(ONE, "trustpeer", &trust_domain(TWO))
        .await
        .unwrap();
    assert_eq!(peer["phase"], "Federated");
    // Nothing was applied with other rights, and nothing was taken for undeclared.
    assert!(!exists(&federation, "serviceaccount", "allowed").await);
    assert!(exists(&federation, "deployment", "frontend-client").await);
}
