//! Installations as the distributions make them, and what is read from them.

use serde_json::json;

use super::*;
use crate::model::{
    declaration::{Expose, Profile},
    trust_domain::SpiffeId,
};

const NAMESPACE: &str = "zero-trust-workload-identity-manager";
const CLASS: &str = "zero-trust-workload-identity-manager-spire";

fn object(api_version: &str, kind: &str, name: &str, more: &Value) -> Value {
    let mut object = json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
    });
    for (key, value) in more.as_object().unwrap() {
        if key == "labels" {
            object["metadata"]["labels"] = value.clone();
        } else {
            object[key] = value.clone();
        }
    }
    object
}

fn stateful_set(labels: &Value) -> Value {
    let template = json!({
        "metadata": {"labels": {"app.kubernetes.io/name": "spire-server"}},
        "spec": {
            "containers": [
                {"name": "spire-server", "image": "ghcr.io/spiffe/spire-server:1.15.3",
                 "args": ["-expandEnv", "-config", "/run/spire/config/server.conf"]},
                {"name": "spire-controller-manager",
                 "image": "ghcr.io/spiffe/spire-controller-manager:0.6.4"},
            ],
            "volumes": [
                {"name": "server-config", "configMap": {"name": "spire-server"}},
                {"name": "manager", "configMap": {"name": "spire-controller-manager"}},
            ],
        },
    });
    let spec = json!({"template": template});
    object(
        "apps/v1",
        "StatefulSet",
        "spire-server",
        &json!({"labels": labels, "spec": spec}),
    )
}

fn config_map(name: &str, key: &str, content: &str) -> Value {
    object("v1", "ConfigMap", name, &json!({"data": {key: content}}))
}

const MANAGER: &str = "apiVersion: spire.spiffe.io/v1alpha1\nkind: ControllerManagerConfig\n\
    className: zero-trust-workload-identity-manager-spire\nclusterName: cluster-1\n\
    trustDomain: a.test\n";

/// The seed's end state: the operator 0.2, federation by hand.
fn seed() -> Objects {
    let server = json!({
        "server": {
            "trust_domain": "a.test",
            "federation": {
                "bundle_endpoint": {"address": "0.0.0.0", "port": 8443, "refresh_hint": "5m"},
                "federates_with": {"b.test": {
                    "bundle_endpoint_url": "https://federation.b.test/",
                    "bundle_endpoint_profile": {
                        "https_spiffe": {"endpoint_spiffe_id": "spiffe://b.test/spire/server"},
                    },
                }},
            },
        },
        "plugins": {"Notifier": [{"k8sbundle": {"plugin_data": {
            "namespace": NAMESPACE, "config_map": "spire-bundle",
        }}}]},
    });
    let labels = json!({"app.kubernetes.io/managed-by": NAMESPACE});
    let port = json!([{"name": "federation", "port": 8443, "targetPort": 8443}]);
    let service = json!({"spec": {
        "selector": {"app.kubernetes.io/name": "spire-server"}, "ports": port,
    }});
    let route = json!({"spec": {
        "host": "federation.A.test",
        "to": {"kind": "Service", "name": "spire-server-federation"},
        "port": {"targetPort": "federation"},
        "tls": {"termination": "passthrough"},
    }});
    Objects {
        stateful_sets: vec![stateful_set(&labels)],
        config_maps: vec![
            config_map("spire-server", "server.conf", &server.to_string()),
            config_map(
                "spire-controller-manager",
                "controller-manager-config.yaml",
                MANAGER,
            ),
            config_map("spire-bundle", "bundle.crt", "-----BEGIN CERTIFICATE-----"),
        ],
        services: vec![object("v1", "Service", "spire-server-federation", &service)],
        routes: vec![object(
            "route.openshift.io/v1",
            "Route",
            "spire-server-federation",
            &route,
        )],
        relationships: vec![relationship("b-federation", "b.test", CLASS, "2026-01-01")],
        registrations: vec![registration("frontend", CLASS, &json!({}))],
        ..Objects::default()
    }
}

fn relationship(name: &str, trust_domain: &str, class: &str, created: &str) -> Value {
    json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterFederatedTrustDomain",
        "metadata": {"name": name, "creationTimestamp": created},
        "spec": {
            "trustDomain": trust_domain, "className": class,
            "bundleEndpointURL": format!("https://federation.{trust_domain}"),
            "bundleEndpointProfile": {
                "type": "https_spiffe",
                "endpointSPIFFEID": format!("spiffe://{trust_domain}/spire/server"),
            },
        },
    })
}

fn registration(name: &str, class: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID",
        "metadata": {
            "name": name, "uid": "1", "resourceVersion": "7", "generation": 2,
            "creationTimestamp": "2026-01-01", "managedFields": [], "labels": labels,
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        },
        "spec": {"className": class, "spiffeIDTemplate": "spiffe://x", "federatesWith": ["b.test"]},
        "status": {"stats": {}},
    })
}

fn only(objects: &Objects) -> Installation {
    let found = candidates(&objects.stateful_sets);
    assert_eq!(found.len(), 1, "{found:?}");
    read(objects, &found[0])
}

