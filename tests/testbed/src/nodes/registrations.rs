//! Whether the registrations of the example's workloads keep naming their peers.

use std::convert::Infallible;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::Value;

use super::federation::Federation;
use super::workloads::{CLIENT, SERVER};
use crate::federation::{CLUSTERS, peer_of, trust_domain};

impl Federation {
    /// Does something, and fails as soon as a registration of the example's workloads loses its peer meanwhile, if
    /// only for a moment.
    pub(super) async fn keeping_peers<T>(
        &self,
        deed: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let [first, second] = CLUSTERS;
        tokio::select! {
            biased;
            lost = self.until_peer_is_lost(first) => match lost? {},
            lost = self.until_peer_is_lost(second) => match lost? {},
            done = deed => done,
        }
    }

    async fn until_peer_is_lost(&self, cluster: &str) -> anyhow::Result<Infallible> {
        let kind = GroupVersionKind::gvk("spire.spiffe.io", "v1alpha1", "ClusterSPIFFEID");
        let registrations: Api<DynamicObject> = Api::all_with(
            self.nodes.cluster(cluster)?.client(),
            &ApiResource::from_gvk_with_plural(&kind, "clusterspiffeids"),
        );
        let peer = trust_domain(peer_of(cluster));
        let events = watcher(registrations, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            // After an error the watch goes on by itself.
            let (registration, deleted) = match event {
                Ok(Event::InitApply(registration) | Event::Apply(registration)) => {
                    (registration, false)
                }
                Ok(Event::Delete(registration)) => (registration, true),
                _ => continue,
            };
            let name = registration
                .metadata
                .name
                .context("an object without a name")?;
            if name != CLIENT && name != SERVER {
                continue;
            }
            let named = registration.data["spec"]["federatesWith"].as_array();
            let mut named = named.into_iter().flatten().filter_map(Value::as_str);
            if deleted || named.all(|named| named != peer) {
                bail!("the registration {name} of {cluster} lost its peer {peer}");
            }
        }
        bail!("the watch of the registrations of {cluster} ended")
    }
}
