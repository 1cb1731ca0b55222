//! What others wrote into an object that the repository declares, and whose turn it is.
//!
//! What people write at a command line is drift: git is where it belongs, so their fields become
//! ours, and what git does not say goes. What another deploying tool applied becomes ours when the
//! object does, once. What a controller wrote stays, unless the repository says otherwise.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    fields::{self, FieldPath},
    ownership::contains,
    policy::{Policy, Resolution},
    writers::{Entry, Writer},
};
use crate::model::{field_owners::is_ours, manifest::FIELD_MANAGER};

/// `kubectl apply` writes the whole object, also its labels and annotations.
const WHOLE: [&str; 2] = ["kubectl-client-side-apply", "kubectl-create"];

/// When `kubectl rollout restart` was used: a command, and no part of what is declared.
const RESTARTED_AT: &str = "f:kubectl.kubernetes.io/restartedAt";

/// A field that somebody else wrote otherwise than the repository has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The field.
    pub path: FieldPath,
    /// The field manager that owns it.
    pub manager: String,
    /// Its sort.
    pub writer: Writer,
    /// When the manager wrote to the object last.
    pub at: Option<Timestamp>,
}

impl Difference {
    /// The field and who owns it; no value, as it may be a secret.
    pub fn words(&self) -> String {
        format!("{} by {}", self.path.words(), self.manager)
    }
}

/// What others wrote otherwise than it is declared, and what people wrote besides.
pub fn differences(desired: &Value, live: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    for entry in Entry::all(live) {
        let writer = entry.writer();
        if writer == Writer::Agent || !entry.is_about_content() || !entry.is_of_version(live) {
            continue;
        }
        for path in fields::leaves(&entry.0["fieldsV1"]) {
            let differs = match (path.of(desired), path.of(live)) {
                (Some(desired), Some(live)) => !contains(live, desired),
                (Some(desired), None) => !desired.is_null(),
                (None, Some(_)) => writer == Writer::Person && is_taken(entry, &path, desired),
                (None, None) => false,
            };
            if differs {
                found.push(Difference {
                    path,
                    manager: entry.manager().to_owned(),
                    writer,
                    at: entry.0["time"].as_str().and_then(|time| time.parse().ok()),
                });
            }
        }
    }
    found
}

/// How the differences of an object that is ours already are met.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// What is applied: what is declared, without what was yielded.
    pub desired: Value,
    /// What was yielded.
    pub yields: Vec<FieldPath>,
    /// Whether fields are taken from controllers.
    pub forced: bool,
    /// What people wrote, and what it was last.
    pub drift: Vec<Difference>,
    /// What stays undecided: the object is not applied until somebody says whose it is.
    pub undecided: Vec<Difference>,
}

/// Decides field by field.
pub fn judge(desired: &Value, differences: Vec<Difference>, policy: &Policy) -> Verdict {
    let mut verdict = Verdict {
        desired: desired.clone(),
        ..Verdict::default()
    };
    for difference in differences {
        if difference.writer == Writer::Person {
            verdict.drift.push(difference);
            continue;
        }
        match policy.resolution(&difference.path) {
            Some(Resolution::Take) => verdict.forced = true,
            Some(Resolution::Yield) => {
                difference.path.remove(&mut verdict.desired);
                verdict.yields.push(difference.path);
            }
            None => verdict.undecided.push(difference),
        }
    }
    // Whoever has a part of the object forced must not have the rest decided by the way.
    verdict.forced &= verdict.undecided.is_empty();
    verdict
}

/// The records of an object once what people wrote is ours, and, if the object becomes ours with it,
/// what other tools applied. `None` if there is nothing to take.
///
/// What becomes ours and is not declared goes with our next apply.
pub fn taken_over(desired: &Value, live: &Value, first: bool) -> Option<Value> {
    let mut records = live["metadata"]["managedFields"].as_array()?.clone();
    let mut taken = json!({});
    let mut newest = None;
    records.retain_mut(|record| {
        let entry = Entry(record);
        let counts = match entry.writer() {
            Writer::Person => true,
            Writer::Deployer(_) => first,
            Writer::Agent | Writer::Controller => false,
        };
        if !counts || !entry.is_about_content() || !entry.is_of_version(live) {
            return true;
        }
        let is_taken = |path: &FieldPath| is_taken(entry, path, desired);
        let (mut moved, mut left) = (record["fieldsV1"].clone(), record["fieldsV1"].clone());
        fields::retain(&mut moved, &is_taken);
        fields::retain(&mut left, &|path| !is_taken(path));
        if fields::leaves(&moved).is_empty() {
            return true;
        }
        fields::join(&mut taken, &moved);
        newest = record["time"]
            .as_str()
            .map(str::to_owned)
            .max(newest.take());
        let stays = !fields::leaves(&left).is_empty();
        record["fieldsV1"] = left;
        stays
    });
    if fields::leaves(&taken).is_empty() {
        return None;
    }
    match records.iter_mut().find(|entry| is_ours(entry)) {
        Some(own) => fields::join(&mut own["fieldsV1"], &taken),
        None => records.push(json!({
            "manager": FIELD_MANAGER,
            "operation": "Apply",
            "apiVersion": live["apiVersion"],
            "time": newest,
            "fieldsType": "FieldsV1",
            "fieldsV1": taken,
        })),
    }
    Some(records.into())
}

