//! What the programs of a SPIRE server's pod are configured with.

use serde_json::{Value, json};

use crate::cluster::ClusterSpec;
use crate::loopback::{BUNDLE_ENDPOINT_PORT, DATA_MOUNT};
use crate::server_objects::CONTROLLER_MANAGER;
use crate::spire::{BUNDLE_CONFIG_MAP, BUNDLE_KEY};

/// The configuration of a server in a pod. JSON, as every distribution writes it.
pub(crate) fn server(spec: &ClusterSpec, bundle_endpoint: bool) -> Value {
    let ca_ttl = spec.ca_ttl.map_or(24 * 60 * 60, |ttl| ttl.as_secs());
    let mut configuration = json!({
        "health_checks": {
            "bind_address": "0.0.0.0",
            "bind_port": "8080",
            "listener_enabled": true,
            "live_path": "/live",
            "ready_path": "/ready",
        },
        "plugins": {
            "BundlePublisher": publisher(spec),
            "DataStore": [{"sql": {"plugin_data": {
                "connection_string": format!("{DATA_MOUNT}/datastore.sqlite3"),
                "database_type": "sqlite3",
            }}}],
            "KeyManager": [{"disk": {"plugin_data": {"keys_path": format!("{DATA_MOUNT}/keys.json")}}}],
            "NodeAttestor": [{"k8s_psat": {"plugin_data": {"clusters": [{&spec.name: {
                "service_account_allow_list": [format!("{}:spire-agent", spec.spire_namespace)],
            }}]}}}],
        },
        "server": {
            "bind_address": "0.0.0.0",
            "bind_port": "8081",
            "ca_subject": [{
                "common_name": spec.name,
                "country": ["US"],
                "organization": ["Trustweave testbed"],
            }],
            "ca_ttl": format!("{ca_ttl}s"),
            "data_dir": DATA_MOUNT,
            "default_x509_svid_ttl": "1h",
            "log_level": "DEBUG",
            "trust_domain": spec.trust_domain,
        },
    });
    if bundle_endpoint {
        configuration["server"]["federation"] = json!({"bundle_endpoint": {
            "address": "0.0.0.0",
            "port": BUNDLE_ENDPOINT_PORT,
            "refresh_hint": "60s",
            "profile": [{"https_spiffe": {}}],
        }});
    }
    configuration
}

/// The plugin that publishes the bundle in SPIFFE's format.
pub(crate) fn publisher(spec: &ClusterSpec) -> Value {
    json!([{"k8s_configmap": {"plugin_data": {"clusters": {&spec.name: {
        "format": "spiffe",
        "namespace": spec.spire_namespace,
        "configmap_name": BUNDLE_CONFIG_MAP,
        "configmap_key": BUNDLE_KEY,
    }}}}}])
}

/// The configuration of a controller manager in the server's pod.
pub(crate) fn controller_manager(spec: &ClusterSpec) -> Value {
    json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ControllerManagerConfig",
        "metadata": {"name": CONTROLLER_MANAGER, "namespace": spec.spire_namespace},
        "metrics": {"bindAddress": "0.0.0.0:8082"},
        "health": {"healthProbeBindAddress": "0.0.0.0:8083"},
        "clusterName": spec.name,
        "trustDomain": spec.trust_domain,
        "className": spec.class_name,
        "watchClassless": false,
        "ignoreNamespaces": ["kube-system"],
        "spireServerSocketPath": "/tmp/spire-server/private/api.sock",
    })
}