#[test]
fn a_federation_made_by_hand_is_read_whole() {
    let found = only(&seed());
    assert_eq!(found.distribution.value, Distribution::Ztwim);
    assert_eq!(found.operator_federates, None);
    assert_eq!(found.namespace, NAMESPACE);
    assert_eq!(found.server, Server::default());
    assert_eq!(found.trust_domain.unwrap().value.as_str(), "a.test");
    let class_name = found.class_name.unwrap();
    assert_eq!(class_name.value, CLASS);
    assert!(class_name.place.contains("spire-controller-manager"));
    assert_eq!(found.cluster_name.unwrap().value, "cluster-1");
    assert_eq!(found.bundle_source.value, BundleSource::Auto);
    assert!(found.bundle_source.place.contains("no BundlePublisher"));

    let endpoint = found.configuration.endpoint.unwrap().value;
    assert_eq!(
        (endpoint.port, endpoint.profile, endpoint.refresh_hint),
        (8443, Profile::HttpsSpiffe, Some(300))
    );
    let [route] = found.exposures.as_slice() else {
        panic!("{:?}", found.exposures)
    };
    assert_eq!(
        (route.expose, route.url.as_str(), &route.problem),
        (Expose::Route, "https://federation.a.test", &None)
    );
    // The same address, by hand and in the server's configuration.
    let peer = TrustDomain::parse("b.test").unwrap();
    let fixed = &found.configuration.federates_with[&peer].value;
    assert_eq!(fixed.url, "https://federation.b.test");
    assert_eq!(fixed.spiffe_id, Some(SpiffeId::spire_server(&peer)));
    let relationship = &found.registrations.relationships[&peer];
    assert_eq!(
        (&relationship.peer, relationship.name.as_str()),
        (fixed, "b-federation")
    );
    assert_eq!(
        found.registrations.kept_by_hand,
        [json!({
            "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID",
            "metadata": {"name": "frontend"},
            "spec": {"className": CLASS, "spiffeIDTemplate": "spiffe://x", "federatesWith": ["b.test"]},
        })]
    );
    // The seed's server.conf has no profile.
    assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
    assert!(
        found.notes[0].contains("without a profile"),
        "{:?}",
        found.notes
    );
}

#[test]
fn the_operators_version_shows_in_its_definition() {
    let mut objects = seed();
    let definition = |spec: Value| {
        json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": {"spec": {
            "properties": spec,
        }}}}}]}})
    };
    objects.spire_server_definition = Some(definition(json!({"federation": {"type": "object"}})));
    let newer = only(&objects);
    assert_eq!(newer.operator_federates, Some(true));
    assert!(newer.distribution.place.contains("1.0 or newer"));
    objects.spire_server_definition = Some(definition(json!({"trustDomain": {}})));
    assert_eq!(only(&objects).operator_federates, Some(false));
}

#[test]
fn the_helm_charts_publisher_is_the_source() {
    let server = |namespace: &str| {
        json!({
            "server": {"trust_domain": "a.test"},
            "plugins": {"BundlePublisher": {"k8s_configmap": {"plugin_data": {"clusters": {
                "other": {"format": "spiffe", "namespace": "x", "configmap_name": "x",
                          "configmap_key": "x", "kubeconfig_path": "/k"},
                "own": {"format": "spiffe", "namespace": namespace, "configmap_name": "spire-bundle",
                        "configmap_key": "bundle.spiffe"},
                "pem": {"format": "pem", "namespace": "y", "configmap_name": "y", "configmap_key": "y"},
            }}}}},
        })
    };
    let mut objects = seed();
    let labels =
        json!({"app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": "spire-server-0.1.0"});
    objects.stateful_sets = vec![stateful_set(&labels)];
    objects.config_maps[0] = config_map(
        "spire-server",
        "server.conf",
        &server(NAMESPACE).to_string(),
    );
    let found = only(&objects);
    assert_eq!(found.distribution.value, Distribution::Helm);
    assert!(found.distribution.place.contains("spire-server-0.1.0"));
    assert_eq!(found.bundle_source.value, BundleSource::Auto);
    assert!(found.configuration.endpoint.is_none() && found.exposures.is_empty());

    objects.config_maps[0] = config_map(
        "spire-server",
        "server.conf",
        &server("spire-system").to_string(),
    );
    let BundleSource::ConfigMap(source) = only(&objects).bundle_source.value else {
        panic!("not the ConfigMap")
    };
    assert_eq!(source.namespace.as_deref(), Some("spire-system"));
}

