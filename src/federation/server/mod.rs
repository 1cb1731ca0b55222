//! The SPIRE server of the agent's own cluster: what is to be written so that it serves its bundle
//! as declared, and what is told of that. A pure function: facts in, writes and conditions out.
//!
//! | question | module |
//! |---|---|
//! | which objects are looked at, and who decides about them | here |
//! | `server.conf`, its `ConfigMap`, and giving them back | [`config`], [`configuration`] |
//! | the `StatefulSet`: port, restart, what a restart would lose | [`rollout`], [`survival`] |
//! | Service, Route, Ingress, `TLSRoute` | [`exposure`] |
//! | somebody else writes the same | [`fight`] |
//!
//! **Invariants:** what already says the right thing is not written; whatever is not ours in an
//! object stays as it is; a restart comes once per configuration that we wrote, and never where it
//! would lose keys or registrations unless that was accepted; what was reverted twice is left alone
//! until somebody decides; what was there before comes back when the agent is dismissed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    conditions::Condition,
    consent::{Consent, consent},
};
use crate::model::{
    declaration::{Distribution, ServedEndpoint, Server, Spire},
    declarations::Declarations,
    manifest::{Gvk, ObjectKey, ObjectRef},
    topology::Edge,
    trust_domain::TrustDomain,
};

pub mod config;
mod configuration;
mod exposure;
pub mod fight;
mod objects;
mod rollout;
mod survival;

pub use self::fight::{Memory, Piece, Revert};

/// The condition that says whether the server's own configuration is as declared.
pub const SERVER_CONFIGURED: &str = "ServerConfigured";

/// The condition that says whether the endpoint's Service, and what exposes it, are as declared.
pub const ENDPOINT_EXPOSED: &str = "EndpointExposed";

/// Annotation of the `GitSync`: another text than before ends a standstill after a fight.
pub const RESUME: &str = "trustweave.dev/resume-server";

/// A SPIRE server's objects in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Who installed it, and so by which way it is changed.
    pub distribution: Distribution,
    /// Its namespace.
    pub namespace: String,
    /// What its objects are called.
    pub server: Server,
}

impl From<&Spire> for Installation {
    fn from(spire: &Spire) -> Self {
        Self {
            distribution: spire.distribution,
            namespace: spire.namespace.clone(),
            server: spire.server.clone(),
        }
    }
}

/// What the declarations ask of the SPIRE server in the clusters of a trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The server's objects.
    pub installation: Installation,
    /// The endpoint; `manage` is true.
    pub endpoint: ServedEndpoint,
    /// The peers to be written into the server's own configuration: those that have an endpoint and
    /// are imported from; `None` if the declaration does not ask for that.
    pub static_peers: Option<BTreeMap<TrustDomain, ServedEndpoint>>,
}

impl Wanted {
    /// What a trust domain's declaration asks for; `None` if the agent is not to manage its server.
    pub fn of(declarations: &Declarations, own: &TrustDomain) -> Option<Self> {
        let spec = declarations.trust_domains.get(own)?;
        let endpoint = spec.bundle_endpoint.managed()?;
        Some(Self {
            trust_domain: own.clone(),
            installation: Installation::from(&spec.spire),
            endpoint: endpoint.clone(),
            static_peers: endpoint
                .static_federates_with
                .then(|| static_peers(declarations, own)),
        })
    }
}

/// The peers with an endpoint whose bundles a trust domain takes in, by the consent of both.
fn static_peers(
    declarations: &Declarations,
    own: &TrustDomain,
) -> BTreeMap<TrustDomain, ServedEndpoint> {
    let peers = declarations.topology.peers_of(own).into_iter();
    peers
        .filter_map(|peer| {
            let edge = Edge {
                importer: own.clone(),
                exporter: peer.clone(),
            };
            let active = consent(&edge, declarations) == Consent::Given;
            let endpoint = declarations
                .trust_domains
                .get(&peer)?
                .bundle_endpoint
                .served()?;
            active.then(|| (peer, endpoint.clone()))
        })
        .collect()
}

