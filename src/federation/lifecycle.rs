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
    /// The most telling sentence: of the first condition that does not hold, or else of `Ready`. That
    /// nobody can see what a workload holds is no complaint.
    pub fn message(&self) -> String {
        let complaint = self
            .conditions
            .iter()
            .find(|condition| match condition.status {
                Some(holds) => !holds,
                None => condition.kind != "Confirmed",
            });
        let ready = || self.conditions.iter().find(|c| c.kind == "Ready");
        complaint
            .or_else(ready)
            .map(|condition| condition.message.clone())
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        federation::{consent::Move, objects::ProbePods},
        model::{
            attestation::{Attestation, KIND, Serial},
            declaration::{API_VERSION, BundleEndpoint},
        },
    };

    const CLASS: &str = "class";

    fn peer() -> TrustDomain {
        TrustDomain::parse("b.test").unwrap()
    }

    fn context() -> Context {
        Context {
            trust_domain: TrustDomain::parse("a.test").unwrap(),
            class_name: CLASS.to_owned(),
            probe: ProbePods {
                namespace: "n".to_owned(),
                label: ("app".to_owned(), "x".to_owned()),
            },
        }
    }

    fn declaration(url: &str) -> TrustDomainSpec {
        serde_json::from_value(json!({
            "clusters": [{"name": "b"}], "signers": [],
            "spire": {"distribution": "custom", "namespace": "s", "className": CLASS},
            "bundleEndpoint": {
                "profile": "https_spiffe", "url": url, "spiffeID": "spiffe://b.test/spire/server",
            },
        }))
        .unwrap()
    }

    fn bundle() -> Bundle {
        crate::model::bundle::sample("b.test")
    }

    fn publication(bundle: &Bundle, serial: u64) -> Publication {
        Publication {
            bundle: bundle.clone(),
            attestation: Attestation {
                api_version: API_VERSION.to_owned(),
                kind: KIND.to_owned(),
                trust_domain: peer(),
                epoch: 0,
                serial: Serial(serial),
                sha256: bundle.digest(),
                spiffe_sequence: None,
                endpoint: BundleEndpoint::None,
                cluster_uid: String::new(),
                issued_at: Timestamp::UNIX_EPOCH,
            },
        }
    }

    /// A peer that both sides agree on, with nothing delivered yet.
    fn facts(published: Result<Publication, Rejection>) -> Facts {
        Facts {
            peer: peer(),
            declaration: Some(declaration("https://b.example")),
            edge: Some(Consent::Given),
            published,
            live: Vec::new(),
            memory: Memory::default(),
            probe: Probe::Unknown(String::new()),
            observed: None,
        }
    }

    /// The same peer after what was decided was applied.
    fn after(facts: &Facts, state: &PeerState) -> Facts {
        let mut facts = facts.clone();
        if let Some(cftd) = &state.cftd {
            facts.live = vec![LiveCftd::read(cftd, CLASS).unwrap().1];
        }
        facts.memory.watermark = state.watermark.clone();
        facts.memory.was_federated |= state.phase == Phase::Federated;
        facts
    }

    fn decide_one(facts: &Facts) -> PeerState {
        decide(&context(), vec![facts.clone()]).remove(0)
    }

    /// A peer whose bundle was delivered under a serial, and is ready.
    fn federated(bundle: &Bundle, serial: u64) -> Facts {
        let mut facts = facts(Ok(publication(bundle, serial)));
        facts.probe = Probe::Ready;
        let seeded = after(&facts, &decide_one(&facts));
        after(&seeded, &decide_one(&seeded))
    }

    fn url(state: &PeerState) -> &str {
        let cftd = state.cftd.as_ref().unwrap();
        cftd["spec"]["bundleEndpointURL"].as_str().unwrap()
    }

    #[test]
    fn a_peer_is_seeded_then_federated_then_left_alone() {
        let bundle = bundle();
        let start = facts(Ok(publication(&bundle, 1)));
        let seeded = decide_one(&start);
        assert_eq!(seeded.phase, Phase::Seeding);
        assert_eq!(seeded.standing, Standing::HeldBack);
        assert_eq!(seeded.delivery, Delivery::Push);
        assert_eq!(url(&seeded), "https://b.example/#0.1.0.0");
        let delivered = seeded.cftd.as_ref().unwrap()["spec"]["trustDomainBundle"].clone();
        assert!(
            delivered
                .as_str()
                .unwrap()
                .contains("\"spiffe_refresh_hint\": 60")
        );
        assert!(seeded.probe.is_some());

        let mut next = after(&start, &seeded);
        next.probe = Probe::Refused("entryFailures is 1".to_owned());
        assert_eq!(decide_one(&next).phase, Phase::Seeding);
        next.probe = Probe::Ready;
        let ready = decide_one(&next);
        assert_eq!(
            (ready.phase, ready.standing),
            (Phase::Federated, Standing::Ready)
        );
        assert_eq!(ready.delivery, Delivery::Keep);
        assert_eq!(ready.cftd, seeded.cftd);
    }

    #[test]
    fn nothing_is_delivered_without_consent_and_a_bundle() {
        let unpublished = decide_one(&facts(Err(Rejection::Unpublished)));
        assert_eq!(
            (unpublished.phase, unpublished.cftd),
            (Phase::Pending, None)
        );
        assert_eq!(unpublished.standing, Standing::HeldBack);
        let mut refused = facts(Ok(publication(&bundle(), 1)));
        refused.edge = Some(Consent::Missing {
            moves: vec![Move {
                owner: peer(),
                list: "export",
                peer: context().trust_domain,
            }],
        });
        let refused = decide_one(&refused);
        assert_eq!(
            (refused.phase, refused.cftd, refused.probe),
            (Phase::Pending, None, None)
        );
    }

    #[test]
    fn a_newer_bundle_is_pushed_and_an_older_or_a_second_one_never() {
        let (first, second) = (bundle(), bundle());
        let mut facts = federated(&first, 5);
        facts.published = Ok(publication(&second, 6));
        let newer = decide_one(&facts);
        assert_eq!(newer.delivery, Delivery::Push);
        assert_eq!(url(&newer), "https://b.example/#0.6.0.0");
        for (published, reason) in [
            (publication(&second, 4), "Rollback"),
            (publication(&second, 5), "Equivocation"),
        ] {
            facts.published = Ok(published);
            let state = decide_one(&facts);
            assert!(
                matches!(&state.delivery, Delivery::Refused(refusal) if refusal.reason() == reason)
            );
            assert_eq!((state.phase, state.cftd), (Phase::Federated, None));
            assert_eq!(state.watermark.unwrap().serial, Serial(5));
        }
        facts.published = Err(Rejection::NoSigners);
        let rejected = decide_one(&facts);
        assert_eq!((rejected.phase, rejected.cftd), (Phase::Federated, None));
    }

    #[test]
    fn what_somebody_changed_or_deleted_is_repaired_by_a_new_push() {
        let bundle = bundle();
        let mut facts = federated(&bundle, 1);
        facts.live[0].bundle = Some("{\"keys\": []}".to_owned());
        let changed = decide_one(&facts);
        assert_eq!(changed.delivery, Delivery::Repair);
        assert_eq!(url(&changed), "https://b.example/#0.1.0.1");
        facts.live.clear();
        let deleted = decide_one(&facts);
        assert_eq!(deleted.delivery, Delivery::Repair);
        assert_eq!(deleted.phase, Phase::Federated);
    }

    #[test]
    fn another_address_never_brings_an_older_bundle_with_it() {
        let mut facts = federated(&bundle(), 1);
        facts.declaration = Some(declaration("https://moved.example"));
        let moved = decide_one(&facts);
        assert_eq!(moved.delivery, Delivery::Relocate);
        assert_eq!(
            moved.cftd.as_ref().unwrap()["spec"].get("trustDomainBundle"),
            None
        );
        // It is put back once the address is the same: SPIRE looks at nothing but the URL.
        let next = decide_one(&after(&facts, &moved));
        assert_eq!(next.delivery, Delivery::Keep);
        assert_eq!(url(&next), url(&moved));
        assert!(
            next.cftd.as_ref().unwrap()["spec"]
                .get("trustDomainBundle")
                .is_some()
        );
    }

    #[test]
    fn a_federated_peer_leaves_registrations_by_draining_only() {
        let mut facts = federated(&bundle(), 1);
        facts.probe = Probe::Unknown("no pod".to_owned());
        assert_eq!(decide_one(&facts).standing, Standing::Ready);
        facts.edge = Some(Consent::Unknown {
            path: crate::model::repository::topology_path(),
        });
        let unknown = decide_one(&facts);
        assert_eq!(
            (unknown.phase, unknown.standing),
            (Phase::Federated, Standing::Ready)
        );
        assert_eq!(unknown.cftd, None);
        assert!(unknown.probe.is_some());
        facts.edge = None;
        let draining = decide_one(&facts);
        assert_eq!(
            (draining.phase, draining.standing),
            (Phase::Draining, Standing::Leaving)
        );
        assert_eq!((draining.cftd, draining.probe), (None, None));
    }

    #[test]
    fn all_bundles_together_stay_below_what_spire_can_carry() {
        let bundle = bundle();
        let one = objects::delivered_bundle(&bundle, &declaration("https://b.example")).len();
        let many = MAX_TOTAL_BYTES / one + 1;
        let facts: Vec<_> = (0..many)
            .map(|number| Facts {
                peer: TrustDomain::parse(&format!("p{number}.test")).unwrap(),
                ..facts(Ok(publication(&bundle, 1)))
            })
            .collect();
        let states = decide(&context(), facts);
        let refused = states
            .iter()
            .filter(|state| matches!(state.delivery, Delivery::Refused(Refusal::TooMuch(_))));
        assert_eq!(refused.count(), 1);
    }
}
