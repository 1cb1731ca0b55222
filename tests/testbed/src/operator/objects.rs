//! What the operator generates, and where it looks for differences.

use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{API_VERSION, OperatorVersion};
use crate::cluster::ClusterSpec;
use crate::crds;
use crate::loopback::{BUNDLE_ENDPOINT_PORT, DATA_MOUNT};
use crate::server_objects::{
    CONFIGURATION_KEY, CONTROLLER_MANAGER, CONTROLLER_MANAGER_KEY, DataVolume, SPIRE_SERVER, Shape,
    bundle_endpoint_container_port, container_ports,
};

pub(super) const MANAGED_BY: (&str, &str) = (
    "app.kubernetes.io/managed-by",
    "zero-trust-workload-identity-manager",
);

const CLASS_NAME: &str = "zero-trust-workload-identity-manager-spire";
const SERVER_HASH: &str = "ztwim.openshift.io/spire-server-config-hash";
const CONTROLLER_MANAGER_HASH: &str = "ztwim.openshift.io/spire-controller-manager-config-hash";

/// An object as it should be, and whether a live one differs from it where the operator looks.
pub(super) struct Desired {
    pub(super) object: Value,
    pub(super) differs: fn(&Value, &Value) -> bool,
}

/// The operator's kinds. Before 1.0 there is no federation, and what all operands share is in `SpireServer`.
pub(super) fn kinds(version: OperatorVersion) -> anyhow::Result<Vec<Value>> {
    let mut servers = crds::parse(crds::SPIRE_SERVERS)?;
    let parents = crds::parse(crds::ZERO_TRUST_WORKLOAD_IDENTITY_MANAGERS)?;
    if version == OperatorVersion::WithFederation {
        return Ok(vec![servers, parents]);
    }
    let schema = servers
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema")
        .context("SpireServer has no schema")?;
    let rules = schema["x-kubernetes-validations"].as_array_mut();
    rules
        .context("SpireServer has no rules")?
        .retain(|rule| !text(&rule["rule"]).contains("federation"));
    let spec = schema["properties"]["spec"]["properties"].as_object_mut();
    let spec = spec.context("SpireServer has no spec")?;
    spec.remove("federation")
        .context("SpireServer has no federation")?;
    for name in ["trustDomain", "clusterName", "bundleConfigMap"] {
        spec.insert(name.to_owned(), json!({"type": "string"}));
    }
    Ok(vec![servers])
}

/// What an administrator installs.
pub(super) fn installed(spec: &ClusterSpec, version: OperatorVersion) -> Vec<Value> {
    let common = json!({
        "trustDomain": spec.trust_domain,
        "clusterName": spec.name,
        "bundleConfigMap": "spire-bundle",
    });
    let ca_ttl = spec.ca_ttl.map_or(24 * 60 * 60, |ttl| ttl.as_secs());
    let mut server = json!({
        "logLevel": "debug",
        "jwtIssuer": format!("https://oidc-discovery.{}", spec.trust_domain),
        "caValidity": format!("{ca_ttl}s"),
        "caSubject": {"commonName": spec.name, "country": "US", "organization": "Trustweave testbed"},
        "persistence": {"size": "1Gi", "accessMode": "ReadWriteOnce"},
        "datastore": {
            "databaseType": "sqlite3",
            "connectionString": format!("{DATA_MOUNT}/datastore.sqlite3"),
        },
    });
    let object = |kind: &str, spec: &Value| {
        json!({
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {"name": "cluster"},
            "spec": spec,
        })
    };
    match version {
        OperatorVersion::WithFederation => vec![
            object("ZeroTrustWorkloadIdentityManager", &common),
            object("SpireServer", &server),
        ],
        OperatorVersion::BeforeFederation => {
            for (name, value) in common.as_object().into_iter().flatten() {
                server[name] = value.clone();
            }
            vec![object("SpireServer", &server)]
        }
    }
}

