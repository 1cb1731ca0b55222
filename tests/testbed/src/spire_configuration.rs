//! What SPIRE is configured with, wherever it runs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::ClusterSpec;

/// The `ConfigMap` that the server publishes its bundle to.
pub const BUNDLE_CONFIG_MAP: &str = "spire-bundle";

/// The key in it that holds the bundle in SPIFFE's format.
pub const BUNDLE_KEY: &str = "bundle.spiffe";

/// The key in it that holds the X.509 roots as PEM.
pub const ROOTS_KEY: &str = "bundle.crt";

/// `server` of the server's configuration, without addresses, directories and federation.
pub(crate) fn server(spec: &ClusterSpec) -> Value {
    let ca_ttl = spec.ca_ttl.unwrap_or(Duration::from_hours(24));
    json!({
        "trust_domain": spec.trust_domain,
        "log_level": "DEBUG",
        "ca_ttl": format!("{}s", ca_ttl.as_secs()),
        "default_x509_svid_ttl": "1h",
        "ca_subject": [{
            "common_name": spec.name,
            "country": ["US"],
            "organization": ["Trustweave testbed"],
        }],
    })
}

/// `server.federation`: the bundle is served to whoever can verify SVIDs of the trust domain.
pub(crate) fn federation(address: &str, port: u16) -> Value {
    json!({"bundle_endpoint": {
        "address": address,
        "port": port,
        "refresh_hint": "60s",
        "profile": [{"https_spiffe": {}}],
    }})
}

/// spire-controller-manager's configuration, without addresses and sockets.
pub(crate) fn controller_manager(spec: &ClusterSpec) -> Value {
    json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ControllerManagerConfig",
        "metadata": {"name": "spire-controller-manager"},
        "metrics": {"bindAddress": "0"},
        "clusterName": spec.name,
        // Else it asks the machine's DNS, and waits as long as that one takes.
        "clusterDomain": "cluster.local",
        "trustDomain": spec.trust_domain,
        "className": spec.class_name,
        "watchClassless": false,
    })
}
