//! What the programs of a SPIRE server's pod are configured with.

use serde_json::{Value, json};

use crate::cluster::ClusterSpec;
use crate::loopback::{BUNDLE_ENDPOINT_PORT, DATA_MOUNT};
use crate::server_objects::CONTROLLER_MANAGER;
use crate::spire_configuration::{self, BUNDLE_CONFIG_MAP, BUNDLE_KEY, ROOTS_KEY};

/// The configuration of a server in a pod. JSON, as every distribution writes it.
pub(crate) fn server(spec: &ClusterSpec, bundle_endpoint: bool) -> Value {
    let mut server = spire_configuration::server(spec);
    server["bind_address"] = json!("0.0.0.0");
    server["bind_port"] = json!("8081");
    server["data_dir"] = json!(DATA_MOUNT);
    if bundle_endpoint {
        server["federation"] = spire_configuration::federation("0.0.0.0", BUNDLE_ENDPOINT_PORT);
    }
    let (publication, plugin) = publication(spec);
    json!({
        "health_checks": {
            "bind_address": "0.0.0.0",
            "bind_port": "8080",
            "listener_enabled": true,
            "live_path": "/live",
            "ready_path": "/ready",
        },
        "plugins": {
            publication: plugin,
            "DataStore": [{"sql": {"plugin_data": {
                "connection_string": format!("{DATA_MOUNT}/datastore.sqlite3"),
                "database_type": "sqlite3",
            }}}],
            "KeyManager": [{"disk": {"plugin_data": {"keys_path": format!("{DATA_MOUNT}/keys.json")}}}],
            "NodeAttestor": [{"k8s_psat": {"plugin_data": {"clusters": [{&spec.name: {
                "service_account_allow_list": [format!("{}:spire-agent", spec.spire_namespace)],
            }}]}}}],
        },
        "server": server,
    })
}

/// What makes the server's bundle known in the cluster, as type and configuration of a plugin.
pub(crate) fn publication(spec: &ClusterSpec) -> (&'static str, Value) {
    if spec.roots_only {
        return ("Notifier", notifier(spec));
    }
    let publisher = json!([{"k8s_configmap": {"plugin_data": {"clusters": {&spec.name: {
        "format": "spiffe",
        "namespace": spec.spire_namespace,
        "configmap_name": BUNDLE_CONFIG_MAP,
        "configmap_key": BUNDLE_KEY,
    }}}}}]);
    ("BundlePublisher", publisher)
}

/// The plugin that publishes the X.509 roots as PEM.
pub(crate) fn notifier(spec: &ClusterSpec) -> Value {
    json!([{"k8sbundle": {"plugin_data": {
        "namespace": spec.spire_namespace,
        "config_map": BUNDLE_CONFIG_MAP,
        "config_map_key": ROOTS_KEY,
    }}}])
}

/// The configuration of a controller manager in the server's pod.
pub(crate) fn controller_manager(spec: &ClusterSpec) -> Value {
    let mut configuration = spire_configuration::controller_manager(spec);
    configuration["metadata"] =
        json!({"name": CONTROLLER_MANAGER, "namespace": spec.spire_namespace});
    configuration["metrics"] = json!({"bindAddress": "0.0.0.0:8082"});
    configuration["health"] = json!({"healthProbeBindAddress": "0.0.0.0:8083"});
    configuration["ignoreNamespaces"] = json!(["kube-system"]);
    configuration["spireServerSocketPath"] = json!("/tmp/spire-server/private/api.sock");
    configuration
}
