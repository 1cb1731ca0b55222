//! Desired × live → steps: what has to be written so that a cluster is as it should be.
//!
//! **Invariants:** nothing here does I/O; what is in force already yields no step, so a pass over an
//! unchanged cluster writes nothing; only what is provably ours is deleted; the value of a Secret
//! never gets into a text.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::manifest::{Manifest, ObjectKey, ObjectRef};

pub mod diff;
pub mod fields;
pub mod mask;
pub mod order;
pub mod ownership;
pub mod prune;
pub mod settled;

use self::settled::Settled;

/// What a step does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It is not there yet.
    Create,
    /// It is there, and differs.
    Update,
    /// It is ours, and no longer declared.
    Delete,
}

impl Action {
    /// The verb, lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The object.
    pub reference: ObjectRef,
    /// What is done to it.
    pub action: Action,
    /// How it should be; `None` if it is deleted.
    pub desired: Option<Value>,
    /// How it is; `None` if it is created.
    pub live: Option<Value>,
}

/// Everything that has to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The writes, in the order in which they should begin.
    pub steps: Vec<Step>,
    /// How many objects are as they should be.
    pub unchanged: usize,
    /// Objects in our set that are no longer declared, and why they stay.
    pub kept: Vec<(ObjectRef, prune::Kept)>,
}

/// Compares what should be with what is. `pruning` is false while the desired objects are known to
/// be incomplete: then nothing is deleted.
pub fn plan(
    desired: &[Manifest],
    live: &BTreeMap<ObjectKey, Value>,
    settled: &Settled,
    pruning: bool,
) -> Plan {
    let mut plan = Plan::default();
    let mut declared = std::collections::BTreeSet::new();
    for manifest in desired {
        let key = manifest.reference.key();
        let found = live.get(&key);
        let in_force = found.is_some_and(|live| settled.stands(&key, &manifest.object, live));
        declared.insert(key);
        if in_force {
            plan.unchanged += 1;
            continue;
        }
        plan.steps.push(Step {
            reference: manifest.reference.clone(),
            action: if found.is_some() {
                Action::Update
            } else {
                Action::Create
            },
            desired: Some(manifest.object.clone()),
            live: found.cloned(),
        });
    }
    for (key, object) in live.iter().filter(|(key, _)| !declared.contains(key)) {
        let Some(reference) = ObjectRef::of(object).filter(|found| found.key() == *key) else {
            continue;
        };
        match prune::may_delete(&reference, object, pruning) {
            Ok(()) => plan.steps.push(Step {
                reference,
                action: Action::Delete,
                desired: None,
                live: Some(object.clone()),
            }),
            Err(kept) => plan.kept.push((reference, kept)),
        }
    }
    order::sort(&mut plan.steps);
    plan
}

#[cfg(test)]
mod tests {
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
            "manager": FIELD_MANAGER, "operation": "Apply",
            "fieldsV1": {"f:data": {"f:k": {}}},
        }]);
        live
    }

    fn steps(desired: &[&Value], live: &[Value], pruning: bool) -> Vec<String> {
        let desired: Vec<_> = desired
            .iter()
            .map(|object| manifest((*object).clone()))
            .collect();
        let live = live
            .iter()
            .map(|live| (ObjectRef::of(live).unwrap().key(), live.clone()))
            .collect();
        plan(&desired, &live, &Settled::default(), pruning)
            .steps
            .iter()
            .map(|step| format!("{} {}", step.action.as_str(), step.reference))
            .collect()
    }

    #[test]
    fn only_differences_are_written() {
        let (a, b) = (config_map("a", "1"), config_map("b", "1"));
        let changed = config_map("a", "2");
        let none: [&str; 0] = [];
        assert_eq!(steps(&[&a], &[], true), ["create ConfigMap n/a"]);
        assert_eq!(steps(&[&a], &[applied(&a)], true), none);
        assert_eq!(
            steps(&[&changed], &[applied(&a)], true),
            ["update ConfigMap n/a"]
        );
        assert_eq!(
            steps(&[&a], &[applied(&a), applied(&b)], true),
            ["delete ConfigMap n/b"]
        );
        assert_eq!(steps(&[&a], &[applied(&a), applied(&b)], false), none);
    }

    #[test]
    fn what_was_not_applied_by_us_is_never_deleted() {
        let mut foreign = applied(&config_map("b", "1"));
        foreign["metadata"]["managedFields"][0]["manager"] = "kubectl".into();
        let mut copied = applied(&config_map("c", "1"));
        copied["metadata"]["ownerReferences"] = json!([{"controller": true, "name": "x"}]);
        let none: [&str; 0] = [];
        assert_eq!(steps(&[], &[foreign, copied], true), none);
    }
}
