//! The agent on the node, which attests pods.

use serde_json::{Value, json};

use super::{AGENT, CSI_DRIVER, NodeSpec, SERVER, SOCKETS};
use crate::SpireVersion;
use crate::nodes::images::spire_image;
use crate::spire_configuration::BUNDLE_CONFIG_MAP;

const CONFIGURATION: &str = "agent.conf";

/// What the agent's own pod has in memory only.
const DATA: &str = "/run/spire/data";

/// Everything that belongs to the agent.
pub(super) fn objects(spec: &NodeSpec, version: SpireVersion) -> Vec<Value> {
    let namespace = &spec.cluster.spire_namespace;
    let labels = json!({"app.kubernetes.io/name": AGENT, "app.kubernetes.io/instance": "spire"});
    let metadata = json!({"name": AGENT, "namespace": namespace, "labels": labels});
    vec![
        // How pods mount the socket; the driver itself is a program of the node.
        json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSIDriver",
            "metadata": {"name": CSI_DRIVER},
            "spec": {
                "attachRequired": false,
                "podInfoOnMount": true,
                "fsGroupPolicy": "None",
                "volumeLifecycleModes": ["Ephemeral"],
            },
        }),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {CONFIGURATION: format!("{:#}\n", configuration(spec))},
        }),
        json!({
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": metadata,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod(version)},
            },
        }),
    ]
}

fn configuration(spec: &NodeSpec) -> Value {
    let cluster = &spec.cluster;
    json!({
        "agent": {
            "data_dir": DATA,
            "log_level": "DEBUG",
            "server_address": format!("{SERVER}.{}", cluster.spire_namespace),
            "server_port": "443",
            "socket_path": format!("{SOCKETS}/spire-agent.sock"),
            "trust_bundle_path": "/run/spire/bundle/bundle.crt",
            "trust_domain": cluster.trust_domain,
            // Bundles and entries reach workloads as fast as tests ask for them.
            "experimental": {"sync_interval": "1s"},
        },
        "health_checks": {
            "listener_enabled": true,
            "bind_address": "127.0.0.1",
            "bind_port": "9982",
            "live_path": "/live",
            "ready_path": "/ready",
        },
        "plugins": {
            "KeyManager": [{"memory": {"plugin_data": {}}}],
            "NodeAttestor": [{"k8s_psat": {"plugin_data": {"cluster": cluster.name}}}],
            // The kubelet's certificate is verified.
            "WorkloadAttestor": [{"k8s": {"plugin_data": {"node_name_env": "MY_NODE_NAME"}}}],
        },
    })
}

fn pod(version: SpireVersion) -> Value {
    json!({
        "hostPID": true,
        "hostNetwork": true,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "serviceAccountName": AGENT,
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": AGENT,
            "image": spire_image("spire-agent", version),
            "args": ["-expandEnv", "-config", format!("/run/spire/config/{CONFIGURATION}")],
            // The kubelet is reached, and known by its certificate, under the node's address.
            "env": [{
                "name": "MY_NODE_NAME",
                "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}},
            }],
            "readinessProbe": {
                "httpGet": {"host": "127.0.0.1", "path": "/ready", "port": 9982},
                "periodSeconds": 1,
            },
            "volumeMounts": [
                {"name": "spire-config", "mountPath": "/run/spire/config", "readOnly": true},
                {"name": "spire-bundle", "mountPath": "/run/spire/bundle", "readOnly": true},
                {"name": "spire-token", "mountPath": "/var/run/secrets/tokens", "readOnly": true},
                {"name": "spire-agent-socket-dir", "mountPath": SOCKETS},
                {"name": "spire-data", "mountPath": DATA},
            ],
        }],
        "volumes": [
            {"name": "spire-config", "configMap": {"name": AGENT}},
            {"name": "spire-bundle", "configMap": {"name": BUNDLE_CONFIG_MAP}},
            {"name": "spire-agent-socket-dir", "hostPath": {"path": SOCKETS, "type": "DirectoryOrCreate"}},
            {"name": "spire-data", "emptyDir": {}},
            {"name": "spire-token", "projected": {"sources": [{"serviceAccountToken": {
                "path": "spire-agent", "audience": "spire-server", "expirationSeconds": 7200,
            }}]}},
        ],
    })
}
