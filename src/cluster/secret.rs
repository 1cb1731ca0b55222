//! One Secret that holds a key of the agent's own.
//!
//! **Invariants:** a Secret's value is in no `Debug` output, no error and no log; a Secret that is
//! there is never written.

use std::{collections::BTreeMap, future::Future};

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::{ByteString, api::core::v1};
use kube::{
    Api, Client,
    api::{ObjectMeta, PartialObjectMeta, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use zeroize::Zeroizing;

use super::{Error, KubeCluster, REQUEST_DEADLINE, apply::within};
use crate::model::manifest::FIELD_MANAGER;

/// What a Secret holds under a key.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretValue {
    /// There is no such Secret.
    NoSecret,
    /// There is the Secret, but not the key in it.
    NoKey,
    /// The bytes.
    Bytes(Zeroizing<Vec<u8>>),
}

/// What came of making a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// It was made.
    Made,
    /// There is one already, and it was left alone.
    AlreadyThere,
}

/// One key of one Secret.
pub trait SecretKey: Send + Sync + 'static {
    /// What it holds now.
    fn read(&self) -> impl Future<Output = Result<SecretValue, Error>> + Send;

    /// Makes the Secret, with this value, and with `public` under the same key followed by `.pub`,
    /// unless there is one.
    fn create(
        &self,
        value: &[u8],
        public: &str,
    ) -> impl Future<Output = Result<Creation, Error>> + Send;
}

/// A key of a Secret in a cluster.
pub struct KubeSecretKey {
    client: Client,
    api: Api<v1::Secret>,
    namespace: String,
    name: String,
    key: String,
}

impl KubeCluster {
    /// A key of a Secret; without a namespace, of the one that the connection belongs to: in a pod
    /// its own.
    pub fn secret_key(&self, namespace: Option<&str>, name: &str, key: &str) -> KubeSecretKey {
        let namespace = namespace.unwrap_or(self.client.default_namespace());
        KubeSecretKey {
            client: self.client.clone(),
            api: Api::namespaced(self.client.clone(), namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
        }
    }
}

impl KubeSecretKey {
    /// Where it is, for people.
    pub fn place(&self) -> String {
        format!(
            "Secret {}/{}, key `{}`",
            self.namespace, self.name, self.key
        )
    }

    /// Something for each time that the Secret may have changed; it may come too often. Only
    /// metadata is watched. The stream never ends.
    pub fn changes(&self) -> BoxStream<'static, ()> {
        let only = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let metadata: Api<PartialObjectMeta<v1::Secret>> =
            Api::namespaced(self.client.clone(), &self.namespace);
        watcher(metadata, only)
            .default_backoff()
            .filter_map(async |event| match event {
                Ok(watcher::Event::Init | watcher::Event::InitDone) => None,
                Ok(_) => Some(()),
                Err(error) => {
                    tracing::debug!(%error, "watch of the signing key's Secret; it is opened again");
                    None
                }
            })
            .boxed()
    }

    fn what(&self) -> String {
        format!("Secret {}/{}", self.namespace, self.name)
    }
}

/// An error without what it quotes: what does not parse may be the value itself.
fn discreet(error: Error) -> Error {
    match error {
        Error::Request { verb, what, source } if matches!(*source, kube::Error::SerdeError(_)) => {
            Error::Unreadable { verb, what }
        }
        other => other,
    }
}

impl SecretKey for KubeSecretKey {
    async fn read(&self) -> Result<SecretValue, Error> {
        let found = within(
            REQUEST_DEADLINE,
            "get",
            self.what(),
            self.api.get_opt(&self.name),
        )
        .await;
        let Some(secret) = found.map_err(discreet)? else {
            return Ok(SecretValue::NoSecret);
        };
        let value = secret.data.and_then(|mut data| data.remove(&self.key));
        Ok(value.map_or(SecretValue::NoKey, |ByteString(bytes)| {
            SecretValue::Bytes(Zeroizing::new(bytes))
        }))
    }

    async fn create(&self, value: &[u8], public: &str) -> Result<Creation, Error> {
        let label = ("app.kubernetes.io/name".to_owned(), "trustweave".to_owned());
        let secret = v1::Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                labels: Some(BTreeMap::from([label])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([
                (self.key.clone(), ByteString(value.to_vec())),
                (
                    format!("{}.pub", self.key),
                    ByteString(format!("{public}\n").into_bytes()),
                ),
            ])),
            type_: Some("Opaque".to_owned()),
            ..v1::Secret::default()
        };
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        // A plain create: an apply could write over what is there.
        let request = self.api.create(&parameters, &secret);
        match within(REQUEST_DEADLINE, "create", self.what(), request).await {
            Ok(_) => Ok(Creation::Made),
            Err(Error::Api { status, .. }) if status.is_already_exists() => {
                Ok(Creation::AlreadyThere)
            }
            Err(error) => Err(discreet(error)),
        }
    }
}
