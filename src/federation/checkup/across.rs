//! What can be seen only by looking at several clusters, or at a cluster and the repository.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    About, Amiss, ClusterFacts, Federation, Level, Outcome, Polled, Seen, reach::shares_a_root,
    relationships::polled,
};
use crate::model::{
    bundle::Bundle,
    diagnostic::Severity,
    distrust::{DistrustSpec, KeyId},
    trust_domain::TrustDomain,
};

const DISTINCT: About = About {
    id: "trust-domains-distinct",
    level: Level::Across,
    severity: Severity::Error,
    title: "no two clusters have SPIRE servers of one trust domain with different keys",
    why: "a peer can hold the keys of one of them only: it refuses the other's workloads",
    cure: "give each cluster a trust domain of its own, or nest the servers under one upstream authority",
};

const BOTH_WAYS: About = About {
    id: "relationship-both-ways",
    level: Level::Across,
    severity: Severity::Warning,
    title: "who trusts another is trusted by it",
    why: "mutual TLS needs both: a side that does not know the other refuses it",
    cure: "add the other direction to the topology, unless one way is meant",
};

const ADDRESSES: About = About {
    id: "relationship-current-address",
    level: Level::Across,
    severity: Severity::Error,
    title: "every relationship's URL is one at which the peer's cluster exposes its endpoint",
    why: "SPIRE polls an address that leads nowhere, as after an operator's upgrade that moved a Route's host",
    cure: "correct `bundleEndpoint.url` in the peer's declaration; all its peers follow",
};

const OWN_KEYS: About = About {
    id: "relationship-current-keys",
    level: Level::Across,
    severity: Severity::Error,
    title: "what stands for a peer has a key of the peer's own SPIRE",
    why: "workloads refuse the peer, and SPIRE its endpoint",
    cure: "deliver the peer's current bundle with a new fragment of the URL, as the agent does",
};

const DELIVERED: About = About {
    id: "bundle-delivered",
    level: Level::Across,
    severity: Severity::Warning,
    title: "what stands for a peer is what the peer publishes",
    why: "the newest keys of the peer have not arrived, or older ones were put back",
    cure: "see what the peer's TrustPeer says; a pass of the agent delivers what may be delivered",
};

const PUBLISHED: About = About {
    id: "bundle-current",
    level: Level::Across,
    severity: Severity::Warning,
    title: "what a trust domain publishes are its SPIRE's keys",
    why: "its peers do not get its new keys by git: the agent's way from SPIRE to git is stuck",
    cure: "see the condition Published of its GitSync",
};

pub(super) const ABOUT: [About; 6] = [
    DISTINCT, BOTH_WAYS, ADDRESSES, OWN_KEYS, DELIVERED, PUBLISHED,
];

pub(super) fn examine(facts: &Federation<'_>) -> Vec<Outcome> {
    let clusters: Vec<Cluster<'_>> = facts.clusters.iter().filter_map(Cluster::of).collect();
    let seen = if clusters.len() < 2 {
        let lonely = || Seen::Unknown("fewer than two clusters were looked at".to_owned());
        [lonely(), lonely(), lonely(), lonely()]
    } else {
        [
            distinct(&clusters),
            both_ways(&clusters),
            addresses(&clusters),
            own_keys(&clusters),
        ]
    };
    let [delivered, published] = match facts.repository {
        None => [(); 2].map(|()| Seen::Unknown("no repository was looked at".to_owned())),
        Some(repository) => {
            let publications = repository.publications.iter();
            let publications =
                publications.filter_map(|(name, it)| Some((name, &it.as_ref().ok()?.bundle)));
            let publications: BTreeMap<_, _> = publications.collect();
            let distrust = repository.declarations.distrust.values();
            let distrusted = distrust
                .flat_map(DistrustSpec::keys)
                .map(|(_, key)| key)
                .collect();
            [
                delivered(&clusters, &publications, &distrusted),
                published(&clusters, &publications, &distrusted),
            ]
        }
    };
    let seen = seen.into_iter().chain([delivered, published]);
    let outcomes = ABOUT.into_iter().zip(seen);
    outcomes
        .map(|(about, seen)| Outcome { about, seen })
        .collect()
}

/// A cluster whose trust domain is known.
struct Cluster<'a> {
    facts: &'a ClusterFacts,
    trust_domain: &'a TrustDomain,
    relationships: Vec<Polled>,
    /// Its SPIRE's own bundle, if SPIRE publishes it.
    own: Option<Bundle>,
}

impl<'a> Cluster<'a> {
    fn of(facts: &'a ClusterFacts) -> Option<Self> {
        Some(Self {
            facts,
            trust_domain: facts.trust_domain()?,
            relationships: polled(facts),
            own: facts.own_bundle(),
        })
    }

