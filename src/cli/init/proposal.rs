//! From what clusters tell to the files of a repository: exactly what they trust today.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    declaration::{Proposal, chart_values},
    live::Known,
    text::Text,
};
use crate::{
    federation::{
        installation::{Found, configuration::Peer},
        objects::CLUSTER_SPIFFE_ID,
    },
    model::{
        declaration::Consent,
        repository::{RepoPath, overlay_directory, topology_path, trust_domain_path},
        trust_domain::{ClusterName, TrustDomain},
        yaml,
    },
};

/// What is proposed.
#[derive(Debug, Default)]
pub(super) struct Proposed {
    /// The files, by path.
    pub(super) files: BTreeMap<RepoPath, String>,
    /// What can't be known, and what is odd.
    pub(super) notes: Vec<String>,
}

/// The declaration of the one cluster that was asked.
pub(super) fn declaration(known: &Known) -> (String, Vec<String>) {
    let mut notes = known.notes.clone();
    let proposal = Proposal {
        known,
        others: Vec::new(),
        polled: None,
        consent: Consent {
            import: trusted(known),
            export: BTreeSet::new(),
        },
        alone: true,
    };
    let text = proposal.write(&mut notes);
    notes.extend(by_hand(known));
    (text, notes)
}

/// A repository of all clusters that were asked; each must have a name and a trust domain.
pub(super) fn repository(all: &[Known]) -> Proposed {
    let mut proposed = Proposed::default();
    let mut by_trust_domain: BTreeMap<&TrustDomain, Vec<&Known>> = BTreeMap::new();
    for known in all {
        if let Some(found) = &known.trust_domain {
            by_trust_domain.entry(&found.value).or_default().push(known);
        }
    }
    let directions = directions(all, &by_trust_domain, &mut proposed.notes);
    for (trust_domain, clusters) in &by_trust_domain {
        let Some((first, rest)) = clusters.split_first() else {
            continue;
        };
        let of = |pick: &dyn Fn(&(TrustDomain, TrustDomain)) -> Option<&TrustDomain>| {
            directions.iter().filter_map(pick).cloned().collect()
        };
        let names = rest.iter().filter_map(|it| it.cluster.as_ref());
        let mut notes = first.notes.clone();
        let polled = polled(all, trust_domain, &mut notes);
        let text = Proposal {
            known: first,
            others: names.map(|it| it.value.clone()).collect(),
            polled,
            consent: Consent {
                import: of(&|(importer, exporter)| (importer == *trust_domain).then_some(exporter)),
                export: of(&|(importer, exporter)| (exporter == *trust_domain).then_some(importer)),
            },
            alone: all.len() == 1,
        }
        .write(&mut notes);
        notes.extend(rest.iter().flat_map(|it| it.notes.clone()));
        if !rest.is_empty() {
            notes.push(format!(
                "several clusters are of {trust_domain}: the declaration is that of the first, which \
                 publishes the bundle"
            ));
        }
        let notes = notes
            .into_iter()
            .map(|note| format!("{trust_domain}: {note}"));
        proposed.notes.extend(notes);
        proposed.files.insert(trust_domain_path(trust_domain), text);
    }
    proposed
        .files
        .insert(topology_path(), topology(&directions));
    for known in all {
        if let Some(cluster) = &known.cluster {
            overlay(known, &cluster.value, &mut proposed);
            let notes = by_hand(known);
            let notes = notes.map(|note| format!("{}: {note}", cluster.value));
            proposed.notes.extend(notes);
        }
    }
    proposed
}

/// The trust domains that a cluster trusts today, by objects and by its server's configuration.
fn trusted(known: &Known) -> BTreeSet<TrustDomain> {
    let Some(installation) = &known.installation else {
        return BTreeSet::new();
    };
    let own = known.trust_domain.as_ref().map(|it| &it.value);
    let relationships = installation.registrations.relationships.keys();
    relationships
        .chain(installation.configuration.federates_with.keys())
        .filter(|it| Some(*it) != own)
        .cloned()
        .collect()
}

/// Who trusts whom, as importer and exporter, between the trust domains that were asked.
fn directions(
    all: &[Known],
    asked: &BTreeMap<&TrustDomain, Vec<&Known>>,
    notes: &mut Vec<String>,
) -> BTreeSet<(TrustDomain, TrustDomain)> {
    let mut directions = BTreeSet::new();
    for known in all {
        let Some(importer) = &known.trust_domain else {
            continue;
        };
        for exporter in trusted(known) {
            if asked.contains_key(&exporter) {
                directions.insert((importer.value.clone(), exporter));
            } else {
                notes.push(format!(
                    "{}: it trusts {exporter}, whose cluster was not asked: that stays as it is, kept by \
                     hand, until {exporter} is declared and in the topology",
                    importer.value
                ));
            }
        }
    }
    directions
}

