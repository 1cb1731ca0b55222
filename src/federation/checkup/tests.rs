//! A healthy cluster has no finding; each way of breaking it has exactly the one that is named after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use serde_json::{Value, json};

use super::*;
use crate::{
    federation::installation::{Objects, candidates, read},
    model::bundle::{Bundle, sample},
};

const NAMESPACE: &str = "spire";
const CLASS: &str = "spire-class";

/// What was read of a cluster, before anything is made of it.
struct Cluster {
    objects: Objects,
    pods: Vec<Value>,
    git_sync: Option<Value>,
    trust_peers: Vec<Value>,
    answers: BTreeMap<String, Answer>,
    missing_kinds: Vec<String>,
}

fn at(name: &str) -> Value {
    json!({"name": name, "namespace": NAMESPACE, "managedFields": []})
}

/// A sample has other keys each time.
static BUNDLES: LazyLock<[Bundle; 2]> =
    LazyLock::new(|| ["a.test", "b.test"].map(|it| sample(it).with_refresh_hint(Some(60))));

fn own_bundle() -> Bundle {
    BUNDLES[0].clone()
}

pub(in crate::federation) fn peer_bundle() -> Bundle {
    BUNDLES[1].clone()
}

fn text(bundle: &Bundle) -> String {
    String::from_utf8(bundle.canonical()).unwrap()
}

fn healthy() -> Cluster {
    let labels = json!({"app": "spire-server"});
    let server = json!({
        "server": {"trust_domain": "a.test", "federation": {"bundle_endpoint": {
            "address": "0.0.0.0", "port": 8443, "profile": [{"https_spiffe": {}}],
        }}},
        "plugins": {
            "DataStore": [{"sql": {"plugin_data": {
                "database_type": "sqlite3", "connection_string": "/run/spire/data/datastore.sqlite3",
            }}}],
            "KeyManager": [{"disk": {"plugin_data": {"keys_path": "/run/spire/data/keys.json"}}}],
            "BundlePublisher": [{"k8s_configmap": {"plugin_data": {"clusters": {"local": {
                "format": "spiffe", "namespace": NAMESPACE,
                "configmap_name": "spire-bundle", "configmap_key": "bundle.spiffe",
            }}}}}],
        },
    });
    let manager = format!(
        "kind: ControllerManagerConfig\nclassName: {CLASS}\nclusterName: cluster-1\n\
         trustDomain: a.test\nignoreNamespaces: [kube-system, '^openshift-.*']\n"
    );
    let own = text(&own_bundle());
    let mut configuration = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": at("server"),
        "data": {"server.conf": server.to_string()}});
    configuration["metadata"]["managedFields"] = json!([
        {"manager": "kubectl", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:data": {}}},
    ]);
    let mut published = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": at("spire-bundle"),
        "data": {"bundle.spiffe": own}});
    published["metadata"]["managedFields"] = json!([{
        "manager": "spire-bundlepublisher-k8s_configmap",
        "fieldsV1": {"f:data": {"f:bundle.spiffe": {}}},
    }]);
    let objects = Objects {
        stateful_sets: vec![json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": at("spire-server"),
            "spec": {
                "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
                "template": {"metadata": {"labels": labels}, "spec": {
                    "containers": [{
                        "name": "spire-server", "image": "spire-server",
                        "ports": [{"name": "federation", "containerPort": 8443}],
                        "volumeMounts": [{"name": "data", "mountPath": "/run/spire/data"}],
                    }],
                    "volumes": [
                        {"configMap": {"name": "server"}}, {"configMap": {"name": "manager"}},
                    ],
                }},
            },
        })],
        config_maps: vec![
            configuration,
            json!({"metadata": at("manager"), "data": {"config.yaml": manager}}),
            published,
        ],
        services: vec![json!({
            "apiVersion": "v1", "kind": "Service", "metadata": at("federation"),
            "spec": {"selector": labels, "ports": [
                {"name": "federation", "port": 8443, "targetPort": "federation"},
            ]},
        })],
        routes: vec![json!({
            "apiVersion": "route.openshift.io/v1", "kind": "Route", "metadata": at("federation"),
            "spec": {
                "host": "federation.a.test", "to": {"kind": "Service", "name": "federation"},
                "port": {"targetPort": "federation"}, "tls": {"termination": "passthrough"},
            },
        })],
        relationships: vec![relationship("b", "b.test")],
        registrations: vec![json!({
            "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID",
            "metadata": {"name": "frontend"},
            "spec": {"className": CLASS, "federatesWith": ["b.test"]},
            "status": {"stats": {"namespacesSelected": 1, "podsSelected": 2, "entriesToSet": 2}},
        })],
        ..Objects::default()
    };
    Cluster {
        objects,
        pods: vec![json!({
            "kind": "Pod",
            "metadata": {"name": "spire-server-0", "namespace": NAMESPACE, "ownerReferences": [
                {"kind": "StatefulSet", "name": "spire-server"},
            ]},
            "status": {"startTime": "2026-01-01T00:00:05Z", "containerStatuses": [
                {"name": "spire-server", "ready": true,
                 "state": {"running": {"startedAt": "2026-01-01T00:00:10Z"}}},
                {"name": "spire-controller-manager", "ready": true},
            ]},
        })],
        git_sync: Some(json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})),
        trust_peers: vec![json!({
            "spec": {"trustDomain": "b.test"},
            "status": {"phase": "Federated", "conditions": [
                {"type": "Consented", "status": "True", "reason": "BothSides"},
                {"type": "Confirmed", "status": "Unknown", "reason": "NotObserved"},
            ]},
        })],
        answers: BTreeMap::from([("b".to_owned(), Ok(peer_bundle()))]),
        missing_kinds: Vec::new(),
    }
}

