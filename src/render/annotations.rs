//! `commonAnnotations`: adds annotations to every object and its pod templates.

use std::collections::BTreeMap;

use super::{
    field::{Field, Leaf, set_entry},
    resource::Resource,
};

const POD_TEMPLATE: &str = "spec/template/metadata/annotations";

const FIELDS: &[Field<'_>] = &[
    Field::everywhere("metadata/annotations"),
    Field::in_v1("ReplicationController", POD_TEMPLATE, true),
    Field::of("Deployment", POD_TEMPLATE, true),
    Field::of("ReplicaSet", POD_TEMPLATE, true),
    Field::of("DaemonSet", POD_TEMPLATE, true),
    Field::of("StatefulSet", POD_TEMPLATE, true),
    Field::in_group("batch", "Job", POD_TEMPLATE, true),
    Field::in_group(
        "batch",
        "CronJob",
        "spec/jobTemplate/metadata/annotations",
        true,
    ),
    Field::in_group(
        "batch",
        "CronJob",
        "spec/jobTemplate/spec/template/metadata/annotations",
        true,
    ),
];

/// Adds the annotations to an object.
pub(super) fn apply(
    resource: &mut Resource,
    annotations: &BTreeMap<String, String>,
) -> Result<(), String> {
    if annotations.is_empty() {
        return Ok(());
    }
    FIELDS.iter().try_for_each(|field| {
        field.visit(resource, Leaf::Mapping, &mut |value| {
            annotations
                .iter()
                .try_for_each(|(name, text)| set_entry(value, name, text))
        })
    })?;
    // One may be a label as well, by `fields` of `labels`.
    resource.settle_labels();
    Ok(())
}
