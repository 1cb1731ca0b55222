//! The objects that the agent keeps in a cluster for a peer.

use serde_json::{Value, json};

use super::{guard::Watermark, record::Record};
use crate::model::{
    bundle::{Bundle, Digest},
    declaration::{BundleEndpoint, Profile},
    manifest::{Gvk, ObjectRef},
    trust_domain::{SpiffeId, TrustDomain},
};

/// `apiVersion` of the objects of SPIRE's controller manager.
pub const SPIRE_API_VERSION: &str = "spire.spiffe.io/v1alpha1";

/// Kind of a federation relationship.
pub const CFTD: &str = "ClusterFederatedTrustDomain";

/// Kind of a registration template.
pub const CLUSTER_SPIFFE_ID: &str = "ClusterSPIFFEID";

/// Kind of a single registration.
pub const CLUSTER_STATIC_ENTRY: &str = "ClusterStaticEntry";

/// The agent's, on a probe: the last push, so that the controller manager makes a pass at once.
const NUDGE: &str = "trustweave.dev/pushed";

/// On every object that the agent keeps.
pub(super) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "trustweave");

/// What the objects of all peers of one cluster have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The cluster's own trust domain.
    pub trust_domain: TrustDomain,
    /// The class that SPIRE's controller manager reconciles.
    pub class_name: String,
    /// The pods by which the probes see whether SPIRE holds a peer's bundle.
    pub probe: ProbePods,
}

/// The pods that probes select: those of the agent itself, as a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePods {
    /// Their namespace.
    pub namespace: String,
    /// One of their labels, name and value.
    pub label: (String, String),
}

