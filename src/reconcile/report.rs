//! What a pass tells: the status of `GitSync` and of each `TrustPeer`, and events.

use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::sync::{Identity, Inputs, PublishReport};
use crate::{
    cluster::{
        Happening, Severity,
        types::{API_VERSION, Condition, GitSyncStatus, TrustPeerStatus, WatermarkStatus},
    },
    federation::{
        lifecycle::{Delivery, PeerState, Phase},
        objects::cftd_name,
        resolve::Resolved,
    },
    model::{attestation::Rejection, diagnostic::Diagnostic, repository::Revision},
};

/// How many lines of diagnostics and failures a status holds.
const LINES: usize = 20;

/// What a pass has to tell.
pub(super) struct Pass<'a> {
    pub(super) identity: &'a Identity,
    pub(super) revision: &'a Revision,
    pub(super) states: &'a [PeerState],
    pub(super) resolved: &'a Resolved,
    pub(super) objects: usize,
    pub(super) writes: usize,
    pub(super) failures: &'a [String],
    pub(super) kept: &'a [String],
    pub(super) diagnostics: &'a [Diagnostic],
    pub(super) suspended: bool,
    pub(super) inputs: &'a Inputs<'a>,
}

/// A time as Kubernetes writes it: RFC 3339 with whole seconds.
fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC)
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// A peer that nobody asks for and of which nothing was ever delivered leaves no trace.
pub(super) fn is_forgettable(state: &PeerState) -> bool {
    state.phase == Phase::Pending
        && state.watermark.is_none()
        && state
            .conditions
            .iter()
            .any(|condition| condition.reason == "NoEdge")
}

/// A peer's `TrustPeer`, without its status.
pub(super) fn trust_peer(state: &PeerState) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "TrustPeer",
        "metadata": {"name": cftd_name(&state.peer)},
        "spec": {"trustDomain": state.peer},
    })
}

/// What a peer's `TrustPeer` says.
pub(super) fn trust_peer_status(
    pass: &Pass<'_>,
    state: &PeerState,
    former: Option<&TrustPeerStatus>,
) -> TrustPeerStatus {
    let now = time(pass.inputs.now);
    let empty = TrustPeerStatus::default();
    let former = former.unwrap_or(&empty);
    let watermark = state.watermark.as_ref().map(|watermark| WatermarkStatus {
        epoch: watermark.epoch,
        serial: watermark.serial.0,
        revocations: watermark.revocations,
        nonce: watermark.nonce,
        digest: watermark.digest.to_string(),
    });
    let last_delivered = match state.delivery {
        Delivery::Push | Delivery::Repair => Some(now.clone()),
        _ => former.last_delivered.clone(),
    };
    let conditions = state.conditions.iter().map(|condition| {
        Condition::new(
            condition.kind,
            condition.status,
            condition.reason,
            &condition.message,
            &former.conditions,
            &now,
        )
    });
    let held_back = pass.resolved.held_back.get(&state.peer);
    let named = pass.resolved.named.get(&state.peer).map_or(0, Vec::len);
    TrustPeerStatus {
        phase: state.phase.to_string(),
        was_federated: former.was_federated || state.phase == Phase::Federated,
        version: watermark
            .as_ref()
            .map(|watermark| format!("{}.{}", watermark.epoch, watermark.serial)),
        short_digest: state
            .watermark
            .as_ref()
            .map(|watermark| watermark.digest.short().to_owned()),
        watermark,
        last_delivered,
        earliest_expiry: state.expires.map(time),
        held_back: held_back
            .into_iter()
            .flatten()
            .map(ToString::to_string)
            .collect(),
        registrations: named as u64,
        message: state.message(),
        conditions: conditions.collect(),
    }
}

/// What the `GitSync` says after a pass.
pub(super) fn git_sync_status(pass: &Pass<'_>, former: &GitSyncStatus) -> GitSyncStatus {
    let now = time(pass.inputs.now);
    let condition = |kind: &str, status: Option<bool>, reason: &str, message: &str| {
        Condition::new(kind, status, reason, message, &former.conditions, &now)
    };
    let errors = pass.diagnostics.iter().filter(|d| d.is_error()).count();
    let first_error = pass.diagnostics.iter().find(|d| d.is_error());
    let valid = match first_error {
        None => condition("RepositoryValid", Some(true), "Valid", "no errors"),
        Some(first) => condition(
            "RepositoryValid",
            Some(false),
            "Errors",
            &format!("{errors} error(s); what was good before stays in force. First: {first}"),
        ),
    };
    let ready = if let Some(failure) = pass.failures.first() {
        let count = pass.failures.len();
        let message = format!("{count} write(s) failed; first: {failure}");
        condition("Ready", Some(false), "WritesFailed", &message)
    } else if pass.suspended {
        let message = "spec.suspend is true: the overlay is not applied";
        condition("Ready", Some(false), "Suspended", message)
    } else if errors > 0 {
        let message = format!("{errors} error(s) in the repository");
        condition("Ready", Some(false), "RepositoryInvalid", &message)
    } else {
        let message = format!("revision {} is in force", pass.revision.short());
        condition("Ready", Some(true), "InForce", &message)
    };
    let federated = pass
        .states
        .iter()
        .filter(|state| state.phase == Phase::Federated)
        .count();
    let declared = pass
        .states
        .iter()
        .filter(|state| !is_leaving(state))
        .count();
    let same = former.revision.as_deref() == Some(pass.revision.as_str()) && pass.writes == 0;
    let status = GitSyncStatus {
        cluster: pass.identity.cluster.to_string(),
        trust_domain: pass.identity.trust_domain.to_string(),
        revision: Some(pass.revision.to_string()),
        short_revision: Some(pass.revision.short().to_owned()),
        last_change: former
            .last_change
            .clone()
            .filter(|_| same)
            .or_else(|| Some(now.clone())),
        objects: pass.objects as u64,
        peers: format!("{federated}/{declared}"),
        signer: pass.identity.signer.clone(),
        published: None,
        conditions: vec![ready, valid],
        diagnostics: pass
            .diagnostics
            .iter()
            .take(LINES)
            .map(ToString::to_string)
            .collect(),
        failures: pass.failures.iter().take(LINES).cloned().collect(),
        kept: pass.kept.iter().take(LINES).cloned().collect(),
    };
    with_inputs(status, pass.inputs, former, &now)
}