fn relationship(name: &str, trust_domain: &str) -> Value {
    json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterFederatedTrustDomain",
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "uid": name},
        "spec": {
            "className": CLASS, "trustDomain": trust_domain,
            "bundleEndpointURL": format!("https://federation.{trust_domain}/#0.1.0.0"),
            "bundleEndpointProfile": {
                "type": "https_spiffe",
                "endpointSPIFFEID": format!("spiffe://{trust_domain}/spire/server"),
            },
            "trustDomainBundle": text(&peer_bundle()),
        },
    })
}

fn facts(cluster: Cluster) -> ClusterFacts {
    let found = candidates(&cluster.objects.stateful_sets);
    let server = match found.as_slice() {
        [candidate] => Some((candidate.clone(), read(&cluster.objects, candidate))),
        _ => None,
    };
    ClusterFacts {
        name: "cluster-1".to_owned(),
        now: "2026-01-02T00:00:00Z".parse().unwrap(),
        candidates: found.len(),
        server,
        objects: cluster.objects,
        pods: cluster.pods,
        missing_kinds: cluster.missing_kinds,
        git_sync: cluster.git_sync,
        trust_peers: cluster.trust_peers,
        answers: cluster.answers,
    }
}

fn all(facts: &ClusterFacts) -> Vec<Outcome> {
    let mut outcomes = cluster(facts);
    outcomes.extend(endpoints(facts));
    outcomes
}

fn failed(outcomes: &[Outcome]) -> BTreeMap<&'static str, String> {
    let failed = outcomes.iter().filter_map(|it| match &it.seen {
        Seen::Amiss(amiss) => Some((it.about.id, format!("{amiss:?}"))),
        Seen::Well | Seen::Unknown(_) => None,
    });
    failed.collect()
}

/// Edits the server's configuration.
fn configure(cluster: &mut Cluster, edit: impl FnOnce(&mut Value)) {
    let text = &mut cluster.objects.config_maps[0]["data"]["server.conf"];
    let mut document: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    edit(&mut document);
    *text = document.to_string().into();
}

/// Breaks a healthy cluster, and compares which checks fail.
#[track_caller]
fn check(expected: &[&str], edit: impl FnOnce(&mut Cluster)) -> BTreeMap<&'static str, String> {
    let mut broken = healthy();
    edit(&mut broken);
    let failed = failed(&all(&facts(broken)));
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    assert_eq!(
        failed.keys().copied().collect::<BTreeSet<_>>(),
        expected,
        "{failed:#?}"
    );
    failed
}

#[test]
fn a_healthy_cluster_passes_every_check() {
    let outcomes = all(&facts(healthy()));
    for outcome in &outcomes {
        assert_eq!(outcome.seen, Seen::Well, "{}", outcome.about.id);
    }
}

