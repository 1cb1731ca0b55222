//! What a change does to the registrations of a cluster.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::{
    sentence::{Sentence, named, sentence},
    words::agreement,
    workloads,
};
use crate::{
    federation::{
        consent::{Consent, consent},
        resolve::Resolved,
    },
    model::{
        declarations::Declarations,
        manifest::{Manifest, ObjectRef},
        topology::Edge,
        trust_domain::{ClusterName, TrustDomain},
    },
};

/// How many registrations of a kind are named; more are only counted.
const NAMED: usize = 5;

/// A registration, and the workloads of its overlay that it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// The registration.
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    pub object: ObjectRef,
    /// The workloads. Pods that nothing in the overlay makes are not known here.
    #[serde(serialize_with = "as_texts")]
    #[schemars(with = "Vec<String>")]
    pub workloads: Vec<ObjectRef>,
}

fn as_text<S: Serializer>(object: &ObjectRef, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(object)
}

fn as_texts<S: Serializer>(objects: &[ObjectRef], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(objects.iter().map(ToString::to_string))
}

/// What becomes of a peer in the registrations of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Registrations {
    /// Registrations that will name the peer, and did not.
    pub gain: Vec<Registration>,
    /// Registrations that named the peer, and will not.
    pub lose: Vec<Registration>,
    /// Registrations that ask for the peer, and do not get it yet; told only if they did not wait
    /// before.
    pub wait: Vec<Registration>,
}

impl Registrations {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.gain.is_empty() && self.lose.is_empty() && self.wait.is_empty()
    }

    /// What is told of those of a cluster, each kind on its own.
    pub fn sentences(&self, cluster: &ClusterName, peer: &TrustDomain) -> Vec<Sentence> {
        let among = |these: &[Registration], one: &Registration| {
            these.iter().any(|it| it.object.key() == one.object.key())
        };
        let (asking, lose): (Vec<_>, Vec<_>) =
            self.lose.iter().partition(|one| among(&self.wait, one));
        let wait = self.wait.iter().filter(|one| !among(&self.lose, one));
        let verbs = [
            (self.gain.iter().collect(), " will federate with ", ""),
            (lose, " will no longer federate with ", ""),
            (
                asking,
                " will no longer federate with ",
                ", though its manifest asks for it",
            ),
            (wait.collect(), " asks for ", ", and does not get it yet"),
        ];
        let mut sentences = Vec::new();
        for (registrations, verb, more) in verbs {
            let mut kinds: BTreeMap<&str, Vec<&Registration>> = BTreeMap::new();
            for registration in registrations {
                let kind = &registration.object.gvk.kind;
                kinds.entry(kind).or_default().push(registration);
            }
            sentences.extend(kinds.into_iter().map(|(kind, of_kind)| {
                let who = subject(kind, &of_kind);
                sentence!("in ", cluster, ", ", who, verb, peer, more)
            }));
        }
        sentences
    }
}

/// `ClusterSPIFFEID api (for Deployment.apps n/api)`, or several of a kind.
fn subject(kind: &str, registrations: &[&Registration]) -> Sentence {
    let one = |registration: &&Registration| {
        let name = named(&registration.object.name);
        match registration.workloads.as_slice() {
            [] => sentence!(name),
            workloads => sentence!(name, " (for ", Sentence::names(workloads), ")"),
        }
    };
    let count = registrations.len();
    let mut parts: Vec<_> = registrations.iter().take(NAMED).map(one).collect();
    if count > NAMED {
        parts.push(sentence!(count - NAMED, " more"));
    }
    let parts = Sentence::join(parts, " and ");
    match count {
        1 => sentence!(named(kind), " ", parts),
        count => sentence!(
            "the ",
            count,
            " registrations of kind ",
            named(kind),
            " ",
            parts
        ),
    }
}

