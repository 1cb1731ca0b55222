//! What is told about a peer: each condition answers one question, in one sentence.

use super::{
    consent::Consent,
    guard::Watermark,
    lifecycle::{Delivery, Facts, LiveCftd, Phase, Probe},
};

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
    fn new(
        kind: &'static str,
        status: impl Into<Option<bool>>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            status: status.into(),
            reason,
            message: message.into(),
        }
    }
}

/// All conditions of a peer; what is wrong comes before what merely follows from it.
pub(super) fn of(
    facts: &Facts,
    phase: Phase,
    delivery: &Delivery,
    watermark: Option<&Watermark>,
    confirmation: Option<bool>,
) -> Vec<Condition> {
    let consented = consented(facts.edge.as_ref());
    let accepted = accepted(delivery, consented.status == Some(true));
    let rest = [
        consented,
        accepted,
        ready(phase, &facts.probe),
        pushed(watermark),
        confirmed(confirmation),
    ];
    unique(&facts.live).into_iter().chain(rest).collect()
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
fn accepted(delivery: &Delivery, consented: bool) -> Condition {
    let (status, reason, message) = match delivery {
        Delivery::Rejected(rejection) => (Some(false), rejection.reason(), rejection.to_string()),
        Delivery::Refused(refusal) => (Some(false), refusal.reason(), refusal.to_string()),
        _ if consented => (
            Some(true),
            "Verified",
            "the published bundle is signed by a declared signer".to_owned(),
        ),
        _ => (
            None,
            "NotLookedAt",
            "nothing is delivered without consent".to_owned(),
        ),
    };
    Condition::new("BundleAccepted", status, reason, message)
}

/// May registrations name the peer?
fn ready(phase: Phase, probe: &Probe) -> Condition {
    let (status, message) = match (phase, probe) {
        (Phase::Federated, _) => (true, "SPIRE holds the peer's bundle".to_owned()),
        (Phase::Pending, _) => (false, "nothing is delivered yet".to_owned()),
        (Phase::Draining, _) => (
            false,
            "no registration names the peer any more; its relationship stays until it is removed by hand"
                .to_owned(),
        ),
        (Phase::Seeding, Probe::Refused(why)) => {
            (false, format!("SPIRE does not hold the peer's bundle yet: {why}"))
        }
        (Phase::Seeding, Probe::Unknown(why)) => {
            (false, format!("the probe says nothing yet: {why}"))
        }
        (Phase::Seeding, Probe::Ready) => (false, "the probe is ready".to_owned()),
    };
    Condition::new("Ready", status, phase.as_str(), message)
}

/// Was a bundle handed to SPIRE?
fn pushed(watermark: Option<&Watermark>) -> Condition {
    match watermark {
        Some(watermark) => Condition::new(
            "Pushed",
            true,
            "Delivered",
            format!(
                "epoch {} serial {} was handed to SPIRE",
                watermark.epoch, watermark.serial
            ),
        ),
        None => Condition::new(
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
