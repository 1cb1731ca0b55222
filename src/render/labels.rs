//! `labels` and `commonLabels`: add labels to every object, and on request to pod templates and selectors.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    field::{Field, Leaf, names, set_entry},
    kustomization::Labels,
    resource::Resource,
    shared_labels,
};

const METADATA: Field<'_> = Field::everywhere("metadata/labels");

const POD_TEMPLATE: &str = "spec/template/metadata/labels";

const TEMPLATES: &[Field<'_>] = &[
    Field::in_v1("ReplicationController", POD_TEMPLATE, true),
    Field::of("Deployment", POD_TEMPLATE, true),
    Field::of("ReplicaSet", POD_TEMPLATE, true),
    Field::of("DaemonSet", POD_TEMPLATE, true),
    Field::in_group("apps", "StatefulSet", POD_TEMPLATE, true),
    Field::in_group(
        "apps",
        "StatefulSet",
        "spec/volumeClaimTemplates[]/metadata/labels",
        true,
    ),
    Field::in_group("batch", "Job", POD_TEMPLATE, true),
    Field::in_group("batch", "CronJob", "spec/jobTemplate/metadata/labels", true),
    Field::in_group(
        "batch",
        "CronJob",
        "spec/jobTemplate/spec/template/metadata/labels",
        true,
    ),
];

const MATCH_LABELS: &str = "spec/selector/matchLabels";

const SELECTORS: &[Field<'_>] = &[
    Field::in_v1("Service", "spec/selector", true),
    Field::in_v1("ReplicationController", "spec/selector", true),
    Field::of("Deployment", MATCH_LABELS, true),
    Field::of("ReplicaSet", MATCH_LABELS, true),
    Field::of("DaemonSet", MATCH_LABELS, true),
    Field::in_group("apps", "StatefulSet", MATCH_LABELS, true),
    Field::in_group("batch", "Job", MATCH_LABELS, false),
    Field::in_group(
        "batch",
        "CronJob",
        "spec/jobTemplate/spec/selector/matchLabels",
        false,
    ),
    Field::in_group("policy", "PodDisruptionBudget", MATCH_LABELS, false),
    Field::in_group(
        "networking.k8s.io",
        "NetworkPolicy",
        "spec/podSelector/matchLabels",
        false,
    ),
    Field::in_group(
        "networking.k8s.io",
        "NetworkPolicy",
        "spec/ingress/from/podSelector/matchLabels",
        false,
    ),
    Field::in_group(
        "networking.k8s.io",
        "NetworkPolicy",
        "spec/egress/to/podSelector/matchLabels",
        false,
    ),
];

/// Selectors of the pods themselves, in the pod templates of Deployments and `StatefulSets`.
const POD_SELECTORS: [&str; 5] = [
    "spec/template/spec/affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels",
    "spec/template/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
    "spec/template/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels",
    "spec/template/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
    "spec/template/spec/topologySpreadConstraints/labelSelector/matchLabels",
];

/// What one entry of `labels` does.
pub(super) struct Labelling<'a> {
    pairs: &'a BTreeMap<String, String>,
    fields: Vec<Field<'a>>,
}

impl<'a> Labelling<'a> {
    /// What an entry of `labels` asks for.
    pub(super) fn of(labels: &'a Labels) -> Result<Self, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let mut fields: Vec<Field<'a>> = Vec::new();
        let own = labels.fields.iter().map(Field::named);
        let selectors = labels.include_selectors.then(selectors);
        let templates = labels.include_selectors || labels.include_templates;
        let known = selectors.into_iter().flatten().chain([METADATA]);
        let known =
            known.chain(
                TEMPLATES
                    .iter()
                    .copied()
                    .take(if templates { usize::MAX } else { 0 }),
            );
        fields.extend(own);
        for field in known {
            // Kustomize refuses one field in two variants.
            if let Some(same) = fields.iter().find(|one| covers(one, &field)) {
                if same.create != field.create {
                    return Err(format!(
                        "`{}` is one of the fields anyway, with another `create`",
                        field.path
                    ));
                }
            } else {
                fields.push(field);
            }
        }
        Ok(Self {
            pairs: labels.pairs.as_ref().unwrap_or(&NONE),
            fields,
        })
    }

    /// What `commonLabels` asks for.
    pub(super) fn common(pairs: &'a BTreeMap<String, String>) -> Self {
        Self {
            pairs,
            fields: selectors()
                .chain([METADATA])
                .chain(TEMPLATES.iter().copied())
                .collect(),
        }
    }

    /// Adds the labels to an object.
    pub(super) fn apply(&self, resource: &mut Resource) -> Result<(), String> {
        if self.pairs.is_empty() {
            return Ok(());
        }
        let mut added: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for field in &self.fields {
            let mut field = *field;
            field.create |= field.path == "metadata/annotations" && resource.has_notes();
            if !field.is_of(&resource.gvk()) {
                continue;
            }
            let path = names(field.path);
            let having = |object: &Value, name: &str| shared_labels::having(object, &path, name);
            let before: Vec<_> = (self.pairs.keys())
                .map(|name| having(&resource.object, name))
                .collect();
            field.visit(resource, Leaf::Mapping, &mut |value| {
                let mut pairs = self.pairs.iter();
                pairs.try_for_each(|(name, label)| set_entry(value, name, label))
            })?;
            for (name, before) in self.pairs.keys().zip(before) {
                let after = having(&resource.object, name);
                let new = after.difference(&before).cloned();
                added.entry(name).or_default().extend(new);
            }
        }
        resource.settle_labels();
        for (name, fields) in added {
            resource.shared_labels.add(name, &fields, &resource.object);
        }
        Ok(())
    }
}

/// Whether kustomize takes a field for one that is there already.
fn covers(one: &Field<'_>, other: &Field<'_>) -> bool {
    let fits = |given: Option<&str>, wanted: Option<&str>| wanted.is_none() || given == wanted;
    one.path == other.path
        && fits(one.group, other.group)
        && fits(one.version, other.version)
        && fits(one.kind, other.kind)
}

/// Every field that selects pods by their labels.
fn selectors() -> impl Iterator<Item = Field<'static>> {
    let of_pods = POD_SELECTORS.iter().flat_map(|path| {
        ["Deployment", "StatefulSet"].map(|kind| Field::in_group("apps", kind, path, false))
    });
    SELECTORS.iter().copied().chain(of_pods)
}