/// What is told where nothing else changes between the two: a sentence, and what belongs to it.
/// `asked_for` is whether the topology after the change has the edge.
pub fn alone(
    edge: &Edge,
    cluster: &ClusterName,
    registrations: &Registrations,
    after: &Declarations,
    asked_for: bool,
) -> (Sentence, Vec<Sentence>) {
    let mut all = registrations.sentences(cluster, &edge.exporter).into_iter();
    let first = sentence!(&edge.importer, ": ", all.next().unwrap_or_default());
    let mut details: Vec<_> = all.collect();
    if !registrations.wait.is_empty() {
        let why = match consent(edge, after) {
            _ if !asked_for => Some(sentence!("the topology asks for no such trust")),
            Consent::Given => None,
            Consent::Missing { moves } => Some(agreement(&moves)),
            Consent::Unknown { path } => Some(sentence!(&path, " can't be used")),
        };
        details.extend(why.map(|why| {
            sentence!(
                &edge.exporter,
                " is held back, as otherwise new pods would get no identity: ",
                why
            )
        }));
    }
    (first, details)
}

/// Compares a cluster's resolved registrations; only peers for which something changes.
pub fn registrations(before: &Resolved, after: &Resolved) -> BTreeMap<TrustDomain, Registrations> {
    type Named = BTreeMap<TrustDomain, Vec<ObjectRef>>;
    let only = |these: &Named, those: &Named, overlay: &[Manifest], peer: &TrustDomain| {
        let others: BTreeSet<_> = those
            .get(peer)
            .into_iter()
            .flatten()
            .map(ObjectRef::key)
            .collect();
        let these = these.get(peer).into_iter().flatten();
        these
            .filter(|reference| !others.contains(&reference.key()))
            .map(|reference| registration(reference, overlay))
            .collect()
    };
    let all = [&before.named, &after.named, &after.held_back];
    let peers: BTreeSet<_> = all.into_iter().flat_map(BTreeMap::keys).collect();
    peers
        .into_iter()
        .map(|peer| {
            let registrations = Registrations {
                gain: only(&after.named, &before.named, &after.manifests, peer),
                lose: only(&before.named, &after.named, &before.manifests, peer),
                wait: only(&after.held_back, &before.held_back, &after.manifests, peer),
            };
            (peer.clone(), registrations)
        })
        .filter(|(_, registrations)| !registrations.is_empty())
        .collect()
}

fn registration(reference: &ObjectRef, overlay: &[Manifest]) -> Registration {
    let manifest = overlay.iter().find(|it| it.reference == *reference);
    let workloads = manifest.map(|it| workloads::selected(&it.object, overlay));
    Registration {
        object: reference.clone(),
        workloads: workloads.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::manifest::Gvk;

    #[test]
    fn registrations_gain_and_lose_peers() {
        let reference = |kind: &str, name: &str| ObjectRef {
            gvk: Gvk::new("spire.spiffe.io/v1alpha1", kind),
            namespace: None,
            name: name.to_owned(),
        };
        let resolved = |names: &[(&str, &str)]| Resolved {
            named: BTreeMap::from([(
                peer(),
                names
                    .iter()
                    .map(|(kind, name)| reference(kind, name))
                    .collect(),
            )]),
            ..Resolved::default()
        };
        let before = resolved(&[("ClusterSPIFFEID", "x")]);
        let after = resolved(&[
            ("ClusterSPIFFEID", "y"),
            ("ClusterSPIFFEID", "z"),
            ("ClusterStaticEntry", "x"),
        ]);
        let found = registrations(&before, &after);
        let cluster = ClusterName::parse("c").unwrap();
        let told = found[&peer()].sentences(&cluster, &peer());
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "in c, the 2 registrations of kind ClusterSPIFFEID y and z will federate with a.test",
                "in c, ClusterStaticEntry x will federate with a.test",
                "in c, ClusterSPIFFEID x will no longer federate with a.test",
            ]
        );
        assert!(registrations(&after, &after).is_empty());
    }

    fn peer() -> TrustDomain {
        TrustDomain::parse("a.test").unwrap()
    }
}
