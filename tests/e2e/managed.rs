//! What tests of a managed SPIRE server have in common.

use serde_json::Value;
use trustweave_testbed::{
    Cluster,
    federation::{Federation, SPIRE_NAMESPACE},
};

use super::{ONE, condition};

/// The condition about the server, and the one about what leads to its endpoint.
pub(crate) const CONFIGURED: &str = "ServerConfigured";
pub(crate) const EXPOSED: &str = "EndpointExposed";

/// Grants the first cluster's agent what these parts of `deploy/server-management` have.
pub(crate) async fn grant(federation: &Federation, parts: &[&str]) {
    grant_in(federation.testbed.cluster(ONE).unwrap(), parts).await;
}

/// Grants a cluster's agent what these parts of `deploy/server-management` have.
pub(crate) async fn grant_in(cluster: &Cluster, parts: &[&str]) {
    for part in parts {
        let part = format!(
            "{}/deploy/server-management/{part}",
            env!("CARGO_MANIFEST_DIR")
        );
        let arguments = ["apply", "--server-side", "--kustomize", &part];
        cluster.kubectl(&arguments).await.unwrap();
    }
}

/// Declares the first cluster's SPIRE as of this distribution, with these members of `bundleEndpoint`.
pub(crate) async fn declare(
    federation: &Federation,
    distribution: &str,
    endpoint: &Value,
    message: &str,
) -> String {
    let mut declaration = federation.declaration(ONE).unwrap();
    let spire = &federation.testbed.cluster(ONE).unwrap().spire;
    declaration["spec"]["spire"]["distribution"] = distribution.into();
    let mut declared = serde_json::json!({
        "profile": "https_spiffe",
        "spiffeID": spire.bundle_endpoint_spiffe_id(),
        "manage": true,
    });
    for (name, value) in endpoint.as_object().unwrap() {
        declared[name] = value.clone();
    }
    declaration["spec"]["bundleEndpoint"] = declared;
    federation
        .declare(ONE, &declaration, message)
        .await
        .unwrap()
}

/// An object of the server's namespace, or of none; null if it is not there.
pub(crate) async fn get(cluster: &Cluster, kind: &str, name: &str) -> Value {
    let namespace = format!("--namespace={SPIRE_NAMESPACE}");
    let arguments = [
        "get",
        kind,
        name,
        "--output=json",
        "--ignore-not-found",
        "--show-managed-fields",
        &namespace,
    ];
    let found = cluster.kubectl(&arguments).await.unwrap();
    if found.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&found).unwrap()
    }
}

/// The text of the server's configuration in the cluster.
pub(crate) async fn configuration(cluster: &Cluster) -> String {
    let map = get(cluster, "configmap", "spire-server").await;
    let text = map["data"]["server.conf"].as_str().unwrap();
    text.to_owned()
}

/// Patches an object of the server's namespace by hand.
pub(crate) async fn patch(cluster: &Cluster, kind: &str, name: &str, form: &str, patch: &Value) {
    let (form, patch) = (format!("--type={form}"), patch.to_string());
    let namespace = format!("--namespace={SPIRE_NAMESPACE}");
    let arguments = ["patch", kind, name, &form, "--patch", &patch, &namespace];
    cluster.kubectl(&arguments).await.unwrap();
}

/// Waits until a condition of the first cluster's `GitSync` has a reason, and returns its message.
pub(crate) async fn told(federation: &Federation, kind: &str, reason: &str) -> String {
    told_in(federation, ONE, kind, reason).await
}

/// Waits until a condition of a cluster's `GitSync` has a reason, and returns its message.
pub(crate) async fn told_in(
    federation: &Federation,
    cluster: &str,
    kind: &str,
    reason: &str,
) -> String {
    federation
        .until(&format!("{kind} to be {reason} in {cluster}"), async || {
            let status = federation.status(cluster, "gitsync", "trustweave").await?;
            let condition = condition(&status, kind);
            anyhow::ensure!(condition["reason"] == reason, "the status is {status:#}");
            Ok(Some(
                condition["message"].as_str().unwrap_or_default().to_owned(),
            ))
        })
        .await
        .unwrap()
}

/// Versions of objects: the same as long as nobody writes them.
pub(crate) async fn versions(cluster: &Cluster, objects: &[(&str, &str)]) -> Vec<String> {
    let mut versions = Vec::new();
    for (kind, name) in objects {
        let object = get(cluster, kind, name).await;
        versions.push(format!("{kind} {}", object["metadata"]["resourceVersion"]));
    }
    versions
}

/// Has a number of passes made, each for a commit that changes nothing in the cluster.
pub(crate) async fn passes(federation: &Federation, number: usize) {
    for pass in 0..number {
        pass_in(federation, &[ONE], pass).await;
    }
}

/// Has a pass made in each of these clusters, for a commit that changes nothing there; each has a number of its own.
pub(crate) async fn pass_in(federation: &Federation, clusters: &[&str], number: usize) {
    let text = format!("pass {number}");
    let file = [("notes.txt", text.as_str())];
    let git = &federation.testbed.git;
    let commit = git.commit("main", &file, "Have a pass made").await.unwrap();
    for cluster in clusters {
        super::in_force(federation, cluster, &commit).await;
    }
}
