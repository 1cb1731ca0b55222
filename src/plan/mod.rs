//! Desired × live → steps: what has to be written so that a cluster is as it should be.
//!
//! What others do to the same objects is judged field by field, by the records of field managers
//! ([`contest`], [`writers`]); what people may say about an object is in [`policy`]; deletions that
//! wait for somebody's word in [`guard`]; fights in [`fight`].
//!
//! **Invariants:** nothing here does I/O; what is in force already yields no step, so a pass over an
//! unchanged cluster writes nothing; only what is provably ours is deleted; a controller's field is
//! not taken unless the repository says so; the value of a Secret never gets into a text.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::model::manifest::{Manifest, ObjectKey, ObjectRef};

pub mod contest;
pub mod diff;
pub mod field_changes;
pub mod fields;
pub mod fight;
pub mod guard;
pub mod health;
pub mod mask;
pub mod normalise;
pub mod order;
pub mod ownership;
pub mod policy;
pub mod prune;
mod quantity;
pub mod settled;
pub mod writers;

use self::{
    contest::{Difference, differences, judge},
    fields::FieldPath,
    fight::{Fight, Fights},
    policy::Policy,
    settled::Settled,
};

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
    /// How it is declared; `None` if it is deleted.
    pub desired: Option<Value>,
    /// Fields of it that are left to a controller, as the repository asks.
    pub yields: Vec<FieldPath>,
    /// How it is; `None` if it is created.
    pub live: Option<Value>,
    /// Whether fields are taken from controllers, as the repository asks.
    pub forced: bool,
    /// Whether it only puts back what was applied before.
    pub corrects: bool,
    /// What people wrote, which is overwritten.
    pub drift: Vec<Difference>,
}

impl Step {
    /// A plain write.
    pub fn new(
        action: Action,
        reference: ObjectRef,
        desired: Option<Value>,
        live: Option<Value>,
    ) -> Self {
        Self {
            reference,
            action,
            desired,
            yields: Vec::new(),
            live,
            forced: false,
            corrects: false,
            drift: Vec::new(),
        }
    }
}

/// An object with fields of others, in words.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The object.
    pub reference: ObjectRef,
    /// Each field with its writer.
    pub fields: Vec<String>,
}

/// Everything that has to be written, and what is left as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The writes, in the order in which they should begin.
    pub steps: Vec<Step>,
    /// What stands, and is to be asked about by a dry run.
    pub verify: Vec<Step>,
    /// How many objects are as they should be.
    pub unchanged: usize,
    /// Objects in our set that are no longer declared, and why they stay.
    pub kept: Vec<(ObjectRef, prune::Kept)>,
    /// Objects that people asked to leave alone.
    pub left_alone: Vec<ObjectRef>,
    /// Objects that are being deleted: they are made anew once they are gone.
    pub ending: Vec<ObjectRef>,
    /// Objects that are not applied, as controllers own fields with other values.
    pub undecided: Vec<Told>,
    /// Objects that people changed, and when that is put right.
    pub drifted: Vec<(Told, Timestamp)>,
    /// Objects about which somebody fights with us.
    pub contested: Vec<(Told, Fight)>,
    /// Objects that another tool has in its inventory: whose, and by which mark.
    pub shared: Vec<(ObjectRef, &'static str, String)>,
    /// When the next look is due, though nothing changes.
    pub wake: Option<Timestamp>,
}

/// What a plan goes by, besides what is and what should be.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The time.
    pub now: Timestamp,
    /// How long what people changed stays.
    pub drift_grace: SignedDuration,
    /// False while the desired objects are known to be incomplete: then nothing is deleted.
    pub pruning: bool,
    /// Who fights with us.
    pub fights: &'a Fights,
}

/// How many objects are asked about in one pass.
const VERIFY_AT_ONCE: usize = 25;

