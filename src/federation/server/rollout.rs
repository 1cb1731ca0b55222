//! The `StatefulSet`: the endpoint's port, and the restart that a new configuration needs.
//!
//! Both are in the pods' template, so they are one apply: whoever wrote them apart would restart the
//! server twice. The port is what people and policies read; nothing is restarted for it alone.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Decision, Draft, Facts, Installation, Piece, SERVER_CONFIGURED, Wanted, Write,
    objects::{self, Reading, bare},
};
use crate::model::field_owners::applied_fields;

/// The agent's, on the template of the SPIRE server's pods: the stamp of the configuration that they were
/// started with.
const STAMP: &str = "trustweave.dev/server-config";

/// What the endpoint's port is called.
const PORT: &str = "federation";

/// A container of a `StatefulSet` by its name.
pub(super) fn container<'a>(stateful_set: &'a Value, name: &str) -> Option<&'a Value> {
    let containers = stateful_set["spec"]["template"]["spec"]["containers"].as_array();
    containers
        .into_iter()
        .flatten()
        .find(|it| it["name"] == name)
}

/// When a pod's container was started.
pub(super) fn started(pod: &Value, container: &str) -> Option<Timestamp> {
    let statuses = pod["status"]["containerStatuses"].as_array();
    let mut statuses = statuses.into_iter().flatten();
    let running = statuses.find(|it| it["name"] == container);
    let at = running.and_then(|it| it["state"]["running"]["startedAt"].as_str());
    let at = at.or_else(|| pod["metadata"]["creationTimestamp"].as_str());
    at?.parse().ok()
}

/// Whether the agent owns any field of it.
pub(super) fn is_held(stateful_set: &Value) -> bool {
    applied_fields(stateful_set).is_some_and(|fields| fields.contains_key("f:spec"))
}

/// The ports of a container that the agent applied.
fn own_ports(stateful_set: &Value, container: &str) -> Vec<Value> {
    let item = format!("k:{}", json!({"name": container}));
    let path = [
        "f:spec",
        "f:template",
        "f:spec",
        "f:containers",
        &item,
        "f:ports",
    ];
    let ports = applied_fields(stateful_set).and_then(|fields| {
        let (first, rest) = path.split_first()?;
        rest.iter()
            .try_fold(fields.get(*first)?, |at, step| at.get(*step))
    });
    let keys = ports.and_then(Value::as_object).into_iter().flatten();
    keys.filter_map(|(key, _)| serde_json::from_str(key.strip_prefix("k:")?).ok())
        .map(|key: Value| key["containerPort"].clone())
        .collect()
}

/// Keeps port and stamp in force, if a change of ours ever needed a restart, and tells how the
/// server stands.
pub(super) fn manage(
    facts: &Facts<'_>,
    wanted: &Wanted,
    reading: &Reading<'_>,
    stamp: Option<&str>,
    decision: &mut Decision,
) {
    let set = reading.stateful_set;
    if let Some(stamp) = stamp {
        let name = &wanted.installation.server.container;
        let port = json!(wanted.endpoint.server_port());
        let standing = container(set, name).and_then(|it| it["ports"].as_array());
        let has = standing.is_some_and(|ports| {
            let tcp = |it: &Value| it.get("protocol").is_none_or(|protocol| protocol == "TCP");
            ports
                .iter()
                .any(|it| it["containerPort"] == port && tcp(it))
        });
        let own = own_ports(set, name);
        let mut item = json!({"name": name});
        if !has || own.contains(&port) {
            item["ports"] = json!([{"name": PORT, "containerPort": port, "protocol": "TCP"}]);
        }
        let spec = json!({"template": {
            "metadata": {"annotations": {STAMP: stamp}},
            "spec": {"containers": [item]},
        }});
        let marked = set["spec"]["template"]["metadata"]["annotations"][STAMP] == stamp;
        let left_over = own.iter().any(|it| *it != port);
        if !(marked && has && !left_over) {
            if let Some(unfit) = reading.refusal(facts, &wanted.installation) {
                decision.tell(SERVER_CONFIGURED, false, unfit.reason, unfit.message);
                return;
            }
            let reference = objects::stateful_set(&wanted.installation);
            let mut object = bare(&reference);
            // With the UID it is never created, should it be deleted meanwhile.
            object["metadata"]["uid"] = set["metadata"]["uid"].clone();
            object["spec"] = spec.clone();
            let draft = Draft {
                piece: Piece::Workload,
                object: &reference,
                live: Some(set),
                path: &["f:spec", "f:template"],
                asked: json!([stamp, port]),
                write: Write::Apply(object),
                why: format!("restarts the server ({reference}) with its new configuration"),
                restarts: true,
            };
            if decision.write(facts, SERVER_CONFIGURED, draft) {
                decision.tell(
                    SERVER_CONFIGURED,
                    None,
                    "Restarting",
                    "the server is restarted with its new configuration",
                );
            }
            return;
        }
    }
    if let Some(why) = under_way(set) {
        decision.tell(SERVER_CONFIGURED, None, "RollingOut", why);
    } else {
        let message = "the server's configuration is as declared";
        decision.tell(SERVER_CONFIGURED, true, "InForce", message);
    }
}

/// Why the pods are not all those of the newest template yet.
fn under_way(stateful_set: &Value) -> Option<String> {
    let (spec, status) = (&stateful_set["spec"], &stateful_set["status"]);
    let number = |value: &Value, otherwise: u64| value.as_u64().unwrap_or(otherwise);
    let replicas = number(&spec["replicas"], 1);
    let observed = number(&status["observedGeneration"], 0);
    let (ready, updated) = (&status["readyReplicas"], &status["updatedReplicas"]);
    if observed < number(&stateful_set["metadata"]["generation"], 0) {
        return Some("the change of the StatefulSet is not taken up yet".to_owned());
    }
    if status["currentRevision"] != status["updateRevision"] && number(updated, 0) < replicas {
        let by_hand = spec["updateStrategy"]["type"] == "OnDelete";
        let hint = if by_hand {
            "; its updateStrategy is OnDelete: delete the pods yourself"
        } else {
            ""
        };
        let updated = number(updated, 0);
        return Some(format!("{updated} of {replicas} pods are replaced{hint}"));
    }
    let ready = number(ready, 0);
    (ready < replicas).then(|| format!("{ready} of {replicas} pods are ready"))
}

/// Gives up port and stamp: server-side apply removes what nobody else owns.
pub(super) fn release(installation: &Installation, reading: &Reading<'_>, decision: &mut Decision) {
    if !is_held(reading.stateful_set) {
        return;
    }
    let reference = objects::stateful_set(installation);
    let mut object = bare(&reference);
    object["metadata"]["uid"] = reading.stateful_set["metadata"]["uid"].clone();
    decision.steps.push(objects::giving_back(
        Piece::Workload,
        Write::Apply(object),
        format!("gives up port and annotation of {reference}, which restarts the server"),
        true,
    ));
}
