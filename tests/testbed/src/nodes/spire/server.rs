//! The server, with spire-controller-manager beside it in its pod.

use serde_json::{Value, json};

use super::{CONTAINER, CONTROLLER_MANAGER_CONTAINER, NodeSpec, SERVER};
use crate::SpireVersion;
use crate::configuration;
use crate::loopback::DATA_MOUNT;
use crate::nodes::images::{CONTROLLER_MANAGER, spire_image};
use crate::spire_configuration::BUNDLE_CONFIG_MAP;

/// The port of the server's API in its pod.
const API: u16 = 8081;

/// The key in the server's `ConfigMap`, and the file in its pod.
const CONFIGURATION: &str = "server.conf";

/// The directory of the server's socket, in both containers.
const SOCKETS: &str = "/tmp/spire-server/private";

const WEBHOOK: &str = "spire-controller-manager-webhook";

/// Everything that belongs to the server.
pub(super) fn objects(spec: &NodeSpec, version: SpireVersion) -> Vec<Value> {
    let namespace = &spec.cluster.spire_namespace;
    let metadata = |name: &str| json!({"name": name, "namespace": namespace, "labels": labels()});
    vec![
        json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "spire-data"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "testbed",
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": "/var/lib/spire-data", "type": "DirectoryOrCreate"},
            },
        }),
        // The server only writes into it.
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": BUNDLE_CONFIG_MAP, "namespace": namespace}}),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(SERVER),
            "data": {CONFIGURATION: pretty(&server_configuration(spec))},
        }),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata("spire-controller-manager"),
            "data": {"controller-manager-config.yaml": pretty(&controller_manager(spec))},
        }),
        service(
            &metadata(SERVER),
            &json!([{"name": "grpc", "port": 443, "targetPort": API}]),
        ),
        service(
            &metadata(WEBHOOK),
            &json!([{"name": "webhook", "port": 443, "targetPort": 9443}]),
        ),
        webhooks(namespace),
        stateful_set(&metadata(SERVER), version),
    ]
}

fn labels() -> Value {
    json!({
        "app.kubernetes.io/name": SERVER,
        "app.kubernetes.io/instance": "spire",
        "app.kubernetes.io/component": "control-plane",
    })
}

/// What the server is configured with in any pod, and the roots in PEM besides, for the agents.
fn server_configuration(spec: &NodeSpec) -> Value {
    let mut server = configuration::server(&spec.cluster, false);
    server["plugins"]["Notifier"] = configuration::notifier(&spec.cluster);
    server
}

fn controller_manager(spec: &NodeSpec) -> Value {
    let mut configuration = configuration::controller_manager(&spec.cluster);
    // A restarted pod would wait for its predecessor's lease.
    configuration["leaderElection"] = json!({"leaderElect": false});
    configuration["validatingWebhookConfigurationName"] = json!(WEBHOOK);
    configuration
}

fn stateful_set(metadata: &Value, version: SpireVersion) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            "serviceName": SERVER,
            "selector": {"matchLabels": labels()},
            "template": {
                "metadata": {"labels": labels()},
                "spec": {
                    "serviceAccountName": SERVER,
                    // spire-controller-manager is recognized by its process.
                    "shareProcessNamespace": true,
                    "terminationGracePeriodSeconds": 5,
                    "containers": [server_container(version), controller_manager_container()],
                    "volumes": [
                        {"name": "server-config", "configMap": {"name": SERVER}},
                        {"name": "controller-manager-config", "configMap": {"name": "spire-controller-manager"}},
                        {"name": "server-socket", "emptyDir": {}},
                    ],
                },
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "spire-data"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "testbed",
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            }],
        },
    })
}

fn server_container(version: SpireVersion) -> Value {
    json!({
        "name": CONTAINER,
        "image": spire_image("spire-server", version),
        "args": ["-expandEnv", "-config", format!("/run/spire/config/{CONFIGURATION}")],
        "ports": [{"name": "grpc", "containerPort": API, "protocol": "TCP"}],
        "livenessProbe": {
            "httpGet": {"path": "/live", "port": 8080},
            "initialDelaySeconds": 15,
            "periodSeconds": 60,
            "timeoutSeconds": 3,
        },
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "server-socket", "mountPath": SOCKETS},
            {"name": "server-config", "mountPath": "/run/spire/config", "readOnly": true},
            {"name": "spire-data", "mountPath": DATA_MOUNT},
        ],
    })
}

fn controller_manager_container() -> Value {
    json!({
        "name": CONTROLLER_MANAGER_CONTAINER,
        "image": CONTROLLER_MANAGER,
        "args": ["--config=/config/controller-manager-config.yaml"],
        "ports": [{"name": "https", "containerPort": 9443}, {"name": "healthz", "containerPort": 8083}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "healthz"}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "server-socket", "mountPath": SOCKETS, "readOnly": true},
            {"name": "controller-manager-config", "mountPath": "/config", "readOnly": true},
        ],
    })
}

fn service(metadata: &Value, ports: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": labels(), "ports": ports},
    })
}

/// spire-controller-manager refuses what it could not act on.
fn webhooks(namespace: &str) -> Value {
    let webhook = |kind: &str| {
        json!({
            "name": format!("v{kind}.kb.io"),
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "clientConfig": {"service": {
                "name": WEBHOOK,
                "namespace": namespace,
                "path": format!("/validate-spire-spiffe-io-v1alpha1-{kind}"),
            }},
            "rules": [{
                "apiGroups": ["spire.spiffe.io"],
                "apiVersions": ["v1alpha1"],
                "operations": ["CREATE", "UPDATE"],
                "resources": [format!("{kind}s")],
            }],
        })
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": WEBHOOK},
        "webhooks": [webhook("clusterfederatedtrustdomain"), webhook("clusterspiffeid")],
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
