use serde_json::json;

use super::*;
use crate::model::{
    manifest::{FIELD_MANAGER, Origin},
    repository::RepoPath,
};

fn manifest(object: Value) -> Manifest {
    let origin = Origin {
        path: RepoPath::ROOT,
        position: None,
    };
    Manifest::new(object, origin).unwrap()
}

fn config_map(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "n"},
        "data": {"k": value},
    })
}

/// As the API server would return it after our apply.
fn applied(object: &Value) -> Value {
    let mut live = object.clone();
    live["metadata"]["uid"] = "u".into();
    live["metadata"]["resourceVersion"] = "1".into();
    live["metadata"]["managedFields"] = json!([{
        "manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": "v1",
        "fieldsV1": {"f:data": {"f:k": {}}},
    }]);
    live
}

/// After somebody else wrote the value, at the second.
fn written(object: &Value, value: &str, manager: &str, second: i64) -> Value {
    let mut live = applied(object);
    live["data"]["k"] = value.into();
    live["metadata"]["resourceVersion"] = format!("{value} {second}").into();
    live["metadata"]["managedFields"] = json!([
        {"manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": "v1", "fieldsV1": {}},
        {"manager": manager, "operation": "Update", "apiVersion": "v1",
         "time": at(second).to_string(), "fieldsV1": {"f:data": {"f:k": {}}}},
    ]);
    live
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// What a plan is made from, again and again.
#[derive(Default)]
struct Scene {
    settled: Settled,
    fights: Fights,
    incomplete: bool,
}

impl Scene {
    fn plan(&mut self, desired: &[&Value], live: &[Value], second: i64) -> Plan {
        let desired = desired.iter().map(|object| manifest((*object).clone()));
        let desired: Vec<_> = desired.collect();
        let live = live
            .iter()
            .map(|live| (ObjectRef::of(live).unwrap().key(), live.clone()))
            .collect();
        let rules = Rules {
            now: at(second),
            drift_grace: SignedDuration::from_secs(10),
            pruning: !self.incomplete,
            fights: &self.fights,
        };
        plan(&desired, &live, &mut self.settled, &rules)
    }
}

fn words(plan: &Plan) -> Vec<String> {
    let steps = plan.steps.iter();
    steps
        .map(|step| format!("{} {}", step.action.as_str(), step.reference))
        .collect()
}

const NONE: [&str; 0] = [];

#[test]
fn only_differences_are_written() {
    let (a, b) = (config_map("a", "1"), config_map("b", "1"));
    let changed = config_map("a", "2");
    let steps = |desired: &[&Value], live: &[Value], incomplete: bool| {
        let mut scene = Scene {
            incomplete,
            ..Scene::default()
        };
        words(&scene.plan(desired, live, 0))
    };
    assert_eq!(steps(&[&a], &[], false), ["create ConfigMap n/a"]);
    assert_eq!(steps(&[&a], &[applied(&a)], false), NONE);
    assert_eq!(
        steps(&[&changed], &[applied(&a)], false),
        ["update ConfigMap n/a"]
    );
    assert_eq!(
        steps(&[&a], &[applied(&a), applied(&b)], false),
        ["delete ConfigMap n/b"]
    );
    assert_eq!(steps(&[&a], &[applied(&a), applied(&b)], true), NONE);
}

#[test]
fn what_was_not_applied_by_us_is_never_deleted() {
    let mut foreign = applied(&config_map("b", "1"));
    foreign["metadata"]["managedFields"][0]["manager"] = "kubectl".into();
    let mut copied = applied(&config_map("c", "1"));
    copied["metadata"]["ownerReferences"] = json!([{"controller": true, "name": "x"}]);
    let plan = Scene::default().plan(&[], &[foreign, copied], 0);
    assert_eq!(words(&plan), NONE);
}

#[test]
fn what_people_change_is_put_right_after_the_grace() {
    let a = config_map("a", "1");
    let edited = written(&a, "2", "kubectl-edit", 100);
    let mut scene = Scene::default();
    let early = scene.plan(&[&a], std::slice::from_ref(&edited), 105);
    assert_eq!((words(&early).len(), early.wake), (0, Some(at(110))));
    assert_eq!(early.drifted[0].0.fields, [".data.k by kubectl-edit"]);
    let due = scene.plan(&[&a], &[edited], 110);
    assert_eq!(words(&due), ["update ConfigMap n/a"]);
    let step = &due.steps[0];
    assert!(step.corrects && !step.forced && step.drift.len() == 1);
}

#[test]
fn what_a_controller_owns_waits_for_a_word_of_the_repository() {
    let mut a = config_map("a", "1");
    let taken = |a: &Value| written(a, "2", "hpa", 100);
    let mut scene = Scene::default();
    let plan = scene.plan(&[&a], &[taken(&a)], 200);
    assert_eq!(words(&plan), NONE);
    assert_eq!(plan.undecided[0].fields, [".data.k by hpa"]);
    a["metadata"]["annotations"] = json!({policy::CONFLICTS: "take"});
    let plan = scene.plan(&[&a], &[taken(&a)], 200);
    assert!(plan.steps[0].forced && plan.undecided.is_empty());
    // Yielded, it is in force without the field.
    a["metadata"]["annotations"] = json!({policy::CONFLICTS: "yield .data"});
    let plan = scene.plan(&[&a], &[taken(&a)], 200);
    assert_eq!((words(&plan).len(), plan.unchanged), (0, 1));
}

#[test]
fn what_is_asked_to_be_left_alone_is() {
    let a = config_map("a", "1");
    let mut live = written(&a, "2", "kubectl-edit", 0);
    live["metadata"]["annotations"] = json!({policy::RECONCILE: "disabled"});
    let mut scene = Scene::default();
    let plan = scene.plan(&[&a], &[live], 1000);
    assert_eq!((words(&plan).len(), plan.left_alone.len()), (0, 1));
    let mut declared = a;
    declared["metadata"]["annotations"] = json!({policy::RECONCILE: "disabled"});
    assert_eq!(words(&scene.plan(&[&declared], &[], 1000)), NONE);
}

#[test]
fn what_ends_is_made_anew_once_it_is_gone() {
    let (a, b) = (config_map("a", "1"), config_map("b", "1"));
    let ending = |object: &Value| {
        let mut live = applied(object);
        live["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        live
    };
    let plan = Scene::default().plan(&[&a], &[ending(&a), ending(&b)], 0);
    assert_eq!((words(&plan).len(), plan.ending.len()), (0, 2));
}

#[test]
fn a_fight_is_told_and_slowed_down() {
    let a = config_map("a", "1");
    let mut scene = Scene::default();
    let key = manifest(a.clone()).reference.key();
    scene.settled.remember(key.clone(), &a, &applied(&a), at(0));
    // Somebody whose manager is not told, such as a webhook, changes the value each time.
    let mut mutated = applied(&a);
    mutated["data"]["k"] = "2".into();
    mutated["metadata"]["resourceVersion"] = "2".into();
    for second in 0..4 {
        let plan = scene.plan(&[&a], std::slice::from_ref(&mutated), second);
        assert!(plan.steps[0].corrects, "{second}");
        scene.fights.corrected(key.clone(), at(second));
    }
    let plan = scene.plan(&[&a], std::slice::from_ref(&mutated), 5);
    assert_eq!((words(&plan).len(), plan.contested.len()), (0, 1));
    assert_eq!(plan.wake, Some(at(33)));
    assert_eq!(scene.plan(&[&a], &[mutated], 33).steps.len(), 1);
    // What is newly declared is nobody's fight.
    let newer = config_map("a", "3");
    assert_eq!(scene.plan(&[&newer], &[applied(&a)], 5).steps.len(), 1);
}

#[test]
fn what_stands_is_verified_after_long() {
    let a = config_map("a", "1");
    let mut scene = Scene::default();
    let hours = |hours: i64| hours * 3600;
    for (second, expected) in [(0, 0), (hours(1), 0), (hours(7), 1)] {
        let plan = scene.plan(&[&a], &[applied(&a)], second);
        assert_eq!((plan.unchanged, plan.verify.len()), (1, expected));
    }
}
