//! What a revision asks of one cluster, and what is wrong with it: the pure middle of a pass, which
//! the command line shares.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    federation::{
        consent::{Consent, consent},
        distrust,
        resolve::{Peers, Resolved, Standing, resolve},
    },
    model::{
        attestation::{self, Rejection},
        declarations::Declarations,
        diagnostic::{Code, Diagnostic},
        repository::{
            Entry, RepoPath, Tree, overlay_directory, trust_domain_directory, trust_domain_path,
        },
        topology::Edge,
        trust_domain::{ClusterName, TrustDomain},
    },
    plan::policy,
    render,
};

/// Renders a cluster's overlay and resolves its registrations.
pub fn overlay(
    tree: &Tree,
    declarations: &Declarations,
    cluster: &ClusterName,
    peers: &Peers,
) -> Resolved {
    let rendered = render::render(tree, &overlay_directory(cluster));
    let mut resolved = resolve(rendered.manifests, &declarations.topology, peers);
    resolved.diagnostics.splice(0..0, rendered.diagnostics);
    let mistaken = policy::check(&resolved.manifests);
    resolved.diagnostics.extend(mistaken);
    resolved
}

/// Every peer of a trust domain, as if SPIRE held the bundle of each whose edge is active: what a
/// revision leads to in the end.
pub fn settled_peers(declarations: &Declarations, trust_domain: &TrustDomain) -> Peers {
    let declared = declarations
        .topology
        .peers_of(trust_domain)
        .into_iter()
        .map(|exporter| {
            let edge = Edge {
                importer: trust_domain.clone(),
                exporter: exporter.clone(),
            };
            let standing = match consent(&edge, declarations) {
                Consent::Given => Standing::Ready,
                Consent::Missing { .. } | Consent::Unknown { .. } => Standing::HeldBack,
            };
            (exporter, standing)
        })
        .collect();
    Peers {
        declared,
        ..Peers::default()
    }
}

/// The files directly in a directory of a tree, by name.
fn files_in(tree: &Tree, directory: &RepoPath) -> BTreeMap<String, Vec<u8>> {
    tree.below(directory)
        .filter(|(path, _)| path.parent() == *directory)
        .filter_map(|(path, entry)| match entry {
            Entry::File(content) => Some((path.file_name().to_owned(), content.to_vec())),
            _ => None,
        })
        .collect()
}

/// The files of a publication in the trust domain's directory on the reviewed branch.
pub fn publication_on_main(tree: &Tree, trust_domain: &TrustDomain) -> BTreeMap<String, Vec<u8>> {
    let mut files = files_in(tree, &trust_domain_directory(trust_domain));
    files.retain(|name, _| name.starts_with("bundle."));
    files
}

/// Everything that is wrong with a revision, without asking any cluster.
pub fn check(tree: &Tree, now: Timestamp) -> (Declarations, Vec<Diagnostic>) {
    let (declarations, mut diagnostics) = Declarations::load(tree, None);
    for edge in declarations.topology.edges() {
        let Consent::Missing { moves } = consent(&edge, &declarations) else {
            continue;
        };
        for needed in moves {
            diagnostics.push(
                Diagnostic::warning(
                    Code::MissingConsent,
                    &trust_domain_path(&needed.owner),
                    format!(
                        "`{}` will not trust `{}` yet: spec.consent.{} does not name `{}`",
                        edge.importer, edge.exporter, needed.list, needed.peer
                    ),
                )
                .help("its owners agree by adding the name"),
            );
        }
    }
    diagnostics.extend(distrust::check(tree, &declarations, now));
    for (trust_domain, declaration) in &declarations.trust_domains {
        let directory = trust_domain_directory(trust_domain);
        let files = publication_on_main(tree, trust_domain);
        match attestation::verify(trust_domain, declaration, &files, now) {
            Ok(_) | Err(Rejection::Unpublished) => {}
            Err(rejection) => {
                let message = format!("the published bundle is not usable: {rejection}");
                diagnostics.push(
                    Diagnostic::error(Code::InvalidBundle, &directory, message).help(
                        "only the trust domain's agent writes these files; restore its commit",
                    ),
                );
            }
        }
        for cluster in &declaration.clusters {
            let peers = settled_peers(&declarations, trust_domain);
            diagnostics.extend(overlay(tree, &declarations, &cluster.name, &peers).diagnostics);
        }
    }
    // Overlays share bases: what is wrong in one is told once.
    diagnostics.sort_by(|a, b| (&a.path, a.position).cmp(&(&b.path, b.position)));
    diagnostics.dedup();
    (declarations, diagnostics)
}
