//! What SPIRE may do in the cluster.

use serde_json::{Value, json};

use super::{AGENT, SERVER};
use crate::spire_configuration::BUNDLE_CONFIG_MAP;

/// `ServiceAccount`s, roles and bindings.
pub(super) fn objects(namespace: &str) -> Vec<Value> {
    let mut objects = vec![
        service_account(namespace, SERVER),
        service_account(namespace, AGENT),
    ];
    objects.extend(cluster_wide(
        namespace,
        SERVER,
        SERVER,
        &json!([
            // Node attestation: is it a token of an agent's pod, and what node is that pod on?
            rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
            rule("", &["nodes", "pods"], &["get"]),
        ]),
    ));
    objects.extend(cluster_wide(
        namespace,
        "spire-controller-manager",
        SERVER,
        &controller_manager(),
    ));
    // The kubelet asks whether an agent may read its pods.
    let pods = [rule("", &["pods", "nodes", "nodes/proxy"], &["get"])];
    objects.extend(cluster_wide(namespace, AGENT, AGENT, &json!(pods)));
    let bundle = json!([{
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": [BUNDLE_CONFIG_MAP],
        "verbs": ["get", "patch"],
    }]);
    let metadata = json!({"name": "spire-bundle", "namespace": namespace});
    objects.push(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": bundle,
    }));
    objects.push(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "spire-bundle"},
        "subjects": [{"kind": "ServiceAccount", "name": SERVER, "namespace": namespace}],
    }));
    objects
}

fn controller_manager() -> Value {
    let kinds = [
        "clusterfederatedtrustdomains",
        "clusterspiffeids",
        "clusterstaticentries",
    ];
    let status = kinds.map(|kind| format!("{kind}/status"));
    let finalizers = kinds.map(|kind| format!("{kind}/finalizers"));
    json!([
        rule(
            "",
            &["endpoints", "namespaces", "nodes", "pods"],
            &["get", "list", "watch"]
        ),
        // It writes its own certificate there.
        rule(
            "admissionregistration.k8s.io",
            &["validatingwebhookconfigurations"],
            &["get", "list", "patch", "watch"],
        ),
        rule(
            "spire.spiffe.io",
            &kinds,
            &[
                "create", "delete", "get", "list", "patch", "update", "watch"
            ],
        ),
        rule("spire.spiffe.io", &status, &["get", "patch", "update"]),
        rule("spire.spiffe.io", &finalizers, &["update"]),
        rule("", &["events"], &["create", "patch"]),
    ])
}

fn rule(group: &str, resources: &[impl AsRef<str>], verbs: &[&str]) -> Value {
    let resources: Vec<&str> = resources.iter().map(AsRef::as_ref).collect();
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn service_account(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace},
    })
}

/// A `ClusterRole` and its binding to a `ServiceAccount`.
fn cluster_wide(namespace: &str, name: &str, account: &str, rules: &Value) -> [Value; 2] {
    [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": rules,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        }),
    ]
}