/// What the `GitSync` says after a pass that could not decide anything.
pub(super) fn failed(
    identity: &Identity,
    message: &str,
    inputs: &Inputs<'_>,
    former: &GitSyncStatus,
) -> GitSyncStatus {
    let now = time(inputs.now);
    let conditions = &former.conditions;
    let ready = Condition::new(
        "Ready",
        Some(false),
        "PassFailed",
        message,
        conditions,
        &now,
    );
    let valid = conditions.iter().find(|c| c.kind == "RepositoryValid");
    let status = GitSyncStatus {
        cluster: identity.cluster.to_string(),
        trust_domain: identity.trust_domain.to_string(),
        signer: identity.signer.clone(),
        conditions: [ready].into_iter().chain(valid.cloned()).collect(),
        ..former.clone()
    };
    with_inputs(status, inputs, former, &now)
}

/// Adds whether the remote can be read, and what the other loop has to report.
fn with_inputs(
    mut status: GitSyncStatus,
    inputs: &Inputs<'_>,
    former: &GitSyncStatus,
    now: &str,
) -> GitSyncStatus {
    let (holds, reason, message) = match inputs.fetch_failure {
        None => (true, "Fetched", "the remote's references are known"),
        Some(failure) => (false, "FetchFailed", failure),
    };
    let fetched = Condition::new(
        "Fetched",
        Some(holds),
        reason,
        message,
        &former.conditions,
        now,
    );
    let reported = inputs.publish.and_then(|report| report.published.clone());
    status.published = reported.or_else(|| former.published.clone());
    status.conditions.push(fetched);
    status
        .conditions
        .push(published(inputs.publish, former, now));
    status
}

/// What the other loop has to report, or reported before.
fn published(report: Option<&PublishReport>, former: &GitSyncStatus, now: &str) -> Condition {
    let before = former.conditions.iter().find(|c| c.kind == "Published");
    let failure = report.and_then(|report| report.failure.clone());
    let standing = report.and_then(|report| report.published.as_ref());
    let (holds, reason, message) = match (failure, standing, before) {
        (Some(failure), _, _) => (Some(false), "NotPublished", failure),
        (None, Some(standing), _) => (
            Some(true),
            "Published",
            format!("serial {} stands on {}", standing.serial, standing.branch),
        ),
        (None, None, Some(before)) => return before.clone(),
        (None, None, None) => (None, "NotYet", "nothing was published yet".to_owned()),
    };
    Condition::new(
        "Published",
        holds,
        reason,
        &message,
        &former.conditions,
        now,
    )
}

fn is_leaving(state: &PeerState) -> bool {
    state.phase == Phase::Draining
        || state
            .conditions
            .iter()
            .any(|condition| condition.reason == "NoEdge")
}

/// What is worth an event: a new phase, and a publication that is newly refused.
pub(super) fn happenings(
    state: &PeerState,
    former: Option<&TrustPeerStatus>,
    regarding: &Value,
) -> Vec<Happening> {
    let mut happenings = Vec::new();
    let before = former
        .map(|former| former.phase.as_str())
        .unwrap_or_default();
    if before != state.phase.as_str() {
        let note = match before {
            "" => format!("{} is {}: {}", state.peer, state.phase, state.message()),
            before => format!(
                "{} went from {before} to {}: {}",
                state.peer,
                state.phase,
                state.message()
            ),
        };
        happenings.push(Happening {
            regarding: regarding.clone(),
            severity: Severity::Normal,
            reason: state.phase.to_string(),
            note,
        });
    }
    let alarm = match &state.delivery {
        Delivery::Refused(refusal) => Some((refusal.reason(), refusal.to_string())),
        Delivery::Rejected(Rejection::Unpublished) => None,
        Delivery::Rejected(rejection) => Some((rejection.reason(), rejection.to_string())),
        _ => None,
    };
    if let Some((reason, why)) = alarm {
        let known = former.is_some_and(|former| {
            former
                .conditions
                .iter()
                .any(|c| c.kind == "BundleAccepted" && c.reason == reason)
        });
        if !known {
            happenings.push(Happening {
                regarding: regarding.clone(),
                severity: Severity::Warning,
                reason: reason.to_owned(),
                note: format!("what {} publishes is not delivered: {why}", state.peer),
            });
        }
    }
    happenings
}
