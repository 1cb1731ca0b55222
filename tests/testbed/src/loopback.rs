//! What this machine makes of configurations that were written for a pod.
//!
//! In a pod every address is the pod's own and every port is free; here all pods share one loopback. So addresses
//! become 127.0.0.1, each port of a pod becomes a port that was chosen for it, and the paths of volumes become
//! directories. Everything else reaches the program as it is written.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// Where installations mount the server's data.
pub(crate) const DATA_MOUNT: &str = "/run/spire/data";

/// Where installations mount the server's configuration.
pub(crate) const CONFIGURATION_MOUNT: &str = "/run/spire/config";

/// The port on which installations have the bundle endpoint.
pub(crate) const BUNDLE_ENDPOINT_PORT: u16 = 8443;

/// What the pod of a SPIRE server has on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Loopback {
    /// The volume at [`DATA_MOUNT`].
    pub(crate) data: PathBuf,
    /// The socket of the server's API.
    pub(crate) socket: PathBuf,
    /// In place of the credentials that a pod finds mounted.
    pub(crate) kubeconfig: PathBuf,
    /// For agents.
    pub(crate) server_port: u16,
    /// For the pod's port 8443.
    pub(crate) bundle_endpoint_port: u16,
    /// For a bundle endpoint that nobody outside the pod could reach.
    pub(crate) hidden_port: u16,
    /// For the server's health checks.
    pub(crate) server_health_port: u16,
    /// For the controller manager's health checks.
    pub(crate) controller_manager_health_port: u16,
    /// How the bundle is published if the configuration has no publisher: nothing else reads it without a kubelet.
    pub(crate) publisher: Value,
}

impl Loopback {
    /// The server's configuration. Whatever is not as SPIRE has it is left for SPIRE to complain about.
    pub(crate) fn server(&self, mut configuration: Value) -> Value {
        replace_prefix(&mut configuration, DATA_MOUNT, &self.data);
        let Some(root) = configuration.as_object_mut() else {
            return configuration;
        };
        // Its ports would be one for all.
        root.remove("telemetry");
        if let Some(health) = object(root, "health_checks") {
            listen(health, self.server_health_port);
        }
        if let Some(plugins) = object(root, "plugins") {
            self.plugins(plugins);
        }
        if let Some(server) = object(root, "server") {
            listen(server, self.server_port);
            server.insert("socket_path".to_owned(), json!(self.socket));
            let federation = object(server, "federation");
            if let Some(endpoint) = federation.and_then(|it| object(it, "bundle_endpoint")) {
                self.bundle_endpoint(endpoint);
            }
        }
        configuration
    }

    /// An endpoint that others could reach in a pod gets the port that they are told here; any other is hidden.
    fn bundle_endpoint(&self, endpoint: &mut Map<String, Value>) {
        let everywhere = ["0.0.0.0", "::", "[::]"];
        let address = endpoint.get("address");
        let outside = address.is_none_or(|it| everywhere.iter().any(|all| it == all));
        if let Some(port) = endpoint.get("port").and_then(Value::as_u64) {
            let reachable = outside && port == u64::from(BUNDLE_ENDPOINT_PORT);
            let port = if reachable {
                self.bundle_endpoint_port
            } else {
                self.hidden_port
            };
            endpoint.insert("port".to_owned(), json!(port));
        }
        endpoint.insert("address".to_owned(), json!("127.0.0.1"));
    }

    /// Plugins that talk to the API server do it with a kubeconfig, or not at all; agents join with a token, as
    /// there is no kubelet to vouch for them.
    fn plugins(&self, plugins: &mut Map<String, Value>) {
        plugins.insert(
            "NodeAttestor".to_owned(),
            json!([{"join_token": {"plugin_data": {}}}]),
        );
        plugins.remove("Notifier");
        let publishers = plugins
            .entry("BundlePublisher")
            .or_insert_with(|| self.publisher.clone());
        for publisher in publishers.as_array_mut().into_iter().flatten() {
            let clusters = publisher.pointer_mut("/k8s_configmap/plugin_data/clusters");
            for cluster in clusters
                .and_then(Value::as_object_mut)
                .into_iter()
                .flatten()
            {
                if let Some(cluster) = cluster.1.as_object_mut() {
                    cluster.insert("kubeconfig_path".to_owned(), json!(self.kubeconfig));
                }
            }
        }
    }

