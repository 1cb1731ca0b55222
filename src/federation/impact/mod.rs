//! What a change of the declarations does to trust, in words that people read before they merge.
//!
//! Whatever decides which bundles are believed comes first: signers, endpoints, epochs, keys; then who
//! trusts whom; then which clusters and SPIRE servers that concerns.

mod graph;
mod identities;
mod keys;
mod publication;
mod registrations;
mod sentence;
mod server;
mod words;
mod workloads;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

pub use self::{
    graph::{Fate, GraphEdge, graph},
    identities::{IdentityChange, identities},
    keys::KeyChange,
    publication::{Bundles, PublicationChange, PublicationState, Published, TrustedKey},
    registrations::{Registration, Registrations, alone, registrations},
    sentence::{Piece, Sentence},
    server::{Management, ServerChange},
    workloads::restarts,
};

use self::publication::importers;

use super::consent::{Consent, Move, consent};
use crate::model::{
    declaration::{BundleEndpoint, Signer, TrustDomainSpec},
    declarations::Declarations,
    repository::RepoPath,
    topology::Edge,
    trust_domain::{ClusterName, TrustDomain},
};

/// One difference that matters to trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Change {
    /// A trust domain is declared that was not.
    Declared {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// Its clusters.
        clusters: Vec<ClusterName>,
        /// The fingerprints of the keys that may sign its bundles.
        signers: Vec<String>,
        /// Where its bundle is polled.
        endpoint: BundleEndpoint,
    },
    /// A trust domain is no longer declared.
    Undeclared {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// Its clusters.
        clusters: Vec<ClusterName>,
        /// Who trusted it, and will not.
        importers: BTreeSet<TrustDomain>,
        /// Whom its workloads trusted.
        peers: BTreeSet<TrustDomain>,
    },
    /// Other keys may sign a trust domain's bundles.
    Signers {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// Fingerprints of new keys.
        added: Vec<String>,
        /// Fingerprints of keys that are not accepted any more.
        removed: Vec<String>,
        /// Who takes its bundles in.
        importers: BTreeSet<TrustDomain>,
    },
    /// A trust domain's bundle is polled elsewhere, or by another proof.
    Endpoint {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// What was declared.
        before: BundleEndpoint,
        /// What is declared.
        after: BundleEndpoint,
        /// Who takes its bundles in.
        importers: BTreeSet<TrustDomain>,
    },
    /// A trust domain's serials start again.
    Epoch {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// What was declared.
        before: u64,
        /// What is declared.
        after: u64,
        /// Who takes its bundles in.
        importers: BTreeSet<TrustDomain>,
    },
    /// A direction of trust begins, ends, or waits for somebody else.
    Edge {
        /// Whose workloads trust.
        importer: TrustDomain,
        /// Whom they trust.
        exporter: TrustDomain,
        /// The importer's clusters.
        clusters: Vec<ClusterName>,
        /// How it was.
        before: State,
        /// How it is.
        after: State,
        /// The exporter's keys that the workloads come to trust, or no longer trust, as far as its
        /// bundle is at hand.
        keys: Vec<TrustedKey>,
        /// What the exporter has published, if that was looked at: without a bundle that can be used,
        /// the edge has to wait for one.
        #[serde(skip_serializing_if = "Option::is_none")]
        published: Option<PublicationState>,
    },
    /// Another cluster publishes a trust domain's bundle.
    Publisher {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// Who did.
        before: Option<ClusterName>,
        /// Who does.
        after: Option<ClusterName>,
    },
    /// Clusters join a trust domain, or leave it.
    Clusters {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// New clusters.
        joined: Vec<ClusterName>,
        /// Clusters that are not declared any more.
        left: Vec<ClusterName>,
        /// Whom its workloads trust.
        peers: BTreeSet<TrustDomain>,
    },
    /// SPIRE servers come to be managed, or no longer are.
    Server(ServerChange),
    /// Agents come to refuse what a trust domain has published, or take it again.
    Publication(PublicationChange),
    /// A registration gives SPIFFE IDs to others than before, or other ones.
    Identity(IdentityChange),
    /// Keys are taken back, accepted again, or gone from a bundle.
    #[serde(untagged)]
    Keys(KeyChange),
}

