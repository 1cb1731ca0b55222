//! Stories over several passes, against a cluster that is made of values.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde_json::{Map, json};

use super::*;

const NAMESPACE: &str = "spire";

/// An endpoint of `a.test`, in a `custom` installation, with more in its declaration.
pub(super) fn wanted(more: &Value) -> Wanted {
    let mut endpoint = json!({"profile": "https_spiffe", "url": "https://a.test", "manage": true});
    let members = more.as_object().unwrap().clone();
    endpoint.as_object_mut().unwrap().extend(members);
    Wanted {
        trust_domain: TrustDomain::parse("a.test").unwrap(),
        installation: Installation {
            distribution: Distribution::Custom,
            namespace: NAMESPACE.to_owned(),
            server: Server::default(),
        },
        endpoint: serde_json::from_value(endpoint).unwrap(),
        static_peers: None,
        tls_route: None,
    }
}

fn conf(federation: &Value) -> Value {
    let mut conf = json!({
        "server": {"trust_domain": "a.test"},
        "plugins": {
            "DataStore": [{"sql": {"plugin_data": {
                "database_type": "sqlite3", "connection_string": "/run/spire/data/d.sqlite3",
            }}}],
            "KeyManager": [{"disk": {"plugin_data": {"keys_path": "/run/spire/data/keys.json"}}}],
        },
    });
    if !federation.is_null() {
        conf["server"]["federation"] = federation.clone();
    }
    conf
}

/// What the seed's authors end with.
fn by_hand() -> Value {
    json!({"bundle_endpoint": {
        "address": "0.0.0.0", "port": 8443, "refresh_hint": "5m",
        "profile": [{"https_spiffe": {}}],
    }})
}

/// A cluster: its objects, and what the agent remembers there.
struct World {
    objects: BTreeMap<ObjectKey, Value>,
    memory: Memory,
    now: Timestamp,
    restarts: usize,
}

impl World {
    fn new(federation: &Value) -> Self {
        let mut world = Self {
            objects: BTreeMap::new(),
            memory: Memory::default(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            restarts: 0,
        };
        world.put(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "spire-server", "namespace": NAMESPACE, "resourceVersion": "1"},
            "data": {"server.conf": format!("{:#}", conf(federation)), "other": "x"},
        }));
        world.put(json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "spire-server", "namespace": NAMESPACE, "uid": "u", "generation": 1},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "spire-server"}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
                "template": {
                    "metadata": {"labels": {"app": "spire-server", "tier": "x"}},
                    "spec": {"containers": [{
                        "name": "spire-server", "image": "i",
                        "ports": [{"name": "grpc", "containerPort": 8081, "protocol": "TCP"}],
                        "volumeMounts": [{"name": "data", "mountPath": "/run/spire/data"}],
                    }]},
                },
            },
            "status": {"observedGeneration": 1, "readyReplicas": 1},
        }));
        world.pod_starts();
        world
    }

    fn put(&mut self, object: Value) {
        self.objects
            .insert(ObjectRef::of(&object).unwrap().key(), object);
    }

    fn object(&mut self, kind: &str) -> Option<&mut Value> {
        let mut objects = self.objects.iter_mut();
        let found = objects.find(|(key, _)| key.group_kind.split('.').next() == Some(kind));
        found.map(|(_, object)| object)
    }

    fn pod_starts(&mut self) {
        let at = self.now;
        self.put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "spire-server-0", "namespace": NAMESPACE, "creationTimestamp": at},
        }));
    }

    fn federation(&mut self) -> Value {
        let text = self.object("ConfigMap").unwrap()["data"]["server.conf"].clone();
        let conf: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        conf["server"]["federation"].clone()
    }

    /// Somebody writes the configuration.
    fn edit_configuration(&mut self, federation: &Value, by: &str) {
        self.now += SignedDuration::from_secs(1);
        let at = self.now;
        let text = format!("{:#}", conf(federation));
        let map = self.object("ConfigMap").unwrap();
        map["data"]["server.conf"] = text.into();
        map["metadata"]["managedFields"] = json!([{
            "manager": by, "operation": "Update", "time": at,
            "fieldsV1": {"f:data": {"f:server.conf": {}}},
        }]);
    }

    /// A pass of the agent, a minute after the last: what it did, and what it told.
    fn pass(&mut self, wanted: Option<&Wanted>) -> (Vec<String>, Decision) {
        self.pass_with(wanted, false)
    }

    fn pass_with(&mut self, wanted: Option<&Wanted>, accept: bool) -> (Vec<String>, Decision) {
        self.now += SignedDuration::from_mins(1);
        let mut live = Live::default();
        for reference in reads(wanted, &self.memory, &Live::default()) {
            if let Some(object) = self.objects.get(&reference.key()) {
                live.insert(&reference, object.clone());
            }
        }
        let decision = decide(&Facts {
            wanted,
            live: &live,
            memory: &self.memory,
            accept_data_loss: accept,
            now: self.now,
        });
        self.memory = decision.memory.clone();
        let mut done = Vec::new();
        for step in decision.steps.clone() {
            self.write(&step.write);
            done.push(step.piece.to_string());
            if step.restarts {
                self.restarts += 1;
                self.now += SignedDuration::from_secs(1);
                self.pod_starts();
            }
            if let Some(asked) = step.asked {
                self.memory.wrote(step.piece, asked, step.undone);
            }
        }
        (done, decision)
    }

    fn write(&mut self, write: &Write) {
        match write {
            Write::Edit { reference, patch } => {
                let object = self.objects.get_mut(&reference.key()).unwrap();
                assert_eq!(
                    patch["metadata"]["resourceVersion"],
                    object["metadata"]["resourceVersion"]
                );
                json_patch::merge(object, patch);
            }
            Write::Delete(live) => {
                self.objects.remove(&ObjectRef::of(live).unwrap().key());
            }
            Write::Apply(object) => {
                let key = ObjectRef::of(object).unwrap().key();
                let standing = self.objects.entry(key).or_insert(json!({}));
                if let Some(former) = standing["metadata"].get("ours").cloned() {
                    take_away(standing, &former);
                }
                merge(standing, object);
                standing["metadata"]["ours"] = object.clone();
                let mut fields = json!({});
                if let Some(spec) = object.get("spec") {
                    fields["f:spec"] = fields_of(spec);
                }
                standing["metadata"]["managedFields"] = json!([
                    {"manager": "trustweave", "operation": "Apply", "fieldsV1": fields},
                ]);
            }
        }
    }
}

