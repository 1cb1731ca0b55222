//! What a cloud does for Services of type `LoadBalancer`: each gets an address, here that of the node.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::task::AbortHandle;

use crate::process::wait_until;

/// Long enough for an API server that a test has stopped and starts again.
const PATIENCE: Duration = Duration::from_mins(1);

/// Watches a cluster's Services until it is dropped.
pub(super) struct LoadBalancer(AbortHandle);

impl LoadBalancer {
    /// Gives Services this address.
    pub(super) fn start(client: Client, address: Ipv4Addr) -> Self {
        Self(tokio::spawn(serve(client, address)).abort_handle())
    }
}

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(client: Client, address: Ipv4Addr) {
    let services: Api<Service> = Api::all(client.clone());
    let watch = watcher(services, watcher::Config::default());
    let mut watch = std::pin::pin!(watch.default_backoff().applied_objects());
    while let Some(event) = watch.next().await {
        // After an error the watch goes on by itself.
        let Ok(service) = event else { continue };
        if !lacks_address(&service) {
            continue;
        }
        let (Some(namespace), Some(name)) = (service.metadata.namespace, service.metadata.name)
        else {
            continue;
        };
        let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
        let what = format!("the Service {namespace}/{name} to get an address");
        let given = wait_until(&what, PATIENCE, async || {
            let patch = Patch::Merge(&status);
            let parameters = PatchParams::default();
            services
                .patch_status(&name, &parameters, &patch)
                .await
                .map(Some)
                .or_else(|error| match error {
                    // It was deleted meanwhile.
                    kube::Error::Api(status) if status.is_not_found() => {
                        Ok(Some(Service::default()))
                    }
                    error => Err(error.into()),
                })
        });
        // Who waits for the address sees that there is none.
        drop(given.await);
    }
}

fn lacks_address(service: &Service) -> bool {
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    let balancer = service
        .status
        .as_ref()
        .and_then(|it| it.load_balancer.as_ref());
    let given = balancer.and_then(|balancer| balancer.ingress.as_ref());
    kind == Some("LoadBalancer") && given.is_none_or(Vec::is_empty)
}
