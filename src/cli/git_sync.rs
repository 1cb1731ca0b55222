//! The one `GitSync` of a cluster, as verbs read it.

use anyhow::bail;
use serde_json::Value;

use crate::cluster::{
    Cluster as _, Error, KubeCluster,
    types::{GIT_SYNC_NAME, git_sync_reference},
};

/// The live object; `None` if there is none, or no such kind: no agent ever ran.
pub(super) async fn find(cluster: &KubeCluster) -> Result<Option<Value>, Error> {
    match cluster.get(&git_sync_reference()).await {
        Err(Error::UnknownKind(_)) => Ok(None),
        found => found,
    }
}

/// The live object; an error says what is missing.
pub(super) async fn read(cluster: &KubeCluster) -> anyhow::Result<Value> {
    match cluster.get(&git_sync_reference()).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => bail!("the cluster has no GitSync `{GIT_SYNC_NAME}`: did the agent ever run?"),
        Err(Error::UnknownKind(_)) => {
            bail!("the cluster has no kind GitSync: is the agent installed?")
        }
        Err(error) => Err(error.into()),
    }
}
