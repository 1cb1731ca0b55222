//! Reading what a cluster tells about the SPIRE that is installed in it.
//!
//! What can't be read, for want of a kind or of a right, is told and left out: whoever asks has the
//! rights that they have.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Cluster, Error};
use crate::model::manifest::{Gvk, ObjectRef};

/// The objects of a kind; nothing if the cluster has no such kind, and a note if they can't be read.
pub async fn all(
    cluster: &impl Cluster,
    api_version: &str,
    kind: &str,
    unread: &mut Vec<String>,
) -> Vec<Value> {
    match cluster.list(&Gvk::new(api_version, kind), None).await {
        Ok(found) => found,
        Err(Error::UnknownKind(_)) => Vec::new(),
        Err(error) => {
            unread.push(told(&error));
            Vec::new()
        }
    }
}

/// One object, if it is there; a note if it can't be read.
pub async fn one(
    cluster: &impl Cluster,
    reference: &ObjectRef,
    unread: &mut Vec<String>,
) -> Option<Value> {
    match cluster.get(reference).await {
        Ok(found) => found,
        Err(Error::UnknownKind(_)) => None,
        Err(error) => {
            unread.push(told(&error));
            None
        }
    }
}

/// The `ConfigMap`s of these names, by namespace and name.
pub async fn config_maps(
    cluster: &impl Cluster,
    names: &BTreeSet<(String, String)>,
    unread: &mut Vec<String>,
) -> Vec<Value> {
    let mut found = Vec::new();
    for (namespace, name) in names {
        let reference = ObjectRef {
            gvk: Gvk::new("v1", "ConfigMap"),
            namespace: Some(namespace.clone()),
            name: name.clone(),
        };
        found.extend(one(cluster, &reference, unread).await);
    }
    found
}

fn told(error: &Error) -> String {
    let cause = std::error::Error::source(error);
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("not read: {error}{cause}")
}
