//! The state machine of a peer: facts in; phase, objects and conditions out.

use std::fmt;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    conditions::{self, Condition},
    consent::Consent,
    guard::{self, MAX_TOTAL_BYTES, Refusal, Verdict, Watermark},
    objects::{self, Context},
    resolve::Standing,
};
use crate::model::{
    attestation::{Publication, Rejection},
    bundle::Bundle,
    declaration::TrustDomainSpec,
    trust_domain::TrustDomain,
};

/// Where a peer is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// An edge is declared; consent, a bundle or its signature is missing.
    Pending,
    /// A bundle is delivered; SPIRE has not yet shown that it holds it.
    Seeding,
    /// SPIRE holds the peer's bundle, and registrations may name the peer.
    Federated,
    /// The edge or a consent is gone: registrations no longer name the peer.
    Draining,
}

impl Phase {
    /// The phase as its status field has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Seeding => "Seeding",
            Self::Federated => "Federated",
            Self::Draining => "Draining",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything that is known about a peer in one pass.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The peer.
    pub peer: TrustDomain,
    /// What its owners declare; `None` once it is gone from the repository.
    pub declaration: Option<TrustDomainSpec>,
    /// Whether the topology asks for the edge, and whether both sides agree.
    pub edge: Option<Consent>,
    /// What stands on the peer's branch.
    pub published: Result<Publication, Rejection>,
    /// The peer's `ClusterFederatedTrustDomain`s of our class, the oldest first: SPIRE's controller
    /// manager heeds only that.
    pub live: Vec<LiveCftd>,
    /// What the `TrustPeer` remembers.
    pub memory: Memory,
    /// What the probe says.
    pub probe: Probe,
    /// The peer's X.509 roots (DER) that a workload was seen to hold; `None` without such a view.
    pub observed: Option<Vec<Vec<u8>>>,
}

/// What is read from a live `ClusterFederatedTrustDomain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveCftd {
    /// Its name.
    pub name: String,
    /// `spec.bundleEndpointURL`.
    pub url: String,
    /// `spec.trustDomainBundle`.
    pub bundle: Option<String>,
    /// The watermark in its annotations.
    pub watermark: Option<Watermark>,
}

impl LiveCftd {
    /// Reads the trust domain and the rest from a live object of kind
    /// `ClusterFederatedTrustDomain`; `None` if it is of another class or has no such fields.
    pub fn read(object: &Value, class_name: &str) -> Option<(TrustDomain, Self)> {
        let spec = &object["spec"];
        if spec["className"].as_str()? != class_name {
            return None;
        }
        let trust_domain = TrustDomain::parse(spec["trustDomain"].as_str()?).ok()?;
        let live = Self {
            name: object["metadata"]["name"].as_str()?.to_owned(),
            url: spec["bundleEndpointURL"].as_str()?.to_owned(),
            bundle: spec["trustDomainBundle"].as_str().map(str::to_owned),
            watermark: Watermark::from_annotations(&object["metadata"]["annotations"]),
        };
        Some((trust_domain, live))
    }
}

/// What outlives a peer's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The mirrored watermark.
    pub watermark: Option<Watermark>,
    /// Whether the peer was ever `Federated`.
    pub was_federated: bool,
}

/// What the status of a probe says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// SPIRE accepted an entry that federates with the peer.
    Ready,
    /// SPIRE refused such an entry.
    Refused(String),
    /// Nothing can be said, and why.
    Unknown(String),
}

impl Probe {
    /// Reads a probe from its live `ClusterSPIFFEID`. Its counts are made anew in every pass of
    /// SPIRE's controller manager; a `ClusterStaticEntry`'s `status.set` is not (never use that).
    pub fn read(object: Option<&Value>) -> Self {
        let Some(stats) = object.and_then(|object| object["status"]["stats"].as_object()) else {
            return Self::Unknown("SPIRE's controller manager has not looked at it yet".into());
        };
        let count = |name: &str| stats.get(name).and_then(Value::as_u64).unwrap_or(0);
        let failures = ["entriesMasked", "podEntryRenderFailures", "entryFailures"];
        match failures.into_iter().find(|name| count(name) > 0) {
            Some(failure) => Self::Refused(format!("{failure} is {}", count(failure))),
            None if count("entriesToSet") == 0 => {
                Self::Unknown("no pod matches the probe's selector".into())
            }
            None => Self::Ready,
        }
    }
}