/// What was read from the cluster.
#[derive(Clone, Debug, Default)]
pub struct Live {
    objects: BTreeMap<ObjectKey, Value>,
    unknown: Vec<Gvk>,
}

impl Live {
    /// Adds an object that was found.
    pub fn insert(&mut self, reference: &ObjectRef, object: Value) {
        self.objects.insert(reference.key(), object);
    }

    /// Notes that the cluster has no such kind.
    pub fn lacks(&mut self, gvk: &Gvk) {
        self.unknown.push(gvk.clone());
    }

    /// An object, if it was found.
    pub fn get(&self, reference: &ObjectRef) -> Option<&Value> {
        self.objects.get(&reference.key())
    }

    /// Whether the cluster was found to lack a kind.
    pub fn is_unknown(&self, gvk: &Gvk) -> bool {
        self.unknown.contains(gvk)
    }
}

/// Everything that a decision is made by.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What is declared; `None` if the agent is not to manage the server (any more).
    pub wanted: Option<&'a Wanted>,
    /// What [`reads`] asked for.
    pub live: &'a Live,
    /// What earlier passes remember.
    pub memory: &'a Memory,
    /// The time.
    pub now: Timestamp,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A JSON merge patch of an object; its `metadata.resourceVersion` is that of the object that
    /// was read, so that nothing is written over what somebody else wrote meanwhile.
    Edit {
        /// The object.
        reference: ObjectRef,
        /// The patch.
        patch: Value,
    },
    /// A server-side apply of these fields, and no others.
    Apply(Value),
    /// The deletion of the object that was read.
    Delete(Value),
}

/// A write, and what it is good for.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The part of the installation that it concerns: what a fight would be about.
    pub piece: Piece,
    /// The write.
    pub write: Write,
    /// What is told of it once it is done.
    pub why: String,
    /// Whether it restarts the server.
    pub restarts: bool,
    /// What to remember once it is done.
    pub remember: Memory,
}

/// What is to be done, in order, and what is told of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// What to remember before anything is written.
    pub memory: Memory,
    /// The writes. One that fails ends the rest: each stands on those before.
    pub steps: Vec<Step>,
    /// What is told, supposing that every step succeeds.
    pub conditions: Vec<Condition>,
    /// Trust domains that stand in the server's own configuration: what it says of them outranks
    /// their relationships.
    pub static_names: Vec<String>,
}

/// The objects that a decision looks at: to be read for it, and watched after it. Empty if the agent
/// neither manages the server nor did.
pub fn reads(wanted: Option<&Wanted>, memory: &Memory) -> Vec<ObjectRef> {
    let installation = match (&memory.installation, wanted) {
        (Some(former), _) => former,
        (None, Some(wanted)) => &wanted.installation,
        (None, None) => return Vec::new(),
    };
    let mut references = match installation.distribution {
        Distribution::Custom | Distribution::Helm | Distribution::Ztwim => {
            objects::reads(installation, wanted)
        }
    };
    for object in &memory.objects {
        if !references.contains(object) {
            references.push(object.clone());
        }
    }
    references
}

/// Decides. An installation that is declared under another name is first given back where it was.
pub fn decide(facts: &Facts<'_>) -> Decision {
    let former = facts.memory.installation.as_ref();
    let moved = former.filter(|former| {
        facts
            .wanted
            .is_none_or(|wanted| wanted.installation != **former)
    });
    match (moved, facts.wanted) {
        (Some(former), _) => match former.distribution {
            Distribution::Custom | Distribution::Helm | Distribution::Ztwim => {
                objects::release(facts, former)
            }
        },
        (None, Some(wanted)) => match wanted.installation.distribution {
            Distribution::Custom | Distribution::Helm | Distribution::Ztwim => {
                objects::manage(facts, wanted)
            }
        },
        (None, None) => Decision::default(),
    }
}
