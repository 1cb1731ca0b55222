//! An object on its way through the kustomizations, with every identity that it had.
//!
//! Patches and references may use any former identity of an object, as in kustomize.

use serde_json::{Map, Value};

use super::builtin;
use crate::model::{
    diagnostic::{Code, Diagnostic},
    manifest::{Gvk, ObjectRef, Origin},
};

/// The namespace that stands for an absent one.
const DEFAULT: &str = "default";

/// What kustomize calls the namespace of an object that has none; selectors can match it.
const NO_NAMESPACE: &str = "_non_namespaceable_";

/// A former identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: String,
}

/// An object's place in a cluster: its API group and its identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(String, Identity);

/// An object, where it was written, and the identities it had.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) object: Value,
    pub(super) origin: Origin,
    pub(super) previous: Vec<Identity>,
}

impl Resource {
    /// The resources of a document: itself, or the items of a `List`, lists inside lists too.
    pub(super) fn expand(object: Value, origin: &Origin) -> Result<Vec<Self>, Diagnostic> {
        let refuse = |message: String| {
            Diagnostic::error(Code::NotAnObject, &origin.path, message).at(origin.position)
        };
        let is_list = object["kind"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("List"));
        match object {
            Value::Object(mut list) if is_list && list.contains_key("items") => {
                match list.remove("items") {
                    Some(Value::Array(items)) => {
                        let expanded: Result<Vec<_>, _> = items
                            .into_iter()
                            .filter(|item| !item.is_null())
                            .map(|item| Self::expand(item, origin))
                            .collect();
                        Ok(expanded?.into_iter().flatten().collect())
                    }
                    Some(Value::Null) | None => Ok(Vec::new()),
                    Some(_) => Err(refuse("`items` of a list is no list".to_owned())),
                }
            }
            object => {
                if ObjectRef::of(&object).is_none() || object["apiVersion"] == "" {
                    let missing = ["/apiVersion", "/kind", "/metadata/name"]
                        .into_iter()
                        .find(|field| {
                            let value = object.pointer(field).and_then(Value::as_str);
                            value.is_none_or(str::is_empty)
                        })
                        .unwrap_or_default();
                    let field = missing.trim_start_matches('/').replace('/', ".");
                    return Err(refuse(format!(
                        "not a Kubernetes object: it lacks `{field}`"
                    )));
                }
                Ok(vec![Self {
                    object,
                    origin: origin.clone(),
                    previous: Vec::new(),
                }])
            }
        }
    }

    pub(super) fn api_version(&self) -> &str {
        self.object["apiVersion"].as_str().unwrap_or_default()
    }

    pub(super) fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    pub(super) fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The namespace as written; empty if none is.
    pub(super) fn namespace(&self) -> &str {
        self.object["metadata"]["namespace"]
            .as_str()
            .unwrap_or_default()
    }

    pub(super) fn gvk(&self) -> Gvk {
        Gvk::new(self.api_version(), self.kind())
    }

    pub(super) fn is_cluster_scoped(&self) -> bool {
        builtin::is_cluster_scoped(self.api_version(), self.kind())
    }

    /// The namespace for comparisons: never empty.
    pub(super) fn effective_namespace(&self) -> &str {
        self.effective(self.namespace())
    }

    fn effective<'a>(&self, namespace: &'a str) -> &'a str {
        if self.is_cluster_scoped() {
            NO_NAMESPACE
        } else if namespace.is_empty() {
            DEFAULT
        } else {
            namespace
        }
    }

    /// The first identity it had.
    pub(super) fn original(&self) -> Identity {
        self.previous
            .first()
            .cloned()
            .unwrap_or_else(|| self.current())
    }

    fn current(&self) -> Identity {
        Identity {
            kind: self.kind().to_owned(),
            name: self.name().to_owned(),
            namespace: self.effective_namespace().to_owned(),
        }
    }

    /// Remembers the identity before it may change.
    pub(super) fn remember(&mut self) {
        let current = self.current();
        self.previous.push(current);
    }

    /// Whether the object has, or had, the identity of `other`.
    pub(super) fn was(&self, other: &Self) -> bool {
        self.api_version() == other.api_version()
            && (self.current() == other.current() || self.previous.contains(&other.current()))
    }

    /// What two objects share that would be one object in a cluster.
    pub(super) fn key(&self) -> Key {
        Key(self.gvk().group, self.current())
    }

    /// Puts back what a patch may not change.
    pub(super) fn restore(&mut self, kind: &str, name: &str, namespace: &str) {
        let Value::Object(object) = &mut self.object else {
            return;
        };
        object.insert("kind".to_owned(), kind.into());
        let metadata = object
            .entry("metadata")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(metadata) = metadata {
            metadata.insert("name".to_owned(), name.into());
            if namespace.is_empty() {
                metadata.shift_remove("namespace");
            } else {
                metadata.insert("namespace".to_owned(), namespace.into());
            }
        }
    }

    /// `Kind.group namespace/name`, for people.
    pub(super) fn title(&self) -> String {
        let group_kind = self.gvk().group_kind();
        match self.namespace() {
            "" => format!("{group_kind} {}", self.name()),
            namespace => format!("{group_kind} {namespace}/{}", self.name()),
        }
    }
}

/// A scalar as text, as kustomize sees it where it expects a string.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => String::new(),
        scalar => scalar.to_string(),
    }
}
