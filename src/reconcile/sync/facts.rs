//! What a pass reads: the cluster's side, and everything that is known about each peer.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Error, Files, Inputs, Sync};
use crate::{
    cluster::{
        Cluster, inventory,
        types::{self, GitSyncStatus, TrustPeerStatus},
    },
    federation::{
        conditions::FORCE,
        consent::{Consent, consent},
        lifecycle::{Facts, LiveCftd, Memory, Named, Probe, View},
        objects::{
            self, CFTD, CLUSTER_SPIFFE_ID, CLUSTER_STATIC_ENTRY, CONTROL_PROBE, Context,
            SPIRE_API_VERSION,
        },
        record::Record,
        resolve::federates_with,
        revocation,
    },
    git::{self, Heads, Repository},
    model::{
        attestation::{self, Rejection},
        declarations::Declarations,
        diagnostic::with_causes,
        manifest::{Gvk, ObjectKey, ObjectRef},
        repository::{Tree, distrust_path, topology_path},
        topology::Edge,
        trust_domain::TrustDomain,
    },
    plan::policy::is_left_alone,
    reconcile::desired::publication_on_main,
};

/// What a pass reads from the cluster.
pub(super) struct Live {
    pub(super) cftds: Vec<Value>,
    pub(super) registrations: Vec<Value>,
    pub(super) peers: BTreeMap<TrustDomain, (Value, TrustPeerStatus)>,
    pub(super) git_sync: Option<Value>,
}

impl Live {
    /// The class of the relationships that this agent made.
    pub(super) fn class_name(&self) -> Option<String> {
        let mut ours = self.cftds.iter().filter(|object| {
            Record::from_annotations(&object["metadata"]["annotations"]).is_some()
        });
        let class_name = &ours.next()?["spec"]["className"];
        class_name.as_str().map(str::to_owned)
    }

    /// Why people suspended the overlay, if they said.
    pub(super) fn suspend_reason(&self) -> &str {
        let spec = self.git_sync.as_ref().map(|git_sync| &git_sync["spec"]);
        let reason = spec.and_then(|spec| spec["suspendReason"].as_str());
        reason.unwrap_or_default()
    }

    /// What a probe says.
    fn probe(&self, name: &str) -> Probe {
        let mut probes = self.registrations.iter().filter(|it| objects::is_probe(it));
        Probe::read(probes.find(|object| object["metadata"]["name"] == name))
    }

    /// The registrations of the class that name a peer.
    fn naming(&self, peer: &TrustDomain, class_name: &str) -> Named {
        let mut named = Named::default();
        for object in &self.registrations {
            if object["spec"]["className"] != class_name || !federates_with(object, peer) {
                continue;
            }
            let Some(reference) = ObjectRef::of(object) else {
                continue;
            };
            if objects::is_probe(object) {
                named.probe = true;
                continue;
            }
            named.proven |= Probe::read(Some(object)) == Probe::Ready;
            // What people asked to leave alone is for them to change.
            if is_member(object) && !is_left_alone(object) {
                named.ours.push(reference.to_string());
            } else {
                named.others.push(reference.to_string());
            }
        }
        named
    }
}

/// Whether the agent applied the object as part of the overlay.
pub(super) fn is_member(object: &Value) -> bool {
    object["metadata"]["labels"][inventory::PART_OF] == inventory::id().as_str()
}

impl<R: Repository, C: Cluster> Sync<R, C> {
    /// Reads what decisions about peers need.
    pub(super) async fn read(&self) -> Result<Live, Error> {
        let spire = |kind: &str| Gvk::new(SPIRE_API_VERSION, kind);
        let (cftd, spiffe_id, static_entry, peer) = (
            spire(CFTD),
            spire(CLUSTER_SPIFFE_ID),
            spire(CLUSTER_STATIC_ENTRY),
            types::trust_peer_kind(),
        );
        let git_sync = types::git_sync_reference();
        let (cftds, mut registrations, static_entries, peers, git_sync) = tokio::try_join!(
            self.cluster.list(&cftd, None),
            self.cluster.list(&spiffe_id, None),
            self.cluster.list(&static_entry, None),
            self.cluster.list(&peer, None),
            self.cluster.get(&git_sync),
        )?;
        registrations.extend(static_entries);
        let peers = peers
            .into_iter()
            .filter_map(|object| {
                let name = object["spec"]["trustDomain"].as_str()?;
                let trust_domain = TrustDomain::parse(name).ok()?;
                let status = object.get("status").cloned().unwrap_or_default();
                let status = serde_json::from_value(status).unwrap_or_default();
                Some((trust_domain, (object, status)))
            })
            .collect();
        Ok(Live {
            cftds,
            registrations,
            peers,
            git_sync,
        })
    }

