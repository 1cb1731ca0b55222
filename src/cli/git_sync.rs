//! The one `GitSync` of a cluster, as verbs read it.

use anyhow::bail;
use serde_json::Value;

use crate::{
    cluster::{
        Cluster as _, Error, KubeCluster,
        types::{self, GIT_SYNC_NAME},
    },
    model::manifest::ObjectRef,
};

/// Its identity.
pub(super) fn reference() -> ObjectRef {
    types::git_sync_reference()
}

/// The live object; an error says what is missing.
pub(super) async fn read(cluster: &KubeCluster) -> anyhow::Result<Value> {
    match cluster.get(&reference()).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => bail!("the cluster has no GitSync `{GIT_SYNC_NAME}`: did the agent ever run?"),
        Err(Error::UnknownKind(_)) => {
            bail!("the cluster has no kind GitSync: is the agent installed?")
        }
        Err(error) => Err(error.into()),
    }
}
