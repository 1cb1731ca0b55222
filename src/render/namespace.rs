//! `namespace`: puts everything into one namespace, as kustomize does.
//!
//! Kinds that kustomize does not know count as namespaced: a cluster-scoped custom resource gets
//! the field too.

use serde_json::Value;

use super::{
    field::{Field, Leaf, set_single},
    resource::Resource,
};
use crate::model::scalar;

/// Fields besides `metadata.namespace` that hold a namespace.
const FIELDS: &[Field<'_>] = &[
    Field::in_group(
        "apiregistration.k8s.io",
        "APIService",
        "spec/service/namespace",
        true,
    ),
    Field::in_group(
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        "spec/conversion/webhook/clientConfig/service/namespace",
        false,
    ),
];

/// Moves the object into the namespace.
pub(super) fn apply(resource: &mut Resource, namespace: &str) -> Result<(), String> {
    resource.remember();
    if !resource.is_cluster_scoped() {
        resource.object["metadata"]["namespace"] = namespace.into();
    }
    if resource.kind() == "Namespace" && resource.api_version() == "v1" {
        resource.object["metadata"]["name"] = namespace.into();
    }
    if matches!(resource.kind(), "RoleBinding" | "ClusterRoleBinding")
        && let Some(Value::Array(subjects)) = resource.object.get_mut("subjects")
    {
        // Other subjects follow their service account, see `references`.
        for subject in subjects.iter_mut().filter_map(Value::as_object_mut) {
            if subject
                .get("name")
                .is_some_and(|name| scalar::text(name) == "default")
            {
                subject.insert("namespace".to_owned(), namespace.into());
            }
        }
    }
    FIELDS.iter().try_for_each(|field| {
        field.visit(resource, Leaf::Single, &mut |value| {
            set_single(value, namespace.into())
        })
    })
}