/// Whether a field of another one's record becomes ours: of labels and annotations, what is declared
/// and what came with the whole object; of the status, nothing; of all the rest, everything.
fn is_taken(entry: Entry<'_>, path: &FieldPath, desired: &Value) -> bool {
    let whole = matches!(entry.writer(), Writer::Deployer(_)) || WHOLE.contains(&entry.manager());
    let declared = path.of(desired).is_some();
    if path.ends_with(RESTARTED_AT) || path.starts_with(&["f:status"]) {
        declared
    } else if path.starts_with(&["f:metadata"]) {
        whole || declared
    } else {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::policy::CONFLICTS;

    fn entry(manager: &str, operation: &str, fields: &Value) -> Value {
        json!({
            "manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": "2026-01-01T00:00:00Z", "fieldsV1": fields,
        })
    }

    fn live(entries: &[Value]) -> Value {
        json!({
            "apiVersion": "v1", "kind": "K",
            "metadata": {
                "labels": {"by-hand": "x", "old": "y"},
                "managedFields": entries,
            },
            "spec": {"replicas": 5, "image": "a", "extra": true, "same": 1},
        })
    }

    fn desired() -> Value {
        json!({
            "apiVersion": "v1", "kind": "K",
            "metadata": {"annotations": {}},
            "spec": {"replicas": 3, "image": "b", "same": 1},
        })
    }

    fn words(differences: &[Difference]) -> Vec<String> {
        differences.iter().map(Difference::words).collect()
    }

    #[test]
    fn what_people_add_and_change_is_drift_and_controllers_are_asked_about() {
        let live = live(&[
            entry("trustweave", "Apply", &json!({"f:spec": {"f:image": {}}})),
            entry(
                "kubectl-edit",
                "Update",
                &json!({
                    "f:metadata": {"f:labels": {"f:by-hand": {}}},
                    "f:spec": {"f:image": {}, "f:extra": {}, "f:same": {}},
                }),
            ),
            entry(
                "hpa",
                "Update",
                &json!({"f:spec": {"f:replicas": {}, "f:unknown": {}}}),
            ),
        ]);
        let found = differences(&desired(), &live);
        assert_eq!(
            words(&found),
            [
                ".spec.image by kubectl-edit",
                ".spec.extra by kubectl-edit",
                ".spec.replicas by hpa"
            ]
        );
        let verdict = judge(&desired(), found.clone(), &Policy::default());
        assert_eq!(words(&verdict.undecided), [".spec.replicas by hpa"]);
        assert_eq!(verdict.drift.len(), 2);
        let mut asked = desired();
        let mut judged = |text: &str| {
            asked["metadata"]["annotations"][CONFLICTS] = text.into();
            judge(&asked, found.clone(), &Policy::of(&asked).0)
        };
        let taken = judged("take");
        assert!(taken.forced && taken.undecided.is_empty());
        assert_eq!(taken.desired["spec"]["replicas"], 3);
        let yielded = judged("yield .spec.replicas");
        assert!(!yielded.forced && yielded.undecided.is_empty());
        assert_eq!(yielded.desired["spec"], json!({"image": "b", "same": 1}));
    }

    #[test]
    fn what_people_wrote_becomes_ours_and_what_tools_applied_only_with_the_object() {
        let flux = json!({
            "f:metadata": {"f:labels": {"f:old": {}}}, "f:spec": {"f:replicas": {}},
        });
        let edit = json!({
            "f:metadata": {"f:labels": {"f:by-hand": {}}}, "f:spec": {"f:image": {}},
        });
        let mut scale = entry("kubectl", "Update", &json!({"f:spec": {"f:replicas": {}}}));
        scale["subresource"] = "scale".into();
        scale["apiVersion"] = "autoscaling/v1".into();
        let mut status = entry("kubectl", "Update", &json!({"f:status": {"f:x": {}}}));
        status["subresource"] = "status".into();
        let object = live(&[
            entry("kustomize-controller", "Apply", &flux),
            entry("kubectl-edit", "Update", &edit),
            scale,
            status.clone(),
            entry("hpa", "Update", &json!({"f:spec": {"f:unknown": {}}})),
        ]);
        let managers = |records: &Value| {
            let records = records.as_array().unwrap().iter();
            let names = records.map(|record| record["manager"].as_str().unwrap().to_owned());
            names.collect::<Vec<_>>()
        };
        let first = taken_over(&desired(), &object, true).unwrap();
        assert_eq!(
            managers(&first),
            ["kubectl-edit", "kubectl", "hpa", "trustweave"]
        );
        assert_eq!(first[1], status);
        let ours = &first[3];
        assert_eq!(ours["operation"], "Apply");
        assert_eq!(
            ours["fieldsV1"],
            json!({
                "f:metadata": {"f:labels": {"f:old": {}}},
                "f:spec": {"f:replicas": {}, "f:image": {}},
            })
        );
        // The label that somebody put on by hand stays theirs.
        assert_eq!(
            first[0]["fieldsV1"],
            json!({"f:metadata": {"f:labels": {"f:by-hand": {}}}})
        );
        let later = taken_over(&desired(), &object, false).unwrap();
        assert_eq!(managers(&later)[0], "kustomize-controller");
        // A second time there is nothing left to take.
        let mut object = object;
        object["metadata"]["managedFields"] = first;
        assert_eq!(taken_over(&desired(), &object, true), None);
    }

    #[test]
    fn a_restart_is_a_command_and_no_drift() {
        let restart = json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {
            "f:kubectl.kubernetes.io/restartedAt": {},
        }}}}});
        let mut object = live(&[entry("kubectl-rollout", "Update", &restart)]);
        object["spec"]["template"] = json!({"metadata": {"annotations": {
            "kubectl.kubernetes.io/restartedAt": "now",
        }}});
        assert_eq!(differences(&desired(), &object), []);
        assert_eq!(taken_over(&desired(), &object, true), None);
    }
}
