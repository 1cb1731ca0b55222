//! The relationships and registrations that stand in a cluster, and which of them people keep by hand.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    Objects,
    configuration::Peer,
    meaning::{items, label, name},
};
use crate::{
    federation::objects::is_probe,
    model::{
        declaration::Profile,
        manifest::ObjectRef,
        trust_domain::{SpiffeId, TrustDomain},
    },
};

/// Labels by which another tool says that an object is its own.
const KEEPERS: [&str; 5] = [
    "app.kubernetes.io/managed-by",
    "applyset.kubernetes.io/part-of",
    "argocd.argoproj.io/instance",
    "kustomize.toolkit.fluxcd.io/name",
    "helm.toolkit.fluxcd.io/name",
];

/// What SPIRE's controller manager reconciles.
#[derive(Clone, Debug, Default)]
pub struct Registrations {
    /// The relationships, by trust domain: of several the oldest, which alone counts.
    pub relationships: BTreeMap<TrustDomain, Relationship>,
    /// The registrations that people keep by hand, without what the server set.
    pub kept_by_hand: Vec<Value>,
    /// The registrations that something else keeps, and what.
    pub kept_by_others: Vec<(ObjectRef, String)>,
}

/// A `ClusterFederatedTrustDomain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relationship {
    /// Its name.
    pub name: String,
    /// Where it says that the bundle is polled.
    pub peer: Peer,
}

/// Reads the objects of a class; without one, nothing is known to be reconciled.
pub(super) fn read(
    objects: &Objects,
    class_name: Option<&str>,
    notes: &mut Vec<String>,
) -> Registrations {
    let mut found = Registrations::default();
    let Some(class_name) = class_name else {
        return found;
    };
    let mut relationships: Vec<&Value> = objects.relationships.iter().collect();
    let age = |it: &Value| {
        let metadata = &it["metadata"];
        (
            metadata["creationTimestamp"].to_string(),
            metadata["uid"].to_string(),
        )
    };
    relationships.sort_by_key(|it| age(it));
    for object in relationships {
        let described = format!("ClusterFederatedTrustDomain {}", name(object));
        if object["spec"]["className"] != class_name {
            notes.push(other_class(&described, object, class_name));
            continue;
        }
        let Some((trust_domain, peer)) = relationship(object) else {
            notes.push(format!("{described} can't be read: it is left alone"));
            continue;
        };
        if let Some(older) = found.relationships.get(&trust_domain) {
            notes.push(format!(
                "{described} is for `{trust_domain}` as the older {} is, so SPIRE ignores it: delete it",
                older.name
            ));
            continue;
        }
        let name = name(object).to_owned();
        found
            .relationships
            .insert(trust_domain, Relationship { name, peer });
    }
    let mut registrations: Vec<&Value> = objects.registrations.iter().collect();
    registrations.sort_by_key(|it| (it["kind"].to_string(), name(it).to_owned()));
    for object in registrations {
        let Some(reference) = ObjectRef::of(object) else {
            continue;
        };
        if is_probe(object) {
            continue;
        }
        if object["spec"]["className"] != class_name {
            let described = format!("{} {}", reference.gvk.kind, reference.name);
            notes.push(other_class(&described, object, class_name));
        } else if let Some(keeper) = keeper(object) {
            found.kept_by_others.push((reference, keeper));
        } else {
            found.kept_by_hand.push(declared(object));
        }
    }
    found
}

fn other_class(described: &str, object: &Value, class_name: &str) -> String {
    match object["spec"]["className"].as_str() {
        Some(other) => {
            format!("{described} is of the class `{other}`, not `{class_name}`: it is left alone")
        }
        None => format!(
            "{described} has no className: it is left alone; write `className: {class_name}` if it is meant"
        ),
    }
}

fn relationship(object: &Value) -> Option<(TrustDomain, Peer)> {
    let spec = &object["spec"];
    let profile = &spec["bundleEndpointProfile"];
    let url = spec["bundleEndpointURL"].as_str()?;
    let peer = Peer {
        // What makes SPIRE take a bundle is no part of the address.
        url: url
            .split('#')
            .next()
            .unwrap_or(url)
            .trim_end_matches('/')
            .to_owned(),
        profile: match profile["type"].as_str()? {
            "https_web" => Profile::HttpsWeb,
            _ => Profile::HttpsSpiffe,
        },
        spiffe_id: profile["endpointSPIFFEID"]
            .as_str()
            .and_then(|id| SpiffeId::parse(id).ok()),
    };
    let trust_domain = TrustDomain::parse(spec["trustDomain"].as_str()?).ok()?;
    Some((trust_domain, peer))
}

/// What keeps an object, if something other than people does.
fn keeper(object: &Value) -> Option<String> {
    if let Some(owner) = items(&object["metadata"]["ownerReferences"]).next() {
        let text = |key: &str| owner[key].as_str().unwrap_or_default();
        return Some(format!("{} {}", text("kind"), text("name")));
    }
    KEEPERS.iter().find_map(|key| {
        let value = label(object, key)?;
        Some(format!("label {key}: {value}"))
    })
}

/// An object as people would declare it: without what the server, and `kubectl apply`, set.
fn declared(object: &Value) -> Value {
    let from = &object["metadata"];
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), from["name"].clone());
    for key in ["labels", "annotations"] {
        let mut kept = from[key].as_object().cloned().unwrap_or_default();
        kept.retain(|name, _| !name.starts_with("kubectl.kubernetes.io/"));
        if !kept.is_empty() {
            metadata.insert(key.to_owned(), kept.into());
        }
    }
    serde_json::json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": metadata,
        "spec": object["spec"],
    })
}