#[test]
fn what_cannot_be_known_is_told_and_not_guessed() {
    let mut objects = seed();
    objects.config_maps[0] = config_map("spire-server", "server.conf", "server {\n}\n");
    objects.config_maps.remove(1);
    objects
        .relationships
        .push(relationship("c", "c.test", "other", "2026-01-01"));
    let found = only(&objects);
    assert!(found.trust_domain.is_none() && found.class_name.is_none());
    let notes = found.notes.join("\n");
    for told in ["is not JSON: HCL is not read", "objects of several classes"] {
        assert!(notes.contains(told), "{told}: {notes}");
    }
    // One class says it all.
    objects.relationships.pop();
    let class_name = only(&objects).class_name.unwrap();
    assert_eq!(class_name.place, "ClusterFederatedTrustDomain b-federation");

    let mut contradicting = seed();
    let other = MANAGER.replace("a.test", "other.test");
    contradicting.config_maps[1] = config_map("spire-controller-manager", "c.yaml", &other);
    let found = only(&contradicting);
    assert!(found.trust_domain.is_none());
    assert!(
        found.notes.join("\n").contains("but c.yaml of"),
        "{:?}",
        found.notes
    );
}

#[test]
fn what_others_keep_and_what_does_not_count_is_left_alone() {
    let mut objects = seed();
    let mut owned = registration("owned", CLASS, &json!({}));
    owned["metadata"]["ownerReferences"] = json!([{"kind": "Chart", "name": "x"}]);
    objects.registrations.extend([
        owned,
        registration(
            "flux",
            CLASS,
            &json!({"kustomize.toolkit.fluxcd.io/name": "apps"}),
        ),
        registration("classless", "other", &json!({})),
    ]);
    objects.relationships.extend([
        relationship("younger", "b.test", CLASS, "2026-02-01"),
        relationship("elsewhere", "d.test", "other", "2026-01-01"),
    ]);
    let found = only(&objects);
    assert_eq!(found.registrations.kept_by_hand.len(), 1);
    let others = &found.registrations.kept_by_others;
    let others: Vec<_> = others
        .iter()
        .map(|(it, by)| (it.name.as_str(), by.as_str()))
        .collect();
    assert_eq!(
        others,
        [
            ("flux", "label kustomize.toolkit.fluxcd.io/name: apps"),
            ("owned", "Chart x")
        ]
    );
    assert_eq!(found.registrations.relationships.len(), 1);
    let notes = found.notes.join("\n");
    for told in [
        "younger is for `b.test` as the older b-federation is",
        "elsewhere is of the class `other`",
        "classless is of the class `other`",
    ] {
        assert!(notes.contains(told), "{told}: {notes}");
    }
}

#[test]
fn every_way_from_outside_is_found_and_a_wrong_one_is_told() {
    let mut objects = seed();
    objects.routes[0]["spec"]["tls"]["termination"] = "edge".into();
    objects.routes[0]["spec"]["host"] = Value::Null;
    objects.routes[0]["status"] = json!({"ingress": [{"host": "admitted.test"}]});
    let backend = json!({"service": {"name": "spire-server-federation", "port": {"number": 8443}}});
    let other = json!({"service": {"name": "other", "port": {"number": 8443}}});
    let rules = json!([
        {"host": "ingress.test", "http": {"paths": [{"backend": backend}]}},
        {"host": "other.test", "http": {"paths": [{"backend": other}]}},
    ]);
    objects.ingresses = vec![object(
        "networking.k8s.io/v1",
        "Ingress",
        "i",
        &json!({"spec": {"rules": rules}}),
    )];
    let spec = json!({
        "hostnames": ["gateway.test"],
        "rules": [{"backendRefs": [{"name": "spire-server-federation", "port": 8443}]}],
    });
    objects.tls_routes = vec![object("g/v1", "TLSRoute", "t", &json!({"spec": spec}))];
    objects.services[0]["spec"]["type"] = "LoadBalancer".into();
    objects.services[0]["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    let found = only(&objects).exposures;
    let urls: Vec<_> = found
        .iter()
        .map(|it| (it.expose, it.url.as_str()))
        .collect();
    assert_eq!(
        urls,
        [
            (Expose::Route, "https://admitted.test"),
            (Expose::Ingress, "https://ingress.test"),
            (Expose::Gateway, "https://gateway.test"),
            (Expose::LoadBalancer, "https://192.0.2.1:8443"),
        ]
    );
    assert!(found[0].problem.as_ref().unwrap().contains("edge"));
    // A Service that leads to other pods leads nobody to the endpoint.
    objects.services[0]["spec"]["selector"] = json!({"app": "other"});
    assert_eq!(only(&objects).exposures, []);
}

#[test]
fn only_what_runs_the_server_is_a_candidate() {
    let named = |name: &str, image: &str| {
        json!({
            "metadata": {"name": "s", "namespace": "n"},
            "spec": {"template": {"spec": {"containers": [{"name": name, "image": image}]}}},
        })
    };
    let container = |name: &str, image: &str| {
        let found = candidates(&[named(name, image)]);
        found.first().map(|it| it.container.clone())
    };
    let digest = "registry.test:5000/spire-server-rhel9@sha256:00";
    assert_eq!(container("server", digest).as_deref(), Some("server"));
    assert_eq!(
        container("spire-server", "own/built:1").as_deref(),
        Some("spire-server")
    );
    assert_eq!(
        container("spire-agent", "ghcr.io/spiffe/spire-agent:1"),
        None
    );
}
