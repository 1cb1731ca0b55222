//! What a pass tells: the status of `GitSync` and of each `TrustPeer`, and events.

use serde_json::{Value, json};

use super::{
    memory::{self, time},
    overlay::Overlay,
    proposal::Proposed,
    sync::{Identity, Inputs, PublishReport, revision::Held},
};
use crate::{
    cluster::{
        Happening, Severity,
        types::{API_VERSION, Condition, GitSyncStatus, InForceStatus, TrustPeerStatus},
    },
    federation::{
        conditions,
        lifecycle::{Action, Judgement, PeerState, Phase},
        objects::cftd_name,
        resolve::Resolved,
        server,
    },
    model::{attestation::Rejection, diagnostic::Diagnostic, repository::Revision},
};

/// How many lines of diagnostics and failures a status holds.
const LINES: usize = 20;

/// How many commits it remembers.
const HISTORY: usize = 5;

/// What a pass has to tell.
pub(super) struct Pass<'a> {
    pub(super) identity: &'a Identity,
    pub(super) revision: &'a Revision,
    /// What it is about, if it was not in force before.
    pub(super) subject: Option<String>,
    pub(super) states: &'a [PeerState],
    pub(super) resolved: &'a Resolved,
    pub(super) objects: usize,
    pub(super) writes: usize,
    pub(super) failures: &'a [String],
    pub(super) overlay: &'a Overlay,
    pub(super) diagnostics: &'a [Diagnostic],
    /// Whether the overlay is not applied, and why, if somebody said so.
    pub(super) suspended: Option<&'a str>,
    /// The request that the pass was made for, or another before.
    pub(super) handled_request: Option<&'a str>,
    /// Why the revision is not the branch's tip.
    pub(super) held: Option<&'a Held>,
    /// The repository no longer knows this agent.
    pub(super) retired: bool,
    /// How the SPIRE server stands.
    pub(super) server: &'a Server,
    pub(super) inputs: &'a Inputs<'a>,
}

/// What is told of the SPIRE server.
#[derive(Default)]
pub(super) struct Server {
    pub(super) memory: server::Memory,
    /// `None` if it was not looked at: what was told before stays.
    pub(super) conditions: Option<Vec<conditions::Condition>>,
    /// What was done, and whether that restarts the server.
    pub(super) done: Vec<(bool, String)>,
}

/// The conditions that tell of the SPIRE server.
const OF_SERVER: [&str; 4] = [
    server::SERVER_CONFIGURED,
    server::ENDPOINT_EXPOSED,
    server::CONFIGURATION_SPELT,
    server::STATIC_FEDERATION,
];

