//! What a `distrust.yaml` means to others, and what is wrong with its entries.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::consent::{Consent, consent};
use crate::model::{
    bundle::Bundle,
    declarations::Declarations,
    diagnostic::{Code, Diagnostic, nearest},
    distrust::{DistrustSpec, KeyStanding, Revocation},
    repository::{Tree, distrust_path, trust_domain_path},
    trust_domain::{ClusterName, TrustDomain},
    yaml::{self, Document},
};

/// Whose workloads it concerns that `by` says something about a key of `trust_domain`: everybody's
/// who trust it, if it is its own, and else only `by`'s.
pub fn concerned(
    declarations: &Declarations,
    by: &TrustDomain,
    trust_domain: &TrustDomain,
) -> BTreeMap<TrustDomain, Vec<ClusterName>> {
    let edges = declarations.topology.edges().into_iter();
    edges
        .filter(|edge| edge.exporter == *trust_domain)
        .filter(|edge| by == trust_domain || *by == edge.importer)
        .filter(|edge| consent(edge, declarations) == Consent::Given)
        .map(|edge| {
            let spec = declarations.trust_domains.get(&edge.importer);
            let clusters = spec.into_iter().flat_map(|spec| &spec.clusters);
            let clusters = clusters.map(|cluster| cluster.name.clone()).collect();
            (edge.importer, clusters)
        })
        .collect()
}

/// How many X.509 authorities of a bundle none of the files takes back.
pub fn accepted<'a>(
    bundle: &Bundle,
    trust_domain: &TrustDomain,
    files: impl IntoIterator<Item = &'a DistrustSpec>,
) -> usize {
    let files: Vec<_> = files.into_iter().collect();
    let authorities = bundle.x509_authorities.iter();
    authorities
        .filter(|authority| {
            files
                .iter()
                .all(|file| file.standing(trust_domain, &authority.id()) != KeyStanding::Revoked)
        })
        .count()
}

/// What is wrong with the entries of every `distrust.yaml` that can be read.
pub fn check(tree: &Tree, declarations: &Declarations, now: Timestamp) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (owner, spec) in &declarations.distrust {
        let path = distrust_path(owner);
        let document = tree.text(&path).and_then(|text| yaml::parse(&path, text));
        let Some(document) = document.ok().and_then(|all| all.into_iter().next()) else {
            continue;
        };
        let checker = Checker {
            tree,
            declarations,
            owner,
            spec,
            document: &document,
            now,
        };
        for (list, entries) in [("revoked", &spec.revoked), ("unrevoked", &spec.unrevoked)] {
            for (index, entry) in entries.iter().enumerate() {
                let pointer = format!("/spec/{list}/{index}");
                found.extend(checker.entry(&pointer, entry, list == "unrevoked"));
            }
        }
    }
    found
}

struct Checker<'a> {
    tree: &'a Tree,
    declarations: &'a Declarations,
    owner: &'a TrustDomain,
    spec: &'a DistrustSpec,
    document: &'a Document,
    now: Timestamp,
}

impl Checker<'_> {
    fn entry(&self, pointer: &str, entry: &Revocation, lifts: bool) -> Vec<Diagnostic> {
        let path = distrust_path(self.owner);
        let at = |field: &str| self.document.position_of(&format!("{pointer}/{field}"));
        let mut found = Vec::new();
        if entry.time > self.now {
            let message = format!("the time `{}` lies in the future", entry.time);
            found.push(
                Diagnostic::error(Code::InvalidValue, &path, message)
                    .at(at("time"))
                    .help("write when it was decided: an `unrevoked` entry needs a later time"),
            );
        }
        if let Some((code, message, help)) = self.without_effect(&entry.trust_domain) {
            let warning = Diagnostic::warning(code, &path, message).at(at("trustDomain"));
            found.push(match help {
                Some(help) => warning.help(help),
                None => warning,
            });
        }
        let lifted = self.spec.revoked.iter().any(|revoked| {
            revoked.trust_domain == entry.trust_domain
                && revoked.key == entry.key
                && revoked.time < entry.time
        });
        if lifts && !lifted {
            let message = format!(
                "nothing here revokes the {} of `{}` before {}",
                entry.key, entry.trust_domain, entry.time
            );
            found.push(
                Diagnostic::warning(Code::WithoutEffect, &path, message)
                    .at(at("key"))
                    .help(
                        "an entry lifts what this file revoked with an earlier time; keep both \
                         entries, so that the file tells the story",
                    ),
            );
        }
        found
    }

    /// Why an entry about the trust domain changes nothing for anybody.
    fn without_effect(&self, about: &TrustDomain) -> Option<(Code, String, Option<String>)> {
        let declared = &self.declarations.trust_domains;
        if about == self.owner {
            return None;
        }
        if !declared.contains_key(about) && self.tree.get(&trust_domain_path(about)).is_none() {
            let known = nearest(about.as_str(), declared.keys().map(TrustDomain::as_str));
            return Some((
                Code::UnknownTrustDomain,
                format!("an entry about `{about}`, which no declaration stands for"),
                known.map(|known| format!("did you mean `{known}`?")),
            ));
        }
        let consents = declared.get(self.owner)?.consent.import.contains(about);
        let mut edges = self.declarations.topology.edges().into_iter();
        let wanted = self.declarations.topology_unknown
            || edges.any(|edge| edge.importer == *self.owner && edge.exporter == *about);
        (!consents || !wanted).then(|| {
            (
                Code::WithoutEffect,
                format!(
                    "`{}` does not import `{about}`, so that this entry changes nothing yet",
                    self.owner
                ),
                Some("an entry about a peer counts only for the own workloads".to_owned()),
            )
        })
    }
}
