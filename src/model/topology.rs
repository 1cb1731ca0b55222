//! The kind `Topology`: who should federate with whom.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::trust_domain::TrustDomain;

/// The `kind` of `topology.yaml`.
pub const KIND: &str = "Topology";

/// Who should federate with whom, as edges, groups or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopologySpec {
    /// Single relationships.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<EdgeSpec>,
    /// Many relationships at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

/// One relationship: either `between` two trust domains, or one-way `from` a trust domain `to`
/// another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EdgeSpec {
    /// The workloads of each of the two trust the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between: Option<[TrustDomain; 2]>,
    /// The trust domain whose workloads trust `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<TrustDomain>,
    /// The trust domain that the workloads of `from` trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<TrustDomain>,
}

/// Many relationships at once: a `mesh` of `members`, or a `hub` with its `spokes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Group {
    /// The group's name, by which `trustweave.dev/federates-with: group:<name>` asks for it.
    pub name: String,
    /// The members of a mesh, or of a group that only has a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<TrustDomain>,
    /// Every member federates with every other, both ways.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mesh: bool,
    /// Federates with every one of `spokes`, both ways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<TrustDomain>,
    /// Each federates with `hub`, both ways, and with no other spoke.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spokes: Vec<TrustDomain>,
}

/// One direction of trust: the workloads of `importer` trust `exporter`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The trust domain that takes in the other's bundle.
    pub importer: TrustDomain,
    /// The trust domain whose bundle is taken in.
    pub exporter: TrustDomain,
}

impl Edge {
    fn both(a: &TrustDomain, b: &TrustDomain) -> [Self; 2] {
        [
            Self {
                importer: a.clone(),
                exporter: b.clone(),
            },
            Self {
                importer: b.clone(),
                exporter: a.clone(),
            },
        ]
    }
}

impl EdgeSpec {
    /// The directions that this relationship stands for; none if it is written wrongly.
    pub fn edges(&self) -> Vec<Edge> {
        match (&self.between, &self.from, &self.to) {
            (Some([a, b]), None, None) => Edge::both(a, b).into(),
            (None, Some(from), Some(to)) => {
                vec![Edge {
                    importer: from.clone(),
                    exporter: to.clone(),
                }]
            }
            _ => Vec::new(),
        }
    }
}

impl Group {
    /// The directions that this group stands for.
    pub fn edges(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        if self.mesh {
            for (index, a) in self.members.iter().enumerate() {
                edges.extend(self.members[..index].iter().flat_map(|b| Edge::both(a, b)));
            }
        }
        if let Some(hub) = &self.hub {
            edges.extend(self.spokes.iter().flat_map(|spoke| Edge::both(hub, spoke)));
        }
        edges
    }

    /// Every trust domain of the group.
    pub fn all_members(&self) -> impl Iterator<Item = &TrustDomain> {
        self.members.iter().chain(&self.hub).chain(&self.spokes)
    }
}

impl TopologySpec {
    /// Every direction of trust that the topology asks for, once; none from a trust domain to
    /// itself.
    pub fn edges(&self) -> BTreeSet<Edge> {
        let single = self.edges.iter().flat_map(EdgeSpec::edges);
        let grouped = self.groups.iter().flat_map(Group::edges);
        single
            .chain(grouped)
            .filter(|edge| edge.importer != edge.exporter)
            .collect()
    }

    /// Whether an edge or a group names the trust domain.
    pub fn names(&self, trust_domain: &TrustDomain) -> bool {
        let mut grouped = self.groups.iter().flat_map(Group::all_members);
        let mut edges = self.edges.iter().flat_map(EdgeSpec::edges);
        grouped.any(|member| member == trust_domain)
            || edges.any(|edge| [&edge.importer, &edge.exporter].contains(&trust_domain))
    }

    /// The trust domains whose bundle `importer` should take in.
    pub fn peers_of(&self, importer: &TrustDomain) -> BTreeSet<TrustDomain> {
        self.edges()
            .into_iter()
            .filter(|edge| edge.importer == *importer)
            .map(|edge| edge.exporter)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorthands_stand_for_directions() {
        let check = |spec: &str, expected: &[&str]| {
            let topology: TopologySpec = serde_json::from_str(spec).unwrap();
            let edges: Vec<_> = topology
                .edges()
                .iter()
                .map(|edge| format!("{}>{}", edge.importer, edge.exporter))
                .collect();
            assert_eq!(edges, expected);
        };
        check(r#"{"edges": [{"between": ["a", "b"]}]}"#, &["a>b", "b>a"]);
        check(r#"{"edges": [{"from": "a", "to": "b"}]}"#, &["a>b"]);
        check(r#"{"edges": [{"from": "a", "to": "a"}]}"#, &[]);
        check(
            r#"{"groups": [{"name": "g", "members": ["a", "b", "c"], "mesh": true}]}"#,
            &["a>b", "a>c", "b>a", "b>c", "c>a", "c>b"],
        );
        check(
            r#"{"groups": [{"name": "g", "hub": "h", "spokes": ["a", "b"]}]}"#,
            &["a>h", "b>h", "h>a", "h>b"],
        );
        check(r#"{"groups": [{"name": "g", "members": ["a", "b"]}]}"#, &[]);
    }
}
