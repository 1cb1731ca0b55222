//! How long pods take to become ready.

use std::time::{Duration, Instant};

use anyhow::bail;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};

use super::NodeCluster;
use crate::federation::PATIENCE;

/// Waits for the first pod with a label in a namespace, and returns how long it took from being created until it was
/// ready.
pub(super) async fn first_ready(
    cluster: &NodeCluster,
    namespace: &str,
    label: &str,
) -> anyhow::Result<Duration> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    let labelled = watcher::Config::default().labels(label);
    let watch = watcher(pods, labelled).default_backoff().applied_objects();
    let mut watch = std::pin::pin!(watch);
    let ready = async {
        let mut first = None;
        while let Some(event) = watch.next().await {
            // After an error the watch goes on by itself.
            let Ok(pod) = event else { continue };
            let name = pod.metadata.name;
            let (first, created) = first.get_or_insert_with(|| (name.clone(), Instant::now()));
            let conditions = pod.status.and_then(|status| status.conditions);
            let mut conditions = conditions.into_iter().flatten();
            let ready = conditions.any(|it| it.type_ == "Ready" && it.status == "True");
            if ready && *first == name {
                return Ok(created.elapsed());
            }
        }
        bail!("the watch of pods ended")
    };
    if let Ok(took) = tokio::time::timeout(PATIENCE, ready).await {
        return took;
    }
    let namespace = format!("--namespace={namespace}");
    let selector = format!("--selector={label}");
    let mut told = cluster
        .kubectl(&["describe", "pods", &namespace, &selector])
        .await?;
    let logs = ["logs", &namespace, &selector, "--tail=20"];
    told += &cluster.kubectl(&logs).await.unwrap_or_default();
    bail!("no pod of {} became ready:\n{told}", cluster.name())
}
