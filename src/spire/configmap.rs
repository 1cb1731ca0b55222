//! The own bundle from the `ConfigMap` that SPIRE's `BundlePublisher` plugin `k8s_configmap` writes.
//!
//! It is watched, not polled: SPIRE writes it within 0.2 s of a rotation. It is never written: SPIRE
//! applies it server-side and would meet a conflict every 30 s.

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1 as core;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};

use super::{BundleSource, Error};
use crate::model::declaration::ConfigMapSource;

/// The watched `ConfigMap`.
pub struct ConfigMap {
    api: Api<core::ConfigMap>,
    namespace: String,
    name: String,
    key: String,
    events: tokio::sync::Mutex<BoxStream<'static, ()>>,
}

impl ConfigMap {
    /// Watches the `ConfigMap`, in `spire_namespace` unless the source names another.
    pub fn new(client: Client, spire_namespace: &str, source: &ConfigMapSource) -> Self {
        let namespace = source.namespace.as_deref().unwrap_or(spire_namespace);
        let api: Api<core::ConfigMap> = Api::namespaced(client, namespace);
        let only = watcher::Config::default().fields(&format!("metadata.name={}", source.name));
        let events = watcher(api.clone(), only)
            .default_backoff()
            .filter_map(async |event| match event {
                Ok(watcher::Event::Init | watcher::Event::InitDone) => None,
                Ok(_) => Some(()),
                Err(error) => {
                    tracing::warn!(%error, "watch of the bundle's ConfigMap; it is opened again");
                    None
                }
            })
            .boxed();
        Self {
            api,
            namespace: namespace.to_owned(),
            name: source.name.clone(),
            key: source.key.clone(),
            events: tokio::sync::Mutex::new(events),
        }
    }
}

impl BundleSource for ConfigMap {
    async fn current(&self) -> Result<Vec<u8>, Error> {
        let found = self
            .api
            .get(&self.name)
            .await
            .map_err(|source| Error::ConfigMap {
                namespace: self.namespace.clone(),
                name: self.name.clone(),
                source: Box::new(source),
            })?;
        let content = found
            .data
            .and_then(|mut data| data.remove(&self.key))
            .ok_or_else(|| Error::MissingKey {
                namespace: self.namespace.clone(),
                name: self.name.clone(),
                key: self.key.clone(),
            })?;
        Ok(content.into_bytes())
    }

    async fn changed(&self) {
        // A stream of watch events never ends by itself.
        if self.events.lock().await.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
