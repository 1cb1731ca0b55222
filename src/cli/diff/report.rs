//! What differs, and how people and programs read it.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};

use crate::{
    cli::output,
    federation::impact::{Change, Registrations},
    model::{
        diagnostic::Diagnostic, manifest::ObjectRef, repository::Tree, trust_domain::ClusterName,
    },
    plan::{Action, diff::unified},
};

/// What differs.
#[derive(Default)]
pub(super) struct Report {
    /// `None` if declarations were not compared.
    pub(super) trust: Option<Vec<Trust>>,
    pub(super) clusters: BTreeMap<ClusterName, Vec<Object>>,
    /// How many things could not be read: what is reported is not everything.
    pub(super) unread: usize,
}

/// A change of trust, with what it does to registrations.
pub(super) struct Trust {
    pub(super) change: Option<Change>,
    pub(super) sentence: String,
    pub(super) registrations: BTreeMap<ClusterName, Registrations>,
}

/// A changed object.
pub(super) struct Object {
    pub(super) action: Action,
    pub(super) reference: ObjectRef,
    pub(super) diff: String,
}

pub(super) fn changed(
    action: Action,
    reference: &ObjectRef,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Option<Object> {
    let diff = unified(reference, before, after);
    (!diff.is_empty()).then(|| Object {
        action,
        reference: reference.clone(),
        diff,
    })
}

pub(super) fn errors(diagnostics: &[Diagnostic]) -> usize {
    diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .count()
}

/// Writes diagnostics, each once, and counts the errors.
pub(super) fn tell(mut diagnostics: Vec<Diagnostic>, tree: &Tree) -> usize {
    diagnostics.sort_by(|a, b| (&a.path, a.position).cmp(&(&b.path, b.position)));
    diagnostics.dedup();
    output::diagnostics(&diagnostics, tree);
    errors(&diagnostics)
}

impl Report {
    fn trust(&self) -> &[Trust] {
        self.trust.as_deref().unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.trust().is_empty() && self.clusters.is_empty()
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if !self.trust().is_empty() {
            text.push_str("Trust:\n");
            for trust in self.trust() {
                let _ = writeln!(text, "  {}", trust.sentence);
            }
            text.push('\n');
        }
        for (cluster, objects) in &self.clusters {
            let _ = writeln!(text, "Cluster {cluster}:");
            for object in objects {
                text.push_str(&object.diff);
            }
            text.push('\n');
        }
        text.push_str(&self.summary());
        text.push('\n');
        text
    }

    fn summary(&self) -> String {
        match self.unread {
            0 if self.is_empty() => return "no change".to_owned(),
            _ if self.is_empty() => return "no change in what could be read".to_owned(),
            _ => {}
        }
        let count = |action: Action| {
            let objects = self.clusters.values().flatten();
            objects.filter(|object| object.action == action).count()
        };
        let verbs = [Action::Create, Action::Update, Action::Delete].into_iter();
        let objects: Vec<_> = verbs
            .map(|action| (count(action), action.as_str()))
            .filter(|(count, _)| *count > 0)
            .map(|(count, verb)| format!("{} to {verb}", output::plural(count, "object")))
            .collect();
        let mut parts = Vec::new();
        match self.trust.as_deref() {
            None => {}
            Some([]) => parts.push("no change of trust".to_owned()),
            Some(trust) => parts.push(output::plural(trust.len(), "change") + " of trust"),
        }
        if objects.is_empty() {
            parts.push("no object changes".to_owned());
        } else {
            let clusters = output::plural(self.clusters.len(), "cluster");
            parts.push(format!("in {clusters}: {}", objects.join(", ")));
        }
        parts.join("; ")
    }

    pub(super) fn json(&self) -> Value {
        let names = |references: &[ObjectRef]| -> Value {
            references.iter().map(ToString::to_string).collect()
        };
        let trust = |trust: &Trust| {
            let registrations: serde_json::Map<_, _> = trust
                .registrations
                .iter()
                .map(|(cluster, one)| {
                    let lists = json!({
                        "gain": names(&one.gain),
                        "lose": names(&one.lose),
                        "wait": names(&one.wait),
                    });
                    (cluster.to_string(), lists)
                })
                .collect();
            json!({
                "sentence": trust.sentence,
                "change": trust.change,
                "registrations": registrations,
            })
        };
        let objects = |objects: &Vec<Object>| -> Value {
            let one = |object: &Object| {
                json!({
                    "action": object.action.as_str(),
                    "object": object.reference.to_string(),
                    "diff": object.diff,
                })
            };
            objects.iter().map(one).collect()
        };
        let clusters: serde_json::Map<_, _> = self
            .clusters
            .iter()
            .map(|(cluster, changed)| (cluster.to_string(), objects(changed)))
            .collect();
        json!({
            "trust": self.trust().iter().map(trust).collect::<Vec<_>>(),
            "clusters": clusters,
        })
    }
}