/// What is done about the peer's bundle in this pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing new: all is as it should be, or there is nothing to deliver.
    Keep,
    /// A newer bundle, or the first.
    Push,
    /// The same bundle again, since the object was deleted or its bundle changed by somebody else.
    Repair,
    /// Only the endpoint changes: without a bundle, so that SPIRE keeps what its polling brought.
    Relocate,
    /// A verified publication is not delivered.
    Refused(Refusal),
    /// What is published is no bundle of the peer.
    Rejected(Rejection),
}

/// What a pass decides about a peer.
#[derive(Clone, Debug)]
pub struct PeerState {
    /// The peer.
    pub peer: TrustDomain,
    /// Where it is in its life.
    pub phase: Phase,
    /// The `ClusterFederatedTrustDomain` that should be; `None` leaves what there is.
    pub cftd: Option<Value>,
    /// The probe that should be; `None` if there should be none.
    pub probe: Option<Value>,
    /// Whether registrations may name it.
    pub standing: Standing,
    /// The newest delivery, this pass's included.
    pub watermark: Option<Watermark>,
    /// What is done about its bundle.
    pub delivery: Delivery,
    /// Whether the observed roots are the delivered ones; `None` if they can't be seen.
    pub confirmed: Option<bool>,
    /// When the first of the delivered roots ends.
    pub expires: Option<Timestamp>,
    /// The conditions, in a fixed order.
    pub conditions: Vec<Condition>,
}

impl PeerState {
    /// The most telling sentence: the first condition that does not hold.
    pub fn message(&self) -> String {
        let failing = self
            .conditions
            .iter()
            .find(|condition| condition.status != Some(true));
        failing
            .or(self.conditions.first())
            .map(|c| c.message.clone())
            .unwrap_or_default()
    }

    /// The bytes of bundle that this peer's object holds.
    fn bundle_bytes(&self) -> usize {
        let bundle = self
            .cftd
            .as_ref()
            .and_then(|cftd| cftd["spec"]["trustDomainBundle"].as_str());
        bundle.map_or(0, str::len)
    }
}

/// Decides about all peers of a cluster.
pub fn decide(context: &Context, facts: Vec<Facts>) -> Vec<PeerState> {
    let mut total = 0;
    facts
        .into_iter()
        .map(|facts| {
            let state = decide_peer(context, &facts, total);
            total += state.bundle_bytes();
            state
        })
        .collect()
}

fn decide_peer(context: &Context, facts: &Facts, total: usize) -> PeerState {
    let live = facts.live.first();
    let held = live
        .and_then(|live| live.watermark.clone())
        .max(facts.memory.watermark.clone());
    let active = matches!(facts.edge, Some(Consent::Given));
    // What can't be read ends nothing.
    let wanted = active || matches!(facts.edge, Some(Consent::Unknown { .. }));
    let (cftd, watermark, delivery) = match (&facts.declaration, active) {
        (Some(declaration), true) => deliver(context, facts, declaration, held, total),
        _ => (None, held, Delivery::Keep),
    };
    let delivered = cftd.is_some() || live.is_some();
    let phase = match (wanted, delivered) {
        (_, false) => Phase::Pending,
        (true, true) if facts.memory.was_federated || facts.probe == Probe::Ready => {
            Phase::Federated
        }
        (true, true) => Phase::Seeding,
        (false, true) => Phase::Draining,
    };
    let standing = match phase {
        Phase::Federated => Standing::Ready,
        Phase::Draining => Standing::Leaving,
        Phase::Pending if facts.edge.is_none() => Standing::Leaving,
        Phase::Pending | Phase::Seeding => Standing::HeldBack,
    };
    let probe = watermark
        .as_ref()
        .filter(|_| wanted && delivered)
        .map(|watermark| objects::probe(context, &facts.peer, watermark));
    let bundle = delivered_bundle(live, cftd.as_ref());
    let confirmed = confirmed(facts, bundle.as_ref());
    PeerState {
        peer: facts.peer.clone(),
        phase,
        probe,
        standing,
        confirmed,
        expires: bundle.as_ref().and_then(Bundle::earliest_expiry),
        conditions: conditions::of(facts, phase, &delivery, watermark.as_ref(), confirmed),
        cftd,
        watermark,
        delivery,
    }
}

