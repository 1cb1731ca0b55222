//! Changes in sentences.

use std::{collections::BTreeSet, fmt};

use super::{
    Change, PublicationState, State, TrustedKey,
    sentence::{Sentence, named, sentence},
};
use crate::{
    federation::consent::Move,
    model::{
        declaration::BundleEndpoint,
        trust_domain::{ClusterName, TrustDomain},
    },
};

impl Change {
    /// What happens, in one sentence.
    pub fn sentence(&self) -> Sentence {
        match self {
            Self::Declared {
                trust_domain,
                clusters,
                signers,
                endpoint,
            } => declared(trust_domain, clusters, signers, endpoint),
            Self::Undeclared {
                trust_domain,
                clusters,
                importers,
                peers,
            } => undeclared(trust_domain, clusters, importers, peers),
            Self::Signers {
                trust_domain,
                added,
                removed,
                importers,
            } => sentence!(
                trust_domain,
                ": its bundles may ",
                signed_by(added, removed),
                trusted_by(importers),
            ),
            Self::Endpoint {
                trust_domain,
                before,
                after,
                importers,
            } => sentence!(
                trust_domain,
                ": its bundle endpoint was ",
                served(before),
                ", and will be ",
                served(after),
                trusted_by(importers),
            ),
            Self::Epoch {
                trust_domain,
                before,
                after,
                importers,
            } => {
                let (goes, why) = if before < after {
                    (": its epoch goes from ", ": its serials start again")
                } else {
                    (
                        ": its epoch goes back from ",
                        ": peers that saw the later one accept nothing",
                    )
                };
                sentence!(
                    trust_domain,
                    goes,
                    *before,
                    " to ",
                    *after,
                    why,
                    trusted_by(importers)
                )
            }
            Self::Edge {
                importer,
                exporter,
                clusters,
                before,
                after,
                ..
            } => {
                let workloads = match clusters.as_slice() {
                    [] => sentence!("its workloads"),
                    clusters => sentence!("the workloads of ", Sentence::names(clusters)),
                };
                let becomes = edge(exporter, before, after);
                sentence!(importer, ": ", workloads, " will ", becomes)
            }
            Self::Publisher {
                trust_domain,
                before,
                after,
            } => sentence!(
                trust_domain,
                ": ",
                or_none(after.as_ref()),
                " will publish its bundle, instead of ",
                or_none(before.as_ref()),
            ),
            Self::Clusters {
                trust_domain,
                joined,
                left,
                peers,
            } => sentence!(trust_domain, ": ", membership(joined, left, peers)),
            Self::Server(change) => change.sentence(),
            Self::Publication(change) => change.sentence(),
            Self::Identity(change) => change.sentence(),
            Self::Keys(change) => change.sentence(),
        }
    }

    /// What follows from it, or has to come first: a sentence each.
    pub fn details(&self) -> Vec<Sentence> {
        let Self::Edge {
            exporter,
            before,
            after,
            keys,
            published,
            ..
        } = self
        else {
            return Vec::new();
        };
        let mut details = Vec::new();
        match (before, after) {
            (_, State::Active) => match published {
                Some(PublicationState::Nothing) => details.push(sentence!(
                    "this waits until ",
                    exporter,
                    " publishes its bundle: there is none yet",
                )),
                Some(PublicationState::Refused { message, .. }) => details.push(sentence!(
                    "this waits until ",
                    exporter,
                    " publishes a good bundle: agents refuse the one that there is, ",
                    named(message),
                )),
                _ if keys.is_empty() => {}
                _ => details.push(sentence!(
                    "they will accept ",
                    signed(keys),
                    TrustedKey::list(keys)
                )),
            },
            (State::Active, State::Absent | State::Waiting { .. }) => {
                details.push(sentence!(
                    "first ",
                    exporter,
                    " is taken out of every registration, then its keys are distrusted",
                ));
                if !keys.is_empty() {
                    let keys = sentence!(signed(keys), TrustedKey::list(keys));
                    details.push(sentence!("they will no longer accept ", keys));
                }
            }
            (_, _) => {}
        }
        details
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sentence().fmt(f)
    }
}

fn signed(keys: &[TrustedKey]) -> &'static str {
    match keys {
        [_] => "SVIDs signed by this key: ",
        _ => "SVIDs signed by these keys: ",
    }
}

fn or_none(cluster: Option<&ClusterName>) -> Sentence {
    cluster.map_or_else(|| sentence!("no cluster"), |cluster| sentence!(cluster))
}

fn served(endpoint: &BundleEndpoint) -> Sentence {
    match endpoint {
        BundleEndpoint::None => sentence!("none"),
        BundleEndpoint::Served(served) => {
            let mut told = sentence!(named(&served.url), " (profile ", served.profile.as_str(),);
            if let Some(id) = &served.spiffe_id {
                told = sentence!(told, ", SPIFFE ID ", named(id));
            }
            sentence!(told, ")")
        }
    }
}

