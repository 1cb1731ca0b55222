//! Two states of the repository.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;

use super::{
    Arguments,
    report::{Changed, Object, Report, Trust, changed, errors},
};
use crate::{
    cli::{check::now, output, repository},
    federation::{
        impact::{self, Bundles, Change, Published, Registrations},
        resolve::Resolved,
    },
    git::LocalRepository,
    model::{
        attestation,
        declarations::Declarations,
        manifest::{Manifest, ObjectKey},
        repository::Tree,
        topology::Edge,
        trust_domain::{ClusterName, TrustDomain},
    },
    plan::Action,
    reconcile::desired,
};

impl Arguments {
    /// Compares two states of the repository.
    pub(super) fn offline(&self, base: &Tree, head: &Tree) -> anyhow::Result<Report> {
        let (before, former) = Declarations::load(base, None);
        // As the agents do: what can't be read any more stays as it was.
        let (after, mut diagnostics) = Declarations::load(head, Some(&before));
        let mut former = errors(&former);
        if let Some(cluster) = &self.cluster
            && before
                .trust_domain_of(cluster)
                .or(after.trust_domain_of(cluster))
                .is_none()
        {
            bail!("no trust domain declares the cluster `{cluster}`");
        }
        let mut report = Report::default();
        let mut registrations: ByEdge = BTreeMap::new();
        let mut identities = Vec::new();
        for cluster in after.clusters() {
            let Some((trust_domain, _)) = after.trust_domain_of(cluster) else {
                continue;
            };
            let old = settled_overlay(base, &before, cluster);
            let new = settled_overlay(head, &after, cluster);
            for (peer, change) in impact::registrations(&old, &new) {
                let edge = Edge {
                    importer: trust_domain.clone(),
                    exporter: peer,
                };
                let of_edge = registrations.entry(edge).or_default();
                of_edge.insert(cluster.clone(), change);
            }
            // What an unreadable file declares is not there, but not gone either.
            let complete = errors(&new.diagnostics) == 0;
            identities.extend(impact::identities(
                trust_domain,
                cluster,
                &old.manifests,
                &new.manifests,
                complete,
            ));
            if self.cluster.as_ref().is_none_or(|only| only == cluster) {
                let changed = Changed {
                    objects: changed_objects(&old.manifests, &new.manifests, complete),
                    restarts: impact::restarts(&old.manifests, &new.manifests),
                };
                if !changed.objects.is_empty() {
                    report.clusters.insert(cluster.clone(), changed);
                }
            }
            former += errors(&old.diagnostics);
            diagnostics.extend(new.diagnostics);
        }
        let bundles = self.bundles((base, &before), (head, &after))?;
        let mut changes = impact::impact(&before, &after, &bundles);
        changes.extend(identities.into_iter().map(Change::Identity));
        report.trust = Some(trust(changes, registrations, &after));
        report.graph = impact::graph(&before, &after);
        report.tell(diagnostics, head);
        if former > 0 {
            output::note(&format!(
                "note: the base has {}: what it declares there is taken as absent",
                output::plural(former, "error")
            ));
        }
        Ok(report)
    }

    /// The verified bundles that make sentences more precise: of trust domains whose keys are talked
    /// about, or whose publication on the reviewed branch differs.
    fn bundles(
        &self,
        base: (&Tree, &Declarations),
        head: (&Tree, &Declarations),
    ) -> anyhow::Result<Bundles> {
        let mut names = impact::talked_about(base.1, head.1);
        let differs = |name: &&TrustDomain| {
            let files = |tree: &Tree| desired::publication_on_main(tree, name);
            files(base.0) != files(head.0)
        };
        let declared = head.1.trust_domains.keys();
        names.extend(declared.filter(differs).cloned());
        let mut bundles = Bundles {
            now: now(),
            ..Bundles::default()
        };
        if names.is_empty() {
            return Ok(bundles);
        }
        let repository = LocalRepository::open(&self.repo)?;
        for name in names {
            let branch = repository::branches(&repository, &name)?.into_iter().next();
            let published = |(tree, declarations): (&Tree, &Declarations)| {
                let declaration = declarations.trust_domains.get(&name)?;
                let files = match &branch {
                    Some(found) => found.files.clone(),
                    None => desired::publication_on_main(tree, &name),
                };
                let verdict = attestation::verify(&name, declaration, &files, bundles.now);
                Some((name.clone(), Published::from(verdict)))
            };
            let (before, after) = (published(base), published(head));
            bundles.before.extend(before);
            bundles.after.extend(after);
        }
        Ok(bundles)
    }
}

/// A cluster's overlay as it will be in the end; empty if nobody declares the cluster.
fn settled_overlay(tree: &Tree, declarations: &Declarations, cluster: &ClusterName) -> Resolved {
    match declarations.trust_domain_of(cluster) {
        Some((trust_domain, _)) => {
            let peers = desired::settled_peers(declarations, trust_domain);
            desired::overlay(tree, declarations, cluster, &peers)
        }
        None => Resolved::default(),
    }
}

/// What changes in the registrations of each cluster, by the direction of trust.
type ByEdge = BTreeMap<Edge, BTreeMap<ClusterName, Registrations>>;

/// Joins each new or lost direction of trust with what it does to registrations; what happens to
/// registrations besides comes last.
fn trust(changes: Vec<Change>, mut registrations: ByEdge, after: &Declarations) -> Vec<Trust> {
    let mut trust: Vec<Trust> = Vec::new();
    for change in changes {
        let (mut details, mut concerned) = (change.details(), BTreeMap::new());
        if let Change::Edge {
            importer, exporter, ..
        } = &change
        {
            let edge = Edge {
                importer: importer.clone(),
                exporter: exporter.clone(),
            };
            concerned = registrations.remove(&edge).unwrap_or_default();
            for (cluster, one) in &concerned {
                details.extend(one.sentences(cluster, exporter));
            }
        }
        trust.push(Trust {
            sentence: change.sentence(),
            change: Some(change),
            details,
            registrations: concerned,
        });
    }
    let edges = after.topology.edges();
    for (edge, concerned) in registrations {
        let asked_for = edges.contains(&edge);
        for (cluster, one) in concerned {
            let (sentence, details) = impact::alone(&edge, &cluster, &one, after, asked_for);
            trust.push(Trust {
                change: None,
                sentence,
                details,
                registrations: BTreeMap::from([(cluster, one)]),
            });
        }
    }
    trust
}

fn changed_objects(old: &[Manifest], new: &[Manifest], complete: bool) -> Vec<Object> {
    let by_key = |manifests: &[Manifest]| -> BTreeMap<ObjectKey, Manifest> {
        manifests
            .iter()
            .map(|one| (one.reference.key(), one.clone()))
            .collect()
    };
    let (old, new) = (by_key(old), by_key(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter_map(|key| {
            let (old, new) = (old.get(key), new.get(key));
            let action = match (old, new) {
                (None, _) => Action::Create,
                (Some(_), Some(_)) => Action::Update,
                (Some(_), None) if complete => Action::Delete,
                (Some(_), None) => return None,
            };
            let reference = &new.or(old)?.reference;
            let object = |side: Option<&'_ Manifest>| side.map(|one| one.object.clone());
            changed(
                action,
                reference,
                object(old).as_ref(),
                object(new).as_ref(),
            )
        })
        .collect()
}
