//! What is told about a peer: each condition answers one question, in one sentence.

use super::{
    consent::Consent,
    lifecycle::{Facts, Judgement, LiveCftd, PeerState, Phase, Probe, View},
    objects,
    resolve::Standing,
};

/// For people, on a `TrustPeer`: `true` distrusts the peer although registrations of others name it.
pub const FORCE: &str = "trustweave.dev/force-distrust";

/// How many characters a message may have.
const MESSAGE: usize = 4096;

/// A condition of a `TrustPeer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its type.
    pub kind: &'static str,
    /// Whether it holds; `None` if that can't be known.
    pub status: Option<bool>,
    /// One word in camel case.
    pub reason: &'static str,
    /// One sentence for people, without a full stop.
    pub message: String,
}

impl Condition {
    /// A condition; what can't be shown in its message is replaced.
    pub fn new(
        kind: &'static str,
        status: impl Into<Option<bool>>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            status: status.into(),
            reason,
            message: clipped(&message.into(), MESSAGE),
        }
    }
}

/// What somebody else wrote, as a status may quote it: it must not grow the status beyond what an API
/// server takes, nor tell a terminal what to do. At most `most` characters are kept.
pub fn clipped(message: &str, most: usize) -> String {
    let tame = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut text: String = message.chars().take(most).map(tame).collect();
    if message.chars().nth(most).is_some() {
        text.push('…');
    }
    text
}

/// All conditions of a peer; what is wrong comes before what merely follows from it.
pub(super) fn of(facts: &Facts, state: &PeerState) -> Vec<Condition> {
    let rest = [
        consented(facts.edge.as_ref()),
        accepted(&state.judgement),
        ready(facts, state),
        pushed(state),
        confirmed(state.confirmed),
    ];
    let told = [
        unique(&facts.live),
        polled(facts, state),
        unforced(facts, state),
        by_relationship_only(facts, state),
        in_time(state),
    ];
    told.into_iter().flatten().chain(rest).collect()
}

/// Is the relationship the only one for its trust domain? Told only if it is not.
fn unique(live: &[LiveCftd]) -> Option<Condition> {
    let (_, younger) = live
        .split_first()
        .filter(|(_, younger)| !younger.is_empty())?;
    let names: Vec<_> = younger.iter().map(|live| live.name.as_str()).collect();
    let message = format!(
        "SPIRE ignores the younger ClusterFederatedTrustDomain {} for the same trust domain: delete it",
        names.join(", ")
    );
    Some(Condition::new("Unique", false, "Doubled", message))
}

/// Do both sides agree?
fn consented(edge: Option<&Consent>) -> Condition {
    let (status, reason, message) = match edge {
        Some(Consent::Given) => (Some(true), "BothSides", "both sides agree".to_owned()),
        Some(Consent::Missing { moves }) => {
            let moves: Vec<_> = moves.iter().map(ToString::to_string).collect();
            (Some(false), "MissingConsent", moves.join(", and "))
        }
        Some(Consent::Unknown { path }) => (
            None,
            "Unreadable",
            format!("{path} can't be used: what is in force stays in force"),
        ),
        None => (
            Some(false),
            "NoEdge",
            "the topology asks for no such edge".to_owned(),
        ),
    };
    Condition::new("Consented", status, reason, message)
}

/// Is what is published acceptable?
fn accepted(judgement: &Judgement) -> Condition {
    let (status, reason, message) = match judgement {
        Judgement::Rejected(rejection) => (Some(false), rejection.reason(), rejection.to_string()),
        Judgement::Refused(refusal) => (Some(false), refusal.reason(), refusal.to_string()),
        Judgement::Accepted => (
            Some(true),
            "Verified",
            "the published bundle is signed by a declared signer".to_owned(),
        ),
        Judgement::NotLookedAt => (
            None,
            "NotLookedAt",
            "nothing is delivered without consent".to_owned(),
        ),
    };
    Condition::new("BundleAccepted", status, reason, message)
}

/// May registrations name the peer?
fn ready(facts: &Facts, state: &PeerState) -> Condition {
    let revoked = state.judgement == Judgement::Accepted;
    let (status, message) = match (state.phase, &facts.probe) {
        (Phase::Federated, _) => (true, "SPIRE holds the peer's bundle".to_owned()),
        (Phase::Pending, _) if state.standing == Standing::Ready => (
            false,
            "nothing is delivered yet: the relationship that was made by hand stays as it is"
                .to_owned(),
        ),
        (Phase::Pending, _) => (false, "nothing is delivered yet".to_owned()),
        (Phase::Seeding, Probe::Refused(why)) => (
            false,
            format!("SPIRE does not hold the peer's bundle: {why}"),
        ),
        (Phase::Seeding, Probe::Unknown(why)) => {
            (false, format!("the probe says nothing yet: {why}"))
        }
        (Phase::Seeding, Probe::Ready) => (false, "the probe is ready".to_owned()),
        (Phase::Draining, _) => (false, draining(facts)),
        (Phase::Distrusted, _) if revoked => (false, "every key of the peer is revoked".to_owned()),
        (Phase::Distrusted, _) => (false, distrusted(facts, state)),
        (Phase::Gone, _) => (
            false,
            "nothing of the peer is trusted; what was delivered is remembered".to_owned(),
        ),
    };
    Condition::new("Ready", status, state.phase.as_str(), message)
}

