//! Two states of the repository.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use serde_json::Value;

use super::{
    Arguments,
    report::{Object, Report, Trust, changed, errors, tell},
};
use crate::{
    cli::{check::now, output, repository},
    federation::{
        impact::{self, Bundles, Change, Registrations},
        resolve::Resolved,
    },
    git::LocalRepository,
    model::{
        attestation,
        declarations::Declarations,
        manifest::{Manifest, ObjectKey},
        repository::Tree,
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
        let mut registrations: BTreeMap<(TrustDomain, TrustDomain), BTreeMap<_, _>> =
            BTreeMap::new();
        for cluster in after.clusters() {
            let Some((trust_domain, _)) = after.trust_domain_of(cluster) else {
                continue;
            };
            let old = settled_overlay(base, &before, cluster);
            let new = settled_overlay(head, &after, cluster);
            for (peer, change) in impact::registrations(&old, &new) {
                let direction = (trust_domain.clone(), peer);
                registrations
                    .entry(direction)
                    .or_default()
                    .insert(cluster.clone(), change);
            }
            if self.cluster.as_ref().is_none_or(|only| only == cluster) {
                // What an unreadable file declares is not there, but not gone either.
                let complete = errors(&new.diagnostics) == 0;
                let objects = changed_objects(&old.manifests, &new.manifests, complete);
                if !objects.is_empty() {
                    report.clusters.insert(cluster.clone(), objects);
                }
            }
            former += errors(&old.diagnostics);
            diagnostics.extend(new.diagnostics);
        }
        let bundles = self.bundles((base, &before), (head, &after))?;
        let changes = impact::impact(&before, &after, &bundles);
        report.trust = Some(trust(changes, registrations));
        report.unread = tell(diagnostics, head);
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
            let verified = |(tree, declarations): (&Tree, &Declarations)| {
                let declaration = declarations.trust_domains.get(&name)?;
                let files = match &branch {
                    Some(found) => found.files.clone(),
                    None => desired::publication_on_main(tree, &name),
                };
                let verdict = attestation::verify(&name, declaration, &files, bundles.now);
                verdict.ok().map(|publication| publication.bundle)
            };
            let (before, after) = (verified(base), verified(head));
            bundles
                .before
                .extend(before.map(|bundle| (name.clone(), bundle)));
            bundles
                .after
                .extend(after.map(|bundle| (name.clone(), bundle)));
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

/// Joins each new or lost direction of trust with what it does to registrations; what happens to
/// registrations besides comes last.
fn trust(
    changes: Vec<Change>,
    mut registrations: BTreeMap<(TrustDomain, TrustDomain), BTreeMap<ClusterName, Registrations>>,
) -> Vec<Trust> {
    let mut trust: Vec<Trust> = Vec::new();
    for change in changes {
        let concerned = match &change {
            Change::Edge {
                importer, exporter, ..
            } => registrations.remove(&(importer.clone(), exporter.clone())),
            _ => None,
        };
        let concerned = concerned.unwrap_or_default();
        let mut all = Registrations::default();
        concerned.values().cloned().for_each(|one| all.extend(one));
        let sentences = [vec![change.to_string()], all.sentences("it")].concat();
        trust.push(Trust {
            change: Some(change),
            sentence: sentences.join("; "),
            registrations: concerned,
        });
    }
    for ((importer, exporter), concerned) in registrations {
        for (cluster, one) in concerned {
            let sentences = one.sentences(exporter.as_str()).join("; ");
            trust.push(Trust {
                change: None,
                sentence: format!("{importer}: in {cluster}, {sentences}"),
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