    /// The controller manager's configuration.
    pub(crate) fn controller_manager(&self, mut configuration: Value) -> Value {
        if let Some(root) = configuration.as_object_mut() {
            let health = format!("127.0.0.1:{}", self.controller_manager_health_port);
            root.insert(
                "health".to_owned(),
                json!({"healthProbeBindAddress": health}),
            );
            root.insert("metrics".to_owned(), json!({"bindAddress": "0"}));
            root.insert("spireServerSocketPath".to_owned(), json!(self.socket));
            // Else it asks the machine's DNS, and waits as long as that one takes.
            root.insert("clusterDomain".to_owned(), json!("cluster.local"));
        }
        configuration
    }
}

fn object<'a>(parent: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    parent.get_mut(key).and_then(Value::as_object_mut)
}

fn listen(section: &mut Map<String, Value>, port: u16) {
    section.insert("bind_address".to_owned(), json!("127.0.0.1"));
    section.insert("bind_port".to_owned(), json!(port.to_string()));
}

fn replace_prefix(value: &mut Value, prefix: &str, directory: &Path) {
    match value {
        Value::String(text) => {
            if let Some(rest) = text.strip_prefix(prefix) {
                *text = format!("{}{rest}", directory.display());
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| replace_prefix(item, prefix, directory)),
        Value::Object(entries) => entries
            .iter_mut()
            .for_each(|(_, entry)| replace_prefix(entry, prefix, directory)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Loopback;

    fn loopback() -> Loopback {
        Loopback {
            data: "/d".into(),
            socket: "/s.sock".into(),
            kubeconfig: "/k".into(),
            server_port: 1,
            bundle_endpoint_port: 2,
            hidden_port: 3,
            server_health_port: 4,
            controller_manager_health_port: 5,
            publisher: json!([{"k8s_configmap": {"plugin_data": {"clusters": {"c": {}}}}}]),
        }
    }

    fn endpoint(written: &Value) -> Value {
        let configuration = json!({"server": {"federation": {"bundle_endpoint": written}}});
        let adapted = loopback().server(configuration);
        adapted["server"]["federation"]["bundle_endpoint"].clone()
    }

    #[test]
    fn an_endpoint_that_a_pod_would_serve_is_served_here() {
        let here = json!({"address": "127.0.0.1", "port": 2});
        assert_eq!(endpoint(&json!({"address": "0.0.0.0", "port": 8443})), here);
        assert_eq!(endpoint(&json!({"port": 8443}))["port"], 2);
    }

    #[test]
    fn an_endpoint_that_nobody_would_reach_is_hidden() {
        for written in [
            json!({"address": "127.0.0.1", "port": 8443}),
            json!({"address": "0.0.0.0", "port": 9443}),
        ] {
            assert_eq!(endpoint(&written)["port"], 3, "{written}");
        }
    }

    #[test]
    fn mistakes_stay_for_spire_to_find() {
        assert_eq!(
            endpoint(&json!({"port": "x"})),
            json!({"port": "x", "address": "127.0.0.1"})
        );
        assert_eq!(endpoint(&json!("x")), json!("x"));
        assert_eq!(loopback().server(json!(["x"])), json!(["x"]));
    }

    #[test]
    fn volumes_credentials_and_ports_are_this_machines() {
        let adapted = loopback().server(json!({
            "health_checks": {"bind_address": "0.0.0.0", "bind_port": "8080"},
            "telemetry": {"Prometheus": {"port": "9402"}},
            "server": {"data_dir": "/run/spire/data", "bind_port": "8081"},
            "plugins": {"KeyManager": [{"disk": {"plugin_data": {"keys_path": "/run/spire/data/keys.json"}}}]},
        }));
        assert_eq!(adapted["server"]["data_dir"], "/d");
        assert_eq!(adapted["server"]["bind_port"], "1");
        assert_eq!(adapted["health_checks"]["bind_port"], "4");
        assert_eq!(adapted.get("telemetry"), None);
        let plugins = &adapted["plugins"];
        assert_eq!(
            plugins["KeyManager"][0]["disk"]["plugin_data"]["keys_path"],
            "/d/keys.json"
        );
        let publisher = &plugins["BundlePublisher"][0]["k8s_configmap"]["plugin_data"];
        assert_eq!(publisher["clusters"]["c"]["kubeconfig_path"], "/k");
    }
}