/// The member by which an item of a list is known.
fn key(item: &Value) -> Option<(&'static str, &Value)> {
    let names = ["containerPort", "name"];
    names
        .into_iter()
        .find_map(|name| Some((name, item.get(name)?)))
}

fn merge(live: &mut Value, applied: &Value) {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) => {
            for (name, value) in applied {
                merge(live.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(live), Value::Array(applied))
            if applied.iter().all(|it| key(it).is_some()) =>
        {
            for item in applied {
                match live.iter_mut().find(|it| key(it) == key(item)) {
                    Some(found) => merge(found, item),
                    None => live.push(item.clone()),
                }
            }
        }
        (live, applied) => *live = applied.clone(),
    }
}

/// Takes away what was applied and has no other owner: every leaf, and items with nothing else.
fn take_away(live: &mut Value, applied: &Value) {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) => {
            for (name, value) in applied {
                if ["apiVersion", "kind", "name", "namespace", "uid"].contains(&name.as_str()) {
                    continue;
                }
                let Some(found) = live.get_mut(name) else {
                    continue;
                };
                if value.is_object() || value.is_array() {
                    take_away(found, value);
                } else {
                    live.shift_remove(name);
                }
            }
        }
        (Value::Array(live), Value::Array(applied)) => {
            for item in applied {
                live.retain(|it| it != item);
                if let Some(found) = live.iter_mut().find(|it| key(it) == key(item)) {
                    take_away(found, item);
                }
            }
        }
        _ => {}
    }
}

fn fields_of(value: &Value) -> Value {
    let mut fields = Map::new();
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                fields.insert(format!("f:{name}"), fields_of(value));
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut keys = json!({});
                if let Some((name, value)) = key(item) {
                    keys[name] = value.clone();
                }
                fields.insert(format!("k:{keys}"), fields_of(item));
            }
        }
        _ => {}
    }
    fields.into()
}

fn condition<'a>(decision: &'a Decision, kind: &str) -> &'a Condition {
    decision
        .conditions
        .iter()
        .find(|it| it.kind == kind)
        .unwrap()
}

fn reason(decision: &Decision, kind: &str) -> &'static str {
    condition(decision, kind).reason
}

const NONE: [&str; 0] = [];

