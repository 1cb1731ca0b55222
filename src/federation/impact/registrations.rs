//! What a change does to the registrations of a cluster.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    federation::resolve::Resolved,
    model::{manifest::ObjectRef, trust_domain::TrustDomain},
};

/// What becomes of a peer in the registrations of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registrations {
    /// Registrations that will name the peer, and did not.
    pub gain: Vec<ObjectRef>,
    /// Registrations that named the peer, and will not.
    pub lose: Vec<ObjectRef>,
    /// Registrations that ask for the peer, and do not get it yet; told only if they did not wait
    /// before.
    pub wait: Vec<ObjectRef>,
}

impl Registrations {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.gain.is_empty() && self.lose.is_empty() && self.wait.is_empty()
    }

    /// Adds those of another cluster.
    pub fn extend(&mut self, other: Self) {
        self.gain.extend(other.gain);
        self.lose.extend(other.lose);
        self.wait.extend(other.wait);
    }

    /// `3 ClusterSPIFFEIDs gain b.test`, each kind on its own.
    pub fn sentences(&self, peer: &str) -> Vec<String> {
        let verbs = [
            (&self.gain, "gains", "gain", ""),
            (&self.lose, "loses", "lose", ""),
            (&self.wait, "waits", "wait", "for "),
        ];
        let mut sentences = Vec::new();
        for (references, one, many, preposition) in verbs {
            let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
            for reference in references {
                *kinds.entry(&reference.gvk.kind).or_default() += 1;
            }
            sentences.extend(kinds.into_iter().map(|(kind, count)| match count {
                1 => format!("1 {kind} {one} {preposition}{peer}"),
                count => {
                    let kind = kind
                        .strip_suffix("Entry")
                        .map_or_else(|| format!("{kind}s"), |stem| format!("{stem}Entries"));
                    format!("{count} {kind} {many} {preposition}{peer}")
                }
            }));
        }
        sentences
    }
}

/// Compares a cluster's resolved registrations; only peers for which something changes.
pub fn registrations(before: &Resolved, after: &Resolved) -> BTreeMap<TrustDomain, Registrations> {
    type Named = BTreeMap<TrustDomain, Vec<ObjectRef>>;
    let only = |these: &Named, those: &Named, peer: &TrustDomain| -> Vec<ObjectRef> {
        let others: BTreeSet<_> = those
            .get(peer)
            .into_iter()
            .flatten()
            .map(ObjectRef::key)
            .collect();
        let these = these.get(peer).into_iter().flatten();
        these
            .filter(|reference| !others.contains(&reference.key()))
            .cloned()
            .collect()
    };
    let all = [&before.named, &after.named, &after.held_back];
    let peers: BTreeSet<_> = all.into_iter().flat_map(BTreeMap::keys).collect();
    peers
        .into_iter()
        .map(|peer| {
            let registrations = Registrations {
                gain: only(&after.named, &before.named, peer),
                lose: only(&before.named, &after.named, peer),
                wait: only(&after.held_back, &before.held_back, peer),
            };
            (peer.clone(), registrations)
        })
        .filter(|(_, registrations)| !registrations.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::manifest::Gvk;

    #[test]
    fn registrations_gain_and_lose_peers() {
        let reference = |kind: &str, name: &str| ObjectRef {
            gvk: Gvk::new("spire.spiffe.io/v1alpha1", kind),
            namespace: None,
            name: name.to_owned(),
        };
        let resolved = |names: &[(&str, &str)]| Resolved {
            named: BTreeMap::from([(
                peer(),
                names
                    .iter()
                    .map(|(kind, name)| reference(kind, name))
                    .collect(),
            )]),
            ..Resolved::default()
        };
        let before = resolved(&[("ClusterSPIFFEID", "x")]);
        let after = resolved(&[
            ("ClusterSPIFFEID", "y"),
            ("ClusterSPIFFEID", "z"),
            ("ClusterStaticEntry", "x"),
        ]);
        let found = registrations(&before, &after);
        assert_eq!(
            found[&peer()].sentences("it"),
            [
                "2 ClusterSPIFFEIDs gain it",
                "1 ClusterStaticEntry gains it",
                "1 ClusterSPIFFEID loses it"
            ]
        );
        assert!(registrations(&after, &after).is_empty());
    }

    fn peer() -> TrustDomain {
        TrustDomain::parse("a.test").unwrap()
    }
}
