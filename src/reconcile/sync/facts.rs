//! What a pass reads: the cluster's side, and everything that is known about each peer.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Error, Inputs, Sync};
use crate::{
    cluster::{
        Cluster,
        types::{self, TrustPeerStatus},
    },
    federation::{
        consent::{Consent, consent},
        guard::Watermark,
        lifecycle::{Facts, LiveCftd, Memory, Probe},
        objects::{self, CFTD, CLUSTER_SPIFFE_ID, Context, SPIRE_API_VERSION},
    },
    git::{self, Heads, Repository},
    model::{
        attestation::{self, Rejection, Serial},
        bundle::Digest,
        declarations::Declarations,
        manifest::Gvk,
        repository::{RepoPath, Tree, topology_path},
        topology::Edge,
        trust_domain::TrustDomain,
    },
    reconcile::desired::{files_in, publication_on_main},
};

/// What a pass reads from the cluster.
pub(super) struct Live {
    pub(super) cftds: Vec<Value>,
    pub(super) registrations: Vec<Value>,
    pub(super) peers: BTreeMap<TrustDomain, (Value, TrustPeerStatus)>,
    pub(super) git_sync: Option<Value>,
}

impl<R: Repository, C: Cluster> Sync<R, C> {
    /// Reads what decisions about peers need.
    pub(super) async fn read(&self) -> Result<Live, Error> {
        let spire = |kind: &str| Gvk::new(SPIRE_API_VERSION, kind);
        let (cftd, spiffe_id, peer) = (
            spire(CFTD),
            spire(CLUSTER_SPIFFE_ID),
            types::trust_peer_kind(),
        );
        let git_sync = types::git_sync_reference();
        let (cftds, registrations, peers, git_sync) = tokio::try_join!(
            self.cluster.list(&cftd, None),
            self.cluster.list(&spiffe_id, None),
            self.cluster.list(&peer, None),
            self.cluster.get(&git_sync),
        )?;
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
        let wanted = declarations.topology.peers_of(&context.trust_domain);
        let ours = relationships
            .iter()
            .filter(|(_, found)| found.iter().any(|(_, live)| live.watermark.is_some()))
            .map(|(peer, _)| peer);
        let names: BTreeSet<TrustDomain> = wanted
            .iter()
            .chain(ours)
            .chain(live.peers.keys())
            .cloned()
            .collect();
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
                    attestation::verify(&peer, declaration, &files, inputs.now)
                }
                None => Err(Rejection::Unpublished),
            };
            let mut found = relationships.remove(&peer).unwrap_or_default();
            found.sort_by(|a, b| a.0.cmp(&b.0));
            let probe = objects::probe_name(&peer);
            let probe = live
                .registrations
                .iter()
                .find(|object| object["metadata"]["name"] == probe.as_str());
            facts.push(Facts {
                memory: live
                    .peers
                    .get(&peer)
                    .map(|(_, status)| memory(status))
                    .unwrap_or_default(),
                live: found.into_iter().map(|(_, live)| live).collect(),
                probe: Probe::read(probe),
                observed: inputs.observed.and_then(|view| view.get(&peer)).cloned(),
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
    async fn publication(
        &mut self,
        heads: &Heads,
        main: &Tree,
        trust_domain: &TrustDomain,
    ) -> Result<BTreeMap<String, Vec<u8>>, git::Error> {
        match heads.publications.get(trust_domain) {
            Some(revision) => {
                let tree = self.tree(revision).await?;
                Ok(files_in(&tree, &RepoPath::ROOT))
            }
            None => Ok(publication_on_main(main, trust_domain)),
        }
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

/// What a `TrustPeer` remembers.
pub(super) fn memory(status: &TrustPeerStatus) -> Memory {
    let watermark = status.watermark.as_ref().and_then(|watermark| {
        Some(Watermark {
            epoch: watermark.epoch,
            serial: Serial(watermark.serial),
            revocations: watermark.revocations,
            nonce: watermark.nonce,
            digest: Digest::parse(&watermark.digest).ok()?,
        })
    });
    Memory {
        watermark,
        was_federated: status.was_federated,
    }
}