/// What `SpireServer` stands for. `common` is what all operands share.
pub(super) fn desired(
    server: &Value,
    common: &Value,
    namespace: &str,
) -> anyhow::Result<Vec<Desired>> {
    let spec = &server["spec"];
    let configuration =
        serde_json::to_string_pretty(&server_configuration(spec, common, namespace))?;
    let manager =
        serde_json::to_string_pretty(&controller_manager_configuration(common, namespace))?;
    let shape = |name: &str| Shape {
        namespace,
        labels: labels(name, spec),
        selector: json!({
            "app.kubernetes.io/name": name,
            "app.kubernetes.io/instance": "cluster-zero-trust-workload-identity-manager",
            "app.kubernetes.io/component": "control-plane",
        }),
        annotations: json!({}),
        pod_annotations: json!({
            "kubectl.kubernetes.io/default-container": SPIRE_SERVER,
            SERVER_HASH: hash(&configuration),
            CONTROLLER_MANAGER_HASH: hash(&manager),
        }),
        data: DataVolume::Claim,
    };
    let of_server = shape(SPIRE_SERVER);
    let mut service_ports = json!([
        {"name": "grpc", "port": 443, "targetPort": 8081, "protocol": "TCP"},
        {"name": "metrics", "port": 9402, "targetPort": 9402, "protocol": "TCP"},
    ]);
    let mut ports = container_ports();
    let federation = &spec["federation"];
    if federation.is_object() {
        let service_ports = service_ports.as_array_mut().context("no list")?;
        let port = BUNDLE_ENDPOINT_PORT;
        service_ports.push(
            json!({"name": "federation", "port": port, "targetPort": port, "protocol": "TCP"}),
        );
        let ports = ports.as_array_mut().context("no list")?;
        ports.push(bundle_endpoint_container_port());
    }
    let mut objects = vec![
        Desired {
            object: of_server.service(&service_ports),
            differs: service_differs,
        },
        Desired {
            object: of_server.config_map(SPIRE_SERVER, CONFIGURATION_KEY, &configuration),
            differs: config_map_differs,
        },
        Desired {
            object: shape(CONTROLLER_MANAGER).config_map(
                CONTROLLER_MANAGER,
                CONTROLLER_MANAGER_KEY,
                &manager,
            ),
            differs: config_map_differs,
        },
        Desired {
            object: of_server.stateful_set(&ports),
            differs: stateful_set_differs,
        },
    ];
    if federation.is_object() && federation["managedRoute"] == "true" {
        objects.push(Desired {
            object: route(federation, common, namespace, &of_server.labels),
            differs: route_differs,
        });
    }
    let owner = json!([{
        "apiVersion": API_VERSION,
        "kind": "SpireServer",
        "name": server["metadata"]["name"],
        "uid": server["metadata"]["uid"],
        "controller": true,
        "blockOwnerDeletion": true,
    }]);
    for desired in &mut objects {
        // The Route has no owner.
        if desired.object["kind"] != "Route" {
            desired.object["metadata"]["ownerReferences"] = owner.clone();
        }
    }
    Ok(objects)
}

fn labels(name: &str, spec: &Value) -> Value {
    let mut labels = json!({
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/instance": "cluster-zero-trust-workload-identity-manager",
        "app.kubernetes.io/component": "control-plane",
        "app.kubernetes.io/version": "1.0.0",
        "app.kubernetes.io/part-of": "zero-trust-workload-identity-manager",
        MANAGED_BY.0: MANAGED_BY.1,
    });
    for (name, value) in spec["labels"].as_object().into_iter().flatten() {
        labels[name] = value.clone();
    }
    labels
}

fn server_configuration(spec: &Value, common: &Value, namespace: &str) -> Value {
    let subject = &spec["caSubject"];
    let cluster = text(&common["clusterName"]);
    let mut configuration = json!({
        "health_checks": {
            "bind_address": "0.0.0.0",
            "bind_port": "8080",
            "listener_enabled": true,
            "live_path": "/live",
            "ready_path": "/ready",
        },
        "plugins": {
            "DataStore": [{"sql": {"plugin_data": {
                "connection_string": spec["datastore"]["connectionString"],
                "database_type": spec["datastore"]["databaseType"],
                "disable_migration": spec["datastore"]["disableMigration"] == "true",
                "max_idle_conns": spec["datastore"]["maxIdleConns"],
                "max_open_conns": spec["datastore"]["maxOpenConns"],
            }}}],
            "KeyManager": [{"disk": {"plugin_data": {"keys_path": format!("{DATA_MOUNT}/keys.json")}}}],
            "NodeAttestor": [{"k8s_psat": {"plugin_data": {"clusters": [{cluster: {
                "allowed_node_label_keys": [],
                "allowed_pod_label_keys": [],
                "audience": ["spire-server"],
                "service_account_allow_list": [format!("{namespace}:spire-agent")],
            }}]}}}],
            "Notifier": [{"k8sbundle": {"plugin_data": {
                "config_map": common["bundleConfigMap"],
                "namespace": namespace,
            }}}],
        },
        "server": {
            "audit_log_enabled": false,
            "bind_address": "0.0.0.0",
            "bind_port": "8081",
            "ca_key_type": spec["caKeyType"],
            "ca_subject": [{
                "common_name": subject["commonName"],
                "country": [subject["country"]],
                "organization": [subject["organization"]],
            }],
            "ca_ttl": spec["caValidity"],
            "data_dir": DATA_MOUNT,
            "default_jwt_svid_ttl": spec["defaultJWTValidity"],
            "default_x509_svid_ttl": spec["defaultX509Validity"],
            "jwt_issuer": spec["jwtIssuer"],
            "log_format": spec["logFormat"],
            "log_level": spec["logLevel"],
            "trust_domain": common["trustDomain"],
        },
        "telemetry": {"Prometheus": {"host": "0.0.0.0", "port": "9402"}},
    });
    if spec["federation"].is_object() {
        configuration["server"]["federation"] = federation_configuration(&spec["federation"]);
    }
    configuration
}

