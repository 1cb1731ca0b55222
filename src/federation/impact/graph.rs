//! Who trusts whom around a change, as a graph.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use super::{State, edge_states, state};
use crate::model::{declarations::Declarations, topology::Edge, trust_domain::TrustDomain};

/// A direction of trust in the [`graph`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GraphEdge {
    /// Whose workloads trust.
    pub importer: TrustDomain,
    /// Whom they trust.
    pub exporter: TrustDomain,
    /// What the change makes of it.
    pub fate: Fate,
}

/// What a change makes of a direction of trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Fate {
    /// It begins.
    Begins,
    /// It ends.
    Ends,
    /// The topology asks for it, but somebody has yet to agree.
    Waits,
    /// It stays as it is.
    Stays,
}

/// The directions of trust that begin, end or wait, and those that stay of every trust domain that the
/// change is about. Without a change there is no graph.
pub fn graph(before: &Declarations, after: &Declarations) -> Vec<GraphEdge> {
    if before.topology_unknown || after.topology_unknown {
        return Vec::new();
    }
    let mut concerned: BTreeSet<TrustDomain> = BTreeSet::new();
    for (edge, _, _) in edge_states(before, after) {
        concerned.extend([edge.importer, edge.exporter]);
    }
    let names = before
        .trust_domains
        .keys()
        .chain(after.trust_domains.keys());
    let differs = |name: &&TrustDomain| {
        let identity = |side: &Declarations| {
            let spec = side.trust_domains.get(*name)?;
            let endpoint = spec.bundle_endpoint.clone();
            Some((spec.signers.clone(), endpoint, spec.epoch))
        };
        identity(before) != identity(after)
            || before.distrust.get(*name) != after.distrust.get(*name)
    };
    concerned.extend(names.filter(differs).cloned());
    let (old, new) = (before.topology.edges(), after.topology.edges());
    let around =
        |edge: &&Edge| concerned.contains(&edge.importer) || concerned.contains(&edge.exporter);
    let fate = |edge: &Edge| match (state(edge, &old, before), state(edge, &new, after)) {
        // What can't be read stays in force.
        (State::Active, State::Active | State::Unknown { .. }) => Some(Fate::Stays),
        (_, State::Active) => Some(Fate::Begins),
        (State::Active, State::Absent | State::Waiting { .. }) => Some(Fate::Ends),
        (_, State::Waiting { .. } | State::Unknown { .. }) => Some(Fate::Waits),
        (_, State::Absent) => None,
    };
    old.union(&new)
        .filter(around)
        .filter_map(|edge| {
            Some(GraphEdge {
                importer: edge.importer.clone(),
                exporter: edge.exporter.clone(),
                fate: fate(edge)?,
            })
        })
        .collect()
}
