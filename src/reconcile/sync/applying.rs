//! One object after the other into the cluster: adopted, disputed, or made anew.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::Value;

use super::{CONCURRENCY, Sync, Writes};
use crate::{
    cluster::{self, Cluster, Conflicts, Mode},
    git::Repository,
    model::{
        diagnostic::with_causes,
        manifest::{ObjectKey, ObjectRef},
    },
    plan::{
        Step,
        contest::{Difference, differences, judge, taken_over},
        fields::FieldPath,
        guard, mask, ownership,
        policy::{Policy, RECREATE},
        settled,
    },
};

/// What came of a write.
enum Put {
    /// The object as the server made it.
    Applied(Value),
    /// It was deleted; the next pass makes it anew.
    Deleted,
}

/// Why a write was not made.
enum Refusal {
    /// Somebody wrote the object meanwhile: the next pass looks at what is there then.
    Outdated,
    /// The cluster says so.
    Error(cluster::Error),
    /// A field can't be changed, and this is why the object is not made anew.
    Fixed(cluster::Error, String),
}

impl From<cluster::Error> for Refusal {
    fn from(error: cluster::Error) -> Self {
        if error.is_outdated() {
            Self::Outdated
        } else {
            Self::Error(error)
        }
    }
}

impl<R: Repository, C: Cluster> Sync<R, C> {
    /// Applies all steps at once. One that fails does not stop the others. Returns what stands now.
    pub(super) async fn apply_all(
        &mut self,
        steps: Vec<Step>,
        now: Timestamp,
        writes: &mut Writes,
    ) -> BTreeMap<ObjectKey, Value> {
        let cluster = &self.overlays;
        let applies = steps.into_iter().map(|step| async move {
            let result = put(&**cluster, &step).await;
            (step, result)
        });
        let results: Vec<_> = stream::iter(applies)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut standing = BTreeMap::new();
        for (step, result) in results {
            let (reference, desired) = (&step.reference, step.desired.unwrap_or_default());
            let key = reference.key();
            if result.is_ok() && step.corrects {
                self.fights.corrected(key.clone(), now);
                let by: Vec<_> = step.drift.iter().map(Difference::words).collect();
                let by = by.join(", ");
                tracing::info!(object = %reference, by, "put back");
                let separator = if by.is_empty() { "" } else { ": " };
                writes.corrected.push(format!("{reference}{separator}{by}"));
            }
            match result {
                Ok(Put::Applied(result)) => {
                    tracing::info!(object = %reference, "applied");
                    writes.made += 1;
                    self.settled.remember(key.clone(), &desired, &result, now);
                    standing.insert(key, result);
                }
                Ok(Put::Deleted) => {
                    tracing::info!(object = %reference, "deleted, to be made anew");
                    writes.made += 1;
                    self.settled.forget(&key);
                }
                Err(Refusal::Outdated) => {
                    tracing::debug!(object = %reference, "written by somebody else meanwhile");
                    writes.retry = true;
                }
                Err(refusal) => {
                    let (text, retry) = match refusal {
                        Refusal::Outdated => continue,
                        Refusal::Error(error) => (with_causes(&error), error.is_retryable()),
                        Refusal::Fixed(error, why) => (format!("{error}; {why}"), false),
                    };
                    let text = mask::redacted(&text, &desired);
                    tracing::warn!(object = %reference, error = text, "not applied");
                    writes.failed_with(text, retry);
                }
            }
        }
        standing
    }

    /// Asks by dry runs about what is taken to stand. Returns what does not.
    pub(super) async fn verify(&mut self, steps: Vec<Step>, now: Timestamp) -> Vec<Step> {
        let cluster = &self.overlays;
        let questions = steps.into_iter().map(|step| async move {
            let payload = payload(&step);
            let answer = cluster
                .apply(&payload, Conflicts::Report, Mode::DryRun)
                .await;
            (step, answer)
        });
        let answers: Vec<_> = stream::iter(questions)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut wrong = Vec::new();
        for (step, answer) in answers {
            let stands = match (&answer, &step.live, &step.desired) {
                (Ok(result), Some(live), Some(desired)) => {
                    let same = settled::is_same(result, live);
                    if same {
                        let key = step.reference.key();
                        self.settled.remember(key, desired, live, now);
                    }
                    same
                }
                _ => false,
            };
            if !stands {
                wrong.push(step);
            }
        }
        wrong
    }
}

/// What is applied: what is declared, without what is left to controllers.
fn payload(step: &Step) -> Value {
    without(step.desired.clone().unwrap_or_default(), &step.yields)
}

fn without(mut object: Value, fields: &[FieldPath]) -> Value {
    for field in fields {
        field.remove(&mut object);
    }
    object
}

