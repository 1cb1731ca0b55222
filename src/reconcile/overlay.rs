//! What is told of the overlay's objects: how they stand, what others do to them, and what waits.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use super::memory::time;
use crate::{
    cluster::{
        Happening, Severity,
        types::{GIT_SYNC_NAME, GitSyncStatus, HealthStatus},
    },
    federation::conditions::Condition,
    model::{manifest::ObjectRef, trust_domain::ClusterName},
    plan::{
        Plan, Told,
        guard::{Held, acknowledge_path},
        health::{Health, State},
        policy,
    },
};

/// How many lines of one sort a status holds.
const LINES: usize = 20;

/// Whether deletions wait.
const PRUNE_ACKNOWLEDGED: &str = "PruneAcknowledged";

/// Whether nobody undoes what is applied.
const UNCONTESTED: &str = "Uncontested";

/// Whether no other tool has one of the objects in its inventory.
const SOLE_DEPLOYER: &str = "SoleDeployer";

/// Whether the objects have become what they are to be.
const HEALTHY: &str = "Healthy";

/// What is told of the overlay's objects.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// What is no longer declared but stays, and why.
    pub(super) kept: Vec<String>,
    /// What people asked to leave alone.
    pub(super) left_alone: Vec<String>,
    /// What people changed, and when that is put right.
    pub(super) drifted: Vec<String>,
    /// What somebody fights with us about.
    pub(super) contested: Vec<String>,
    /// What another tool has in its inventory.
    pub(super) shared: Vec<String>,
    /// Deletions that wait.
    pub(super) held: Option<Held>,
    /// Acknowledged deletions that are under way.
    pub(super) pruning: BTreeSet<String>,
    /// How each object stands that is not as it should be.
    pub(super) unhealthy: BTreeMap<(State, ObjectRef), String>,
    /// How many stand how.
    pub(super) health: HealthStatus,
    /// What was put back, with the fields and who had changed them.
    pub(super) corrected: Vec<String>,
    /// When the next look is due, though nothing changes.
    pub(super) wake: Option<Timestamp>,
}

impl Overlay {
    /// What was told before, as far as it does not come from looking at objects anew: for a pass
    /// that does not apply the overlay.
    pub(super) fn former(status: &GitSyncStatus) -> Self {
        Self {
            pruning: status.pruning.iter().cloned().collect(),
            ..Self::default()
        }
    }

    /// Notes what a plan leaves as it is.
    pub(super) fn note(&mut self, plan: &Plan) {
        let fields = |told: &Told| told.fields.join(", ");
        for (reference, why) in &plan.kept {
            self.kept.push(format!("{reference}: {why}"));
        }
        let left_alone = plan.left_alone.iter().map(ToString::to_string);
        self.left_alone.extend(left_alone);
        for (told, due) in &plan.drifted {
            let (reference, due) = (&told.reference, time(*due));
            let line = format!("{reference}: {}; put right at {due}", fields(told));
            self.drifted.push(line);
        }
        for (told, fight) in &plan.contested {
            let (count, until) = (fight.corrections, time(fight.paused_until));
            let reference = &told.reference;
            let who = match fields(told) {
                who if who.is_empty() => "no field manager tells by whom".to_owned(),
                who => who,
            };
            self.contested.push(format!(
                "{reference}: put back {count} times in a row, and changed again ({who}); left as it \
                 is until {until}"
            ));
        }
        for (reference, tool, mark) in &plan.shared {
            self.shared.push(format!("{reference}: {tool} ({mark})"));
        }
        self.wake = plan.wake;
    }

    /// Notes how an object stands.
    pub(super) fn stands(&mut self, reference: &ObjectRef, health: Health) {
        let count = match health.state {
            State::Current => &mut self.health.current,
            State::InProgress => &mut self.health.in_progress,
            State::Failed => &mut self.health.failed,
            State::Terminating => &mut self.health.terminating,
        };
        *count += 1;
        if health.state != State::Current {
            let key = (health.state, reference.clone());
            self.unhealthy.insert(key, health.message);
        }
    }

    /// The words for deletions that wait: what would go, and what to commit, or else to type, so
    /// that it does.
    pub(super) fn waiting(&self, cluster: &ClusterName) -> Option<String> {
        let held = self.held.as_ref()?;
        let (digest, path) = (held.digest.short(), acknowledge_path(cluster));
        Some(format!(
            "{held}: nothing is deleted until {path} has a line `{digest}`: \
             echo {digest} >> {path} && git add {path} && git commit -m 'Acknowledge deletions in \
             {cluster}'; or, without a commit: kubectl patch gitsync {GIT_SYNC_NAME} --type=merge \
             --patch='{{\"spec\":{{\"acknowledge\":\"{digest}\"}}}}'"
        ))
    }

    /// The conditions: of health always, of the rest when there is something to say.
    pub(super) fn conditions(&self, cluster: &ClusterName) -> Vec<Condition> {
        let mut conditions = vec![self.healthy()];
        let mut tell = |kind, reason, message| {
            conditions.push(Condition {
                kind,
                status: Some(false),
                reason,
                message,
            });
        };
        if let Some(waiting) = self.waiting(cluster) {
            tell(PRUNE_ACKNOWLEDGED, "Waiting", waiting);
        }
        if let Some(first) = self.contested.first() {
            let count = self.contested.len();
            let message =
                format!("{count} object(s) that somebody else changes too; first: {first}");
            tell(UNCONTESTED, "Fight", message);
        }
        if let Some(first) = self.shared.first() {
            let count = self.shared.len();
            let message = format!(
                "{count} object(s) are also in another tool's inventory, which may change or delete \
                 them: take them out there, keeping the objects, and remove the mark; first: {first}"
            );
            tell(SOLE_DEPLOYER, "OtherTool", message);
        }
        conditions
    }