    /// Its relationships with the trust domains of other clusters.
    fn with<'b>(
        &'b self,
        clusters: &'b [Cluster<'a>],
    ) -> impl Iterator<Item = (&'b Polled, &'b Cluster<'a>)> {
        self.relationships.iter().filter_map(move |it| {
            let peer = clusters
                .iter()
                .find(|peer| *peer.trust_domain == it.trust_domain)?;
            Some((it, peer))
        })
    }

    fn subject(&self, relationship: &Polled) -> String {
        format!(
            "ClusterFederatedTrustDomain {} of {}",
            relationship.name, self.facts.name
        )
    }
}

fn distinct(clusters: &[Cluster<'_>]) -> Seen {
    let mut amiss = Vec::new();
    for (index, cluster) in clusters.iter().enumerate() {
        for other in &clusters[index + 1..] {
            let (Some(one), Some(two)) = (&cluster.own, &other.own) else {
                continue;
            };
            if cluster.trust_domain == other.trust_domain && !shares_a_root(one, two) {
                amiss.push(Amiss::new(
                    cluster.trust_domain.as_str(),
                    format!(
                        "{} and {} have no root in common",
                        cluster.facts.name, other.facts.name
                    ),
                ));
            }
        }
    }
    amiss.into()
}

fn both_ways(clusters: &[Cluster<'_>]) -> Seen {
    let mut amiss = Vec::new();
    for cluster in clusters {
        for (relationship, peer) in cluster.with(clusters) {
            let mut back = peer.relationships.iter();
            if !back.any(|it| it.trust_domain == *cluster.trust_domain) {
                amiss.push(Amiss::new(
                    cluster.subject(relationship),
                    format!(
                        "{} has no relationship with `{}`",
                        peer.facts.name, cluster.trust_domain
                    ),
                ));
            }
        }
    }
    amiss.into()
}

/// An endpoint may also be reached by ways that no object of the cluster shows: only where some are shown
/// can an address be said to be none of them.
fn addresses(clusters: &[Cluster<'_>]) -> Seen {
    let mut amiss = Vec::new();
    for cluster in clusters {
        for (relationship, peer) in cluster.with(clusters) {
            let Some((_, installation)) = &peer.facts.server else {
                continue;
            };
            let shown: BTreeSet<&str> = installation
                .exposures
                .iter()
                .map(|it| it.url.as_str())
                .collect();
            let url = relationship.url.split('#').next().unwrap_or_default();
            let url = url.trim_end_matches('/');
            let answers = matches!(cluster.facts.answers.get(&relationship.name), Some(Ok(_)));
            if !shown.is_empty() && !shown.contains(url) && !answers {
                let shown: Vec<&str> = shown.into_iter().collect();
                amiss.push(Amiss::new(
                    cluster.subject(relationship),
                    format!(
                        "its URL is {url}; {} exposes {}",
                        peer.facts.name,
                        shown.join(", ")
                    ),
                ));
            }
        }
    }
    amiss.into()
}

fn own_keys(clusters: &[Cluster<'_>]) -> Seen {
    let mut amiss = Vec::new();
    for cluster in clusters {
        for (relationship, peer) in cluster.with(clusters) {
            if let (Some(here), Some(own)) = (&relationship.bundle, &peer.own)
                && !shares_a_root(here, own)
            {
                amiss.push(Amiss::new(
                    cluster.subject(relationship),
                    format!("it holds none of the roots of {}'s SPIRE", peer.facts.name),
                ));
            }
        }
    }
    amiss.into()
}

type Publications<'a> = BTreeMap<&'a TrustDomain, &'a Bundle>;

/// Whether two bundles hold the same keys but for those that somebody distrusts.
fn same_keys(one: &Bundle, other: &Bundle, distrusted: &BTreeSet<&KeyId>) -> bool {
    let trusted = |bundle: &Bundle| bundle.clone().without(|key| distrusted.contains(key));
    trusted(one).same_keys(&trusted(other))
}

fn delivered(
    clusters: &[Cluster<'_>],
    publications: &Publications<'_>,
    distrusted: &BTreeSet<&KeyId>,
) -> Seen {
    let mut amiss = Vec::new();
    for cluster in clusters {
        for relationship in &cluster.relationships {
            let published = publications.get(&relationship.trust_domain);
            if let (Some(here), Some(published)) = (&relationship.bundle, published)
                && !same_keys(here, published, distrusted)
            {
                amiss.push(Amiss::new(
                    cluster.subject(relationship),
                    format!(
                        "it holds other keys than {} publishes",
                        relationship.trust_domain
                    ),
                ));
            }
        }
    }
    amiss.into()
}

fn published(
    clusters: &[Cluster<'_>],
    publications: &Publications<'_>,
    distrusted: &BTreeSet<&KeyId>,
) -> Seen {
    let amiss = clusters.iter().filter_map(|cluster| {
        let (own, published) = (
            cluster.own.as_ref()?,
            publications.get(cluster.trust_domain)?,
        );
        (!same_keys(own, published, distrusted)).then(|| {
            Amiss::new(
                cluster.trust_domain.as_str(),
                format!(
                    "the SPIRE of {} has other keys than are published",
                    cluster.facts.name
                ),
            )
        })
    });
    amiss.collect::<Vec<_>>().into()
}