/// What should stand in the peer's object, and what SPIRE will make of the change.
fn deliver(
    context: &Context,
    facts: &Facts,
    declaration: &TrustDomainSpec,
    held: Option<Watermark>,
    total: usize,
) -> (Option<Value>, Option<Watermark>, Delivery) {
    let publication = match &facts.published {
        Ok(publication) => publication,
        Err(rejection) => return (None, held, Delivery::Rejected(rejection.clone())),
    };
    let verdict = match guard::judge(publication, held.as_ref()) {
        Ok(verdict) => verdict,
        Err(refusal) => return (None, held, Delivery::Refused(refusal)),
    };
    let bundle = objects::delivered_bundle(&publication.bundle, declaration);
    if total + bundle.len() > MAX_TOTAL_BYTES {
        let refusal = Refusal::TooMuch(total + bundle.len());
        return (None, held, Delivery::Refused(refusal));
    }
    let live = facts.live.first();
    let name = live.map_or_else(|| objects::cftd_name(&facts.peer), |live| live.name.clone());
    let write = |watermark: Watermark, bundle: Option<&str>, delivery: Delivery| {
        let object = objects::cftd(context, &name, &facts.peer, declaration, &watermark, bundle);
        (Some(object), Some(watermark), delivery)
    };
    let (Verdict::Same, Some(held)) = (verdict, held) else {
        return write(Watermark::of(publication), Some(&bundle), Delivery::Push);
    };
    let Some(live) = live else {
        return write(held.again(), Some(&bundle), Delivery::Repair);
    };
    let url = objects::endpoint_url(&facts.peer, &declaration.bundle_endpoint, &held);
    let untouched = |text: &String| {
        Bundle::parse(text.as_bytes()).is_ok_and(|live| live.same_keys(&publication.bundle))
    };
    match &live.bundle {
        Some(text) if !untouched(text) => write(held.again(), Some(&bundle), Delivery::Repair),
        // The address differs: SPIRE would take the bundle that comes with a changed URL, which its
        // own polling may have overtaken.
        _ if live.url != url => write(held, None, Delivery::Relocate),
        // An unchanged URL: SPIRE looks at nothing else, so the bundle may be put back.
        _ => write(held, Some(&bundle), Delivery::Keep),
    }
}

/// The bundle that the peer's object holds after this pass.
fn delivered_bundle(live: Option<&LiveCftd>, cftd: Option<&Value>) -> Option<Bundle> {
    let desired = cftd.and_then(|cftd| cftd["spec"]["trustDomainBundle"].as_str());
    let text = desired.or_else(|| live?.bundle.as_deref())?;
    Bundle::parse(text.as_bytes()).ok()
}

/// Whether a workload holds exactly the delivered roots.
fn confirmed(facts: &Facts, delivered: Option<&Bundle>) -> Option<bool> {
    let mut observed = facts.observed.clone()?;
    let mut delivered: Vec<_> = delivered?
        .x509_authorities
        .iter()
        .map(|a| a.certificate.clone())
        .collect();
    observed.sort();
    delivered.sort();
    Some(observed == delivered)
}