fn federation_configuration(federation: &Value) -> Value {
    let endpoint = &federation["bundleEndpoint"];
    let profile = text(&endpoint["profile"]);
    let mut configuration = json!({"bundle_endpoint": {
        "address": "0.0.0.0",
        "port": BUNDLE_ENDPOINT_PORT,
        "profile": [{profile: {}}],
        "refresh_hint": format!("{}s", endpoint["refreshHint"]),
    }});
    let peers = federation["federatesWith"].as_array();
    for peer in peers.into_iter().flatten() {
        let profile = text(&peer["bundleEndpointProfile"]);
        let details = match profile {
            "https_spiffe" => json!({"endpoint_spiffe_id": peer["endpointSpiffeId"]}),
            _ => json!({}),
        };
        configuration["federates_with"][text(&peer["trustDomain"])] = json!({
            "bundle_endpoint_profile": {profile: details},
            "bundle_endpoint_url": peer["bundleEndpointUrl"],
        });
    }
    configuration
}

fn controller_manager_configuration(common: &Value, namespace: &str) -> Value {
    json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ControllerManagerConfig",
        "metadata": {"name": CONTROLLER_MANAGER, "namespace": namespace},
        "className": CLASS_NAME,
        "clusterName": common["clusterName"],
        "entryIDPrefix": common["clusterName"],
        "health": {"healthProbeBindAddress": "0.0.0.0:8083"},
        "ignoreNamespaces": ["kube-system", "kube-public", "local-path-storage", "openshift-*"],
        "metrics": {"bindAddress": "0.0.0.0:8082"},
        "spireServerSocketPath": "/tmp/spire-server/private/api.sock",
        "trustDomain": common["trustDomain"],
        "watchClassless": false,
    })
}

/// Its host follows from the trust domain, whatever a Route of this name had before.
fn route(federation: &Value, common: &Value, namespace: &str, labels: &Value) -> Value {
    let serving_certificate = &federation["bundleEndpoint"]["httpsWeb"]["servingCert"];
    let termination = if serving_certificate.is_object() {
        "reencrypt"
    } else {
        "passthrough"
    };
    let mut route = json!({
        "apiVersion": "route.openshift.io/v1",
        "kind": "Route",
        "metadata": {
            "name": "spire-server-federation",
            "namespace": namespace,
            "labels": labels,
        },
        "spec": {
            "host": format!("federation.{}", text(&common["trustDomain"])),
            "to": {"kind": "Service", "name": SPIRE_SERVER, "weight": 100},
            "port": {"targetPort": "federation"},
            "tls": {"termination": termination, "insecureEdgeTerminationPolicy": "Redirect"},
            "wildcardPolicy": "None",
        },
    });
    let secret = &serving_certificate["externalSecretRef"];
    if secret.is_string() {
        route["spec"]["tls"]["externalCertificate"] = json!({"name": secret});
    }
    route
}

fn hash(text: &str) -> String {
    base16ct::lower::encode_string(&Sha256::digest(text.trim()))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether something of `wanted` is missing in `live`, or is something else there.
fn lacks(live: &Value, wanted: &Value) -> bool {
    let mut wanted = wanted.as_object().into_iter().flatten();
    wanted.any(|(name, value)| live[name] != *value)
}

fn labels_lack(live: &Value, wanted: &Value) -> bool {
    lacks(&live["metadata"]["labels"], &wanted["metadata"]["labels"])
}

fn service_differs(live: &Value, wanted: &Value) -> bool {
    let (live_spec, spec) = (&live["spec"], &wanted["spec"]);
    labels_lack(live, wanted)
        || ["type", "ports", "selector"]
            .iter()
            .any(|field| live_spec[field] != spec[field])
}

fn config_map_differs(live: &Value, wanted: &Value) -> bool {
    live["metadata"]["labels"] != wanted["metadata"]["labels"]
        || lacks(&live["data"], &wanted["data"])
}

fn stateful_set_differs(live: &Value, wanted: &Value) -> bool {
    let annotations = "/spec/template/metadata/annotations";
    let at = |object: &Value, pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
    let ports = |object: &Value, container: usize| {
        let ports = at(
            object,
            &format!("/spec/template/spec/containers/{container}/ports"),
        );
        ports.as_array().map_or(0, Vec::len)
    };
    labels_lack(live, wanted)
        || lacks(&at(live, annotations), &at(wanted, annotations))
        || (0..2).any(|container| ports(live, container) != ports(wanted, container))
}

fn route_differs(live: &Value, wanted: &Value) -> bool {
    live["spec"] != wanted["spec"] || live["metadata"]["labels"] != wanted["metadata"]["labels"]
}
