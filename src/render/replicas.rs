//! `replicas`: other numbers of replicas.

use super::{
    field::{Field, Leaf, set_single},
    kustomization::Replica,
    resource::Resource,
};

/// The kinds that have replicas, whatever their group.
const KINDS: [&str; 4] = [
    "Deployment",
    "ReplicationController",
    "ReplicaSet",
    "StatefulSet",
];

/// Whether the entry is for the object, by its present name or a former one.
pub(super) fn is_for(replica: &Replica, resource: &Resource) -> bool {
    resource
        .identities()
        .any(|identity| identity.name == replica.name && KINDS.contains(&identity.kind.as_str()))
}

/// Sets the object's number of replicas.
pub(super) fn apply(resource: &mut Resource, replica: &Replica) -> Result<(), String> {
    KINDS.iter().try_for_each(|kind| {
        Field::of(kind, "spec/replicas", true).visit(resource, Leaf::Single, &mut |value| {
            set_single(value, replica.count.into())
        })
    })
}
