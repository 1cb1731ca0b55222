//! What may be deleted: only what is provably ours and nobody else's.

use std::fmt;

use serde_json::Value;

use crate::model::{field_owners::applied_fields, manifest::ObjectRef};

/// On an object: keep it when it is no longer declared.
pub const PRUNE: &str = "trustweave.dev/prune";

/// Why an object that is no longer declared stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Some of the repository could not be read: the declarations are incomplete.
    Incomplete,
    /// It carries our label, but we never applied it: labels are copied, to `EndpointSlice`s say.
    NotApplied,
    /// A controller owns it, and deletes it with its owner.
    Controlled,
    /// The agent's own kinds, and relationships, which have a life of their own.
    Reserved,
    /// The annotation [`PRUNE`] says `disabled`.
    Disabled,
    /// With a namespace goes everything in it, whoever made it.
    Namespace,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incomplete => "some of the repository could not be read",
            Self::NotApplied => "it carries our label, but was not applied by us",
            Self::Controlled => "a controller owns it",
            Self::Reserved => "objects of this kind are not pruned",
            Self::Disabled => "trustweave.dev/prune is disabled",
            Self::Namespace => "everything in it would go too: delete it by hand",
        })
    }
}

/// Whether an object of our set that is no longer declared may be deleted.
pub fn may_delete(reference: &ObjectRef, live: &Value, pruning: bool) -> Result<(), Kept> {
    let metadata = &live["metadata"];
    let gvk = &reference.gvk;
    let reserved = gvk.group == "trustweave.dev"
        || (gvk.group == "spire.spiffe.io" && gvk.kind == "ClusterFederatedTrustDomain")
        || (gvk.kind == "CustomResourceDefinition" && reference.name.ends_with(".trustweave.dev"));
    let controlled = metadata["ownerReferences"]
        .as_array()
        .is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true));
    if metadata["annotations"][PRUNE] == "disabled" {
        Err(Kept::Disabled)
    } else if reserved {
        Err(Kept::Reserved)
    } else if applied_fields(live).is_none() {
        Err(Kept::NotApplied)
    } else if controlled {
        Err(Kept::Controlled)
    } else if gvk.group.is_empty() && gvk.kind == "Namespace" {
        Err(Kept::Namespace)
    } else if !pruning {
        Err(Kept::Incomplete)
    } else {
        Ok(())
    }
}
