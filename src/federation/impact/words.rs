//! Changes in sentences.

use std::{collections::BTreeSet, fmt};

use super::{Change, State};
use crate::model::trust_domain::{ClusterName, TrustDomain};

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declared {
                trust_domain,
                clusters,
                signers,
                endpoint,
            } => write!(
                f,
                "{trust_domain} is new: {}; bundles signed by {}; bundle endpoint {endpoint}",
                list(clusters),
                list(signers),
            ),
            Self::Undeclared {
                trust_domain,
                clusters,
                importers,
                peers,
            } => {
                write!(f, "{trust_domain} is no longer declared: ")?;
                undeclared(f, clusters, importers, peers)
            }
            Self::Signers {
                trust_domain,
                added,
                removed,
                importers,
            } => {
                write!(f, "{trust_domain}: its bundles may ")?;
                signed_by(f, added, removed)?;
                believed_by(f, importers)
            }
            Self::Endpoint {
                trust_domain,
                before,
                after,
                importers,
            } => {
                write!(
                    f,
                    "{trust_domain}: its bundle endpoint was {before}, and will be {after}"
                )?;
                believed_by(f, importers)
            }
            Self::Epoch {
                trust_domain,
                before,
                after,
                importers,
            } => {
                let (goes, why) = if before < after {
                    ("goes", "its serials start again")
                } else {
                    ("goes back", "peers that saw the later one accept nothing")
                };
                write!(
                    f,
                    "{trust_domain}: its epoch {goes} from {before} to {after}: {why}"
                )?;
                believed_by(f, importers)
            }
            Self::Edge {
                importer,
                exporter,
                clusters,
                before,
                after,
            } => {
                let workloads = match clusters.as_slice() {
                    [] => "its workloads".to_owned(),
                    clusters => list(clusters),
                };
                write!(f, "{importer}: {workloads} will ")?;
                edge(f, exporter, before, after)
            }
            Self::Publisher {
                trust_domain,
                before,
                after,
            } => {
                let (before, after) = (or_none(before.as_ref()), or_none(after.as_ref()));
                write!(
                    f,
                    "{trust_domain}: {after} will publish its bundle, instead of {before}"
                )
            }
            Self::Clusters {
                trust_domain,
                joined,
                left,
                peers,
            } => {
                write!(f, "{trust_domain}: ")?;
                membership_of(f, joined, left, peers)
            }
            Self::Server(change) => change.fmt(f),
            Self::Keys(change) => change.fmt(f),
        }
    }
}

fn or_none(cluster: Option<&ClusterName>) -> String {
    cluster.map_or("no cluster".to_owned(), ToString::to_string)
}

/// What a declaration that is gone leaves behind, and who loses by it.
fn undeclared(
    f: &mut fmt::Formatter<'_>,
    clusters: &[ClusterName],
    importers: &BTreeSet<TrustDomain>,
    peers: &BTreeSet<TrustDomain>,
) -> fmt::Result {
    let clusters = list(clusters);
    write!(
        f,
        "{clusters} will give up every peer, and keep the overlay's objects"
    )?;
    if !peers.is_empty() {
        let peers = list(peers);
        write!(f, "; its workloads will no longer trust {peers}")?;
    }
    match importers.len() {
        0 => Ok(()),
        1 => write!(f, "; {} loses federation with it", list(importers)),
        _ => write!(f, "; {} lose federation with it", list(importers)),
    }
}

/// Whose signatures count, after "may".
fn signed_by(f: &mut fmt::Formatter<'_>, added: &[String], removed: &[String]) -> fmt::Result {
    match (added, removed) {
        (added, []) => write!(f, "also be signed by {}", list(added)),
        ([], removed) => write!(f, "no longer be signed by {}", list(removed)),
        (added, removed) => {
            let (added, removed) = (list(added), list(removed));
            write!(f, "be signed by {added}, and no longer by {removed}")
        }
    }
}

/// Which clusters are new, and which are gone.
fn membership_of(
    f: &mut fmt::Formatter<'_>,
    joined: &[ClusterName],
    left: &[ClusterName],
    peers: &BTreeSet<TrustDomain>,
) -> fmt::Result {
    let mut parts = Vec::new();
    if !joined.is_empty() {
        let mut part = format!("new in it: {}", list(joined));
        if !peers.is_empty() {
            part.push_str(", which will trust ");
            part.push_str(&list(peers));
        }
        parts.push(part);
    }
    if !left.is_empty() {
        let what = "which will give up every peer, and keep the overlay's objects";
        parts.push(format!("no longer in it: {}, {what}", list(left)));
    }
    f.write_str(&parts.join("; "))
}

/// What will be of an edge, after "will".
fn edge(
    f: &mut fmt::Formatter<'_>,
    exporter: &TrustDomain,
    before: &State,
    after: &State,
) -> fmt::Result {
    let not_any_more = "the topology does not ask for it any more";
    let drained = "drained first, then its keys are distrusted";
    match (before, after) {
        (_, State::Active) => write!(f, "trust {exporter}"),
        (State::Active, State::Absent) => {
            write!(f, "no longer trust {exporter} ({drained}): {not_any_more}")
        }
        (_, State::Absent) => write!(f, "not come to trust {exporter}: {not_any_more}"),
        (State::Active, State::Waiting { moves }) => write!(
            f,
            "no longer trust {exporter} ({drained}): a consent is withdrawn; to agree again, {}",
            sequence(moves, ", and ")
        ),
        (_, State::Waiting { moves }) => {
            write!(f, "not trust {exporter} yet: {}", sequence(moves, ", and "))
        }
        (State::Active, State::Unknown { path }) => {
            write!(
                f,
                "go on trusting {exporter} as before: {path} can't be used"
            )
        }
        (_, State::Unknown { path }) => {
            write!(f, "not trust {exporter} yet: {path} can't be used")
        }
    }
}

fn believed_by(f: &mut fmt::Formatter<'_>, importers: &BTreeSet<TrustDomain>) -> fmt::Result {
    if importers.is_empty() {
        f.write_str(" (nobody trusts it yet)")
    } else {
        write!(f, " (trusted by {})", list(importers))
    }
}

pub(super) fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    sequence(items, ", ")
}

fn sequence<T: fmt::Display>(items: impl IntoIterator<Item = T>, separator: &str) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(separator)
}