/// Compares what should be with what is.
pub fn plan(
    desired: &[Manifest],
    live: &BTreeMap<ObjectKey, Value>,
    settled: &mut Settled,
    rules: &Rules<'_>,
) -> Plan {
    let mut plan = Plan::default();
    let mut declared = BTreeSet::new();
    for manifest in desired {
        let key = manifest.reference.key();
        plan.consider(manifest, &key, live.get(&key), settled, rules);
        declared.insert(key);
    }
    for (key, object) in live.iter().filter(|(key, _)| !declared.contains(key)) {
        let Some(reference) = ObjectRef::of(object).filter(|found| found.key() == *key) else {
            continue;
        };
        if is_ending(object) {
            plan.ending.push(reference);
            continue;
        }
        match prune::may_delete(&reference, object, rules.pruning) {
            Ok(()) => {
                let live = Some(object.clone());
                let step = Step::new(Action::Delete, reference, None, live);
                plan.steps.push(step);
            }
            Err(kept) => plan.kept.push((reference, kept)),
        }
    }
    order::sort(&mut plan.steps);
    plan
}

fn is_ending(live: &Value) -> bool {
    !live["metadata"]["deletionTimestamp"].is_null()
}

impl Plan {
    /// Decides about one declared object.
    fn consider(
        &mut self,
        manifest: &Manifest,
        key: &ObjectKey,
        found: Option<&Value>,
        settled: &mut Settled,
        rules: &Rules<'_>,
    ) {
        let (reference, object) = (&manifest.reference, &manifest.object);
        let (policy, _) = Policy::of(object);
        if policy.left_alone || found.is_some_and(policy::is_left_alone) {
            self.left_alone.push(reference.clone());
            return;
        }
        let mut step = Step::new(
            Action::Create,
            reference.clone(),
            Some(object.clone()),
            found.cloned(),
        );
        step.corrects = settled.was_applied(key, object);
        let mut others = Vec::new();
        if let Some(live) = found {
            if is_ending(live) {
                self.ending.push(reference.clone());
                return;
            }
            if let Some((tool, mark)) = writers::other_inventory(live, object) {
                self.shared.push((reference.clone(), tool, mark));
            }
            if settled.remembers(key, object, live) {
                self.unchanged += 1;
                let due = settled.is_to_be_verified(key, rules.now);
                if due && self.verify.len() < VERIFY_AT_ONCE {
                    step.action = Action::Update;
                    self.verify.push(step);
                }
                return;
            }
            let found = differences(object, live);
            others = found.iter().map(Difference::words).collect();
            let verdict = judge(object, found, &policy);
            if !verdict.undecided.is_empty() {
                let fields = verdict.undecided.iter().map(Difference::words).collect();
                let reference = reference.clone();
                self.undecided.push(Told { reference, fields });
                return;
            }
            let agreed = verdict.drift.is_empty() && !verdict.forced;
            if agreed && ownership::in_force(&verdict.desired, live) {
                self.unchanged += 1;
                settled.remember(key.clone(), object, live, rules.now);
                return;
            }
            if let Some(due) = is_due_at(&verdict.drift, rules.drift_grace)
                && rules.now < due
            {
                let fields = verdict.drift.iter().map(Difference::words).collect();
                let reference = reference.clone();
                self.drifted.push((Told { reference, fields }, due));
                self.wake_at(due);
                return;
            }
            step.action = Action::Update;
            step.yields = verdict.yields;
            step.forced = verdict.forced;
            step.corrects |= !verdict.drift.is_empty();
            step.drift = verdict.drift;
        }
        if step.corrects
            && let Some(fight) = rules.fights.about(key, rules.now)
        {
            let told = Told {
                reference: reference.clone(),
                fields: others,
            };
            self.contested.push((told, fight));
            if rules.now < fight.paused_until {
                self.wake_at(fight.paused_until);
                return;
            }
        }
        self.steps.push(step);
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// When what people wrote is put right: a while after the last of them wrote.
fn is_due_at(drift: &[Difference], grace: SignedDuration) -> Option<Timestamp> {
    let last = drift.iter().filter_map(|difference| difference.at).max()?;
    Some(last + grace)
}

#[cfg(test)]
mod tests;
