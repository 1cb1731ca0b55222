//! From rendered to resolved: which peers a workload's registration really federates with.
//!
//! A registration that names a peer whose bundle SPIRE does not hold gives no new pod any identity,
//! so a peer is held back until it was ready once.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::objects::{CFTD, CLUSTER_SPIFFE_ID, CLUSTER_STATIC_ENTRY};
use crate::model::{
    diagnostic::{Code, Diagnostic},
    manifest::{Manifest, ObjectKey, ObjectRef},
    topology::TopologySpec,
    trust_domain::TrustDomain,
};

/// For people, on a registration in an overlay: fill `federatesWith` with `all` peers, or those of
/// `group:<name>`.
pub const FEDERATES_WITH: &str = "trustweave.dev/federates-with";

/// What is known of the peers when registrations are resolved.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// Peers that this cluster federates with, and whether each may be named.
    pub declared: BTreeMap<TrustDomain, Standing>,
    /// Trust domains that somebody else federates with in this cluster: none of our business.
    pub foreign: BTreeSet<TrustDomain>,
    /// Trust domains that the repository does not know, by the live registration that names them.
    pub undeclared: BTreeMap<ObjectKey, BTreeSet<TrustDomain>>,
}

/// Whether a declared peer may be named in `federatesWith`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// SPIRE holds its bundle.
    Ready,
    /// It was never ready.
    HeldBack,
    /// It is on its way out.
    Leaving,
}

/// Resolved registrations, and what was kept out of them.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// All manifests, with `federatesWith` filled and filtered.
    pub manifests: Vec<Manifest>,
    /// For each peer that was kept out: the registrations that want it.
    pub held_back: BTreeMap<TrustDomain, Vec<ObjectRef>>,
    /// For each peer: the registrations that name it.
    pub named: BTreeMap<TrustDomain, Vec<ObjectRef>>,
    /// What is wrong with the overlay's registrations.
    pub diagnostics: Vec<Diagnostic>,
}

/// Fills and filters `federatesWith` of every registration, and refuses objects that are the
/// agent's own business.
pub fn resolve(rendered: Vec<Manifest>, topology: &TopologySpec, peers: &Peers) -> Resolved {
    let mut resolved = Resolved::default();
    for mut manifest in rendered {
        if let Some(diagnostic) = reserved(&manifest, peers) {
            resolved.diagnostics.push(diagnostic);
            continue;
        }
        if is_registration(&manifest.reference) {
            match wanted(&manifest, topology, peers) {
                Ok(Some(wanted)) => resolved.filter(&mut manifest, wanted, peers),
                Ok(None) => {}
                Err(diagnostic) => resolved.diagnostics.push(diagnostic),
            }
        }
        resolved.manifests.push(manifest);
    }
    resolved
}

/// Whether the object is a registration of SPIRE's controller manager.
pub fn is_registration(reference: &ObjectRef) -> bool {
    reference.gvk.group == "spire.spiffe.io"
        && matches!(
            reference.gvk.kind.as_str(),
            CLUSTER_SPIFFE_ID | CLUSTER_STATIC_ENTRY
        )
}

/// Whether a live registration names a peer.
pub fn federates_with(registration: &Value, peer: &TrustDomain) -> bool {
    let names = registration["spec"]["federatesWith"].as_array();
    names.is_some_and(|names| names.iter().any(|name| name == peer.as_str()))
}

/// The names that a registration asks for; `None` if it has no say about federation.
fn wanted(
    manifest: &Manifest,
    topology: &TopologySpec,
    peers: &Peers,
) -> Result<Option<BTreeSet<String>>, Diagnostic> {
    let names = |peers: &mut dyn Iterator<Item = &TrustDomain>| {
        Some(peers.map(ToString::to_string).collect::<BTreeSet<_>>())
    };
    let annotations = &manifest.object["metadata"]["annotations"];
    let Some(filled) = annotations.get(FEDERATES_WITH).and_then(Value::as_str) else {
        let literal = manifest.object["spec"]["federatesWith"].as_array();
        return Ok(literal.map(|list| {
            list.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        }));
    };
    let invalid = |message: String| {
        Diagnostic::error(Code::InvalidValue, &manifest.origin.path, message)
            .at(manifest.origin.position)
            .help("write `all` or `group:<name>`, or list the trust domains in spec.federatesWith")
    };
    match filled.strip_prefix("group:") {
        None if filled == "all" => Ok(names(&mut peers.declared.keys())),
        None => Err(invalid(format!("annotation {FEDERATES_WITH}: `{filled}`"))),
        Some(name) => match topology.groups.iter().find(|group| group.name == name) {
            None => Err(invalid(format!("the topology has no group `{name}`"))),
            Some(group) => Ok(names(
                &mut group
                    .all_members()
                    .filter(|member| peers.declared.contains_key(*member)),
            )),
        },
    }
}