/// A peer that nobody asks for and of which nothing was ever delivered leaves no trace.
pub(super) fn is_forgettable(state: &PeerState) -> bool {
    state.phase == Phase::Pending
        && state.watermark().is_none()
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
    let last_delivered = if state.action.is_push() {
        Some(now.clone())
    } else {
        former.last_delivered.clone()
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
    let version = state.watermark();
    let version = version.map(|watermark| format!("{}.{}", watermark.epoch, watermark.serial));
    let first_use = match state.action {
        Action::FirstUse => version.clone(),
        _ => former.first_use.clone(),
    };
    let trusted = !matches!(state.phase, Phase::Distrusted | Phase::Gone);
    let mut status = TrustPeerStatus {
        phase: state.phase.to_string(),
        first_use,
        version,
        short_digest: state
            .watermark()
            .map(|watermark| watermark.digest.short().to_owned()),
        last_delivered,
        earliest_expiry: state.expires().filter(|_| trusted).map(time),
        held_back: held_back
            .into_iter()
            .flatten()
            .map(ToString::to_string)
            .collect(),
        named_by_others: state.named_by_others.clone(),
        registrations: named as u64,
        message: state.message(),
        conditions: conditions.collect(),
        ..TrustPeerStatus::default()
    };
    memory::write(&state.memory, &mut status);
    status
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
    let (holds, reason, message) = ready(pass, errors);
    let ready = condition("Ready", Some(holds), reason, &message);
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
    let told = pass.server.conditions.as_ref();
    let of_server: Vec<Condition> = match told {
        Some(told) => told
            .iter()
            .map(|it| condition(it.kind, it.status, it.reason, &it.message))
            .collect(),
        None if pass.server.memory.installation.is_none() => Vec::new(),
        None => of_server(former),
    };
    let of_overlay = match pass.suspended {
        // It was not looked at.
        Some(_) => Vec::new(),
        None => pass.overlay.conditions(&pass.identity.cluster),
    };
    let of_overlay = of_overlay
        .iter()
        .map(|it| condition(it.kind, it.status, it.reason, &it.message));
    let same = former.revision.as_deref() == Some(pass.revision.as_str()) && pass.writes == 0;
    let mut status = GitSyncStatus {
        cluster: pass.identity.cluster.to_string(),
        trust_domain: pass.identity.trust_domain.to_string(),
        revision: Some(pass.revision.to_string()),
        short_revision: Some(pass.revision.short().to_owned()),
        history: history(
            InForceStatus {
                revision: pass.revision.to_string(),
                subject: pass.subject.clone(),
                since: now.clone(),
            },
            &former.history,
        ),
        last_change: former
            .last_change
            .clone()
            .filter(|_| same)
            .or_else(|| Some(now.clone())),
        objects: pass.objects as u64,
        peers: format!("{federated}/{declared}"),
        signer: pass.identity.signer.clone(),
        published: None,
        bundle_source: None,
        server: (pass.server.memory != server::Memory::default())
            .then(|| (&pass.server.memory).into()),
        conditions: [ready, valid]
            .into_iter()
            .chain(of_overlay)
            .chain(of_server)
            .collect(),
        diagnostics: pass
            .diagnostics
            .iter()
            .take(LINES)
            .map(ToString::to_string)
            .collect(),
        failures: pass.failures.iter().take(LINES).cloned().collect(),
        handled_request: pass.handled_request.map(str::to_owned),
        ..GitSyncStatus::default()
    };
    pass.overlay.write(&mut status);
    with_inputs(status, pass.inputs, former, &now)
}

/// Whether everything is as the repository has it: holds, reason and message.
fn ready<'a>(pass: &Pass<'a>, errors: usize) -> (bool, &'a str, String) {
    if let Some(failure) = pass.failures.first() {
        let count = pass.failures.len();
        let message = format!("{count} write(s) failed; first: {failure}");
        (false, "WritesFailed", message)
    } else if let Some(held) = pass.held {
        (false, held.reason, held.message.clone())
    } else if pass.retired {
        let message = "the repository no longer names this cluster: every peer is given up, and the \
                       overlay's objects stay";
        (false, "Retired", message.to_owned())
    } else if let Some(why) = pass.suspended {
        let separator = if why.is_empty() { "" } else { ": " };
        let message = format!("spec.suspend is true, the overlay is not applied{separator}{why}");
        (false, "Suspended", message)
    } else if let Some(waiting) = pass.overlay.waiting(&pass.identity.cluster) {
        (false, "PruneWaits", waiting)
    } else if errors > 0 {
        let message = format!("{errors} error(s) in the repository");
        (false, "RepositoryInvalid", message)
    } else {
        let message = format!("revision {} is in force", pass.revision.short());
        (true, "InForce", message)
    }
}

/// The commits that were in force, with the one that is in force now.
fn history(now_in_force: InForceStatus, former: &[InForceStatus]) -> Vec<InForceStatus> {
    let newest = former.first();
    if newest.is_some_and(|it| it.revision == now_in_force.revision) {
        return former.to_vec();
    }
    let former = former.iter().cloned();
    [now_in_force]
        .into_iter()
        .chain(former)
        .take(HISTORY)
        .collect()
}

/// What was told of the SPIRE server before.
fn of_server(former: &GitSyncStatus) -> Vec<Condition> {
    let conditions = former.conditions.iter();
    conditions
        .filter(|condition| OF_SERVER.contains(&condition.kind.as_str()))
        .cloned()
        .collect()
}

