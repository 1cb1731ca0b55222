//! What a change of the declarations does to trust, in words that people read before they merge.
//!
//! Whatever decides which bundles are believed comes first: signers, endpoints, epochs; then who
//! trusts whom; then which clusters that concerns.

mod keys;
mod registrations;
mod server;
mod words;

use std::collections::BTreeSet;

use serde::{Serialize, Serializer};

pub use self::{
    keys::{Bundles, KeyChange, talked_about},
    registrations::{Registrations, registrations},
    server::{Management, ServerChange},
};

use super::consent::{Consent, Move, consent};
use crate::model::{
    declaration::{BundleEndpoint, Signer, TrustDomainSpec},
    declarations::Declarations,
    repository::RepoPath,
    topology::Edge,
    trust_domain::{ClusterName, TrustDomain},
};

/// One difference that matters to trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// Keys are taken back, accepted again, or gone from a bundle.
    #[serde(untagged)]
    Keys(KeyChange),
}

/// How a direction of trust stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum State {
    /// The topology asks for no such edge.
    Absent,
    /// The topology asks for it; somebody has yet to agree.
    Waiting {
        /// Whose move it is.
        #[serde(serialize_with = "in_words")]
        moves: Vec<Move>,
    },
    /// The topology asks for it; what one side says can't be read.
    Unknown {
        /// The file.
        #[serde(serialize_with = "as_text")]
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
    let mut keys = keys::distrusted(before, after, bundles);
    keys.extend(keys::vanished(after, bundles));
    let mut identities = Vec::new();
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
            (None, Some(spec)) => identities.push(Change::Declared {
                trust_domain: name.clone(),
                clusters: clusters(spec),
                signers: signers(spec),
                endpoint: spec.bundle_endpoint.clone(),
            }),
            (Some(old), None) => identities.push(undeclared(name, old, before, after)),
            (Some(old), Some(new)) => {
                identities.extend(identity(name, old, new, after));
                memberships.extend(membership(name, old, new, after));
            }
            (None, None) => {}
        }
    }
    keys.into_iter()
        .map(Change::Keys)
        .chain(identities)
        .chain(edges(before, after))
        .chain(memberships)
        .chain(servers)
        .collect()
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
    let importers: BTreeSet<_> = active(after)
        .filter(|edge| edge.exporter == *name)
        .map(|edge| edge.importer)
        .collect();
    let mut changes = Vec::new();
    let (added, removed) = difference(&signers(old), &signers(new));
    if !added.is_empty() || !removed.is_empty() {
        changes.push(Change::Signers {
            trust_domain: name.clone(),
            added,
            removed,
            importers: importers.clone(),
        });
    }
    if !old.bundle_endpoint.same_address(&new.bundle_endpoint) {
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

fn edges(before: &Declarations, after: &Declarations) -> Vec<Change> {
    if before.topology_unknown || after.topology_unknown {
        return Vec::new();
    }
    let (old, new) = (before.topology.edges(), after.topology.edges());
    let before_has = |name: &TrustDomain| before.trust_domains.contains_key(name);
    old.union(&new)
        .filter_map(|edge| {
            let (before, state) = (state(edge, &old, before), state(edge, &new, after));
            // Of an importer that is gone no agent changes anything.
            let gone =
                before_has(&edge.importer) && !after.trust_domains.contains_key(&edge.importer);
            let importer = after.trust_domains.get(&edge.importer);
            (before != state && !(gone && state == State::Absent)).then(|| Change::Edge {
                importer: edge.importer.clone(),
                exporter: edge.exporter.clone(),
                clusters: importer.map(clusters).unwrap_or_default(),
                before,
                after: state,
            })
        })
        .collect()
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
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::model::declaration::Consent as Lists;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA4qpBnwTjqK3UPDXP2c7Zzj+c9jQOTFZjLwOaQfbOZr";

    fn name(text: &str) -> TrustDomain {
        TrustDomain::parse(text).unwrap()
    }

    fn spec(cluster: &str, consent: &[&str]) -> TrustDomainSpec {
        let lists = Lists {
            import: consent.iter().map(|peer| name(peer)).collect(),
            export: consent.iter().map(|peer| name(peer)).collect(),
        };
        serde_json::from_value(json!({
            "clusters": [{"name": cluster}], "signers": [], "bundleEndpoint": "none",
            "spire": {"distribution": "custom", "namespace": "s", "className": "c"},
            "consent": lists,
        }))
        .unwrap()
    }

    /// `a.test` and `b.test`, with an edge from `b.test` to `a.test` that both agree to.
    fn declarations() -> Declarations {
        let edges = json!({"edges": [{"from": "b.test", "to": "a.test"}]});
        Declarations {
            topology: serde_json::from_value(edges).unwrap(),
            trust_domains: BTreeMap::from([
                (name("a.test"), spec("cluster-1", &["b.test"])),
                (name("b.test"), spec("cluster-2", &["a.test"])),
            ]),
            ..Declarations::default()
        }
    }

    fn check(change: impl Fn(&mut Declarations), forth: &[&str], back: &[&str]) {
        let before = declarations();
        let mut after = before.clone();
        change(&mut after);
        let words = |a: &Declarations, b: &Declarations| -> Vec<String> {
            impact(a, b, &Bundles::default())
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(words(&before, &after), forth);
        assert_eq!(words(&after, &before), back);
        assert_eq!(words(&after, &after), [""; 0]);
    }

    fn own<'a>(declarations: &'a mut Declarations, of: &str) -> &'a mut TrustDomainSpec {
        declarations.trust_domains.get_mut(&name(of)).unwrap()
    }

    #[test]
    fn edges_begin_and_end() {
        check(
            |after| after.topology.edges.clear(),
            &[
                "b.test: cluster-2 will no longer trust a.test (drained first, then its keys are \
               distrusted): the topology does not ask for it any more",
            ],
            &["b.test: cluster-2 will trust a.test"],
        );
        check(
            |after| own(after, "a.test").consent.export.clear(),
            &[
                "b.test: cluster-2 will no longer trust a.test (drained first, then its keys are \
               distrusted): a consent is withdrawn; to agree again, the owners of `a.test` must add `b.test` to consent.export",
            ],
            &["b.test: cluster-2 will trust a.test"],
        );
        check(
            |after| drop(after.trust_domains.remove(&name("a.test"))),
            &[
                "a.test is no longer declared: cluster-1 will give up every peer, and keep the overlay's objects",
                "b.test: cluster-2 will go on trusting a.test as before: \
                 trust-domains/a.test/trust-domain.yaml can't be used",
            ],
            &[
                "a.test is new: cluster-1; bundles signed by ; bundle endpoint none",
                "b.test: cluster-2 will trust a.test",
            ],
        );
    }

    #[test]
    fn an_edge_without_consent_says_whose_move_it_is() {
        check(
            |after| {
                let edge = json!({"from": "a.test", "to": "b.test"});
                after
                    .topology
                    .edges
                    .push(serde_json::from_value(edge).unwrap());
                own(after, "a.test").consent.import.clear();
            },
            &["a.test: cluster-1 will not trust b.test yet: \
               the owners of `a.test` must add `b.test` to consent.import"],
            &["a.test: cluster-1 will not come to trust b.test: \
               the topology does not ask for it any more"],
        );
    }

    #[test]
    fn what_decides_about_bundles_is_told() {
        let fingerprint = Signer::parse(KEY).unwrap().fingerprint();
        check(
            |after| {
                let key = Signer::parse(KEY).unwrap();
                own(after, "a.test").signers.push(key);
            },
            &[&format!(
                "a.test: its bundles may also be signed by {fingerprint} (trusted by b.test)"
            )],
            &[&format!(
                "a.test: its bundles may no longer be signed by {fingerprint} (trusted by b.test)"
            )],
        );
        check(
            |after| own(after, "b.test").epoch = 1,
            &["b.test: its epoch goes from 0 to 1: its serials start again (nobody trusts it yet)"],
            &["b.test: its epoch goes back from 1 to 0: \
               peers that saw the later one accept nothing (nobody trusts it yet)"],
        );
        let served = json!({
            "profile": "https_spiffe", "url": "https://a.test", "spiffeID": "spiffe://a.test/x",
        });
        check(
            |after| {
                let served = serde_json::from_value(served.clone()).unwrap();
                own(after, "a.test").bundle_endpoint = served;
            },
            &["a.test: its bundle endpoint was none, and will be \
               https://a.test by https_spiffe as spiffe://a.test/x (trusted by b.test)"],
            &[
                "a.test: its bundle endpoint was https://a.test by https_spiffe as \
               spiffe://a.test/x, and will be none (trusted by b.test)",
            ],
        );
    }

    #[test]
    fn what_is_done_to_spire_servers_is_told_and_what_stays_of_it() {
        let manage = |distribution: &'static str, accept: bool| {
            move |after: &mut Declarations| {
                let spec = own(after, "a.test");
                spec.spire.distribution = serde_json::from_value(json!(distribution)).unwrap();
                let served = json!({
                    "profile": "https_spiffe", "url": "https://a.test", "manage": true,
                    "acceptIrreversible": accept,
                });
                spec.bundle_endpoint = serde_json::from_value(served).unwrap();
            }
        };
        let told = |distribution, accept| -> (String, String) {
            let before = declarations();
            let mut after = before.clone();
            manage(distribution, accept)(&mut after);
            let last = |a: &Declarations, b: &Declarations| {
                let changes = impact(a, b, &Bundles::default());
                changes.last().unwrap().to_string()
            };
            (last(&before, &after), last(&after, &before))
        };
        let begin = "a.test: the SPIRE server of cluster-1 will";
        assert_eq!(
            told("custom", false),
            (
                format!("{begin} be configured to serve its bundle, and restarted for that"),
                format!(
                    "{begin} no longer be managed: what was there before comes back, with a restart"
                ),
            )
        );
        let stays = format!(
            "{begin} no longer be managed, but `spec.federation` of its SpireServer stays: its \
             operator lets nobody remove it"
        );
        assert_eq!(
            told("ztwim", true),
            (
                format!(
                    "{begin} serve its bundle by `spec.federation` of its SpireServer, which can't be \
                     taken back: once that is set, nobody can remove it, nor change its profile, \
                     https_spiffe"
                ),
                stays.clone(),
            )
        );
        assert_eq!(
            told("ztwim", false),
            (
                format!(
                    "{begin} be managed, but `spec.federation` of its SpireServer can't be taken \
                     back: it is set only with `acceptIrreversible: true`"
                ),
                stays,
            )
        );
    }

    #[test]
    fn a_managed_server_is_restarted_for_its_configuration_alone() {
        let managed = |more: Value| {
            let mut served = json!({
                "profile": "https_spiffe", "url": "https://a.test", "manage": true,
                "expose": "route",
            });
            let members = more.as_object().unwrap().clone();
            served.as_object_mut().unwrap().extend(members);
            let mut declarations = declarations();
            let endpoint = serde_json::from_value(served).unwrap();
            own(&mut declarations, "a.test").bundle_endpoint = endpoint;
            declarations
        };
        let check = |more: Value, expected: &[&str]| {
            let changes = impact(&managed(json!({})), &managed(more), &Bundles::default());
            let changes = changes.iter().map(ToString::to_string);
            let told: Vec<_> = changes.filter(|it| it.contains("SPIRE server")).collect();
            assert_eq!(told, expected);
        };
        let restarted = "a.test: the SPIRE server of cluster-1 will be reconfigured and restarted";
        check(json!({}), &[]);
        check(json!({"port": 9443}), &[restarted]);
        check(json!({"refreshHint": 60}), &[restarted]);
        check(json!({"staticFederatesWith": true}), &[restarted]);
        check(
            json!({"expose": "none"}),
            &["a.test: the SPIRE server of cluster-1 will be exposed otherwise, without a restart"],
        );
        check(json!({"acceptDataLoss": true}), &[]);
    }

    #[test]
    fn clusters_join_and_leave() {
        check(
            |after| {
                let cluster = json!({"name": "cluster-3", "publisher": true});
                let cluster = serde_json::from_value(cluster).unwrap();
                own(after, "b.test").clusters.push(cluster);
            },
            &[
                "b.test: cluster-3 will publish its bundle, instead of cluster-2",
                "b.test: new in it: cluster-3, which will trust a.test",
            ],
            &[
                "b.test: cluster-2 will publish its bundle, instead of cluster-3",
                "b.test: no longer in it: cluster-3, \
                 which will give up every peer, and keep the overlay's objects",
            ],
        );
    }

    #[test]
    fn an_unreadable_topology_says_nothing_about_edges() {
        check(
            |after| {
                after.topology.edges.clear();
                after.topology_unknown = true;
            },
            &[],
            &[],
        );
    }

    #[test]
    fn a_change_has_a_form_for_programs() {
        let before = declarations();
        let mut after = before.clone();
        own(&mut after, "a.test").consent.export.clear();
        let changes: Vec<Value> = impact(&before, &after, &Bundles::default())
            .iter()
            .map(|change| json!(change))
            .collect();
        let waiting = "the owners of `a.test` must add `b.test` to consent.export";
        assert_eq!(
            changes,
            [json!({
                "kind": "edge", "importer": "b.test", "exporter": "a.test",
                "clusters": ["cluster-2"],
                "before": {"state": "active"},
                "after": {"state": "waiting", "moves": [waiting]},
            })]
        );
    }
}
