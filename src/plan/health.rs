//! Whether an object has become what it is to be, as far as its own status tells.
//!
//! The rules are those of kstatus (`sigs.k8s.io/cli-utils/pkg/kstatus/status`), which kubectl's and
//! Flux's waits share, so that all of them say the same; a load balancer is waited for as Argo CD
//! does. Nothing waits for health here: it is told.

use serde_json::Value;

use crate::model::manifest::Gvk;

/// How an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It will not get there by itself.
    Failed,
    /// It is on its way.
    InProgress,
    /// It is being deleted.
    Terminating,
    /// It is as it should be.
    Current,
}

/// How an object stands, and what it waits for or fails at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// In one word.
    pub state: State,
    /// In one sentence; empty if it is [`State::Current`].
    pub message: String,
}

impl Health {
    fn current() -> Self {
        Self {
            state: State::Current,
            message: String::new(),
        }
    }

    fn in_progress(message: impl Into<String>) -> Self {
        Self {
            state: State::InProgress,
            message: message.into(),
        }
    }

    fn failed(message: impl Into<String>) -> Self {
        Self {
            state: State::Failed,
            message: message.into(),
        }
    }
}

/// Assesses a live object.
pub fn assess(live: &Value) -> Health {
    let kind = live["kind"].as_str().unwrap_or_default();
    let gvk = Gvk::new(live["apiVersion"].as_str().unwrap_or_default(), kind);
    let (status, metadata) = (&live["status"], &live["metadata"]);
    if let Some(since) = metadata["deletionTimestamp"].as_str() {
        return Health {
            state: State::Terminating,
            message: format!("it is being deleted since {since}"),
        };
    }
    if let (Some(observed), Some(generation)) = (
        status["observedGeneration"].as_i64(),
        metadata["generation"].as_i64(),
    ) && observed < generation
    {
        return Health::in_progress("its controller has not seen the change yet");
    }
    if let Some(condition) = condition(status, "Stalled").filter(|it| it["status"] == "True") {
        return Health::failed(told(condition));
    }
    if let Some(condition) = condition(status, "Reconciling").filter(|it| it["status"] == "True") {
        return Health::in_progress(told(condition));
    }
    match (gvk.group.as_str(), kind) {
        ("apps", "Deployment") => deployment(&live["spec"], status),
        ("apps", "StatefulSet") => stateful_set(&live["spec"], status),
        ("apps", "DaemonSet") => daemon_set(&live["spec"], status),
        ("apps", "ReplicaSet") => replicas(&live["spec"], status),
        ("batch", "Job") => job(status),
        ("", "Pod") => pod(status),
        ("", "PersistentVolumeClaim") => match status["phase"].as_str() {
            Some("Bound") => Health::current(),
            Some("Lost") => Health::failed("its volume is lost"),
            phase => Health::in_progress(format!("it is {}", phase.unwrap_or("Pending"))),
        },
        ("", "Service") => service(&live["spec"], status),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(status),
        ("apiregistration.k8s.io", "APIService") => awaited(status, "Available"),
        _ => match condition(status, "Ready") {
            Some(_) => awaited(status, "Ready"),
            None => Health::current(),
        },
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut conditions = status["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == kind)
}

/// What a condition says, in words.
fn told(condition: &Value) -> String {
    let text = |name: &str| condition[name].as_str().unwrap_or_default();
    match (text("reason"), text("message")) {
        ("", "") => format!("{} is {}", text("type"), text("status")),
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

/// A condition that has to become true.
fn awaited(status: &Value, kind: &str) -> Health {
    match condition(status, kind) {
        Some(condition) if condition["status"] == "True" => Health::current(),
        Some(condition) => Health::in_progress(told(condition)),
        None => Health::in_progress(format!("it has no condition {kind} yet")),
    }
}

fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn wanted(spec: &Value) -> i64 {
    spec["replicas"].as_i64().unwrap_or(1)
}

/// What a workload still misses: the first number that is too small says it.
fn missing(wanted: i64, counts: &[(&str, i64)]) -> Option<Health> {
    let (word, found) = counts.iter().find(|(_, found)| *found < wanted)?;
    Some(Health::in_progress(format!(
        "{found} of {wanted} replicas are {word}"
    )))
}

fn deployment(spec: &Value, status: &Value) -> Health {
    let progressing = condition(status, "Progressing");
    if let Some(condition) = progressing.filter(|it| it["reason"] == "ProgressDeadlineExceeded") {
        return Health::failed(told(condition));
    }
    let wanted = wanted(spec);
    let (present, updated) = (
        count(&status["replicas"]),
        count(&status["updatedReplicas"]),
    );
    let available = count(&status["availableReplicas"]);
    let short = missing(wanted, &[("there", present), ("updated", updated)]);
    if let Some(short) = short {
        short
    } else if present > wanted {
        Health::in_progress(format!("{} former replicas end", present - wanted))
    } else if let Some(short) = missing(
        wanted,
        &[
            ("available", available),
            ("ready", count(&status["readyReplicas"])),
        ],
    ) {
        short
    } else if condition(status, "Available").is_some_and(|it| it["status"] != "True") {
        awaited(status, "Available")
    } else {
        Health::current()
    }
}

fn replicas(spec: &Value, status: &Value) -> Health {
    if let Some(condition) = condition(status, "ReplicaFailure").filter(|it| it["status"] == "True")
    {
        return Health::in_progress(told(condition));
    }
    let counts = [
        ("there", count(&status["replicas"])),
        ("available", count(&status["availableReplicas"])),
        ("ready", count(&status["readyReplicas"])),
    ];
    missing(wanted(spec), &counts).unwrap_or_else(Health::current)
}

fn stateful_set(spec: &Value, status: &Value) -> Health {
    if spec["updateStrategy"]["type"] == "OnDelete" {
        return Health::current();
    }
    let wanted = wanted(spec);
    let counts = [
        ("there", count(&status["replicas"])),
        ("ready", count(&status["readyReplicas"])),
    ];
    if let Some(short) = missing(wanted, &counts) {
        return short;
    }
    let partition = count(&spec["updateStrategy"]["rollingUpdate"]["partition"]);
    let updated = count(&status["updatedReplicas"]);
    if partition > 0 {
        return missing(wanted - partition, &[("updated", updated)])
            .unwrap_or_else(Health::current);
    }
    if status["currentRevision"] == status["updateRevision"] {
        Health::current()
    } else {
        Health::in_progress(format!("{updated} of {wanted} replicas are updated"))
    }
}

fn daemon_set(spec: &Value, status: &Value) -> Health {
    if spec["updateStrategy"]["type"] == "OnDelete" {
        return Health::current();
    }
    let Some(wanted) = status["desiredNumberScheduled"].as_i64() else {
        return Health::in_progress("its controller has not seen it yet");
    };
    let counts = [
        ("there", count(&status["currentNumberScheduled"])),
        ("updated", count(&status["updatedNumberScheduled"])),
        ("available", count(&status["numberAvailable"])),
        ("ready", count(&status["numberReady"])),
    ];
    missing(wanted, &counts).unwrap_or_else(Health::current)
}

/// A job that runs is as it should be; what it comes to may take days.
fn job(status: &Value) -> Health {
    if let Some(condition) = condition(status, "Failed").filter(|it| it["status"] == "True") {
        Health::failed(told(condition))
    } else if status["startTime"].is_null() && condition(status, "Suspended").is_none() {
        Health::in_progress("it has not started yet")
    } else {
        Health::current()
    }
}

fn pod(status: &Value) -> Health {
    let waiting = status["containerStatuses"].as_array().into_iter().flatten();
    let crashing = waiting
        .filter(|container| container["state"]["waiting"]["reason"] == "CrashLoopBackOff")
        .find_map(|container| container["name"].as_str());
    match status["phase"].as_str() {
        Some("Succeeded") => Health::current(),
        Some("Failed") => Health::failed("it failed"),
        Some("Running") => match crashing {
            Some(name) => Health::failed(format!("its container {name} crashes again and again")),
            None => awaited(status, "Ready"),
        },
        phase => Health::in_progress(format!("it is {}", phase.unwrap_or("Pending"))),
    }
}

fn service(spec: &Value, status: &Value) -> Health {
    let addresses = status["loadBalancer"]["ingress"].as_array();
    let has_address = addresses.is_some_and(|addresses| !addresses.is_empty());
    if spec["type"] == "LoadBalancer" && !has_address {
        Health::in_progress("its load balancer has no address yet")
    } else {
        Health::current()
    }
}

fn definition(status: &Value) -> Health {
    if let Some(refused) = condition(status, "NamesAccepted").filter(|it| it["status"] == "False") {
        return Health::failed(told(refused));
    }
    match condition(status, "Established") {
        Some(it) if it["status"] == "False" && it["reason"] != "Installing" => {
            Health::failed(told(it))
        }
        _ => awaited(status, "Established"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "so the cases read best")]
    fn check(api_version: &str, kind: &str, spec: Value, status: Value, expected: &str) {
        let live = json!({
            "apiVersion": api_version, "kind": kind,
            "metadata": {"generation": 2}, "spec": spec, "status": status,
        });
        let health = assess(&live);
        let found = format!("{:?} {}", health.state, health.message);
        assert_eq!(found.trim(), expected, "{live:#}");
    }

    #[test]
    fn workloads_are_current_once_all_of_them_are_ready() {
        let done = json!({
            "observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3,
            "availableReplicas": 3, "currentRevision": "a", "updateRevision": "a",
            "conditions": [{"type": "Available", "status": "True"}],
        });
        let with = |name: &str, value: Value| {
            let mut status = done.clone();
            status[name] = value;
            status
        };
        let spec = || json!({"replicas": 3});
        let deployment =
            |status, expected: &str| check("apps/v1", "Deployment", spec(), status, expected);
        deployment(done.clone(), "Current");
        deployment(json!({}), "InProgress 0 of 3 replicas are there");
        deployment(
            with("observedGeneration", json!(1)),
            "InProgress its controller has not seen the change yet",
        );
        deployment(
            with("updatedReplicas", json!(1)),
            "InProgress 1 of 3 replicas are updated",
        );
        deployment(
            with("replicas", json!(4)),
            "InProgress 1 former replicas end",
        );
        deployment(
            with("availableReplicas", json!(2)),
            "InProgress 2 of 3 replicas are available",
        );
        deployment(
            with(
                "conditions",
                json!([{"type": "Progressing", "status": "False",
                        "reason": "ProgressDeadlineExceeded", "message": "too long"}]),
            ),
            "Failed ProgressDeadlineExceeded: too long",
        );
        let stateful =
            |spec, status, expected: &str| check("apps/v1", "StatefulSet", spec, status, expected);
        stateful(spec(), done.clone(), "Current");
        stateful(
            spec(),
            with("updateRevision", json!("b")),
            "InProgress 3 of 3 replicas are updated",
        );
        stateful(
            json!({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}}),
            with("updateRevision", json!("b")),
            "Current",
        );
        let daemon =
            |status, expected: &str| check("apps/v1", "DaemonSet", json!({}), status, expected);
        daemon(json!({}), "InProgress its controller has not seen it yet");
        daemon(json!({"desiredNumberScheduled": 0}), "Current");
        daemon(
            json!({"desiredNumberScheduled": 1, "currentNumberScheduled": 1}),
            "InProgress 0 of 1 replicas are updated",
        );
    }

    #[test]
    fn other_kinds_have_rules_of_their_own() {
        let nothing = || json!({});
        let phase = |phase: &str| json!({"phase": phase});
        let conditions = |kind: &str, status: &str| json!({"conditions": [{"type": kind, "status": status, "reason": "R"}]});
        let failed = conditions("Failed", "True");
        check(
            "batch/v1",
            "Job",
            nothing(),
            nothing(),
            "InProgress it has not started yet",
        );
        check(
            "batch/v1",
            "Job",
            nothing(),
            json!({"startTime": "t"}),
            "Current",
        );
        check("batch/v1", "Job", nothing(), failed, "Failed R");
        let claim = "PersistentVolumeClaim";
        check(
            "v1",
            claim,
            nothing(),
            phase("Pending"),
            "InProgress it is Pending",
        );
        check("v1", claim, nothing(), phase("Bound"), "Current");
        check("v1", "Pod", nothing(), phase("Failed"), "Failed it failed");
        let balanced = || json!({"type": "LoadBalancer"});
        let waits = "InProgress its load balancer has no address yet";
        check("v1", "Service", balanced(), nothing(), waits);
        check("v1", "Service", nothing(), nothing(), "Current");
        let address = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        check("v1", "Service", balanced(), address, "Current");
        let (group, kind) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        check(
            group,
            kind,
            nothing(),
            conditions("Established", "True"),
            "Current",
        );
        check(
            group,
            kind,
            nothing(),
            conditions("NamesAccepted", "False"),
            "Failed R",
        );
        check("x/v1", "Any", nothing(), nothing(), "Current");
        check(
            "x/v1",
            "Any",
            nothing(),
            conditions("Ready", "True"),
            "Current",
        );
        check(
            "x/v1",
            "Any",
            nothing(),
            conditions("Ready", "False"),
            "InProgress R",
        );
        check(
            "x/v1",
            "Any",
            nothing(),
            conditions("Stalled", "True"),
            "Failed R",
        );
        let leaving = json!({"metadata": {"deletionTimestamp": "t"}});
        assert_eq!(assess(&leaving).state, State::Terminating);
    }
}
