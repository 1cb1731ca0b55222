//! What belongs to the agent: an `ApplySet` (KEP-3659) whose parent is the one `GitSync`.
//!
//! Every object of an overlay carries the set's label; the parent names the kinds that members have,
//! so that a member can be found after its kind has left the overlay.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::types::{API_VERSION, GIT_SYNC_NAME};

/// The agent's, on every object of the overlay: a label with the set's ID.
pub const PART_OF: &str = "applyset.kubernetes.io/part-of";

/// The agent's, on the `GitSync`: a label with the set's ID.
const ID: &str = "applyset.kubernetes.io/id";

/// The agent's, on the `GitSync`: who keeps the set.
const TOOLING: &str = "applyset.kubernetes.io/tooling";

/// The agent's, on the `GitSync`: the kinds that members may have.
const GROUP_KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";

/// The agent's, on the `GitSync`: the namespaces in which members may be.
const NAMESPACES: &str = "applyset.kubernetes.io/additional-namespaces";

/// The set's ID: `applyset-<base64url(sha256("<name>.<namespace>.<kind>.<group>"))>-v1`.
pub fn id() -> String {
    let identity = format!("{GIT_SYNC_NAME}..GitSync.trustweave.dev");
    let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(identity.as_bytes()));
    format!("applyset-{digest}-v1")
}

/// The kinds (`Kind.group`) that the parent says members have.
pub fn group_kinds(parent: &Value) -> BTreeSet<String> {
    list(parent, GROUP_KINDS)
}

/// The namespaces that the parent says members are in.
pub fn namespaces(parent: &Value) -> BTreeSet<String> {
    list(parent, NAMESPACES)
}

fn list(parent: &Value, annotation: &str) -> BTreeSet<String> {
    parent["metadata"]["annotations"][annotation]
        .as_str()
        .into_iter()
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The parent, as it is applied before any member: first the intent, then the deed.
pub fn parent(group_kinds: &BTreeSet<String>, namespaces: &BTreeSet<String>) -> Value {
    let join = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(",");
    json!({
        "apiVersion": API_VERSION,
        "kind": "GitSync",
        "metadata": {
            "name": GIT_SYNC_NAME,
            "labels": {ID: id()},
            "annotations": {
                TOOLING: concat!("trustweave/v", env!("CARGO_PKG_VERSION")),
                GROUP_KINDS: join(group_kinds),
                NAMESPACES: join(namespaces),
            },
        },
        "spec": {},
    })
}

/// Marks an object as a member.
pub fn enrol(object: &mut Value) {
    let Some(metadata) = object["metadata"].as_object_mut() else {
        return;
    };
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if !labels.is_object() {
        *labels = json!({});
    }
    labels[PART_OF] = id().into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_remembers_kinds() {
        let kinds = BTreeSet::from(["ConfigMap".to_owned(), "Deployment.apps".to_owned()]);
        let places = BTreeSet::from(["n".to_owned()]);
        let parent = parent(&kinds, &places);
        assert_eq!((group_kinds(&parent), namespaces(&parent)), (kinds, places));
        assert_eq!(group_kinds(&json!({})), BTreeSet::new());
        // 63 characters is the limit of a label's value.
        assert!(id().len() <= 63, "{}", id());
    }

    #[test]
    fn a_member_keeps_its_labels() {
        let mut object = json!({"metadata": {"name": "x", "labels": {"a": "b"}}});
        enrol(&mut object);
        assert_eq!(
            object["metadata"]["labels"],
            json!({"a": "b", PART_OF: id()})
        );
    }
}
