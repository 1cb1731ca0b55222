//! What tests of the overlay have in common: one cluster, whose agent may apply any kind.

use std::process::{Command, Output};

use serde_json::{Value, json};
use trustweave_testbed::federation::{CLUSTERS, Federation, trust_domain};

use super::{ONE, condition, plan};

const KUSTOMIZATION: &str = "clusters/cluster-1/kustomization.yaml";
const OBJECTS: &str = "clusters/cluster-1/objects.yaml";

/// The namespace of the example's workloads.
pub(crate) const NAMESPACE: &str = "federation-demo";

/// A cluster whose overlay may have any kind; the agent is not started yet. What people change stays
/// for `grace` seconds.
pub(crate) async fn prepared(grace: u32) -> Federation {
    let edge = json!({"between": CLUSTERS.map(trust_domain)});
    let plan = plan()
        .with_clusters(1)
        .with_topology(json!({"edges": [edge]}));
    let federation = Federation::prepare(plan, &super::progress).await.unwrap();
    federation.grant_every_kind(ONE).await.unwrap();
    federation
        .configure(ONE, |configuration| {
            configuration["applying"] = json!({"driftGraceSeconds": grace});
        })
        .unwrap();
    federation
}

pub(crate) async fn kubectl(federation: &Federation, arguments: &[&str]) -> String {
    let cluster = federation.testbed.cluster(ONE).unwrap();
    cluster.kubectl(arguments).await.unwrap()
}

/// A ConfigMap of the example's namespace.
pub(crate) fn config_map(name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": data,
    })
}

/// A live ConfigMap of the example's namespace; null if it is not there.
pub(crate) async fn live(federation: &Federation, name: &str) -> Value {
    let found = kubectl(
        federation,
        &[
            "get",
            "configmap",
            name,
            "--namespace",
            NAMESPACE,
            "--output=json",
            "--ignore-not-found",
            "--show-managed-fields",
        ],
    )
    .await;
    serde_json::from_str(&found).unwrap_or_default()
}

/// Has the overlay declare these objects besides the example's, with some more files. Returns the
/// commit.
pub(crate) async fn declare(
    federation: &Federation,
    objects: &[Value],
    more: &[(&str, &str)],
    message: &str,
) -> String {
    let git = &federation.testbed.git;
    let base = git.show("main", KUSTOMIZATION).await.unwrap();
    let with = if base.contains("objects.yaml") {
        base
    } else {
        base.replacen("resources:", "resources:\n  - objects.yaml", 1)
    };
    // JSON is YAML.
    let documents = objects.iter().map(|object| format!("---\n{object:#}\n"));
    let documents: String = documents.collect();
    let mut files = vec![
        (KUSTOMIZATION, with.as_str()),
        (OBJECTS, documents.as_str()),
    ];
    files.extend(more);
    git.commit("main", &files, message).await.unwrap()
}

/// Waits until the status of the `GitSync` satisfies.
pub(crate) async fn until(
    federation: &Federation,
    what: &str,
    satisfies: impl Fn(&Value) -> bool,
) -> Value {
    let satisfies = &satisfies;
    federation
        .until(what, async || {
            let status = federation.status(ONE, "gitsync", "trustweave").await?;
            anyhow::ensure!(satisfies(&status), "the status is {status:#}");
            Ok(Some(status))
        })
        .await
        .unwrap()
}

/// Waits until a commit is in force, and nothing is amiss.
pub(crate) async fn ready(federation: &Federation, commit: &str) {
    until(federation, &format!("{commit} to be in force"), |status| {
        status["revision"] == commit && condition(status, "Ready")["status"] == "True"
    })
    .await;
}

/// Waits until a ConfigMap has a value at the key `a`, and returns it.
pub(crate) async fn value(federation: &Federation, name: &str, expected: &str) -> Value {
    federation
        .until(&format!("{name} to have {expected}"), async || {
            let live = live(federation, name).await;
            anyhow::ensure!(live["data"]["a"] == expected, "it is {live:#}");
            Ok(Some(live))
        })
        .await
        .unwrap()
}

/// Runs a verb about the cluster.
pub(crate) fn trustweave(federation: &Federation, arguments: &[&str]) -> Output {
    asked(federation, arguments).output().unwrap()
}

/// The program, about to ask the first cluster.
pub(crate) fn asked(federation: &Federation, arguments: &[&str]) -> Command {
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trustweave"));
    command.args(arguments);
    command.arg("--kubeconfig").arg(cluster.kubeconfig());
    command
}