async fn put<C: Cluster>(cluster: &C, step: &Step) -> Result<Put, Refusal> {
    let mut desired = step.desired.clone().unwrap_or_default();
    // Its kind may be known only now.
    cluster.locate(&mut desired).await?;
    let disputed = !step.drift.is_empty() || step.forced;
    let applied = if let Some(live) = step.live.as_ref().filter(|_| disputed) {
        // People's fields are ours before the apply: so it takes nobody else's.
        dispute(cluster, &desired, live.clone(), false).await
    } else {
        let payload = without(desired.clone(), &step.yields);
        let applied = cluster
            .apply(&payload, Conflicts::Report, Mode::Persist)
            .await;
        applied.map_err(Refusal::from)
    };
    let applied = match applied {
        Err(Refusal::Error(conflict @ cluster::Error::Conflict { .. })) => {
            // It is there though it is not known as ours, or somebody was faster.
            let reference = ObjectRef::of(&desired).unwrap_or_else(|| step.reference.clone());
            match cluster.get(&reference).await? {
                Some(there) => dispute(cluster, &desired, there, step.live.is_none())
                    .await
                    .map_err(|refusal| match refusal {
                        // The server's words name every field.
                        Refusal::Error(cluster::Error::Conflict { .. }) => Refusal::Error(conflict),
                        refusal => refusal,
                    }),
                None => Err(Refusal::Error(conflict)),
            }
        }
        applied => applied,
    };
    match applied {
        Ok(applied) => take_over(cluster, step, &desired, applied).await,
        Err(Refusal::Error(error @ cluster::Error::Immutable { .. })) => {
            make_anew(cluster, step, &desired, error).await
        }
        Err(refusal) => Err(refusal),
    }
}

/// Applies an object that is there: what people wrote, and with an object that was not ours before
/// what other tools applied, becomes ours first; what controllers own is met as the repository asks.
async fn dispute<C: Cluster>(
    cluster: &C,
    desired: &Value,
    there: Value,
    first: bool,
) -> Result<Value, Refusal> {
    let there = match taken_over(desired, &there, first) {
        Some(records) => cluster.record_owners(&there, &records).await?,
        None => there,
    };
    let (policy, _) = Policy::of(desired);
    let verdict = judge(desired, differences(desired, &there), &policy);
    let mut payload = verdict.desired;
    let conflicts = if verdict.forced && verdict.undecided.is_empty() {
        // Only what was looked at is taken.
        payload["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
        Conflicts::Take
    } else {
        Conflicts::Report
    };
    Ok(cluster.apply(&payload, conflicts, Mode::Persist).await?)
}

/// Makes ours what others left in an object that could be applied without a conflict.
async fn take_over<C: Cluster>(
    cluster: &C,
    step: &Step,
    desired: &Value,
    applied: Value,
) -> Result<Put, Refusal> {
    let first = step.live.is_none();
    let Some(records) = taken_over(desired, &applied, first) else {
        return Ok(Put::Applied(applied));
    };
    let taken = match cluster.record_owners(&applied, &records).await {
        Ok(taken) => taken,
        Err(error) => {
            // The next pass tries again.
            tracing::warn!(error = %with_causes(&error), "what others wrote is not taken over");
            return Ok(Put::Applied(applied));
        }
    };
    let payload = without(desired.clone(), &step.yields);
    if ownership::in_force(&payload, &taken) {
        return Ok(Put::Applied(taken));
    }
    // What they wrote and the repository does not say goes.
    let applied = cluster
        .apply(&payload, Conflicts::Report, Mode::Persist)
        .await?;
    Ok(Put::Applied(applied))
}

/// Deletes an object with a field that can't be changed, if people allow it and it could be made
/// anew.
async fn make_anew<C: Cluster>(
    cluster: &C,
    step: &Step,
    desired: &Value,
    error: cluster::Error,
) -> Result<Put, Refusal> {
    let fixed = |error, why: &str| Err(Refusal::Fixed(error, why.to_owned()));
    let gvk = &step.reference.gvk;
    if guard::holds_others(gvk) {
        return fixed(
            error,
            "with it everything in it would go: it is not made anew",
        );
    }
    if !Policy::of(desired).0.recreate {
        let why = format!("with the annotation `{RECREATE}: allowed` it is deleted and made anew");
        return fixed(error, &why);
    }
    if let Err(refused) = cluster.could_create(desired).await {
        let why = format!(
            "it could not be made anew either: {}",
            with_causes(&refused)
        );
        return fixed(error, &why);
    }
    let reference = ObjectRef::of(desired).unwrap_or_else(|| step.reference.clone());
    if let Some(live) = cluster.get(&reference).await? {
        cluster.delete(&live).await?;
    }
    Ok(Put::Deleted)
}
