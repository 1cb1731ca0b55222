//! What differs.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    cli::output,
    federation::impact::{Change, GraphEdge, Registrations, Sentence},
    model::{
        diagnostic::Diagnostic, manifest::ObjectRef, repository::Tree, trust_domain::ClusterName,
    },
    plan::{
        Action,
        diff::{Difference, difference},
    },
};

/// What differs.
#[derive(Default)]
pub(super) struct Report {
    /// `None` if declarations were not compared.
    pub(super) trust: Option<Vec<Trust>>,
    /// Who trusts whom around the change of trust.
    pub(super) graph: Vec<GraphEdge>,
    pub(super) clusters: BTreeMap<ClusterName, Changed>,
    /// What is wrong in the repository.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// How many things could not be read: what is reported is not everything.
    pub(super) unread: usize,
}

/// A change of trust, with what it does to registrations.
pub(super) struct Trust {
    pub(super) change: Option<Change>,
    pub(super) sentence: Sentence,
    /// What follows from it, or has to come first.
    pub(super) details: Vec<Sentence>,
    pub(super) registrations: BTreeMap<ClusterName, Registrations>,
}

/// What changes in a cluster.
#[derive(Default)]
pub(super) struct Changed {
    pub(super) objects: Vec<Object>,
    /// Workloads whose pods are replaced.
    pub(super) restarts: Vec<ObjectRef>,
}

/// A changed object.
pub(super) struct Object {
    pub(super) action: Action,
    pub(super) reference: ObjectRef,
    pub(super) difference: Difference,
    /// Fields that others set to something else, so that the agent leaves the object as it is, in the
    /// API server's words.
    pub(super) conflicts: Vec<String>,
}

pub(super) fn changed(
    action: Action,
    reference: &ObjectRef,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Option<Object> {
    difference(reference, before, after).map(|difference| Object {
        action,
        reference: reference.clone(),
        difference,
        conflicts: Vec::new(),
    })
}

pub(super) fn errors(diagnostics: &[Diagnostic]) -> usize {
    diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .count()
}

impl Report {
    /// Writes diagnostics, each once, and keeps them: every error is something that was not read.
    pub(super) fn tell(&mut self, mut diagnostics: Vec<Diagnostic>, tree: &Tree) {
        diagnostics.sort_by(|a, b| (&a.path, a.position).cmp(&(&b.path, b.position)));
        diagnostics.dedup();
        output::diagnostics(&diagnostics, tree);
        self.unread += errors(&diagnostics);
        self.diagnostics = diagnostics;
    }

    pub(super) fn trust(&self) -> &[Trust] {
        self.trust.as_deref().unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.trust().is_empty() && self.clusters.is_empty()
    }

    /// The whole in a line.
    pub(super) fn summary(&self) -> String {
        match self.unread {
            0 if self.is_empty() => return "no change".to_owned(),
            _ if self.is_empty() => return "no change in what could be read".to_owned(),
            _ => {}
        }
        let mut parts = Vec::new();
        match self.trust.as_deref() {
            None => {}
            Some([]) => parts.push("no change of trust".to_owned()),
            Some(trust) => parts.push(output::plural(trust.len(), "change") + " of trust"),
        }
        let objects = self.clusters.values().flat_map(|it| &it.objects);
        let objects = counts(objects);
        if objects.is_empty() {
            parts.push("no object changes".to_owned());
        } else {
            let clusters = output::plural(self.clusters.len(), "cluster");
            parts.push(format!("in {clusters}: {objects}"));
        }
        parts.join("; ")
    }
}

/// `1 object to create, 2 objects to update`; empty if there are none.
pub(super) fn counts<'o>(objects: impl Iterator<Item = &'o Object>) -> String {
    let mut counts: BTreeMap<Action, usize> = BTreeMap::new();
    for object in objects {
        *counts.entry(object.action).or_default() += 1;
    }
    let each = counts.into_iter().map(|(action, count)| {
        format!("{} to {}", output::plural(count, "object"), action.as_str())
    });
    each.collect::<Vec<_>>().join(", ")
}
