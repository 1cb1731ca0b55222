//! `labels`: adds labels to every object, and on request to pod templates and selectors.

use serde_json::Value;

use super::{field::Field, kustomization::Labels, resource::Resource};

const METADATA: Field = Field {
    group: None,
    version: None,
    kind: None,
    path: "metadata/labels",
    create: true,
};

const POD_TEMPLATE: &str = "spec/template/metadata/labels";

const TEMPLATES: &[Field] = &[
    Field {
        group: None,
        version: Some("v1"),
        kind: Some("ReplicationController"),
        path: POD_TEMPLATE,
        create: true,
    },
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

const SELECTORS: &[Field] = &[
    Field {
        group: None,
        version: Some("v1"),
        kind: Some("Service"),
        path: "spec/selector",
        create: true,
    },
    Field {
        group: None,
        version: Some("v1"),
        kind: Some("ReplicationController"),
        path: "spec/selector",
        create: true,
    },
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

/// Adds the labels of one entry to an object.
pub(super) fn apply(resource: &mut Resource, labels: &Labels) -> Result<(), String> {
    let Some(pairs) = labels.pairs.as_ref().filter(|pairs| !pairs.is_empty()) else {
        return Ok(());
    };
    let mut fields = vec![METADATA];
    if labels.include_selectors || labels.include_templates {
        fields.extend(TEMPLATES);
    }
    if labels.include_selectors {
        fields.extend(SELECTORS);
        for path in POD_SELECTORS {
            for kind in ["Deployment", "StatefulSet"] {
                fields.push(Field::in_group("apps", kind, path, false));
            }
        }
    }
    fields.iter().try_for_each(|field| {
        field.visit(resource, &mut |value| {
            if let Value::Object(map) = value {
                for (name, label) in pairs {
                    map.insert(name.clone(), label.as_str().into());
                }
            }
        })
    })
}
