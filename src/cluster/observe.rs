//! Watching: not what changed, only that something did. A pass reads what it needs.
//!
//! Only metadata is watched, so that memory does not grow with the size of objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use kube::{
    Api, Client,
    api::{DynamicObject, PartialObjectMeta},
    core::GroupVersionKind,
    discovery,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{sync::watch, task::AbortHandle};

use crate::model::manifest::{Gvk, ObjectRef};

/// How long to wait until a kind that the cluster does not have is looked for again.
const UNKNOWN_KIND_RETRY: Duration = Duration::from_secs(10);

/// A kind to be watched: all its objects, or some.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watched {
    /// The kind.
    pub gvk: Gvk,
    /// Only objects with this label (name and value).
    pub label: Option<(String, String)>,
    /// Only the object with this namespace, if its kind has one, and name: that may be all that a
    /// right covers.
    pub object: Option<(Option<String>, String)>,
}

impl Watched {
    /// All objects of a kind.
    pub fn all(gvk: Gvk) -> Self {
        Self {
            gvk,
            label: None,
            object: None,
        }
    }

    /// The objects of a kind that have a label (name and value).
    pub fn labelled(gvk: Gvk, name: &str, value: String) -> Self {
        Self {
            label: Some((name.to_owned(), value)),
            ..Self::all(gvk)
        }
    }

    /// One object of a namespaced kind.
    pub fn one(reference: &ObjectRef) -> Self {
        Self {
            object: Some((reference.namespace.clone(), reference.name.clone())),
            ..Self::all(reference.gvk.clone())
        }
    }
}

/// One watch per kind, all leading to one signal.
pub(super) struct Observer {
    client: Client,
    changes: watch::Sender<u64>,
    seen: tokio::sync::Mutex<watch::Receiver<u64>>,
    watches: Mutex<BTreeMap<Watched, AbortHandle>>,
}

impl Observer {
    pub(super) fn new(client: Client) -> Self {
        let (changes, seen) = watch::channel(0);
        Self {
            client,
            changes,
            seen: tokio::sync::Mutex::new(seen),
            watches: Mutex::default(),
        }
    }

    /// Watches exactly these kinds from now on.
    pub(super) fn watch(&self, kinds: &BTreeSet<Watched>) {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|watched, task| {
            let wanted = kinds.contains(watched);
            if !wanted {
                task.abort();
            }
            wanted
        });
        for watched in kinds {
            watches.entry(watched.clone()).or_insert_with(|| {
                let task = follow(self.client.clone(), watched.clone(), self.changes.clone());
                tokio::spawn(task).abort_handle()
            });
        }
    }

    /// Completes when something changed since the last call.
    pub(super) async fn changed(&self) {
        if self.seen.lock().await.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.watch(&BTreeSet::new());
    }
}

async fn follow(client: Client, watched: Watched, changes: watch::Sender<u64>) {
    let gvk = &watched.gvk;
    let kind = GroupVersionKind::gvk(&gvk.group, &gvk.version, &gvk.kind);
    let resource = loop {
        match discovery::pinned_kind(&client, &kind).await {
            Ok((resource, _)) => break resource,
            Err(error) => {
                tracing::debug!(kind = gvk.group_kind(), %error, "a kind to watch is not there yet");
                tokio::time::sleep(UNKNOWN_KIND_RETRY).await;
            }
        }
    };
    let mut config = watcher::Config::default();
    if let Some((_, name)) = &watched.object {
        config = config.fields(&format!("metadata.name={name}"));
    }
    let api: Api<PartialObjectMeta<DynamicObject>> = match &watched.object {
        Some((Some(namespace), _)) => Api::namespaced_with(client, namespace, &resource),
        Some((None, _)) | None => Api::all_with(client, &resource),
    };
    if let Some((name, value)) = &watched.label {
        config = config.labels(&format!("{name}={value}"));
    }
    let mut events = watcher(api, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(_) => changes.send_modify(|count| *count += 1),
            Err(error) => {
                tracing::debug!(kind = gvk.group_kind(), %error, "a watch failed; it is opened again");
            }
        }
    }
}