/// How a direction of trust stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum State {
    /// The topology asks for no such edge.
    Absent,
    /// The topology asks for it; somebody has yet to agree.
    Waiting {
        /// Whose move it is.
        #[serde(serialize_with = "in_words")]
        #[schemars(with = "Vec<String>")]
        moves: Vec<Move>,
    },
    /// The topology asks for it; what one side says can't be read.
    Unknown {
        /// The file.
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        path: RepoPath,
    },
    /// The topology asks for it, and both sides agree.
    Active,
}

fn in_words<S: Serializer>(moves: &[Move], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(moves.iter().map(ToString::to_string))
}

fn as_text<S: Serializer>(path: &RepoPath, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(path)
}

/// Everything that differs between two readings of the declarations and matters to trust.
///
/// A topology that can't be read says nothing about edges: then none is reported.
pub fn impact(before: &Declarations, after: &Declarations, bundles: &Bundles) -> Vec<Change> {
    let mut identities = Vec::new();
    let mut declared = Vec::new();
    let mut memberships = Vec::new();
    let mut servers = Vec::new();
    let names: BTreeSet<_> = before
        .trust_domains
        .keys()
        .chain(after.trust_domains.keys())
        .collect();
    for name in names {
        let (old, new) = (
            before.trust_domains.get(name),
            after.trust_domains.get(name),
        );
        servers.extend(server::server(name, before, after).map(Change::Server));
        match (old, new) {
            (None, Some(spec)) => declared.push(Change::Declared {
                trust_domain: name.clone(),
                clusters: clusters(spec),
                signers: signers(spec),
                endpoint: spec.bundle_endpoint.clone(),
            }),
            (Some(old), None) => declared.push(undeclared(name, old, before, after)),
            (Some(old), Some(new)) => {
                identities.extend(identity(name, old, new, after));
                memberships.extend(membership(name, old, new, after));
            }
            (None, None) => {}
        }
    }
    let publications = publication::changes(after, bundles);
    let mut keys = keys::distrusted(before, after, bundles);
    keys.extend(keys::published(after, bundles));
    identities
        .into_iter()
        .chain(publications.into_iter().map(Change::Publication))
        .chain(keys.into_iter().map(Change::Keys))
        .chain(declared)
        .chain(edges(before, after, bundles))
        .chain(memberships)
        .chain(servers)
        .collect()
}

/// The trust domains whose bundle makes sentences about this change more precise.
pub fn talked_about(before: &Declarations, after: &Declarations) -> BTreeSet<TrustDomain> {
    let mut names = keys::talked_about(before, after);
    names.extend(edge_states(before, after).map(|(edge, _, _)| edge.exporter));
    for (name, new) in &after.trust_domains {
        if let Some(old) = before.trust_domains.get(name)
            && !identity(name, old, new, after).is_empty()
        {
            names.insert(name.clone());
        }
    }
    names
}

/// A declaration that is gone, and who loses by it.
fn undeclared(
    name: &TrustDomain,
    old: &TrustDomainSpec,
    before: &Declarations,
    after: &Declarations,
) -> Change {
    let edges = after.topology.edges();
    let ends = |edge: &Edge| !after.topology_unknown && !edges.contains(edge);
    let (mut importers, mut peers) = (BTreeSet::new(), BTreeSet::new());
    for edge in active(before).filter(ends) {
        if edge.exporter == *name {
            importers.insert(edge.importer);
        } else if edge.importer == *name {
            peers.insert(edge.exporter);
        }
    }
    Change::Undeclared {
        trust_domain: name.clone(),
        clusters: clusters(old),
        importers,
        peers,
    }
}

/// What decides whether a bundle is believed to be the trust domain's.
fn identity(
    name: &TrustDomain,
    old: &TrustDomainSpec,
    new: &TrustDomainSpec,
    after: &Declarations,
) -> Vec<Change> {
    let (added, removed) = difference(&signers(old), &signers(new));
    let other_signers = !added.is_empty() || !removed.is_empty();
    let other_endpoint = !old.bundle_endpoint.same_address(&new.bundle_endpoint);
    if !other_signers && !other_endpoint && old.epoch == new.epoch {
        // Who is concerned costs a look at the whole topology.
        return Vec::new();
    }
    let importers = importers(after, name);
    let mut changes = Vec::new();
    if other_signers {
        changes.push(Change::Signers {
            trust_domain: name.clone(),
            added,
            removed,
            importers: importers.clone(),
        });
    }
    if other_endpoint {
        changes.push(Change::Endpoint {
            trust_domain: name.clone(),
            before: old.bundle_endpoint.clone(),
            after: new.bundle_endpoint.clone(),
            importers: importers.clone(),
        });
    }
    if old.epoch != new.epoch {
        changes.push(Change::Epoch {
            trust_domain: name.clone(),
            before: old.epoch,
            after: new.epoch,
            importers,
        });
    }
    changes
}

