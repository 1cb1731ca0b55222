//! Objects that name another object by name and namespace follow it into its new namespace.
//!
//! Names themselves never change here, so only references that hold a namespace matter.

use serde_json::Value;

use super::{field::Field, resource::Resource};

/// The kinds that are named, and the fields that name them.
const REFERENCES: &[(&str, Field)] = &[
    ("ServiceAccount", subjects("RoleBinding")),
    ("ServiceAccount", subjects("ClusterRoleBinding")),
    ("Service", webhook_service("ValidatingWebhookConfiguration")),
    ("Service", webhook_service("MutatingWebhookConfiguration")),
];

const fn subjects(kind: &'static str) -> Field {
    Field::in_group("rbac.authorization.k8s.io", kind, "subjects", false)
}

const fn webhook_service(kind: &'static str) -> Field {
    Field::in_group(
        "admissionregistration.k8s.io",
        kind,
        "webhooks/clientConfig/service",
        false,
    )
}

/// Updates every reference; gives the indexes of objects whose references are ambiguous, with the
/// reason.
pub(super) fn update(resources: &mut [Resource]) -> Vec<(usize, String)> {
    let mut ambiguous = Vec::new();
    for index in 0..resources.len() {
        for (target, field) in REFERENCES {
            if !field.is_of(&resources[index]) {
                continue;
            }
            let mut changed = resources[index].clone();
            let candidates = candidates(resources, &resources[index], target);
            let mut reason = None;
            let visited = field.visit(&mut changed, &mut |value| {
                let list = match value {
                    Value::Array(list) => list.as_mut_slice(),
                    single => std::slice::from_mut(single),
                };
                for reference in list {
                    reason = reason.take().or(follow(reference, &candidates).err());
                }
            });
            if let Some(reason) = reason.or(visited.err()) {
                ambiguous.push((index, reason));
            } else {
                resources[index] = changed;
            }
        }
    }
    ambiguous
}

/// The objects of the kind, once in another place, that the referrer may name.
fn candidates<'a>(resources: &'a [Resource], referrer: &Resource, kind: &str) -> Vec<&'a Resource> {
    let named: Vec<&str> = referrer.object["subjects"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|subject| subject["kind"] == "ServiceAccount")
        .filter_map(|subject| subject["namespace"].as_str())
        .collect();
    resources
        .iter()
        .filter(|candidate| candidate.gvk().version == "v1")
        .filter(|candidate| candidate.previous.iter().any(|former| former.kind == kind))
        .filter(|candidate| {
            referrer.is_cluster_scoped()
                || candidate.effective_namespace() == referrer.effective_namespace()
                || (referrer.kind() == "RoleBinding" && named.contains(&candidate.namespace()))
        })
        .collect()
}

/// Points a reference to the present namespace of the object that it names.
fn follow(reference: &mut Value, candidates: &[&Resource]) -> Result<(), String> {
    let Some(map) = reference.as_object_mut() else {
        return Ok(());
    };
    let Some(name) = map.get("name").and_then(Value::as_str).map(str::to_owned) else {
        return Err("a reference lacks `name`".to_owned());
    };
    let of_namespace: Vec<&&Resource> = match map.get("namespace").and_then(Value::as_str) {
        None => candidates.iter().collect(),
        Some(namespace) => {
            let formerly: Vec<_> = candidates
                .iter()
                .filter(|candidate| candidate.original().namespace == namespace)
                .collect();
            if formerly.is_empty() {
                candidates
                    .iter()
                    .filter(|candidate| candidate.effective_namespace() == namespace)
                    .collect()
            } else {
                formerly
            }
        }
    };
    let mut named = of_namespace
        .into_iter()
        .filter(|candidate| candidate.previous.iter().any(|former| former.name == name));
    let Some(target) = named.next() else {
        return Ok(());
    };
    if named.any(|other| other.namespace() != target.namespace()) {
        return Err(format!(
            "`{name}` names several objects: write its namespace"
        ));
    }
    if !target.namespace().is_empty() {
        map.insert("namespace".to_owned(), target.namespace().into());
    }
    Ok(())
}
