//! What is known about a peer in one pass.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    federation::{
        consent::Consent, guard::Watermark, objects, record::Record, revocation::Revoked,
    },
    model::{
        attestation::{Publication, Rejection},
        bundle::Bundle,
        declaration::TrustDomainSpec,
        repository::RepoPath,
        trust_domain::TrustDomain,
    },
};

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
    /// The revocations of its keys that are in force here.
    pub revoked: Vec<Revoked>,
    /// A file that might revoke more, but can't be read, and no older reading is known.
    pub distrust_unknown: Option<RepoPath>,
    /// The peer's `ClusterFederatedTrustDomain`s of our class, the oldest first: SPIRE's controller
    /// manager heeds only that.
    pub live: Vec<LiveCftd>,
    /// What the `TrustPeer` remembers.
    pub memory: Memory,
    /// What the probe says.
    pub probe: Probe,
    /// What the probe says that federates with nobody: whether probes mean anything.
    pub control: Probe,
    /// The live registrations that name the peer.
    pub named: Named,
    /// What a workload was seen to hold.
    pub view: View,
    /// What the agent itself saw at the peer's endpoint last, if it was asked to look.
    pub endpoint: Option<Bundle>,
    /// Somebody asked to distrust the peer although registrations of others name it.
    pub forced: bool,
}

/// The live registrations that name a peer in `federatesWith`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Whether the agent's probe does.
    pub probe: bool,
    /// Those of the overlay, which this agent applied.
    pub ours: Vec<String>,
    /// Those that others keep.
    pub others: Vec<String>,
    /// Whether SPIRE accepted the entries of one of these two: so it holds a bundle of the peer.
    pub proven: bool,
}

/// A workload's view of a peer's X.509 roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// No workload can be asked.
    #[default]
    None,
    /// The workload that was asked does not federate with the peer.
    NotFederated,
    /// The roots (DER) that it holds.
    Roots(Vec<Vec<u8>>),
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
    /// What its annotations remember; `None` if it is not ours.
    pub record: Option<Record>,
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
            record: Record::from_annotations(&object["metadata"]["annotations"]),
        };
        Some((trust_domain, live))
    }

    /// Its bundle, if it has a readable one.
    pub fn parsed(&self) -> Option<Bundle> {
        Bundle::parse(self.bundle.as_ref()?.as_bytes()).ok()
    }

    /// Whether its URL leads nowhere, so that SPIRE polls nothing.
    pub fn is_cut(&self) -> bool {
        objects::is_cut(&self.url)
    }

    /// Whether it takes every key away, and keeps polling from bringing one back.
    pub fn is_tombstone(&self) -> bool {
        self.is_cut() && self.parsed().is_some_and(|it| it.keys().next().is_none())
    }
}

/// What outlives a peer's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The mirrored watermark.
    pub watermark: Option<Watermark>,
    /// The mirrored revocations.
    pub revoked: Vec<Revoked>,
    /// The mirrored end of everything that was ever delivered.
    pub trusted_until: Option<Timestamp>,
    /// Whether the peer was `Federated`, and has not left since.
    pub was_federated: bool,
    /// Since when no registration names a leaving peer.
    pub unnamed_since: Option<Timestamp>,
    /// Since when SPIRE refuses entries that federate with a peer whose bundle it was given.
    pub failing_since: Option<Timestamp>,
    /// How often the bundle was pushed again for that.
    pub repairs: u32,
    /// How long the last bundle took from its signature to its delivery.
    pub lag: Option<SignedDuration>,
}

/// What the status of a probe says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// SPIRE accepted its entry.
    Ready,
    /// SPIRE refused its entry.
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
