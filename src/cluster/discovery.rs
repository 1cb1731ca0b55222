//! Which kinds the cluster has, how they are addressed, and whether they live in namespaces.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject},
    config::{KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
    discovery::{self, Scope},
    runtime::events::Recorder,
};

use super::{Error, REQUEST_DEADLINE, lease::Fence, observe::Observer, throttle::Throttle};
use crate::model::manifest::{Gvk, ObjectRef};

/// A cluster behind a Kubernetes API server.
pub struct KubeCluster {
    pub(super) client: Client,
    pub(super) observer: Observer,
    pub(super) recorder: Recorder,
    pub(super) fence: Fence,
    pub(super) throttle: Throttle,
    config: Config,
    impersonates: bool,
    resources: Mutex<BTreeMap<Gvk, Resource>>,
}

/// How objects of a kind are addressed.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) api: ApiResource,
    pub(super) namespaced: bool,
}

impl KubeCluster {
    /// Connects by a kubeconfig file and a context in it; without a file by the pod's service
    /// account or the user's default.
    pub async fn connect(
        kubeconfig: Option<PathBuf>,
        context: Option<String>,
    ) -> Result<Self, Error> {
        let failed = |error: &dyn std::error::Error| Error::Connect(error.to_string());
        let options = KubeConfigOptions {
            context,
            ..KubeConfigOptions::default()
        };
        let mut config = match kubeconfig {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path).map_err(|error| failed(&error))?;
                Config::from_custom_kubeconfig(kubeconfig, &options)
                    .await
                    .map_err(|error| failed(&error))?
            }
            None if options.context.is_some() => Config::from_kubeconfig(&options)
                .await
                .map_err(|error| failed(&error))?,
            None => Config::infer().await.map_err(|error| failed(&error))?,
        };
        // A pass that fails is made again soon: a request that is repeated for minutes inside one
        // would only hold it up.
        config.default_retry = false;
        Self::new(config, false, Fence::open())
    }

    pub(super) fn new(config: Config, impersonates: bool, fence: Fence) -> Result<Self, Error> {
        let client =
            Client::try_from(config.clone()).map_err(|error| Error::Connect(error.to_string()))?;
        Ok(Self {
            observer: Observer::new(client.clone()),
            recorder: Recorder::new(client.clone(), "trustweave".into()),
            client,
            fence,
            throttle: Throttle::default(),
            config,
            impersonates,
            resources: Mutex::default(),
        })
    }

    /// The same cluster, that is only written while a fence lets through.
    #[must_use]
    pub fn behind(mut self, fence: Fence) -> Self {
        self.fence = fence;
        self
    }

    /// The same cluster, behind the same fence, as a `ServiceAccount` in the namespace that the
    /// connection belongs to. The API server adds the account's groups itself.
    pub fn impersonating(&self, service_account: &str) -> Result<Self, Error> {
        let namespace = self.client.default_namespace();
        let user = format!("system:serviceaccount:{namespace}:{service_account}");
        let invalid = || Error::Connect(format!("`{user}` is no user's name"));
        let header = "impersonate-user".parse().map_err(|_| invalid())?;
        let value = user.parse().map_err(|_| invalid())?;
        let mut config = self.config.clone();
        // As a header: kube 5 reads `impersonate` of a kubeconfig, and does nothing about it.
        config.headers.push((header, value));
        Self::new(config, true, self.fence.clone())
    }

    /// An error, with what there is to say about missing rights of the identity.
    pub(super) fn attributed(&self, mut error: Error) -> Error {
        if let Error::Forbidden { lack, .. } = &mut error
            && self.impersonates
        {
            lack.for_overlays();
        }
        error
    }

    /// The client, for the sources of the own bundle.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// How a kind is addressed. It is asked once; unknown kinds are asked for again each time, as
    /// their definition may have been applied meanwhile.
    pub(super) async fn resource(&self, gvk: &Gvk) -> Result<Resource, Error> {
        let cached = self.resources().get(gvk).cloned();
        if let Some(resource) = cached {
            return Ok(resource);
        }
        let wanted = GroupVersionKind::gvk(&gvk.group, &gvk.version, &gvk.kind);
        let what = || gvk.group_kind();
        let found = tokio::time::timeout(
            REQUEST_DEADLINE,
            discovery::pinned_kind(&self.client, &wanted),
        )
        .await
        .map_err(|_| Error::Timeout {
            verb: "discover",
            what: what(),
            deadline: REQUEST_DEADLINE,
        })?;
        match found {
            Ok((api, capabilities)) => {
                Ok(self.know(gvk, api, capabilities.scope == Scope::Namespaced))
            }
            Err(kube::Error::Discovery(_)) => Err(Error::UnknownKind(gvk.clone())),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                Err(Error::UnknownKind(gvk.clone()))
            }
            Err(error) => Err(Error::from_kube("discover", what(), error)),
        }
    }

    /// Remembers how a kind is addressed.
    pub(super) fn know(&self, gvk: &Gvk, api: ApiResource, namespaced: bool) -> Resource {
        let resource = Resource { api, namespaced };
        self.resources().insert(gvk.clone(), resource.clone());
        resource
    }

    /// Forgets how a kind is addressed, after the server did not know it any more.
    pub(super) fn forget(&self, gvk: &Gvk) {
        self.resources().remove(gvk);
    }

    fn resources(&self) -> std::sync::MutexGuard<'_, BTreeMap<Gvk, Resource>> {
        self.resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The API of one object.
    pub(super) async fn api_of(&self, reference: &ObjectRef) -> Result<Api<DynamicObject>, Error> {
        let resource = self.resource(&reference.gvk).await?;
        match (&reference.namespace, resource.namespaced) {
            (Some(namespace), true) => Ok(Api::namespaced_with(
                self.client.clone(),
                namespace,
                &resource.api,
            )),
            (None, true) => Err(Error::NoNamespace(Box::new(reference.clone()))),
            (_, false) => Ok(Api::all_with(self.client.clone(), &resource.api)),
        }
    }

    /// The kind that the cluster prefers for a `Kind.group`.
    pub(super) async fn preferred_kind(&self, group_kind: &str) -> Result<Option<Gvk>, Error> {
        let (kind, group) = group_kind.split_once('.').unwrap_or((group_kind, ""));
        match discovery::group(&self.client, group).await {
            Ok(found) => Ok(found.recommended_kind(kind).map(|(resource, _)| Gvk {
                group: resource.group,
                version: resource.version,
                kind: resource.kind,
            })),
            Err(kube::Error::Discovery(_)) => Ok(None),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
            Err(error) => Err(Error::from_kube("discover", group_kind, error)),
        }
    }
}
