//! The answer for programs.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::report::{Changed, Object, Report, Trust};
use crate::{
    cli::output::DiagnosticDocument,
    federation::impact::{Change, GraphEdge, Registrations},
    model::trust_domain::ClusterName,
};

/// What `trustweave diff -o json` answers.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Document {
    /// Whether everything could be read. If not, the exit code is 2, and more may differ than is told.
    complete: bool,
    /// The whole in a line, for people.
    summary: String,
    /// The changes of trust, the most important ones first.
    trust: Vec<TrustDocument>,
    /// Who trusts whom around the changes of trust.
    graph: Vec<GraphEdge>,
    /// What changes in each cluster; clusters without a change are left out.
    clusters: BTreeMap<ClusterName, ClusterDocument>,
    /// What is wrong in the repository after the change.
    diagnostics: Vec<DiagnosticDocument>,
}

/// A change of trust.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct TrustDocument {
    /// What happens, for people.
    sentence: String,
    /// What follows from it, or has to come first, for people.
    details: Vec<String>,
    /// What happens, for programs; null if only registrations change.
    change: Option<Change>,
    /// The registrations that gain or lose the peer, or wait for it, by cluster.
    registrations: BTreeMap<ClusterName, Registrations>,
}

/// What changes in a cluster.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ClusterDocument {
    /// The objects that change.
    objects: Vec<ObjectDocument>,
    /// The workloads whose pods are replaced.
    restarts: Vec<String>,
}

/// A changed object.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ObjectDocument {
    /// What happens to it.
    #[schemars(extend("enum" = ["create", "update", "delete"]))]
    action: &'static str,
    /// `Kind.group namespace/name`.
    object: String,
    /// A unified diff of its YAML. Values of Secrets are masked.
    diff: String,
    /// The fields that change; empty if the object is created or deleted.
    fields: Vec<FieldDocument>,
    /// With `--live`: fields that others set to something else, for which the agent leaves the object
    /// as it is.
    conflicts: Vec<String>,
}

/// A field that changes.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct FieldDocument {
    /// `.spec.containers[name="app"].image`.
    path: String,
    /// Its value before the change; left out if it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Value>,
    /// Its value after the change; left out if it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Value>,
    /// With `--live`: the field managers, besides Trustweave, that have set it.
    managers: BTreeSet<String>,
}

impl Document {
    pub(super) fn of(report: &Report) -> Self {
        Self {
            complete: report.unread == 0,
            summary: report.summary(),
            trust: report.trust().iter().map(TrustDocument::of).collect(),
            graph: report.graph.clone(),
            clusters: report
                .clusters
                .iter()
                .map(|(name, changed)| (name.clone(), ClusterDocument::of(changed)))
                .collect(),
            diagnostics: report
                .diagnostics
                .iter()
                .map(DiagnosticDocument::of)
                .collect(),
        }
    }
}

impl TrustDocument {
    fn of(trust: &Trust) -> Self {
        Self {
            sentence: trust.sentence.to_string(),
            details: trust.details.iter().map(ToString::to_string).collect(),
            change: trust.change.clone(),
            registrations: trust.registrations.clone(),
        }
    }
}

impl ClusterDocument {
    fn of(changed: &Changed) -> Self {
        Self {
            objects: changed.objects.iter().map(ObjectDocument::of).collect(),
            restarts: changed.restarts.iter().map(ToString::to_string).collect(),
        }
    }
}

impl ObjectDocument {
    fn of(object: &Object) -> Self {
        let fields = object.difference.fields.iter().map(|field| FieldDocument {
            path: field.path.clone(),
            before: field.before.clone(),
            after: field.after.clone(),
            managers: field.managers.clone(),
        });
        Self {
            action: object.action.as_str(),
            object: object.reference.to_string(),
            diff: object.difference.to_string(),
            fields: fields.collect(),
            conflicts: object.conflicts.clone(),
        }
    }
}