fn declared(
    trust_domain: &TrustDomain,
    clusters: &[ClusterName],
    signers: &[String],
    endpoint: &BundleEndpoint,
) -> Sentence {
    let told = sentence!(trust_domain, " is new, on ", Sentence::names(clusters),);
    let told = match signers {
        [] => sentence!(told, "; no key may sign its bundles yet"),
        signers => sentence!(
            told,
            "; its bundles have to be signed by ",
            alternatives(signers)
        ),
    };
    match endpoint {
        BundleEndpoint::None => sentence!(told, "; it has no bundle endpoint"),
        BundleEndpoint::Served(_) => {
            sentence!(told, "; its bundle endpoint is ", served(endpoint))
        }
    }
}

/// What a declaration that is gone leaves behind, and who loses by it.
fn undeclared(
    trust_domain: &TrustDomain,
    clusters: &[ClusterName],
    importers: &BTreeSet<TrustDomain>,
    peers: &BTreeSet<TrustDomain>,
) -> Sentence {
    let mut told = sentence!(
        trust_domain,
        " is no longer declared: ",
        Sentence::names(clusters),
        " will give up every peer, and keep the overlay's objects",
    );
    if !peers.is_empty() {
        let peers = Sentence::names(peers);
        told = sentence!(told, "; its workloads will no longer trust ", peers);
    }
    let lose = match importers.len() {
        0 => return told,
        1 => " loses federation with it",
        _ => " lose federation with it",
    };
    sentence!(told, "; ", Sentence::names(importers), lose)
}

/// Whose signatures count, after "may".
fn signed_by(added: &[String], removed: &[String]) -> Sentence {
    match (added, removed) {
        (added, []) => sentence!("also be signed by ", alternatives(added)),
        ([], removed) => sentence!("no longer be signed by ", alternatives(removed)),
        (added, removed) => sentence!(
            "be signed by ",
            alternatives(added),
            ", and no longer by ",
            alternatives(removed),
        ),
    }
}

/// `a, b or c`.
fn alternatives(names: &[String]) -> Sentence {
    Sentence::join(names.iter().map(|name| sentence!(named(name))), " or ")
}

/// Which clusters are new, and which are gone.
fn membership(
    joined: &[ClusterName],
    left: &[ClusterName],
    peers: &BTreeSet<TrustDomain>,
) -> Sentence {
    let mut parts = Vec::new();
    if !joined.is_empty() {
        let joined = sentence!("new in it: ", Sentence::names(joined));
        parts.push(if peers.is_empty() {
            joined
        } else {
            sentence!(joined, ", which will trust ", Sentence::names(peers))
        });
    }
    if !left.is_empty() {
        parts.push(sentence!(
            "no longer in it: ",
            Sentence::names(left),
            ", which will give up every peer, and keep the overlay's objects",
        ));
    }
    Sentence::join(parts, "; ")
}

/// What will be of an edge, after "will".
fn edge(exporter: &TrustDomain, before: &State, after: &State) -> Sentence {
    let not_any_more = ": the topology does not ask for it any more";
    match (before, after) {
        (_, State::Active) => sentence!("trust ", exporter),
        (State::Active, State::Absent) => {
            sentence!("no longer trust ", exporter, not_any_more)
        }
        (_, State::Absent) => sentence!("not come to trust ", exporter, not_any_more),
        (State::Active, State::Waiting { moves }) => sentence!(
            "no longer trust ",
            exporter,
            ": a consent is withdrawn; to agree again, ",
            agreement(moves),
        ),
        (_, State::Waiting { moves }) => {
            sentence!("not trust ", exporter, " yet: ", agreement(moves))
        }
        (State::Active, State::Unknown { path }) => sentence!(
            "go on trusting ",
            exporter,
            " as before: ",
            path,
            " can't be used",
        ),
        (_, State::Unknown { path }) => {
            sentence!("not trust ", exporter, " yet: ", path, " can't be used")
        }
    }
}

/// What is missing until both sides agree.
pub(super) fn agreement(moves: &[Move]) -> Sentence {
    let one = |needed: &Move| {
        sentence!(
            "the owners of ",
            &needed.owner,
            " must add ",
            &needed.peer,
            " to consent.",
            needed.list,
        )
    };
    Sentence::join(moves.iter().map(one), ", and ")
}

fn trusted_by(importers: &BTreeSet<TrustDomain>) -> Sentence {
    if importers.is_empty() {
        sentence!(" (nobody trusts it yet)")
    } else {
        sentence!(" (trusted by ", Sentence::names(importers), ")")
    }
}