/// What is worth an event about the SPIRE server: what was done to it, and what newly keeps it from
/// being as declared.
pub(super) fn server_happenings(
    server: &Server,
    former: &GitSyncStatus,
    status: &GitSyncStatus,
    git_sync: &Value,
) -> Vec<Happening> {
    let happening =
        |severity, reason: &str, note| Happening::about(git_sync, severity, reason, note);
    let done = server.done.iter().map(|(restarts, what)| {
        let reason = if *restarts {
            "ServerRestarted"
        } else {
            "ServerWritten"
        };
        happening(Severity::Normal, reason, format!("the agent {what}"))
    });
    let wrong = of_server(status).into_iter().filter(|condition| {
        let known = former.conditions.iter().any(|before| {
            (&before.kind, &before.status, &before.reason)
                == (&condition.kind, &condition.status, &condition.reason)
        });
        condition.status == "False" && !known
    });
    let wrong = wrong.map(|it| happening(Severity::Warning, &it.reason, it.message));
    done.chain(wrong).collect()
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
        conditions: [ready]
            .into_iter()
            .chain(valid.cloned())
            .chain(of_server(former))
            .collect(),
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
    let source = inputs.publish.and_then(|report| report.source.clone());
    status.bundle_source = source.or_else(|| former.bundle_source.clone());
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
    let standing = standing.map(|it| format!("serial {} stands on {}", it.serial, it.branch));
    let proposed = report.and_then(|report| report.proposed.as_ref());
    let (holds, reason, message) = match (failure, proposed, standing, before) {
        (Some(failure), ..) => (Some(false), "NotPublished", failure),
        (None, Some(proposed), standing, _) => {
            let (reason, message) = proposal(proposed);
            let standing = standing.unwrap_or_else(|| "nothing stands yet".to_owned());
            (Some(false), reason, format!("{message}; {standing}"))
        }
        (None, None, Some(standing), _) => (Some(true), "Published", standing),
        (None, None, None, Some(before)) => return before.clone(),
        (None, None, None, None) => (None, "NotYet", "nothing was published yet".to_owned()),
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

/// What people have to decide, or decided.
fn proposal(proposed: &Proposed) -> (&'static str, String) {
    let Proposed { serial, url, .. } = proposed;
    if proposed.declined {
        let message = format!(
            "serial {serial} was declined in {url}: it is proposed again if that is reopened, or once \
             there is something newer"
        );
        return ("ProposalDeclined", message);
    }
    let message = format!("serial {serial} waits to be merged in {url}");
    ("ProposalOpen", message)
}

fn is_leaving(state: &PeerState) -> bool {
    state.phase >= Phase::Draining
        || state
            .conditions
            .iter()
            .any(|condition| condition.reason == "NoEdge")
}

/// What is worth an event: a new phase, what is newly refused or held back, and alarms.
pub(super) fn happenings(
    state: &PeerState,
    status: &TrustPeerStatus,
    former: Option<&TrustPeerStatus>,
    regarding: &Value,
) -> Vec<Happening> {
    let empty = TrustPeerStatus::default();
    let known = former.unwrap_or(&empty);
    let mut happenings = Vec::new();
    let mut tell = |severity, reason: &str, note: String| {
        happenings.push(Happening::about(regarding, severity, reason, note));
    };
    let peer = &state.peer;
    if known.phase != status.phase {
        let (phase, message) = (state.phase, state.message());
        let note = match known.phase.as_str() {
            "" => format!("{peer} is {phase}: {message}"),
            before => format!("{peer} went from {before} to {phase}: {message}"),
        };
        tell(Severity::Normal, phase.as_str(), note);
    }
    if let Some((reason, why)) = alarm(&state.judgement) {
        let told = known
            .conditions
            .iter()
            .any(|c| c.kind == "BundleAccepted" && c.reason == reason);
        if !told {
            let note = format!("what {peer} publishes is not delivered: {why}");
            tell(Severity::Warning, reason, note);
        }
    }
    if state.action == Action::FirstUse {
        let note = format!(
            "the first bundle of {peer} that is remembered here: nothing older could be compared with it"
        );
        tell(Severity::Normal, "FirstUse", note);
    }
    let held_back = status.held_back.iter();
    let held_back: Vec<_> = held_back
        .filter(|it| !known.held_back.contains(it))
        .collect();
    if !held_back.is_empty() {
        let names: Vec<_> = held_back.into_iter().map(String::as_str).collect();
        let note = format!(
            "{peer} is not ready: {} are applied without it",
            names.join(", ")
        );
        tell(Severity::Normal, "HeldBack", note);
    }
    if !state.vanished.is_empty() {
        let keys: Vec<_> = state.vanished.iter().map(ToString::to_string).collect();
        let note = format!(
            "{peer} no longer publishes {}: certificates that it signed may still be in use, and are \
             refused from now on",
            keys.join(", ")
        );
        tell(Severity::Warning, "KeysVanished", note);
    }
    if let Some((before, now)) = state.sequence_fell {
        let note = format!(
            "SPIRE's own counter of {peer}'s bundle went from {before} to {now}: its datastore was lost"
        );
        tell(Severity::Warning, "SequenceFell", note);
    }
    let newly = status.revoked.iter();
    let newly = newly.filter(|it| !known.revoked.contains(it)).count();
    if newly > 0 {
        let note = format!("{newly} key(s) of {peer} are revoked, and no longer trusted here");
        tell(Severity::Warning, "KeysRevoked", note);
    }
    happenings
}

/// Why what a peer publishes is not delivered, if that is worth an alarm.
fn alarm(judgement: &Judgement) -> Option<(&'static str, String)> {
    match judgement {
        Judgement::Refused(refusal) => Some((refusal.reason(), refusal.to_string())),
        Judgement::Rejected(Rejection::Unpublished)
        | Judgement::Accepted
        | Judgement::NotLookedAt => None,
        Judgement::Rejected(rejection) => Some((rejection.reason(), rejection.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cluster::types::PublishedStatus, model::attestation::Serial};

    #[test]
    fn the_last_commits_are_remembered_once_each_and_not_for_ever() {
        let commit = |revision: usize, since: &str| InForceStatus {
            revision: revision.to_string(),
            subject: None,
            since: since.to_owned(),
        };
        let mut all = Vec::new();
        for revision in 0..7 {
            all = history(commit(revision, "first"), &all);
            all = history(commit(revision, "again"), &all);
        }
        let expected = [6, 5, 4, 3, 2].map(|revision| commit(revision, "first"));
        assert_eq!(all, expected);
        // One that is in force again is told again.
        assert_eq!(history(commit(4, "again"), &all)[0], commit(4, "again"));
    }

    #[test]
    fn a_proposal_is_told_with_what_peers_go_by_meanwhile() {
        let told = |report: &PublishReport| {
            let told = published(Some(report), &GitSyncStatus::default(), "now");
            (told.status, told.reason, told.message)
        };
        let expected = |status: &str, reason: &str, message: &str| {
            (status.to_owned(), reason.to_owned(), message.to_owned())
        };
        let standing = PublishedStatus {
            serial: 3,
            branch: "main".to_owned(),
            ..PublishedStatus::default()
        };
        let mut report = PublishReport {
            published: Some(standing),
            ..PublishReport::default()
        };
        let found = expected("True", "Published", "serial 3 stands on main");
        assert_eq!(told(&report), found);
        let proposed = |declined| Proposed {
            serial: Serial(4),
            url: "https://h/7".to_owned(),
            declined,
        };
        report.proposed = Some(proposed(false));
        let message = "serial 4 waits to be merged in https://h/7; serial 3 stands on main";
        assert_eq!(told(&report), expected("False", "ProposalOpen", message));
        report.proposed = Some(proposed(true));
        let (status, reason, message) = told(&report);
        assert_eq!((&*status, &*reason), ("False", "ProposalDeclined"));
        assert!(message.starts_with("serial 4 was declined in https://h/7: "));
        assert!(message.ends_with("; serial 3 stands on main"));
        report.failure = Some("no".to_owned());
        assert_eq!(told(&report), expected("False", "NotPublished", "no"));
    }
}
