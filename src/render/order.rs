//! `sortOptions`: the order in which objects are given. Applying has an order of its own.

use std::{cmp::Ordering, collections::HashMap};

use super::{
    kustomization::{SortOptions, SortOrder},
    resource::Resource,
};

const FIRST: [&str; 22] = [
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];

const LAST: [&str; 2] = [
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
];

/// Puts the objects in order: kustomize's, by kind and then by name, unless another is asked for.
pub(super) fn sort(resources: &mut [Resource], options: Option<&SortOptions>) {
    if options.is_some_and(|options| options.order == SortOrder::Fifo) {
        return;
    }
    let own = options.and_then(|options| options.legacy_sort_options.as_ref());
    let (first, last): (Vec<&str>, Vec<&str>) = match own {
        None => (FIRST.to_vec(), LAST.to_vec()),
        Some(own) => (
            own.order_first.iter().map(String::as_str).collect(),
            own.order_last.iter().map(String::as_str).collect(),
        ),
    };
    // A kind in both lists is a last one, and of two places in one list the second counts.
    let mut ranks: HashMap<&str, usize> = HashMap::new();
    ranks.extend(first.iter().enumerate().map(|(rank, kind)| (*kind, rank)));
    let middle = first.len();
    let last = last.iter().enumerate();
    ranks.extend(last.map(|(rank, kind)| (*kind, middle + 1 + rank)));
    let rank = |resource: &Resource| ranks.get(resource.kind()).copied().unwrap_or(middle);
    resources.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| by_name(a, b)));
}

fn by_name(a: &Resource, b: &Resource) -> Ordering {
    let or = |text: &str, absent: &str| match text {
        "" => absent.to_owned(),
        text => text.to_owned(),
    };
    let gvk = |resource: &Resource| {
        let gvk = resource.gvk();
        format!(
            "{}_{}_{}",
            or(&gvk.group, "~G"),
            or(&gvk.version, "~V"),
            gvk.kind
        )
    };
    let name = |resource: &Resource| {
        format!(
            "{}|{}",
            or(resource.namespace(), "~X"),
            or(resource.name(), "~N")
        )
    };
    gvk(a).cmp(&gvk(b)).then_with(|| name(a).cmp(&name(b)))
}