/// A Kubernetes name for something of a peer. Trust domain names may hold `_`, and may be longer
/// than a name allows: then a digest keeps different ones apart.
fn object_name(prefix: &str, peer: &TrustDomain) -> String {
    let plain = format!("{prefix}{peer}");
    let valid = |label: &str| {
        !label.is_empty()
            && !label.contains('_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if plain.len() <= 253 && plain.split('.').all(valid) {
        return plain;
    }
    let digest = Digest::of(peer.as_str().as_bytes());
    let safe: String = plain
        .chars()
        .take(200)
        .map(|c| if c == '_' { '-' } else { c })
        .collect();
    format!(
        "{}-{}",
        safe.replace(".-", ".")
            .replace("-.", ".")
            .trim_matches(['-', '.']),
        digest.short()
    )
}

/// The name of a peer's `ClusterFederatedTrustDomain`, if none is there to be adopted.
pub fn cftd_name(peer: &TrustDomain) -> String {
    object_name("", peer)
}

/// The name of a peer's probe.
pub fn probe_name(peer: &TrustDomain) -> String {
    object_name("trustweave-probe-", peer)
}

/// The identity of a `ClusterFederatedTrustDomain`.
pub fn cftd_reference(name: &str) -> ObjectRef {
    ObjectRef {
        gvk: Gvk::new(SPIRE_API_VERSION, CFTD),
        namespace: None,
        name: name.to_owned(),
    }
}

/// The identity of a peer's probe.
pub fn probe_reference(peer: &TrustDomain) -> ObjectRef {
    ObjectRef {
        gvk: Gvk::new(SPIRE_API_VERSION, CLUSTER_SPIFFE_ID),
        namespace: None,
        name: probe_name(peer),
    }
}

/// Where SPIRE polls a peer, with the fragment that makes it take the bundle.
///
/// Without an endpoint, or if it must not be polled, the host is one that never answers (RFC 2606,
/// `.invalid`): pushes work.
pub fn endpoint_url(
    peer: &TrustDomain,
    endpoint: Option<&BundleEndpoint>,
    watermark: &Watermark,
) -> String {
    let base = match endpoint {
        Some(BundleEndpoint::Served(endpoint)) => endpoint.url.trim_end_matches('/').to_owned(),
        Some(BundleEndpoint::None) | None => format!("https://{peer}.invalid"),
    };
    format!("{base}/#{}", watermark.fragment())
}

/// Whether a URL leads nowhere, so that SPIRE polls nothing.
pub fn is_cut(url: &str) -> bool {
    let host = url.split('/').nth(2);
    host.is_some_and(|host| host.ends_with(".invalid"))
}

fn endpoint_profile(peer: &TrustDomain, endpoint: Option<&BundleEndpoint>) -> Value {
    let spiffe =
        |id: &SpiffeId| json!({"type": Profile::HttpsSpiffe.as_str(), "endpointSPIFFEID": id});
    match endpoint {
        Some(BundleEndpoint::None) | None => spiffe(&SpiffeId::spire_server(peer)),
        Some(BundleEndpoint::Served(endpoint)) => match &endpoint.spiffe_id {
            Some(id) => spiffe(id),
            None => json!({"type": endpoint.profile.as_str()}),
        },
    }
}

/// A peer's `ClusterFederatedTrustDomain`. Without `endpoint` SPIRE polls nothing; without `bundle`
/// it keeps what it holds.
pub fn cftd(
    context: &Context,
    name: &str,
    peer: &TrustDomain,
    endpoint: Option<&BundleEndpoint>,
    record: &Record,
    bundle: Option<&Bundle>,
) -> Value {
    let mut object = json!({
        "apiVersion": SPIRE_API_VERSION,
        "kind": CFTD,
        "metadata": {
            "name": name,
            "labels": {MANAGED_BY.0: MANAGED_BY.1},
            "annotations": record.annotations(),
        },
        "spec": {
            "className": context.class_name,
            "trustDomain": peer,
            "bundleEndpointURL": endpoint_url(peer, endpoint, &record.watermark),
            "bundleEndpointProfile": endpoint_profile(peer, endpoint),
        },
    });
    if let Some(bundle) = bundle {
        let text = String::from_utf8_lossy(&bundle.canonical()).into_owned();
        object["spec"]["trustDomainBundle"] = text.into();
    }
    object
}

/// A peer's probe: a registration of the agent's own pod that federates with this one peer. SPIRE
/// refuses the entry as long as it holds no bundle of the peer, and the status says so.
///
/// Each has a SPIFFE ID of its own: of two registrations with the same ID for one pod, SPIRE's
/// controller manager masks one.
pub fn probe(context: &Context, peer: &TrustDomain, watermark: &Watermark) -> Value {
    probe_object(
        context,
        &probe_name(peer),
        &format!("probe/{peer}"),
        &watermark.fragment(),
        &[peer],
    )
}

/// The name of the probe that federates with nobody.
pub const CONTROL_PROBE: &str = "trustweave-control";

/// A probe that federates with nobody: if SPIRE refuses this one too, the others say nothing about
/// their peers.
pub fn control_probe(context: &Context) -> Value {
    probe_object(context, CONTROL_PROBE, "control", "", &[])
}

fn probe_object(
    context: &Context,
    name: &str,
    path: &str,
    pushed: &str,
    federates_with: &[&TrustDomain],
) -> Value {
    json!({
        "apiVersion": SPIRE_API_VERSION,
        "kind": CLUSTER_SPIFFE_ID,
        "metadata": {
            "name": name,
            "labels": {MANAGED_BY.0: MANAGED_BY.1},
            "annotations": {NUDGE: pushed},
        },
        "spec": {
            "className": context.class_name,
            "spiffeIDTemplate": format!("spiffe://{}/trustweave/{path}", context.trust_domain),
            "namespaceSelector": {
                "matchLabels": {"kubernetes.io/metadata.name": context.probe.namespace},
            },
            "podSelector": {"matchLabels": {&context.probe.label.0: context.probe.label.1}},
            "federatesWith": federates_with,
        },
    })
}

/// Whether a registration is a probe that the agent keeps.
pub fn is_probe(registration: &Value) -> bool {
    let metadata = &registration["metadata"];
    metadata["labels"][MANAGED_BY.0] == MANAGED_BY.1 && metadata["annotations"][NUDGE].is_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_always_valid_and_stay_apart() {
        let name = |td: &str| cftd_name(&TrustDomain::parse(td).unwrap());
        assert_eq!(
            name("apps.cluster-1.example.com"),
            "apps.cluster-1.example.com"
        );
        assert!(name("a_b").starts_with("a-b-"));
        assert_ne!(name("a_b"), name("a-b"));
        assert!(name("a.".repeat(127).trim_end_matches('.')).len() <= 253);
    }
}
