//! The order of writes: what others stand on comes first, and goes last.

use super::{Action, Step};
use crate::model::manifest::Gvk;

/// Kinds that others need, in the order in which they are applied; all others come after them.
const ORDER: [&str; 12] = [
    "CustomResourceDefinition",
    "Namespace",
    "PriorityClass",
    "StorageClass",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Secret",
    "ConfigMap",
    "Service",
];

/// Whether the rest can only be applied once this kind is established.
pub fn is_foundation(gvk: &Gvk) -> bool {
    matches!(gvk.kind.as_str(), "CustomResourceDefinition" | "Namespace")
}

/// Applies in order, then deletions in reverse order.
pub(super) fn sort(steps: &mut [Step]) {
    steps.sort_by_key(|step| {
        let rank = ORDER
            .iter()
            .position(|kind| *kind == step.reference.gvk.kind)
            .unwrap_or(ORDER.len());
        match step.action {
            Action::Create | Action::Update => (0, rank, step.reference.clone()),
            Action::Delete => (1, ORDER.len() - rank, step.reference.clone()),
        }
    });
}
