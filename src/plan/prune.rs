//! What may be deleted: only what is provably ours and nobody else's.

use std::fmt;

use serde_json::Value;

use super::policy::{is_kept, is_left_alone};
use crate::model::{field_owners::applied_fields, manifest::ObjectRef};

/// The label of what `deploy/` installs, and its value: without any of it the agent is no more.
const INSTALLATION: (&str, &str) = ("app.kubernetes.io/name", "trustweave");

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
    /// The agent's own installation: its namespace, its rights, its program.
    Installation,
    /// The annotation `trustweave.dev/prune` does not say `enabled`.
    Disabled,
    /// Nor does `trustweave.dev/reconcile`.
    LeftAlone,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incomplete => "some of the repository could not be read",
            Self::NotApplied => "it carries our label, but was not applied by us",
            Self::Controlled => "a controller owns it",
            Self::Reserved => "objects of this kind are not pruned",
            Self::Installation => "the agent itself needs it: delete it by hand",
            Self::Disabled => "trustweave.dev/prune is disabled",
            Self::LeftAlone => "trustweave.dev/reconcile is disabled",
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
    let (label, value) = INSTALLATION;
    if is_kept(live) {
        Err(Kept::Disabled)
    } else if is_left_alone(live) {
        Err(Kept::LeftAlone)
    } else if reserved {
        Err(Kept::Reserved)
    } else if metadata["labels"][label] == value {
        Err(Kept::Installation)
    } else if applied_fields(live).is_none() {
        Err(Kept::NotApplied)
    } else if controlled {
        Err(Kept::Controlled)
    } else if !pruning {
        Err(Kept::Incomplete)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_ours_and_not_needed_goes() {
        let object = |api_version: &str, kind: &str, metadata: Value| {
            let mut object = json!({
                "apiVersion": api_version, "kind": kind,
                "metadata": {"name": "x", "managedFields": [
                    {"manager": "trustweave", "operation": "Apply", "fieldsV1": {}},
                ]},
            });
            for (name, value) in metadata.as_object().unwrap() {
                object["metadata"][name] = value.clone();
            }
            object
        };
        let check = |object: Value, expected: Result<(), Kept>| {
            let reference = ObjectRef::of(&object).unwrap();
            assert_eq!(may_delete(&reference, &object, true), expected, "{object}");
        };
        let annotated = |value: &str| json!({"annotations": {"trustweave.dev/prune": value}});
        check(object("v1", "Namespace", json!({})), Ok(()));
        check(
            object("v1", "Service", annotated("disabled")),
            Err(Kept::Disabled),
        );
        check(
            object("v1", "Service", annotated("disable")),
            Err(Kept::Disabled),
        );
        check(object("v1", "Service", annotated("enabled")), Ok(()));
        let label = json!({"labels": {"app.kubernetes.io/name": "trustweave"}});
        check(
            object("v1", "Namespace", label.clone()),
            Err(Kept::Installation),
        );
        check(
            object("rbac.authorization.k8s.io/v1", "ClusterRole", label),
            Err(Kept::Installation),
        );
        let definition = json!({"name": "gitsyncs.trustweave.dev"});
        check(
            object(
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                definition,
            ),
            Err(Kept::Reserved),
        );
        check(
            object(
                "spire.spiffe.io/v1alpha1",
                "ClusterFederatedTrustDomain",
                json!({}),
            ),
            Err(Kept::Reserved),
        );
        let controlled = json!({"ownerReferences": [{"controller": true}]});
        check(object("v1", "Service", controlled), Err(Kept::Controlled));
        check(
            object("v1", "Service", json!({"managedFields": []})),
            Err(Kept::NotApplied),
        );
    }
}
