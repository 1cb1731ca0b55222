//! Kubernetes objects as they are declared: identity, content, and where they were written.

use std::fmt;

use serde_json::Value;

use super::{diagnostic::Position, repository::RepoPath};

/// The field manager under which everything is applied.
pub const FIELD_MANAGER: &str = "trustweave";

/// A kind of object with its version, such as `apps/v1 Deployment`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gvk {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version inside the group.
    pub version: String,
    /// The kind.
    pub kind: String,
}

impl Gvk {
    /// From an `apiVersion` (`v1`, `apps/v1`) and a kind.
    pub fn new(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
        }
    }

    /// The `apiVersion` field's form.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `Kind.group`, as an `ApplySet` names group-kinds (KEP-3659).
    pub fn group_kind(&self) -> String {
        if self.group.is_empty() {
            self.kind.clone()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }
}

/// The identity of an object in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind and version.
    pub gvk: Gvk,
    /// Its namespace; `None` if none is written or the kind is cluster-scoped.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ObjectRef {
    /// Reads the identity from an object; `None` if `apiVersion`, `kind` or `metadata.name` is
    /// missing or empty.
    pub fn of(object: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
        let metadata = &object["metadata"];
        Some(Self {
            gvk: Gvk::new(object["apiVersion"].as_str()?, &text(&object["kind"])?),
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"])?,
        })
    }
}

/// What makes two objects the same one to a cluster: the version of the kind does not count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// `Kind.group`.
    pub group_kind: String,
    /// The namespace, if it has one.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl ObjectRef {
    /// The identity without the version.
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            group_kind: self.gvk.group_kind(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

impl fmt::Display for ObjectRef {
    /// `Kind.group namespace/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.gvk.group_kind())?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// Where an object was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub path: RepoPath,
    /// The place of the document in the file.
    pub position: Option<Position>,
}

/// An object as it is declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its identity; always agrees with [`Self::object`].
    pub reference: ObjectRef,
    /// The object itself, a JSON object with `apiVersion`, `kind` and `metadata.name`.
    pub object: Value,
    /// Where it was written.
    pub origin: Origin,
}

impl Manifest {
    /// A manifest from an object; `None` if it has no identity.
    pub fn new(object: Value, origin: Origin) -> Option<Self> {
        Some(Self {
            reference: ObjectRef::of(&object)?,
            object,
            origin,
        })
    }
}