    fn healthy(&self) -> Condition {
        let HealthStatus {
            current,
            in_progress,
            failed,
            terminating,
        } = self.health;
        let first = self.unhealthy.iter().next();
        let first = first.map(|((_, reference), why)| format!("; first: {reference}: {why}"));
        let first = first.unwrap_or_default();
        let (status, reason, message) = match (failed, in_progress + terminating) {
            (0, 0) => (Some(true), "Current", format!("all {current} object(s)")),
            (0, waiting) => (
                None,
                "InProgress",
                format!("{waiting} object(s) on their way{first}"),
            ),
            (failed, _) => (
                Some(false),
                "Failed",
                format!("{failed} object(s) failed{first}"),
            ),
        };
        Condition {
            kind: HEALTHY,
            status,
            reason,
            message,
        }
    }

    /// Writes what a status says of the overlay.
    pub(super) fn write(&self, status: &mut GitSyncStatus) {
        let some = |lines: &[String]| lines.iter().take(LINES).cloned().collect();
        status.kept = some(&self.kept);
        status.left_alone = some(&self.left_alone);
        status.drifted = some(&self.drifted);
        status.contested = some(&self.contested);
        status.shared = some(&self.shared);
        status.pruning = self.pruning.iter().cloned().collect();
        status.health = (self.health != HealthStatus::default()).then(|| self.health.clone());
        let unhealthy = self.unhealthy.iter().take(LINES);
        status.unhealthy = unhealthy
            .map(|((state, reference), why)| format!("{reference}: {state:?}: {why}"))
            .collect();
    }

    /// What is worth an event: what was put back, and what newly waits or is fought about.
    pub(super) fn happenings(
        &self,
        cluster: &ClusterName,
        former: &GitSyncStatus,
        git_sync: &Value,
    ) -> Vec<Happening> {
        let happening =
            |severity, reason: &str, note| Happening::about(git_sync, severity, reason, note);
        let corrected = self.corrected.iter().take(LINES);
        let corrected = corrected.map(|line| {
            happening(
                Severity::Normal,
                "DriftCorrected",
                format!("put back: {line}"),
            )
        });
        let wrong = self.conditions(cluster).into_iter().filter(|condition| {
            let mut known = former.conditions.iter();
            condition.status == Some(false)
                && !known.any(|known| known.kind == condition.kind && known.status == "False")
        });
        let wrong = wrong.map(|it| happening(Severity::Warning, it.reason, it.message));
        corrected.chain(wrong).collect()
    }
}

/// What is told of an object that is not applied, as controllers own fields of it.
pub(super) fn undecided(told: &Told) -> String {
    let Told { reference, fields } = told;
    let first = fields.first().map_or("", String::as_str);
    let field = first.split_once(" by ").map_or(first, |(field, _)| field);
    format!(
        "{reference} is not applied: {}. The annotation `{}` says whose it is: `yield {field}` leaves \
         it to them, `take {field}` has the repository's value win",
        fields.join(", "),
        policy::CONFLICTS
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::manifest::Gvk, plan::guard};

    fn cluster() -> ClusterName {
        ClusterName::parse("cluster-1").unwrap()
    }

    fn reference(name: &str) -> ObjectRef {
        ObjectRef {
            gvk: Gvk::new("v1", "Namespace"),
            namespace: None,
            name: name.to_owned(),
        }
    }

    #[test]
    fn what_waits_is_told_with_the_words_that_let_it_go_on() {
        let held = guard::examine(&[reference("shop")], 4, 30, &guard::Acknowledged::default());
        let digest = guard::digest(&[reference("shop")]);
        let overlay = Overlay {
            held,
            ..Overlay::default()
        };
        let told = overlay.waiting(&cluster()).unwrap();
        let line = format!(
            "echo {} >> clusters/cluster-1/acknowledge.txt",
            digest.short()
        );
        assert!(told.contains(&line), "{told}");
        assert!(told.contains("among them Namespace shop"), "{told}");
        let conditions = overlay.conditions(&cluster());
        assert_eq!(conditions[1].kind, PRUNE_ACKNOWLEDGED);
        let happenings = overlay.happenings(&cluster(), &GitSyncStatus::default(), &Value::Null);
        assert_eq!(happenings.len(), 1);
    }

    #[test]
    fn health_is_told_with_the_worst_first() {
        let mut overlay = Overlay::default();
        let health = |state, message: &str| Health {
            state,
            message: message.to_owned(),
        };
        overlay.stands(&reference("a"), health(State::Current, ""));
        assert_eq!(overlay.healthy().status, Some(true));
        overlay.stands(&reference("b"), health(State::InProgress, "waits"));
        assert_eq!(overlay.healthy().status, None);
        overlay.stands(&reference("c"), health(State::Failed, "broke"));
        let told = overlay.healthy();
        assert_eq!(
            (told.status, told.message.as_str()),
            (Some(false), "1 object(s) failed; first: Namespace c: broke")
        );
        let mut status = GitSyncStatus::default();
        overlay.write(&mut status);
        let expected = [
            "Namespace c: Failed: broke",
            "Namespace b: InProgress: waits",
        ];
        assert_eq!(status.unhealthy, expected);
    }

    #[test]
    fn whose_a_field_is_is_asked_with_the_answers() {
        let told = Told {
            reference: reference("a"),
            fields: vec![".spec.replicas by hpa".to_owned()],
        };
        let words = undecided(&told);
        assert!(words.contains("`yield .spec.replicas`"), "{words}");
    }
}