impl Resolved {
    fn filter(&mut self, manifest: &mut Manifest, wanted: BTreeSet<String>, peers: &Peers) {
        let mut allowed = Vec::new();
        let standing_names = peers.undeclared.get(&manifest.reference.key());
        for name in wanted {
            let peer = TrustDomain::parse(&name).ok();
            let stands = |peer| standing_names.is_some_and(|names| names.contains(peer));
            let standing = peer.as_ref().map(|peer| match peers.declared.get(peer) {
                Some(standing) => *standing,
                None if peers.foreign.contains(peer) || stands(peer) => Standing::Ready,
                None => Standing::HeldBack,
            });
            match (peer, standing) {
                (Some(peer), Some(Standing::Ready)) => {
                    self.named
                        .entry(peer)
                        .or_default()
                        .push(manifest.reference.clone());
                    allowed.push(Value::from(name));
                }
                (Some(peer), Some(Standing::HeldBack)) => {
                    self.held_back
                        .entry(peer)
                        .or_default()
                        .push(manifest.reference.clone());
                }
                (Some(_), Some(Standing::Leaving)) => {}
                (_, _) => self.diagnostics.push(
                    Diagnostic::error(
                        Code::InvalidValue,
                        &manifest.origin.path,
                        format!(
                            "{}: `{name}` in federatesWith is no trust domain",
                            manifest.reference
                        ),
                    )
                    .at(manifest.origin.position)
                    .help("write the trust domain's name without `spiffe://`"),
                ),
            }
        }
        manifest.object["spec"]["federatesWith"] = allowed.into();
    }
}

/// Objects that must not be in an overlay: the agent keeps them itself.
fn reserved(manifest: &Manifest, peers: &Peers) -> Option<Diagnostic> {
    let refuse = |message: String, help: &str| {
        Some(
            Diagnostic::error(Code::ReservedObject, &manifest.origin.path, message)
                .at(manifest.origin.position)
                .help(help),
        )
    };
    let gvk = &manifest.reference.gvk;
    if gvk.group == "trustweave.dev" {
        return refuse(
            format!("{} is kept by the agent", manifest.reference),
            "remove it from the overlay",
        );
    }
    let peer = manifest.object["spec"]["trustDomain"].as_str()?;
    let declared = peers
        .declared
        .keys()
        .any(|declared| declared.as_str() == peer);
    if gvk.group == "spire.spiffe.io" && gvk.kind == CFTD && declared {
        return refuse(
            format!(
                "{} is for `{peer}`, a declared peer: the agent keeps it",
                manifest.reference
            ),
            "remove it: of two for one trust domain SPIRE ignores the younger",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{manifest::Origin, repository::RepoPath};

    #[test]
    fn what_a_live_registration_names_and_nobody_declared_stays_in_that_one() {
        let manifest = |name: &str| {
            let object = json!({
                "apiVersion": "spire.spiffe.io/v1alpha1", "kind": CLUSTER_SPIFFE_ID,
                "metadata": {"name": name}, "spec": {"federatesWith": ["other.test"]},
            });
            let origin = Origin {
                path: RepoPath::ROOT,
                position: None,
            };
            Manifest::new(object, origin).unwrap()
        };
        let (standing, new) = (manifest("standing"), manifest("new"));
        let other = TrustDomain::parse("other.test").unwrap();
        let peers = Peers {
            undeclared: [(standing.reference.key(), [other].into())].into(),
            ..Peers::default()
        };
        let resolved = resolve(vec![standing, new], &TopologySpec::default(), &peers);
        let names: Vec<_> = resolved
            .manifests
            .iter()
            .map(|it| it.object["spec"]["federatesWith"].to_string())
            .collect();
        assert_eq!(names, ["[\"other.test\"]", "[]"]);
    }
}