/// Which clusters a trust domain has, and which of them speaks for it.
fn membership(
    name: &TrustDomain,
    old: &TrustDomainSpec,
    new: &TrustDomainSpec,
    after: &Declarations,
) -> Vec<Change> {
    let mut changes = Vec::new();
    if old.publisher() != new.publisher() {
        changes.push(Change::Publisher {
            trust_domain: name.clone(),
            before: old.publisher().cloned(),
            after: new.publisher().cloned(),
        });
    }
    let (joined, left) = difference(&clusters(old), &clusters(new));
    if !joined.is_empty() || !left.is_empty() {
        let peers = active(after)
            .filter(|edge| edge.importer == *name)
            .map(|edge| edge.exporter)
            .collect();
        changes.push(Change::Clusters {
            trust_domain: name.clone(),
            joined,
            left,
            peers,
        });
    }
    changes
}

/// Each direction of trust whose state differs, with both states.
fn edge_states(
    before: &Declarations,
    after: &Declarations,
) -> impl Iterator<Item = (Edge, State, State)> {
    let known = !before.topology_unknown && !after.topology_unknown;
    let (old, new) = (before.topology.edges(), after.topology.edges());
    let all: BTreeSet<_> = old.union(&new).filter(|_| known).cloned().collect();
    all.into_iter().filter_map(move |edge| {
        let (was, is) = (state(&edge, &old, before), state(&edge, &new, after));
        // Of an importer that is gone no agent changes anything.
        let gone = before.trust_domains.contains_key(&edge.importer)
            && !after.trust_domains.contains_key(&edge.importer);
        (was != is && !(gone && is == State::Absent)).then_some((edge, was, is))
    })
}

fn edges(before: &Declarations, after: &Declarations, bundles: &Bundles) -> Vec<Change> {
    let change = |(edge, was, is): (Edge, State, State)| {
        let importer = after.trust_domains.get(&edge.importer);
        let keys = match (&was, &is) {
            (_, State::Active) => Bundles::keys(&bundles.after, after, &edge),
            (State::Active, State::Absent | State::Waiting { .. }) => {
                Bundles::keys(&bundles.before, before, &edge)
            }
            (_, _) => Vec::new(),
        };
        let published = bundles.after.get(&edge.exporter).map(Published::state);
        Change::Edge {
            clusters: importer.map(clusters).unwrap_or_default(),
            importer: edge.importer,
            exporter: edge.exporter,
            before: was,
            after: is,
            keys,
            published,
        }
    };
    edge_states(before, after).map(change).collect()
}

fn state(edge: &Edge, edges: &BTreeSet<Edge>, declarations: &Declarations) -> State {
    if !edges.contains(edge) {
        return State::Absent;
    }
    match consent(edge, declarations) {
        Consent::Given => State::Active,
        Consent::Missing { moves } => State::Waiting { moves },
        Consent::Unknown { path } => State::Unknown { path },
    }
}

/// The edges that both sides agree to.
fn active(declarations: &Declarations) -> impl Iterator<Item = Edge> {
    let edges = declarations.topology.edges().into_iter();
    edges.filter(|edge| consent(edge, declarations) == Consent::Given)
}

fn clusters(spec: &TrustDomainSpec) -> Vec<ClusterName> {
    spec.clusters
        .iter()
        .map(|cluster| cluster.name.clone())
        .collect()
}

fn signers(spec: &TrustDomainSpec) -> Vec<String> {
    let fingerprints = spec.signers.iter().map(Signer::fingerprint);
    fingerprints.collect()
}

/// What is only in `new`, and what is only in `old`.
fn difference<T: Clone + PartialEq>(old: &[T], new: &[T]) -> (Vec<T>, Vec<T>) {
    let only = |these: &[T], those: &[T]| {
        these
            .iter()
            .filter(|item| !those.contains(item))
            .cloned()
            .collect()
    };
    (only(new, old), only(old, new))
}

#[cfg(test)]
mod tests;
