//! The way from a name to a bundle endpoint outside its cluster: the wildcard of DNS, and `OpenShift`'s router.
//!
//! SPIRE servers have it as their HTTP proxy, which clients never ask about loopback addresses. So a URL whose host is
//! a name leads where the Routes of the clusters say, and nowhere outside this machine. Admission of Routes, which
//! `OpenShift`'s router writes into their status, is for tests to write.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::loopback::BUNDLE_ENDPOINT_PORT;
use crate::server_objects::POD;

/// The longest request that is read: a CONNECT has a line and a few headers.
const REQUEST: usize = 4096;

/// What is served behind the wildcard of a trust domain.
pub(crate) struct Behind {
    pub(crate) client: Client,
    /// Names below it lead to the cluster.
    pub(crate) trust_domain: String,
    /// Where the SPIRE server's pod is.
    pub(crate) namespace: String,
    /// For the pod's port of the bundle endpoint.
    pub(crate) bundle_endpoint_port: u16,
}

/// How often clients asked for a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// They were led to the endpoint.
    pub led: usize,
    /// Nothing leads from the name to an endpoint.
    pub refused: usize,
}

#[derive(Default)]
struct Shared {
    clusters: Mutex<Vec<Arc<Behind>>>,
    asked: Mutex<BTreeMap<String, Asked>>,
}

/// Leads connections until it is dropped.
pub struct Router {
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Router {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("listen on loopback")?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::<Shared>::default();
        let leading = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            // Ends all connections when the task is aborted.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&leading);
                // A client that gives up is not the router's concern.
                connections.spawn(async move { drop(shared.lead(stream).await) });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            url,
            shared,
            server,
        })
    }

    /// What clients take for their proxy.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn add(&self, behind: Behind) {
        locked(&self.shared.clusters).push(Arc::new(behind));
    }

    /// How often a name was asked for.
    pub fn asked(&self, host: &str) -> Asked {
        let asked = locked(&self.shared.asked);
        asked.get(host).copied().unwrap_or_default()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    async fn lead(&self, mut client: TcpStream) -> anyhow::Result<()> {
        let host = asked_for(&mut client).await?;
        let led = self.endpoint(&host).await;
        let count = |count: fn(&mut Asked)| {
            count(locked(&self.asked).entry(host.clone()).or_default());
        };
        match led {
            Ok(mut endpoint) => {
                count(|asked| asked.led += 1);
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                copy_bidirectional(&mut client, &mut endpoint).await?;
            }
            Err(error) => {
                count(|asked| asked.refused += 1);
                let why = format!("{error:#}").replace(['\r', '\n'], " ");
                let answer = format!("HTTP/1.1 503 {why}\r\nContent-Length: 0\r\n\r\n");
                client.write_all(answer.as_bytes()).await?;
            }
        }
        Ok(())
    }

    async fn endpoint(&self, host: &str) -> anyhow::Result<TcpStream> {
        let below = |behind: &&Arc<Behind>| {
            let subdomain = host.strip_suffix(&behind.trust_domain);
            subdomain.is_some_and(|it| it.ends_with('.'))
        };
        let behind = locked(&self.clusters).iter().find(below).cloned();
        let behind = behind.with_context(|| format!("{host} is below no cluster's wildcard"))?;
        behind.is_led_to(host).await?;
        let address = ("127.0.0.1", behind.bundle_endpoint_port);
        TcpStream::connect(address).await.context("nobody listens")
    }
}

impl Behind {
    /// Whether the Route that has the host leads to the bundle endpoint, by its Service, in the server's pod.
    async fn is_led_to(&self, host: &str) -> anyhow::Result<()> {
        let kind = GroupVersionKind::gvk("route.openshift.io", "v1", "Route");
        let routes: Api<DynamicObject> =
            Api::all_with(self.client.clone(), &ApiResource::from_gvk(&kind));
        let routes = routes.list(&ListParams::default()).await?.items;
        // Of two Routes with one host, the older one has it.
        let route = routes
            .into_iter()
            .filter(|route| route.data["spec"]["host"] == host)
            .min_by_key(|route| route.metadata.creation_timestamp.clone())
            .with_context(|| format!("no Route has the host {host}"))?;
        let spec = &route.data["spec"];
        ensure!(
            spec["tls"]["termination"] == "passthrough",
            "the Route of {host} ends TLS itself"
        );
        let namespace = route.metadata.namespace.unwrap_or_default();
        let name = spec["to"]["name"].as_str().unwrap_or_default();
        let services: Api<Service> = Api::namespaced(self.client.clone(), &namespace);
        let service = services.get(name).await?.spec.unwrap_or_default();
        let port = &spec["port"]["targetPort"];
        let mut ports = service.ports.iter().flatten();
        let target = ports
            .find(|it| it.name.as_deref() == port.as_str())
            .and_then(|it| it.target_port.clone());
        ensure!(
            target == Some(IntOrString::Int(i32::from(BUNDLE_ENDPOINT_PORT))),
            "Service {name} leads to port {target:?}"
        );
        let selector = service.selector.unwrap_or_default();
        let labels = selector
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let labels = labels.collect::<Vec<_>>().join(",");
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let pods = pods.list(&ListParams::default().labels(&labels)).await?;
        let ready = |pod: &Pod| {
            let conditions = pod
                .status
                .iter()
                .flat_map(|it| it.conditions.iter().flatten());
            let mut conditions = conditions.filter(|it| it.type_ == "Ready");
            conditions.any(|it| it.status == "True")
        };
        let server = pods.items.iter().any(|pod| {
            namespace == self.namespace && pod.metadata.name.as_deref() == Some(POD) && ready(pod)
        });
        ensure!(server, "Service {name} selects no ready pod of the server");
        Ok(())
    }
}

/// Reads a CONNECT, and returns the host that it names.
async fn asked_for(client: &mut TcpStream) -> anyhow::Result<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        ensure!(request.len() < REQUEST, "the request is too long");
        request.push(client.read_u8().await?);
    }
    let request = String::from_utf8(request).context("the request is no text")?;
    let target = request.strip_prefix("CONNECT ");
    let target = target.and_then(|it| it.split_once(' '));
    let (target, _) = target.context("the request is no CONNECT")?;
    let host = target
        .strip_suffix(":443")
        .context("routers listen on 443")?;
    Ok(host.to_owned())
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