#[test]
fn from_nothing_everything_is_written_once_and_given_back() {
    let route = wanted(&json!({"expose": "route"}));
    let mut world = World::new(&Value::Null);
    let before = world.objects.clone();
    let (done, decision) = world.pass(Some(&route));
    assert_eq!(done, ["configuration", "workload", "service", "exposure"]);
    assert_eq!(reason(&decision, SERVER_CONFIGURED), "Restarting");
    assert_eq!(world.federation(), by_hand());
    let (done, decision) = world.pass(Some(&route));
    assert_eq!(done, NONE);
    assert_eq!(reason(&decision, SERVER_CONFIGURED), "InForce");
    assert_eq!(reason(&decision, ENDPOINT_EXPOSED), "Exposed");
    assert_eq!(world.restarts, 1);

    // Another exposure replaces the former, and nothing else.
    let inside = wanted(&json!({"expose": "none"}));
    assert_eq!(world.pass(Some(&inside)).0, ["exposure"]);
    assert!(world.object("Route").is_none());
    assert_eq!(world.pass(Some(&inside)).0, NONE);

    // An annotation that is no longer declared goes.
    let cloud = |annotations: Value| {
        wanted(&json!({"expose": {"loadBalancer": {"annotations": annotations}}}))
    };
    assert_eq!(
        world.pass(Some(&cloud(json!({"a": "1", "b": "2"})))).0,
        ["service"]
    );
    assert_eq!(world.pass(Some(&cloud(json!({"a": "1"})))).0, ["service"]);
    assert_eq!(world.pass(Some(&cloud(json!({"a": "1"})))).0, NONE);
    let annotations = world.object("Service").unwrap()["metadata"]["annotations"].clone();
    assert_eq!(annotations, json!({"a": "1"}));
    assert_eq!(world.pass(Some(&inside)).0, ["service"]);

    // Another port is another configuration.
    let other = wanted(&json!({"expose": "none", "port": 9443}));
    assert_eq!(
        world.pass(Some(&other)).0,
        ["configuration", "workload", "service"]
    );
    let set = world.object("StatefulSet").unwrap();
    let ports = &set["spec"]["template"]["spec"]["containers"][0]["ports"];
    assert_eq!(ports.as_array().unwrap().len(), 2, "{ports}");
    assert_eq!(world.pass(Some(&other)).0, NONE);
    assert_eq!(world.restarts, 2);

    assert_eq!(world.pass(None).0, ["service", "configuration", "workload"]);
    assert_eq!(world.pass(None).0, NONE);
    assert_eq!(world.memory, Memory::default());
    assert_eq!(world.restarts, 3);
    for (key, object) in before {
        let mut now = world.objects.remove(&key).unwrap();
        now["metadata"]
            .as_object_mut()
            .unwrap()
            .retain(|name, _| !["ours", "managedFields", "annotations"].contains(&name.as_str()));
        if key.group_kind.starts_with("StatefulSet") {
            now["spec"]["template"]["metadata"]
                .as_object_mut()
                .unwrap()
                .shift_remove("annotations");
        }
        if key.group_kind != "Pod" {
            assert_eq!(now, object);
        }
    }
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
}

#[test]
fn what_was_done_by_hand_is_adopted_without_a_write() {
    let route = wanted(&json!({"expose": "route"}));
    let mut world = World::new(&by_hand());
    for object in [
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "spire-server-federation", "namespace": NAMESPACE},
            "spec": {
                "type": "ClusterIP", "clusterIP": "10.0.0.1", "selector": {"app": "spire-server"},
                "ports": [{"name": "federation", "port": 8443, "protocol": "TCP", "targetPort": 8443}],
            },
        }),
        json!({
            "apiVersion": "route.openshift.io/v1", "kind": "Route",
            "metadata": {"name": "spire-server-federation", "namespace": NAMESPACE},
            "spec": {
                "host": "a.test", "to": {"kind": "Service", "name": "spire-server-federation", "weight": 100},
                "port": {"targetPort": "federation"}, "wildcardPolicy": "None",
                "tls": {"termination": "passthrough", "insecureEdgeTerminationPolicy": "Redirect"},
            },
        }),
    ] {
        world.put(object);
    }
    let before = world.objects.clone();
    for _ in 0..2 {
        let (done, decision) = world.pass(Some(&route));
        assert_eq!(done, NONE);
        assert_eq!(reason(&decision, SERVER_CONFIGURED), "InForce");
        assert_eq!(reason(&decision, ENDPOINT_EXPOSED), "Exposed");
    }
    // Neither does taking leave touch what somebody else made.
    assert_eq!(world.pass(None).0, NONE);
    assert_eq!(world.objects, before);
    assert_eq!(world.memory, Memory::default());
}