    /// Gathers what is known about every peer: the declared ones, and those that are left over.
    pub(super) async fn facts(
        &mut self,
        inputs: &Inputs<'_>,
        tree: &Tree,
        declarations: &Declarations,
        context: &Context,
        retired: bool,
        live: &Live,
    ) -> Result<Vec<Facts>, Error> {
        let mut relationships: BTreeMap<TrustDomain, Vec<(String, LiveCftd)>> = BTreeMap::new();
        for object in &live.cftds {
            if let Some((trust_domain, found)) = LiveCftd::read(object, &context.class_name) {
                let metadata = &object["metadata"];
                let age = format!("{} {}", metadata["creationTimestamp"], metadata["uid"]);
                relationships
                    .entry(trust_domain)
                    .or_default()
                    .push((age, found));
            }
        }
        let mut wanted = declarations.topology.peers_of(&context.trust_domain);
        if retired {
            wanted.clear();
        }
        let ours = relationships
            .iter()
            .filter(|(_, found)| found.iter().any(|(_, live)| live.record.is_some()))
            .map(|(peer, _)| peer);
        let names: BTreeSet<TrustDomain> = wanted
            .iter()
            .chain(ours)
            .chain(live.peers.keys())
            .cloned()
            .collect();
        let git_sync = GitSyncStatus::of(live.git_sync.as_ref());
        let statically: BTreeSet<String> = git_sync
            .server
            .map(|server| server.federates_with.into_iter().collect())
            .unwrap_or_default();
        let mut facts = Vec::new();
        for peer in names {
            let edge = if wanted.contains(&peer) {
                let edge = Edge {
                    importer: context.trust_domain.clone(),
                    exporter: peer.clone(),
                };
                Some(consent(&edge, declarations))
            } else if declarations.topology_unknown {
                Some(Consent::Unknown {
                    path: topology_path(),
                })
            } else {
                None
            };
            let declaration = declarations.trust_domains.get(&peer).cloned();
            let published = match &declaration {
                Some(declaration) => {
                    let files = self.publication(inputs.heads, tree, &peer).await?;
                    files.and_then(|files| {
                        attestation::verify(&peer, declaration, &files, inputs.now)
                    })
                }
                None => Err(Rejection::Unpublished),
            };
            let mut found = relationships.remove(&peer).unwrap_or_default();
            found.sort_by(|a, b| a.0.cmp(&b.0));
            let found: Vec<_> = found.into_iter().map(|(_, live)| live).collect();
            let remembered = live.peers.get(&peer);
            let memory = remembered
                .map(|(_, status)| Memory::from(status))
                .unwrap_or_default();
            let recorded = found.first().and_then(|live| live.record.as_ref());
            let recorded = recorded.map(|record| record.revoked.clone());
            let recorded = recorded.into_iter().flatten();
            let own = &context.trust_domain;
            let remembered_revocations = recorded.chain(memory.revoked.iter().cloned());
            let revoked = revocation::in_force(own, &peer, declarations, remembered_revocations);
            let distrust_unknown = [&peer, own]
                .into_iter()
                .find(|author| declarations.distrust_unknown.contains(*author))
                .map(distrust_path);
            facts.push(Facts {
                revoked,
                distrust_unknown,
                is_static: statically.contains(peer.as_str()),
                forced: remembered
                    .is_some_and(|(object, _)| object["metadata"]["annotations"][FORCE] == "true"),
                memory,
                live: found,
                probe: live.probe(&objects::probe_name(&peer)),
                control: live.probe(CONTROL_PROBE),
                named: live.naming(&peer, &context.class_name),
                view: match inputs.observed {
                    None => View::None,
                    Some(view) => match view.get(&peer) {
                        Some(roots) => View::Roots(roots.clone()),
                        None => View::NotFederated,
                    },
                },
                endpoint: inputs.endpoints.get(&peer).cloned(),
                declaration,
                edge,
                published,
                peer,
            });
        }
        Ok(facts)
    }

    /// The files of a publication: on the trust domain's own branch, or else in its directory on
    /// the reviewed branch.
    ///
    /// Whoever may push to the branch decides what is on it: that it can't be read is told of this
    /// peer, and stops nothing else.
    async fn publication(
        &mut self,
        heads: &Heads,
        main: &Tree,
        trust_domain: &TrustDomain,
    ) -> Result<Result<Files, Rejection>, git::Error> {
        let Some(revision) = heads.publications.get(trust_domain) else {
            return Ok(Ok(publication_on_main(main, trust_domain)));
        };
        if let Some(known) = self.publications.get(revision) {
            return Ok(known.clone());
        }
        let found = match self.repository.publication(revision).await {
            Ok(found) => attestation::files(found),
            Err(error @ git::Error::Timeout(_)) => return Err(error),
            // Not remembered: it may be the mirror's own trouble.
            Err(error) => return Ok(Err(Rejection::UnreadableBranch(with_causes(&error)))),
        };
        self.publications.insert(revision.clone(), found.clone());
        Ok(found)
    }
}

/// Trust domains that somebody else keeps a relationship with.
pub(super) fn foreign(live: &Live, context: &Context, facts: &[Facts]) -> BTreeSet<TrustDomain> {
    live.cftds
        .iter()
        .filter_map(|object| LiveCftd::read(object, &context.class_name))
        .map(|(trust_domain, _)| trust_domain)
        .filter(|trust_domain| facts.iter().all(|facts| facts.peer != *trust_domain))
        .collect()
}

/// What live registrations name already and the repository does not know: people federate with it in
/// another way, and it stays in the registrations that have it.
pub(super) fn undeclared(
    live: &Live,
    context: &Context,
    facts: &[Facts],
) -> BTreeMap<ObjectKey, BTreeSet<TrustDomain>> {
    let registrations = live.registrations.iter();
    registrations
        .filter(|it| it["spec"]["className"] == context.class_name.as_str())
        .filter(|it| !objects::is_probe(it))
        .filter_map(|object| {
            let names = object["spec"]["federatesWith"].as_array()?.iter();
            let names = names.filter_map(|name| TrustDomain::parse(name.as_str()?).ok());
            let unknown = names.filter(|name| facts.iter().all(|facts| facts.peer != *name));
            let unknown: BTreeSet<_> = unknown.collect();
            let key = ObjectRef::of(object)?.key();
            (!unknown.is_empty()).then_some((key, unknown))
        })
        .collect()
}
