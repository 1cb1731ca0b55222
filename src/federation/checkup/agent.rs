//! What the cluster's own agent reports.

use serde_json::Value;

use super::{About, Amiss, Check, ClusterFacts, Level, Seen};
use crate::{federation::installation::meaning::items, model::diagnostic::Severity};

pub(super) const CHECKS: &[Check<ClusterFacts>] = &[
    Check {
        about: About {
            id: "agent-ready",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "the agent follows the repository, applies and publishes",
            why: "what is merged does not arrive here, or this cluster's new keys do not arrive at its peers",
            cure: "the condition says what is wrong; `trustweave status` shows all of them",
        },
        look: ready,
    },
    Check {
        about: About {
            id: "peers-federated",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "every declared peer is Federated",
            why: "workloads do not trust the peer, or soon no longer",
            cure: "the message says what is missing, and whose move it is",
        },
        look: federated,
    },
    Check {
        about: About {
            id: "peers-sound",
            level: Level::Cluster,
            severity: Severity::Warning,
            title: "no peer has a condition that does not hold",
            why: "the peer works today; what is reported may end that",
            cure: "the message says what to do",
        },
        look: sound,
    },
];

fn ready(facts: &ClusterFacts) -> Seen {
    let Some(git_sync) = &facts.git_sync else {
        return no_agent();
    };
    let conditions: Vec<&Value> = items(&git_sync["status"]["conditions"]).collect();
    if conditions.is_empty() {
        return Seen::Amiss(vec![Amiss::new(
            "GitSync",
            "the agent never reported anything",
        )]);
    }
    unmet(&conditions, "GitSync").into()
}

fn federated(facts: &ClusterFacts) -> Seen {
    if facts.git_sync.is_none() {
        return no_agent();
    }
    let amiss = facts.trust_peers.iter().filter_map(|peer| {
        let status = &peer["status"];
        let phase = status["phase"].as_str().unwrap_or_default();
        if phase == "Federated" || !is_declared(peer) {
            return None;
        }
        let message = status["message"].as_str().unwrap_or_default();
        Some(Amiss::new(
            subject(peer),
            format!("it is {phase}: {message}"),
        ))
    });
    amiss.collect::<Vec<_>>().into()
}

fn sound(facts: &ClusterFacts) -> Seen {
    if facts.git_sync.is_none() {
        return no_agent();
    }
    let peers = facts
        .trust_peers
        .iter()
        .filter(|peer| is_declared(peer) && peer["status"]["phase"] == "Federated");
    let amiss = peers.flat_map(|peer| {
        let conditions: Vec<&Value> = items(&peer["status"]["conditions"]).collect();
        unmet(&conditions, &subject(peer))
    });
    amiss.collect::<Vec<_>>().into()
}

/// The conditions that do not hold.
fn unmet(conditions: &[&Value], subject: &str) -> Vec<Amiss> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let unmet = conditions.iter().filter(|it| it["status"] == "False");
    unmet
        .map(|it| (text(&it["type"]), text(&it["reason"]), text(&it["message"])))
        .map(|(kind, reason, message)| {
            Amiss::new(subject, format!("{kind} is False ({reason}): {message}"))
        })
        .collect()
}

/// Whether the topology asks for the peer.
fn is_declared(peer: &Value) -> bool {
    let mut conditions = items(&peer["status"]["conditions"]);
    conditions.all(|it| it["type"] != "Consented" || it["reason"] != "NoEdge")
}

fn subject(peer: &Value) -> String {
    let name = peer["spec"]["trustDomain"].as_str().unwrap_or_default();
    format!("TrustPeer {name}")
}

fn no_agent() -> Seen {
    Seen::Unknown("no agent runs in the cluster".to_owned())
}