#[test]
fn a_hand_edit_of_any_piece_is_put_back() {
    let route = wanted(&json!({"expose": "route"}));
    let mut world = World::new(&Value::Null);
    world.pass(Some(&route));
    world.edit_configuration(&json!({"bundle_endpoint": {"port": 1}}), "kubectl-edit");
    assert_eq!(world.pass(Some(&route)).0, ["configuration"]);
    assert_eq!(world.federation(), by_hand());
    assert_eq!(world.restarts, 1, "the server never read it");
    world.object("Service").unwrap()["spec"]["selector"] = json!({"app": "x"});
    assert_eq!(world.pass(Some(&route)).0, ["service"]);
    world.object("Route").unwrap()["spec"]["tls"]["termination"] = "edge".into();
    assert_eq!(world.pass(Some(&route)).0, ["exposure"]);
    let set = world.object("StatefulSet").unwrap();
    let container = &mut set["spec"]["template"]["spec"]["containers"][0];
    container["ports"].as_array_mut().unwrap().pop();
    set["metadata"]["managedFields"] = json!([]);
    assert_eq!(world.pass(Some(&route)).0, ["workload"]);
    assert_eq!(world.pass(Some(&route)).0, NONE);
    let memory = &world.memory;
    let pieces: BTreeSet<_> = memory.reverts.iter().map(|it| it.piece).collect();
    assert_eq!(pieces.len(), 4, "{memory:?}");
}

#[test]
fn a_server_that_was_started_with_another_configuration_is_restarted() {
    let inside = wanted(&json!({"expose": "none"}));
    let mut world = World::new(&Value::Null);
    world.pass(Some(&inside));
    // As a chart does: it writes its configuration, and restarts the server with that.
    world.edit_configuration(&Value::Null, "helm");
    world.pod_starts();
    assert_eq!(world.pass(Some(&inside)).0, ["configuration", "workload"]);
    assert_eq!(world.restarts, 2);
    assert_eq!(world.pass(Some(&inside)).0, NONE);
}

#[test]
fn two_reverts_end_it_and_say_with_whom() {
    let inside = wanted(&json!({"expose": "none"}));
    let mut world = World::new(&Value::Null);
    world.pass(Some(&inside));
    world.edit_configuration(&Value::Null, "argocd");
    assert_eq!(world.pass(Some(&inside)).0, ["configuration"]);
    world.edit_configuration(&Value::Null, "argocd");
    for _ in 0..3 {
        let (done, decision) = world.pass(Some(&inside));
        assert_eq!(done, NONE);
        let told = condition(&decision, SERVER_CONFIGURED);
        assert_eq!((told.status, told.reason), (Some(false), "Fought"));
        assert!(
            told.message.contains("undone 2 times by argocd"),
            "{}",
            told.message
        );
        assert!(
            told.message.contains("ConfigMap spire/spire-server"),
            "{}",
            told.message
        );
        assert_eq!(reason(&decision, ENDPOINT_EXPOSED), "InCluster");
    }
    world.memory.resume(Some("now"));
    assert_eq!(world.pass(Some(&inside)).0, ["configuration"]);
}