#[test]
fn without_a_server_nothing_is_said_to_be_well() {
    let mut cluster = healthy();
    cluster.objects.stateful_sets.clear();
    cluster.git_sync = None;
    cluster.trust_peers.clear();
    let outcomes = super::cluster(&facts(cluster));
    for outcome in outcomes {
        let id = outcome.about.id;
        match outcome.seen {
            Seen::Amiss(_) => assert_eq!(id, "server-found"),
            Seen::Unknown(_) => {}
            // What the objects alone tell is told.
            Seen::Well => assert!(
                !id.starts_with("server")
                    && !id.starts_with("endpoint")
                    && !id.starts_with("agent"),
                "{id}"
            ),
        }
    }
}

#[test]
fn the_server() {
    check(&["kinds-installed"], |it| {
        it.missing_kinds.push("ClusterSPIFFEID".to_owned());
    });
    let seen = check(&["server-ready"], |it| {
        let status = &mut it.pods[0]["status"]["containerStatuses"][1];
        status["ready"] = false.into();
        status["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    });
    assert!(
        seen["server-ready"].contains("spire-controller-manager is not ready: CrashLoopBackOff")
    );
    check(&["configuration-read"], |it| {
        it.objects.config_maps[0]["data"]["server.conf"] = "server {}".into();
    });
    check(&["configuration-spelt"], |it| {
        configure(it, |conf| {
            conf["server"]["federation"]["federatesWith"] = json!({});
        });
    });
    check(&["configuration-in-force"], |it| {
        it.objects.config_maps[0]["metadata"]["managedFields"][0]["time"] =
            "2026-01-01T00:01:00Z".into();
    });
    check(&["server-survives-restart"], |it| {
        it.objects.stateful_sets[0]["spec"]["volumeClaimTemplates"] = json!([]);
        let volumes = &mut it.objects.stateful_sets[0]["spec"]["template"]["spec"]["volumes"];
        let volumes = volumes.as_array_mut().unwrap();
        volumes.push(json!({"name": "data", "emptyDir": {}}));
    });
    check(&["relationships-reconciled"], |it| {
        let text = it.objects.config_maps[1]["data"]["config.yaml"]
            .as_str()
            .unwrap();
        let text = format!("{text}reconcile: {{clusterFederatedTrustDomains: false}}\n");
        it.objects.config_maps[1]["data"]["config.yaml"] = text.into();
    });
    let seen = check(&["own-bundle-kept"], |it| {
        it.objects.config_maps[2]["metadata"]["managedFields"][0]["manager"] =
            "kubectl-edit".into();
    });
    assert!(seen["own-bundle-kept"].contains("kubectl-edit"));
}

#[test]
fn the_endpoint() {
    check(&["endpoint-configured"], |it| {
        configure(it, |conf| conf["server"]["federation"] = json!({}));
    });
    check(&["endpoint-profile"], |it| {
        configure(it, |conf| {
            let endpoint = &mut conf["server"]["federation"]["bundle_endpoint"];
            endpoint.as_object_mut().unwrap().remove("profile");
        });
    });
    let seen = check(&["endpoint-service"], |it| {
        it.objects.stateful_sets[0]["spec"]["template"]["spec"]["containers"][0]["ports"] =
            json!([]);
    });
    assert!(seen["endpoint-service"].contains("targetPort `federation` is no port"));
    check(&["endpoint-service", "endpoint-exposed"], |it| {
        it.objects.services.clear();
    });
    check(&["endpoint-exposed"], |it| it.objects.routes.clear());
    check(&["endpoint-passthrough"], |it| {
        it.objects.routes[0]["spec"]["tls"]["termination"] = "edge".into();
    });
}

#[test]
fn relationships() {
    let edit = |pointer: &'static str, value: Value| {
        move |it: &mut Cluster| *it.objects.relationships[0].pointer_mut(pointer).unwrap() = value
    };
    let bundle = "/spec/trustDomainBundle";
    // Who is in no relationship is named in vain.
    check(
        &["relationship-class", "registration-peers"],
        edit("/spec/className", "other".into()),
    );
    check(
        &["relationship-class", "registration-peers"],
        edit("/spec/className", Value::Null),
    );
    for document in [
        "",
        "{}",
        "[]",
        r#"{"keys": null}"#,
        r#"{"keys": [], "spiffe_refresh_hint": "60"}"#,
        r#"{"keys": [], "spiffe_refresh_hint": 60.5}"#,
        "not JSON",
    ] {
        let expected = if document.is_empty() {
            "relationship-seeded"
        } else {
            "relationship-valid"
        };
        check(&[expected], edit(bundle, document.into()));
    }
    check(
        &["relationship-valid"],
        edit("/spec/bundleEndpointURL", "http://federation.b.test".into()),
    );
    check(
        &["relationship-valid"],
        edit(
            "/spec/bundleEndpointProfile",
            json!({"type": "https_spiffe"}),
        ),
    );
    check(&["relationship-unique"], |it| {
        let mut younger = relationship("b-again", "b.test");
        younger["metadata"]["creationTimestamp"] = "2026-01-01T00:00:01Z".into();
        it.objects.relationships.insert(0, younger);
    });
    check(
        &["relationship-foreign", "bundle-usable", "peer-named"],
        |it| {
            it.objects.relationships.push(relationship("a", "a.test"));
        },
    );
    for url in [
        "https://federation.b.test/bundle",
        "https://Federation.b.test/",
        "HTTPS://federation.b.test/",
    ] {
        check(
            &["relationship-address"],
            edit("/spec/bundleEndpointURL", url.into()),
        );
    }
    let empty = r#"{"keys": [], "spiffe_refresh_hint": 60}"#;
    check(
        &["bundle-usable", "endpoint-agrees"],
        edit(bundle, empty.into()),
    );
    // Cut on purpose: the agent took the keys away.
    check(&[], |it| {
        edit(bundle, empty.into())(it);
        edit(
            "/spec/bundleEndpointURL",
            "https://b.test.invalid/#0.1.0.1".into(),
        )(it);
    });
    check(&["bundle-hint"], |it| {
        let mut unhinted = peer_bundle();
        unhinted.refresh_hint = None;
        edit(bundle, text(&unhinted).into())(it);
    });
    check(&["bundle-hint"], |it| {
        let mut slow = peer_bundle();
        slow.refresh_hint = Some(86_400);
        edit(bundle, text(&slow).into())(it);
    });
    check(
        &["bundle-size"],
        edit(
            bundle,
            format!("{}{}", text(&peer_bundle()), " ".repeat(300 << 10)).into(),
        ),
    );
    check(&["relationship-polled"], |it| {
        configure(it, |conf| {
            conf["server"]["federation"]["federates_with"] = json!({"b.test": {
                "bundle_endpoint_url": "https://old.b.test",
                "bundle_endpoint_profile": {"https_spiffe": {"endpoint_spiffe_id": "spiffe://b.test/spire/server"}},
            }});
        });
    });
}

#[test]
fn registrations() {
    let stats = |edit: Value| {
        move |it: &mut Cluster| {
            let stats = &mut it.objects.registrations[0]["status"]["stats"];
            for (key, value) in edit.as_object().unwrap() {
                stats[key] = value.clone();
            }
        }
    };
    check(&["registration-class", "peer-named"], |it| {
        it.objects.registrations[0]["spec"]["className"] = Value::Null;
    });
    check(
        &["registration-accepted"],
        stats(json!({"entryFailures": 2})),
    );
    check(
        &["registration-rendered"],
        stats(json!({"podEntryRenderFailures": 1})),
    );
    check(
        &["registration-unmasked"],
        stats(json!({"entriesMasked": 1})),
    );
    check(&["registration-selects"], stats(json!({"podsSelected": 0})));
    let seen = check(&["registration-selects"], |it| {
        it.objects.registrations[0]["spec"]["namespaceSelector"] =
            json!({"matchLabels": {"kubernetes.io/metadata.name": "openshift-ingress"}});
        stats(json!({"podsSelected": 0, "namespacesIgnored": 1}))(it);
    });
    assert!(seen["registration-selects"].contains("ignoreNamespaces has `^openshift-.*`"));
    check(&["registration-peers"], |it| {
        it.objects.registrations[0]["spec"]["federatesWith"] = json!(["b.test", "c.test"]);
    });
    check(&["peer-named"], |it| {
        it.objects.registrations[0]["spec"]["federatesWith"] = json!([]);
    });
}

#[test]
fn the_agent() {
    check(&["agent-ready"], |it| it.git_sync = Some(json!({})));
    let seen = check(&["agent-ready"], |it| {
        it.git_sync = Some(json!({"status": {"conditions": [
            {"type": "Fetched", "status": "False", "reason": "Unreachable", "message": "no route"},
        ]}}));
    });
    assert!(seen["agent-ready"].contains("Fetched is False (Unreachable): no route"));
    check(&["peers-federated"], |it| {
        it.trust_peers[0]["status"]["phase"] = "Pending".into();
    });
    check(&["peers-sound"], |it| {
        it.trust_peers[0]["status"]["conditions"][1]["status"] = "False".into();
    });
    // Who leaves is not missed.
    check(&[], |it| {
        it.trust_peers[0]["status"]["phase"] = "Gone".into();
        it.trust_peers[0]["status"]["conditions"][0]["reason"] = "NoEdge".into();
    });
}

#[test]
fn what_endpoints_answer() {
    let answer = |answer: Answer| {
        move |it: &mut Cluster| {
            it.answers.insert("b".to_owned(), answer);
        }
    };
    let silence = |silence: fn(String) -> Silence| answer(Err(silence("so".to_owned())));
    check(&["endpoint-reachable"], silence(Silence::Unreachable));
    check(&["endpoint-proven"], silence(Silence::Unproven));
    check(&["endpoint-bundle"], silence(Silence::NoBundle));
    check(&[], silence(Silence::NotAsked));
    check(
        &["endpoint-bundle", "endpoint-agrees"],
        answer(Ok(Bundle::empty())),
    );
}

/// A cluster of `a.test` that is well.
pub(in crate::federation) fn importer() -> ClusterFacts {
    facts(healthy())
}

/// The same, seen from the other side.
pub(in crate::federation) fn peer() -> ClusterFacts {
    let mut cluster = healthy();
    for config_map in &mut cluster.objects.config_maps {
        let text = config_map.to_string().replace("a.test", "b.test");
        *config_map = serde_json::from_str(&text).unwrap();
    }
    cluster.objects.config_maps[2]["data"]["bundle.spiffe"] = text(&peer_bundle()).into();
    cluster.objects.routes[0]["spec"]["host"] = "federation.b.test".into();
    let mut back = relationship("a", "a.test");
    back["spec"]["trustDomainBundle"] = text(&own_bundle()).into();
    cluster.objects.relationships = vec![back];
    cluster.objects.registrations[0]["spec"]["federatesWith"] = json!(["a.test"]);
    cluster.answers.clear();
    let mut facts = facts(cluster);
    facts.name = "cluster-2".to_owned();
    facts
}

#[test]
fn clusters_together() {
    let check = |expected: &[&str], edit: fn(&mut Cluster), edit_peer: fn(&mut ClusterFacts)| {
        let mut one = healthy();
        one.answers.clear();
        edit(&mut one);
        let mut two = peer();
        edit_peer(&mut two);
        let clusters = [facts(one), two];
        let outcomes = across(&Federation {
            clusters: &clusters,
            repository: None,
        });
        let failed = failed(&outcomes);
        assert_eq!(
            failed.keys().copied().collect::<Vec<_>>(),
            expected,
            "{failed:#?}"
        );
    };
    let nothing = |_: &mut ClusterFacts| {};
    check(&[], |_| {}, nothing);
    check(
        &["relationship-both-ways"],
        |_| {},
        |two| two.objects.relationships.clear(),
    );
    check(
        &["relationship-current-address"],
        |one| {
            one.objects.relationships[0]["spec"]["bundleEndpointURL"] = "https://old.b.test".into();
        },
        nothing,
    );
    check(
        &["relationship-current-keys"],
        |one| {
            one.objects.relationships[0]["spec"]["trustDomainBundle"] =
                text(&sample("c.test")).into();
        },
        nothing,
    );
}

#[test]
fn every_check_has_a_name_of_its_own_and_sentences() {
    let catalogue = catalogue();
    let ids: BTreeSet<&str> = catalogue.iter().map(|it| it.id).collect();
    assert_eq!(ids.len(), catalogue.len());
    for about in catalogue {
        assert!(
            about.id.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
            "{}",
            about.id
        );
        for sentence in [about.title, about.why, about.cure] {
            assert!(
                !sentence.ends_with('.') && !sentence.is_empty(),
                "{}: {sentence}",
                about.id
            );
        }
    }
}
