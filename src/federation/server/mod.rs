//! The SPIRE server of the agent's own cluster: what is to be written so that it serves its bundle
//! as declared, and what is told of that. A pure function: facts in, writes and conditions out.
//!
//! | question | module |
//! |---|---|
//! | which objects are looked at, and who decides about them | here |
//! | `server.conf`, its `ConfigMap`, and giving them back | [`config`], `configuration` |
//! | the `StatefulSet`: port, restart, what a restart would lose | `rollout`, `survival` |
//! | Service, Route, Ingress, `TLSRoute` | `exposure` |
//! | the operator of the distribution `ztwim` | `ztwim` |
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
    bundle::Digest,
    declaration::{Distribution, Expose, ServedEndpoint, Server, Spire},
    declarations::Declarations,
    field_owners::last_other_writer,
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
mod section;
pub(super) mod survival;
mod ztwim;

use self::fight::Verdict;
pub use self::fight::{Memory, Piece, Revert};

/// The condition that says whether the server's own configuration is as declared.
pub const SERVER_CONFIGURED: &str = "ServerConfigured";

/// The condition that says whether the endpoint's Service, and what exposes it, are as declared.
pub const ENDPOINT_EXPOSED: &str = "EndpointExposed";

/// The condition that names what SPIRE drops from its configuration without a word.
pub const CONFIGURATION_SPELT: &str = "ConfigurationSpelt";

/// The condition that names peers whose place in the server's own configuration outranks what is
/// declared.
pub const STATIC_FEDERATION: &str = "StaticFederation";

/// For people, on the `GitSync`: another text than before ends a standstill after a fight.
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
    /// The version of `TLSRoute` that the cluster prefers; `None` if it has no such kind, or as long
    /// as it was not asked.
    pub tls_route: Option<Gvk>,
}

/// The kind of the Gateway API by which TLS is passed through, as a cluster is asked for it.
pub const TLS_ROUTE: &str = "TLSRoute.gateway.networking.k8s.io";

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
            tls_route: None,
        })
    }

    /// Whether both ask for the same configuration of the same server.
    pub fn configures_as(&self, other: &Self) -> bool {
        self.installation == other.installation && section::asked(self) == section::asked(other)
    }

    /// Whether both ask for the same way to the same endpoint.
    pub fn exposes_as(&self, other: &Self) -> bool {
        let way = |wanted: &Self| (wanted.endpoint.expose.clone(), wanted.endpoint.url.clone());
        self.installation == other.installation && way(self) == way(other)
    }

    /// Whether [`Self::tls_route`] has to be looked up.
    pub fn needs_tls_route(&self) -> bool {
        matches!(self.endpoint.expose, Some(Expose::Gateway(_)))
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
    /// Whether a restart may lose what `survival` finds; declared also for giving back.
    pub accept_data_loss: bool,
    /// The time.
    pub now: Timestamp,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A JSON merge patch. It holds the `metadata.resourceVersion` of the object that was read, so
    /// that nothing is written over what somebody else wrote meanwhile.
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
    /// What is told of it once it is done, as in `the agent …`.
    pub why: String,
    /// Whether it restarts the server.
    pub restarts: bool,
    /// What was asked for, if it is to be kept from now on.
    pub asked: Option<Digest>,
    /// Whose revert it undoes.
    pub undone: Option<Revert>,
}

impl Step {
    /// The piece whose step must not have failed before: a restart is for a new configuration.
    pub fn follows(&self) -> Option<Piece> {
        (self.piece == Piece::Workload).then_some(Piece::Configuration)
    }
}

/// What is to be done, in order, and what is told of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// What to remember before anything is written.
    pub memory: Memory,
    /// The writes. One that fails stops only those that follow from it.
    pub steps: Vec<Step>,
    /// What is told, supposing that every step succeeds.
    pub conditions: Vec<Condition>,
}

impl Decision {
    /// To give back what was managed: what was written and reverted counts no more.
    fn to_give_back(memory: &Memory) -> Self {
        Self {
            memory: Memory {
                written: BTreeMap::new(),
                reverts: Vec::new(),
                ..memory.clone()
            },
            ..Self::default()
        }
    }

    fn tell(
        &mut self,
        kind: &'static str,
        status: impl Into<Option<bool>>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.conditions
            .push(Condition::new(kind, status, reason, message));
    }

    /// Whether the last write of a piece asked for the same.
    fn asked_for(&self, piece: Piece, asked: &Value) -> bool {
        let asked = Digest::of(asked.to_string().as_bytes());
        self.memory.written.get(&piece) == Some(&asked)
    }

    /// Writes a piece that is not as asked for, unless there is a fight about it: then that is told
    /// as a condition of the kind.
    fn write(&mut self, facts: &Facts<'_>, kind: &'static str, draft: Draft<'_>) -> bool {
        let Draft {
            piece,
            object,
            live,
            path,
            asked,
            write,
            why,
            restarts,
        } = draft;
        let by = match live {
            None => "somebody who deleted it",
            Some(live) => last_other_writer(live, path).map_or("somebody", |(name, _)| name),
        };
        let asked = Digest::of(asked.to_string().as_bytes());
        match self.memory.judge(piece, &asked, by, facts.now) {
            Verdict::Stop(reverts) => {
                self.tell(kind, false, "Fought", fight::words(object, &reverts));
                false
            }
            Verdict::Write(undone) => {
                self.steps.push(Step {
                    piece,
                    write,
                    why,
                    restarts,
                    asked: Some(asked),
                    undone,
                });
                true
            }
        }
    }
}

/// A write that has yet to be judged.
struct Draft<'a> {
    piece: Piece,
    object: &'a ObjectRef,
    live: Option<&'a Value>,
    /// What of the object is written, as `managedFields` has it; all of it if empty.
    path: &'a [&'a str],
    /// What is asked for: the same for as long as the declarations are.
    asked: Value,
    write: Write,
    why: String,
    restarts: bool,
}

/// The objects that a decision looks at: to be read for it, and watched after it. Empty if the agent
/// neither manages the server nor did. What is read may ask for more: it is to be asked again with what
/// was read, until it names nothing new.
pub fn reads(wanted: Option<&Wanted>, memory: &Memory, live: &Live) -> Vec<ObjectRef> {
    let installation = match (&memory.installation, wanted) {
        (Some(former), _) => former,
        (None, Some(wanted)) => &wanted.installation,
        (None, None) => return Vec::new(),
    };
    let mut references = match installation.distribution {
        Distribution::Custom | Distribution::Helm => objects::reads(installation, wanted),
        Distribution::Ztwim => ztwim::reads(installation, wanted, live),
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
            Distribution::Custom | Distribution::Helm => objects::release(facts, former),
            Distribution::Ztwim => ztwim::release(facts, former),
        },
        (None, Some(wanted)) => match wanted.installation.distribution {
            Distribution::Custom | Distribution::Helm => objects::manage(facts, wanted),
            Distribution::Ztwim => ztwim::manage(facts, wanted),
        },
        (None, None) => Decision::default(),
    }
}

#[cfg(test)]
mod tests;
