//! Who wrote a field: people, tools that applied the object before us, or controllers at work.
//!
//! A field manager is a name that a client chooses; by default it is the program's. Names of tools
//! are those of their current releases: `kubectl-<verb>` (kubectl), `kustomize-controller` (Flux),
//! `argocd-controller` and `argocd-application-controller` (Argo CD), `before-first-apply` (what the
//! API server itself calls everything before an object's first server-side apply).

use serde_json::Value;

use crate::model::{field_owners::is_main, manifest::FIELD_MANAGER};

/// What sort of writer a field manager is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The agent itself.
    Agent,
    /// A person at a command line, or a script of theirs: git is where they change things.
    Person,
    /// A tool that applies whole objects as the agent does.
    Deployer(&'static str),
    /// Anything else: it writes because it must, and would again.
    Controller,
}

/// Programs that people write objects with, besides those that begin with `kubectl` or `oc`.
const PERSONS: [&str; 6] = [
    "k9s",
    "rancher",
    "lens",
    "node-fetch",
    "mozilla",
    "headlamp",
];

/// Tools that apply objects from a repository, by field manager.
const DEPLOYERS: [(&str, &str); 5] = [
    ("kustomize-controller", "Flux"),
    ("helm-controller", "Flux"),
    ("argocd-controller", "Argo CD"),
    ("argocd-application-controller", "Argo CD"),
    ("before-first-apply", "whoever made it"),
];

impl Writer {
    /// The sort of a field manager.
    pub fn of(manager: &str) -> Self {
        let lower = manager.to_ascii_lowercase();
        let command = |name: &str| {
            let rest = lower.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        if manager == FIELD_MANAGER {
            Self::Agent
        } else if command("kubectl") || command("oc") || PERSONS.contains(&lower.as_str()) {
            Self::Person
        } else if let Some((_, tool)) = DEPLOYERS.iter().find(|(name, _)| *name == manager) {
            Self::Deployer(tool)
        } else {
            Self::Controller
        }
    }
}

/// One record of `metadata.managedFields`.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a>(pub &'a Value);

impl<'a> Entry<'a> {
    /// All records of an object.
    pub fn all(live: &'a Value) -> impl Iterator<Item = Self> {
        let entries = live["metadata"]["managedFields"].as_array();
        entries.into_iter().flatten().map(Entry)
    }

    /// The field manager.
    pub fn manager(self) -> &'a str {
        self.0["manager"].as_str().unwrap_or_default()
    }

    /// Its sort.
    pub fn writer(self) -> Writer {
        Writer::of(self.manager())
    }

    /// Whether it is about what we apply: the object itself, or its scale, which is part of it.
    pub fn is_about_content(self) -> bool {
        is_main(self.0) || self.0["subresource"] == "scale"
    }

    /// Whether it names fields as our version of the kind does.
    pub fn is_of_version(self, live: &Value) -> bool {
        self.0["apiVersion"] == live["apiVersion"]
            // A scale is of a version of its own, with the one field that both have.
            || self.0["subresource"] == "scale"
    }
}

/// Marks by which other tools know what they have to change and to delete, as label or annotation:
/// the name, whose it is, and a value that it must have to be one.
const MARKS: [(&str, &str, Option<&str>); 9] = [
    ("kustomize.toolkit.fluxcd.io/name", "Flux", None),
    ("helm.toolkit.fluxcd.io/name", "Flux", None),
    ("argocd.argoproj.io/tracking-id", "Argo CD", None),
    ("argocd.argoproj.io/instance", "Argo CD", None),
    ("meta.helm.sh/release-name", "Helm", None),
    ("configsync.gke.io/declared-version", "Config Sync", None),
    ("objectset.rio.cattle.io/hash", "Fleet", None),
    ("kluctl.io/deployment-item-dir", "kluctl", None),
    ("app.kubernetes.io/managed-by", "Helm", Some("Helm")),
];

/// Who else has an object in its inventory, and by which mark; nothing that the repository itself
/// declares counts.
pub fn other_inventory(live: &Value, desired: &Value) -> Option<(&'static str, String)> {
    let places = ["labels", "annotations"];
    MARKS.iter().find_map(|(name, tool, expected)| {
        places.iter().find_map(|place| {
            let found = live["metadata"][place].get(name)?;
            let counts = expected.is_none_or(|expected| found == expected);
            let declared = desired["metadata"][place].get(name) == Some(found);
            let value = found.as_str().unwrap_or_default();
            (counts && !declared).then(|| (*tool, format!("{name}={value}")))
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn managers_are_told_apart() {
        for (manager, expected) in [
            (FIELD_MANAGER, Writer::Agent),
            ("kubectl-edit", Writer::Person),
            ("kubectl", Writer::Person),
            ("oc", Writer::Person),
            ("Mozilla", Writer::Person),
            ("kubectlish", Writer::Controller),
            ("ocean", Writer::Controller),
            ("kube-controller-manager", Writer::Controller),
            ("kustomize-controller", Writer::Deployer("Flux")),
            ("argocd-controller", Writer::Deployer("Argo CD")),
        ] {
            assert_eq!(Writer::of(manager), expected, "{manager}");
        }
    }

    #[test]
    fn another_tools_mark_is_found_unless_it_is_declared() {
        let live = json!({"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}});
        let found = other_inventory(&live, &json!({}));
        let mark = "kustomize.toolkit.fluxcd.io/name=apps".to_owned();
        assert_eq!(found, Some(("Flux", mark)));
        assert_eq!(other_inventory(&live, &live), None);
        let managed =
            |by: &str| json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": by}}});
        assert!(other_inventory(&managed("Helm"), &json!({})).is_some());
        assert_eq!(other_inventory(&managed("me"), &json!({})), None);
    }
}