/// Where others poll a trust domain's bundle: what a server's configuration says counts for SPIRE
/// before what an object says.
fn polled(
    all: &[Known],
    trust_domain: &TrustDomain,
    notes: &mut Vec<String>,
) -> Option<Found<Peer>> {
    let mut found: Vec<Found<Peer>> = Vec::new();
    for known in all {
        let (Some(installation), Some(cluster)) = (&known.installation, &known.cluster) else {
            continue;
        };
        let cluster = &cluster.value;
        if let Some(peer) = installation.configuration.federates_with.get(trust_domain) {
            let place = format!("{} of {cluster}", peer.place);
            found.push(Found::new(peer.value.clone(), place));
        }
        if let Some(it) = installation.registrations.relationships.get(trust_domain) {
            let place = format!("ClusterFederatedTrustDomain {} of {cluster}", it.name);
            found.push(Found::new(it.peer.clone(), place));
        }
    }
    let first = found.first()?.clone();
    for other in found.iter().filter(|it| it.value != first.value) {
        notes.push(format!(
            "{} has another endpoint ({}) than {} ({}): the latter is declared, and the former will be \
             changed to it",
            other.place, other.value.url, first.place, first.value.url
        ));
    }
    Some(first)
}

/// What stays people's own work, or another tool's.
fn by_hand(known: &Known) -> impl Iterator<Item = String> {
    let installation = known.installation.as_ref();
    let kept = installation
        .into_iter()
        .flat_map(|it| &it.registrations.kept_by_others);
    let kept = kept.map(|(reference, keeper)| {
        format!("{reference} is kept by something else ({keeper}): it is not taken over")
    });
    let fixed = installation
        .into_iter()
        .flat_map(|it| &it.configuration.federates_with);
    let fixed = fixed.map(|(peer, found)| {
        format!(
            "{peer} is in {}: SPIRE polls what stands there, whatever the agent says, and {peer} can't be \
             distrusted while it does. Rotation does not need it",
            found.place
        )
    });
    let chart = installation.and_then(chart_values).map(|values| {
        format!("values of the Helm chart that switch on what is missing:\n{values}")
    });
    kept.chain(fixed).chain(chart)
}

fn topology(directions: &BTreeSet<(TrustDomain, TrustDomain)>) -> String {
    let mut text = Text::default();
    text.comment(
        0,
        "Who trusts whom. An edge is active once both trust domains consent.",
    );
    text.line(0, "apiVersion: trustweave.dev/v1alpha1");
    text.line(0, "kind: Topology");
    text.line(0, "metadata:");
    text.line(1, "name: topology");
    if directions.is_empty() {
        text.line(0, "spec: {}");
        return text.finish();
    }
    text.line(0, "spec:");
    text.line(1, "edges:");
    for (importer, exporter) in directions {
        let mutual = directions.contains(&(exporter.clone(), importer.clone()));
        if !mutual {
            text.comment(2, &format!("The workloads of {importer} trust {exporter}."));
            text.field(2, "- from", importer.as_str());
            text.field(3, "to", exporter.as_str());
        } else if importer < exporter {
            text.line(2, "- between:");
            text.item(4, importer.as_str());
            text.item(4, exporter.as_str());
        }
    }
    text.finish()
}

/// The overlay of a cluster: the registrations that people keep by hand.
fn overlay(known: &Known, cluster: &ClusterName, proposed: &mut Proposed) {
    let directory = overlay_directory(cluster);
    let installation = known.installation.as_ref();
    let registrations = installation.map_or(&[][..], |it| &it.registrations.kept_by_hand);
    let mut text = Text::default();
    text.comment(0, &format!("What the agent of {cluster} applies."));
    text.line(0, "apiVersion: kustomize.config.k8s.io/v1beta1");
    text.line(0, "kind: Kustomization");
    let mut resources = Vec::new();
    for object in registrations {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let kind = if object["kind"] == CLUSTER_SPIFFE_ID {
            "cluster-spiffe-ids"
        } else {
            "cluster-static-entries"
        };
        let relative = format!("{kind}/{name}.yaml");
        let content = yaml::emit(std::slice::from_ref(object));
        if let Ok(path) = directory.join(&relative) {
            proposed.files.insert(path, content);
            resources.push(Value::from(relative));
        }
    }
    if resources.is_empty() {
        text.line(0, "resources: []");
        proposed.notes.push(format!(
            "{cluster}: no registration is kept by hand, so its overlay is empty; `trustweave check` refuses \
             it until something is in it"
        ));
    } else {
        text.line(0, "resources:");
        for resource in resources.iter().filter_map(Value::as_str) {
            text.item(1, resource);
        }
    }
    if let Ok(path) = directory.join("kustomization.yaml") {
        proposed.files.insert(path, text.finish());
    }
}
