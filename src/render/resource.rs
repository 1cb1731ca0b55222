//! An object on its way through the kustomizations, with every identity that it had.
//!
//! Patches and references may use any former identity of an object, as in kustomize.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value};

use super::{builtin, shared_labels::SharedLabels};
use crate::model::{
    diagnostic::{Code, Diagnostic},
    manifest::{Gvk, ObjectRef, Origin},
    scalar,
};

/// The namespace that stands for an absent one.
const DEFAULT: &str = "default";

/// What kustomize calls the namespace of an object that has none; selectors can match it.
pub(super) const NO_NAMESPACE: &str = "_non_namespaceable_";

/// A present or former identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) kind: String,
    pub(super) name: String,
    /// For comparisons: never empty.
    pub(super) namespace: String,
}

/// An object's place in a cluster: its API group and its identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(String, Identity);

/// An object, where it was written, and what happened to its name.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    /// The object; its scalars are carried ([`scalar`]), but for those of its identity.
    pub(super) object: Value,
    pub(super) origin: Origin,
    /// The identities that it had, the first one first.
    pub(super) previous: Vec<Identity>,
    /// The prefixes that its name got, the innermost first.
    pub(super) prefixes: Vec<String>,
    /// The suffixes that its name got, the innermost first.
    pub(super) suffixes: Vec<String>,
    /// Whether a hash of its content is appended to its name in the end.
    pub(super) needs_hash: bool,
    /// Whether a generator made it.
    pub(super) is_generated: bool,
    /// Labels that stand in several fields as one.
    pub(super) shared_labels: SharedLabels,
}

impl Resource {
    /// An object that was not changed yet.
    pub(super) fn new(object: Value, origin: Origin) -> Self {
        Self {
            object,
            origin,
            previous: Vec::new(),
            prefixes: Vec::new(),
            suffixes: Vec::new(),
            needs_hash: false,
            is_generated: false,
            shared_labels: SharedLabels::default(),
        }
    }

    /// The resources of a document: itself, or the items of a `List`, lists inside lists too.
    pub(super) fn expand(mut object: Value, origin: &Origin) -> Result<Vec<Self>, Diagnostic> {
        let refuse = |message: String| {
            Diagnostic::error(Code::NotAnObject, &origin.path, message).at(origin.position)
        };
        settle_identity(&mut object);
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
                            .map(|mut item| {
                                // Kustomize takes items through JSON, which loses texts and styles.
                                scalar::settle(&mut item);
                                Self::expand(item, origin)
                            })
                            .collect();
                        Ok(expanded?.into_iter().flatten().collect())
                    }
                    Some(Value::Null) | None => Ok(Vec::new()),
                    Some(_) => Err(refuse("`items` of a list is no list".to_owned())),
                }
            }
            object => {
                if ObjectRef::of(&object).is_none() || object["apiVersion"] == "" {
                    let field = missing(&object, &IDENTITY);
                    return Err(refuse(format!(
                        "not a Kubernetes object: it lacks `{field}`"
                    )));
                }
                Ok(vec![Self::new(object, origin.clone())])
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

    /// The present identity.
    pub(super) fn current(&self) -> Identity {
        Identity {
            kind: self.kind().to_owned(),
            name: self.name().to_owned(),
            namespace: self.effective_namespace().to_owned(),
        }
    }

    /// Has a label that was changed in one field hold in those that share it.
    pub(super) fn settle_labels(&mut self) {
        self.shared_labels.settle(&mut self.object);
    }

    /// Whether kustomize keeps notes of its own about the object, which are annotations until the end:
    /// the mapping is there then, whoever looks for it.
    pub(super) fn has_notes(&self) -> bool {
        let renamed = [self.previous.is_empty(), self.prefixes.is_empty()];
        self.is_generated || !self.suffixes.is_empty() || renamed.contains(&false)
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

    /// The present identity, then the former ones.
    pub(super) fn identities(&self) -> impl Iterator<Item = Cow<'_, Identity>> {
        std::iter::once(Cow::Owned(self.current())).chain(self.previous.iter().map(Cow::Borrowed))
    }

    /// Renames the object, and remembers its former identity.
    pub(super) fn rename(&mut self, name: &str) {
        self.remember();
        self.object["metadata"]["name"] = name.into();
    }

    /// Puts back what a patch may not change.
    pub(super) fn restore(
        &mut self,
        kind: Option<&String>,
        name: Option<&String>,
        namespace: &str,
    ) {
        let Value::Object(object) = &mut self.object else {
            return;
        };
        if let Some(kind) = kind {
            object.insert("kind".to_owned(), kind.as_str().into());
        }
        let metadata = object
            .entry("metadata")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(metadata) = metadata {
            if let Some(name) = name {
                metadata.insert("name".to_owned(), name.as_str().into());
            }
            if namespace.is_empty() {
                metadata.shift_remove("namespace");
            } else {
                metadata.insert("namespace".to_owned(), namespace.into());
            }
        }
        settle_identity(&mut self.object);
    }

    /// The entries of a mapping of texts, such as labels; empty if there is none.
    pub(super) fn texts(&self, pointer: &str) -> BTreeMap<String, String> {
        let map = self.object.pointer(pointer).and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), scalar::text(value).into_owned()))
            .collect()
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

/// Takes the texts of the identity as they are, quoted or not.
pub(super) fn settle_identity(object: &mut Value) {
    for pointer in [
        "/apiVersion",
        "/kind",
        "/metadata/name",
        "/metadata/namespace",
    ] {
        if let Some(value) = object.pointer_mut(pointer)
            && scalar::string(value).is_some()
        {
            scalar::settle(value);
        }
    }
}

/// JSON pointers of what an object is identified by.
pub(super) const IDENTITY: [&str; 3] = ["/apiVersion", "/kind", "/metadata/name"];

/// The first of these fields that an object lacks, or that is empty; an empty text if it has all.
pub(super) fn missing(object: &Value, fields: &[&str]) -> String {
    fields
        .iter()
        .copied()
        .find(|field| {
            let value = object.pointer(field).and_then(Value::as_str);
            value.is_none_or(str::is_empty)
        })
        .unwrap_or_default()
        .trim_start_matches('/')
        .replace('/', ".")
}
