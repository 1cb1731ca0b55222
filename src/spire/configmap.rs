//! The own bundle from the `ConfigMap` that SPIRE's `BundlePublisher` plugin `k8s_configmap` writes.
//!
//! It is watched, not polled: SPIRE writes it within 0.2 s of a rotation. It is never written: SPIRE
//! applies it server-side and would meet a conflict every 30 s.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1 as core;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};

use super::{BundleSource, Error};
use crate::model::{bundle::Bundle, declaration::ConfigMapSource};

/// How long the API server may take for one answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// A `ConfigMap` that is watched.
pub(super) struct WatchedConfigMap {
    api: Api<core::ConfigMap>,
    namespace: String,
    name: String,
    events: tokio::sync::Mutex<BoxStream<'static, ()>>,
}

impl WatchedConfigMap {
    pub(super) fn new(client: Client, namespace: &str, name: &str) -> Self {
        let api: Api<core::ConfigMap> = Api::namespaced(client, namespace);
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let told = format!("{namespace}/{name}");
        let events = watcher(api.clone(), only)
            .default_backoff()
            .filter_map(move |event| {
                let known = match event {
                    Ok(watcher::Event::Init | watcher::Event::InitDone) => None,
                    Ok(_) => Some(()),
                    Err(error) => {
                        // Who may not read it is told by `read`, once.
                        tracing::debug!(%error, configmap = told, "watch; it is opened again");
                        None
                    }
                };
                std::future::ready(known)
            })
            .boxed();
        Self {
            api,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            events: tokio::sync::Mutex::new(events),
        }
    }

    /// Its name, with its namespace.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// What it holds now.
    pub(super) async fn read(&self) -> Result<BTreeMap<String, String>, Error> {
        let found = tokio::time::timeout(DEADLINE, self.api.get(&self.name)).await;
        match found {
            Ok(Ok(found)) => Ok(found.data.unwrap_or_default()),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                Err(Error::ConfigMapForbidden(self.full_name()))
            }
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => {
                Err(Error::NoConfigMap(self.full_name()))
            }
            Ok(Err(error)) => Err(Error::ConfigMap {
                name: self.full_name(),
                source: Box::new(error),
            }),
            Err(_) => Err(Error::Timeout {
                place: format!("read ConfigMap {}", self.full_name()),
                seconds: DEADLINE.as_secs(),
            }),
        }
    }

    /// Completes when it was written or deleted since the last call.
    pub(super) async fn changed(&self) {
        // A stream of watch events never ends by itself.
        if self.events.lock().await.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// The watched `ConfigMap` and the key in it.
pub struct ConfigMap {
    watched: WatchedConfigMap,
    key: String,
}

impl ConfigMap {
    /// Watches the `ConfigMap`, in `spire_namespace` unless the source names another.
    pub fn new(client: Client, spire_namespace: &str, source: &ConfigMapSource) -> Self {
        let namespace = source.namespace.as_deref().unwrap_or(spire_namespace);
        Self {
            watched: WatchedConfigMap::new(client, namespace, &source.name),
            key: source.key.clone(),
        }
    }
}

impl BundleSource for ConfigMap {
    async fn current(&self) -> Result<Bundle, Error> {
        let mut data = self.watched.read().await?;
        let name = self.watched.full_name();
        let Some(content) = data.remove(&self.key) else {
            let key = self.key.clone();
            return Err(Error::MissingKey { name, key });
        };
        Bundle::parse(content.as_bytes()).map_err(|source| Error::NotABundle {
            place: format!("key `{}` of ConfigMap {name}", self.key),
            source,
        })
    }

    async fn changed(&self) {
        self.watched.changed().await;
    }

    fn describe(&self) -> String {
        format!("configMap {}, key {}", self.watched.full_name(), self.key)
    }
}