/// What a leaving peer waits for.
fn draining(facts: &Facts) -> String {
    let named = &facts.named;
    if !named.ours.is_empty() {
        format!("still named by {}", named.ours.join(", "))
    } else if !named.others.is_empty() && !facts.forced {
        format!(
            "still named by {}, which the agent does not keep: take the peer out of federatesWith, \
             or annotate this TrustPeer with {FORCE}=true",
            named.others.join(", ")
        )
    } else {
        "no registration names the peer; SPIRE's controller manager is given time to follow"
            .to_owned()
    }
}

/// What a peer without keys waits for.
fn distrusted(facts: &Facts, state: &PeerState) -> String {
    let until = match (&facts.view, state.memory.trusted_until) {
        (View::Roots(_), _) => "until a workload was seen to hold none of them".to_owned(),
        (_, Some(end)) => format!("until the last of them ends, at {end}"),
        (_, None) => "for good, as nobody knows when the last of them ends".to_owned(),
    };
    format!("the peer's keys are taken away; that is kept in force {until}")
}

/// Is the endpoint polled although keys are revoked? Told only if some are.
fn polled(facts: &Facts, state: &PeerState) -> Option<Condition> {
    let count = facts.revoked.len();
    if count == 0 {
        return None;
    }
    let cut = match &state.cftd {
        Some(cftd) => cftd["spec"]["bundleEndpointURL"]
            .as_str()
            .is_some_and(objects::is_cut),
        None => facts.live.first().is_some_and(LiveCftd::is_cut),
    };
    let keys: Vec<_> = facts.revoked.iter().map(|it| it.key.to_string()).collect();
    let keys = keys.join(", ");
    Some(if cut {
        Condition::new(
            "RevocationSettled",
            None,
            "EndpointCut",
            format!(
                "revoked: {keys}; SPIRE does not poll the peer until its endpoint was seen without"
            ),
        )
    } else {
        Condition::new(
            "RevocationSettled",
            true,
            "EndpointClean",
            format!("revoked: {keys}; the peer's endpoint was seen without"),
        )
    })
}

/// Do people's own registrations name a peer that may not be named? Told only then.
fn unforced(facts: &Facts, state: &PeerState) -> Option<Condition> {
    let ready = state.standing == Standing::Ready;
    let others = &facts.named.others;
    (!ready && !others.is_empty() && state.phase != Phase::Draining).then(|| {
        let message = format!(
            "{} name the peer although it is {}: new pods of theirs get no identity while SPIRE has \
             no bundle of it; the agent does not touch what others keep",
            others.join(", "),
            state.phase
        );
        Condition::new("NamedByReadyOnly", false, "NamedByOthers", message)
    })
}

/// Does SPIRE poll the peer by something else than the relationship, from which keys are to be taken
/// away? Told only then.
fn by_relationship_only(facts: &Facts, state: &PeerState) -> Option<Condition> {
    let leaving = matches!(
        state.phase,
        Phase::Draining | Phase::Distrusted | Phase::Gone
    );
    (facts.is_static && (leaving || !facts.revoked.is_empty())).then(|| {
        let message = "`federates_with` in the SPIRE server's own configuration names the peer: SPIRE \
                       polls what stands there, and keys that are taken away come back from it; take \
                       the peer out there, and restart the server";
        Condition::new("PolledByRelationshipOnly", false, "StaticFederation", message)
    })
}

/// Does git bring new keys before they are used? Told only if it does not.
///
/// SPIRE signs with a new authority after a third of the old one's life, and peers that do not have
/// it by then refuse what it signs.
fn in_time(state: &PeerState) -> Option<Condition> {
    let lag = state.memory.lag?;
    let life = state.bundle.as_ref()?.shortest_life()?;
    (lag > life / 3).then(|| {
        let message = format!(
            "the last bundle took {lag:#} from its signature to its delivery, more than a third of \
             the life of its authorities ({life:#})"
        );
        Condition::new("DeliveredInTime", false, "TooSlow", message)
    })
}

/// Was a bundle handed to SPIRE?
fn pushed(state: &PeerState) -> Condition {
    match (state.watermark(), state.phase) {
        (Some(_), Phase::Distrusted | Phase::Gone) => Condition::new(
            "Pushed",
            false,
            "TakenAway",
            "the peer's keys were taken away",
        ),
        (Some(watermark), _) => Condition::new(
            "Pushed",
            true,
            "Delivered",
            format!(
                "epoch {} serial {} was handed to SPIRE",
                watermark.epoch, watermark.serial
            ),
        ),
        (None, _) => Condition::new(
            "Pushed",
            false,
            "NothingYet",
            "nothing was handed to SPIRE yet",
        ),
    }
}

/// Does a workload hold it?
fn confirmed(confirmation: Option<bool>) -> Condition {
    let (reason, message) = match confirmation {
        Some(true) => ("ReadBack", "a workload holds exactly the delivered roots"),
        Some(false) => (
            "OtherRoots",
            "a workload holds other roots than the delivered ones, so far",
        ),
        None => (
            "NotObserved",
            "there is no workload's view of the peer's bundle",
        ),
    };
    Condition::new("Confirmed", confirmation, reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_wrote_neither_fills_a_status_nor_steers_a_terminal() {
        let of = |message: &str| Condition::new("Ready", false, "Reason", message).message;
        assert_eq!(of("née \u{1b}[2J\n"), "née \u{fffd}[2J\u{fffd}");
        let long = of(&"é".repeat(1 << 20));
        assert_eq!(long.chars().count(), MESSAGE + 1);
        assert!(long.ends_with("é…"));
    }
}