#[test]
fn a_restart_that_loses_something_is_refused_until_accepted() {
    let inside = wanted(&json!({"expose": "none"}));
    let mut world = World::new(&Value::Null);
    let set = world.object("StatefulSet").unwrap();
    set["spec"]["volumeClaimTemplates"] = json!([]);
    set["spec"]["template"]["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    let (done, decision) = world.pass(Some(&inside));
    assert_eq!(done, ["service"]);
    let told = condition(&decision, SERVER_CONFIGURED);
    assert_eq!((told.status, told.reason), (Some(false), "RestartRefused"));
    assert!(told.message.contains("emptyDir"), "{}", told.message);
    assert!(told.message.contains("acceptDataLoss"), "{}", told.message);
    assert_eq!(world.federation(), Value::Null);
    assert_eq!(
        world.pass_with(Some(&inside), true).0,
        ["configuration", "workload"]
    );
    // Nor is it given back by a restart that nobody accepts.
    let (done, decision) = world.pass(None);
    assert_eq!(done, ["service"]);
    assert_eq!(reason(&decision, SERVER_CONFIGURED), "RestartRefused");
    assert_eq!(world.pass_with(None, true).0, ["configuration", "workload"]);
    assert_eq!(world.pass(None).0, NONE);
    assert_eq!(world.memory, Memory::default());
}

#[test]
fn what_can_not_be_worked_with_is_told_and_left_alone() {
    let inside = wanted(&json!({"expose": "none"}));
    let check = |spoil: &dyn Fn(&mut World), expected: &str, part: &str| {
        let mut world = World::new(&Value::Null);
        spoil(&mut world);
        let before = world.objects.clone();
        let (_, decision) = world.pass(Some(&inside));
        let told = condition(&decision, SERVER_CONFIGURED);
        assert_eq!((told.status, told.reason), (Some(false), expected));
        assert!(told.message.contains(part), "{}", told.message);
        for (key, object) in before {
            assert_eq!(world.objects[&key], object);
        }
    };
    let text = |text: &'static str| {
        move |world: &mut World| {
            world.object("ConfigMap").unwrap()["data"]["server.conf"] = text.into();
        }
    };
    check(
        &text("server {\n}\n"),
        "HclConfiguration",
        "profile \"https_spiffe\" {}",
    );
    check(&text("{"), "UnreadableConfiguration", "not JSON");
    check(
        &text("{\"server\": []}"),
        "UnreadableConfiguration",
        "not one object",
    );
    let no_key = |world: &mut World| world.object("ConfigMap").unwrap()["data"] = json!({});
    check(&no_key, "NotFound", "no key `server.conf`");
    let no_container = |world: &mut World| {
        world.object("StatefulSet").unwrap()["spec"]["template"]["spec"]["containers"][0]["name"] =
            "x".into();
    };
    check(&no_container, "NotFound", "no container `spire-server`");
    let no_set = |world: &mut World| {
        world
            .objects
            .retain(|key, _| key.group_kind != "StatefulSet.apps");
    };
    check(
        &no_set,
        "NotFound",
        "no StatefulSet.apps spire/spire-server",
    );
}

#[test]
fn what_stands_beside_it_in_the_configuration_is_told() {
    let inside = wanted(&json!({"expose": "none"}));
    let mut federation = by_hand();
    federation["federatesWith"] = json!({});
    federation["federates_with"] = json!({"b.test": {}});
    let mut world = World::new(&federation);
    let (done, decision) = world.pass(Some(&inside));
    assert_eq!(done, ["service"]);
    assert!(
        condition(&decision, CONFIGURATION_SPELT)
            .message
            .contains("`federatesWith`")
    );
    assert!(
        condition(&decision, STATIC_FEDERATION)
            .message
            .contains("b.test")
    );
    assert_eq!(world.memory.static_names, ["b.test"]);
}

#[test]
fn a_server_that_would_not_start_is_not_restarted() {
    let inside = wanted(&json!({"expose": "none"}));
    let spoilt = json!({"bundle_endpoint": {"adress": "0.0.0.0"}});
    let mut world = World::new(&spoilt);
    let (done, decision) = world.pass(Some(&inside));
    assert_eq!(done, ["service"]);
    assert_eq!(reason(&decision, SERVER_CONFIGURED), "WouldNotStart");
    assert_eq!(world.federation(), spoilt);
}

#[test]
fn peers_in_the_configuration_come_and_go_with_what_is_declared() {
    let plain = wanted(&json!({"expose": "none"}));
    let mut asking = plain.clone();
    let peer = TrustDomain::parse("b.test").unwrap();
    asking.static_peers = Some([(peer, plain.endpoint.clone())].into());
    let mut world = World::new(&by_hand());
    world.pass(Some(&plain));
    assert_eq!(world.pass(Some(&asking)).0, ["configuration", "workload"]);
    assert!(world.federation()["federates_with"]["b.test"].is_object());
    assert_eq!(world.pass(Some(&asking)).0, NONE);
    assert_eq!(world.pass(Some(&plain)).0, ["configuration", "workload"]);
    assert_eq!(world.federation(), by_hand());
    assert_eq!(world.pass(Some(&plain)).0, NONE);
}

#[test]
fn another_installation_is_taken_up_once_the_former_is_given_back() {
    let inside = wanted(&json!({"expose": "none"}));
    let mut world = World::new(&Value::Null);
    world.pass(Some(&inside));
    let mut elsewhere = inside.clone();
    elsewhere.installation.namespace = "elsewhere".to_owned();
    let done = world.pass(Some(&elsewhere)).0;
    assert_eq!(done, ["service", "configuration", "workload"]);
    assert_eq!(world.federation(), Value::Null);
    world.pass(Some(&elsewhere));
    let (_, decision) = world.pass(Some(&elsewhere));
    assert_eq!(reason(&decision, SERVER_CONFIGURED), "NotFound");
    assert_eq!(world.memory.installation, Some(elsewhere.installation));
}
