//! The agent: both loops, the poll of the remote, and the HTTP endpoints, under one supervision.
//!
//! A task that ends unasked ends the agent: it is started again by whoever runs it, and finds
//! everything where it was. Passes are never interrupted in the middle by a stop; a kill may come
//! at any moment.

pub mod config;
mod endpoints;
pub mod http;
mod leadership;
pub mod page;
mod poll;
mod publish;
pub mod reload;
mod signing;
mod synchronise;
pub mod telemetry;
pub mod webhook;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::{
    config::{Config, Page, Webhook},
    leadership::Election,
    poll::poll,
    publish::publish_own,
    synchronise::synchronise,
    telemetry::Metrics,
    webhook::Receiver,
};
use crate::{
    cluster::{
        KubeCluster,
        lease::{Fence, Leadership},
    },
    git::{Heads, Mirror, SigningKey},
    model::declaration::TrustDomainSpec,
    reconcile::sync::PublishReport,
    spire::workload_api,
};

/// Everything that the tasks share.
struct Shared {
    config: Config,
    mirror: Arc<Mirror>,
    /// The cluster, with the agent's own rights.
    cluster: Arc<KubeCluster>,
    /// The cluster, as who applies overlays.
    overlays: Arc<KubeCluster>,
    leadership: watch::Sender<Leadership>,
    fence: Fence,
    key: Option<SigningKey>,
    metrics: Metrics,
    heads: watch::Sender<Option<Heads>>,
    fetch_failure: watch::Sender<Option<String>>,
    own: watch::Sender<Option<TrustDomainSpec>>,
    report: watch::Sender<Option<PublishReport>>,
    view: watch::Sender<Option<workload_api::View>>,
    /// The peers' endpoints that the sync loop wants looked at.
    endpoints_wanted: watch::Sender<endpoints::Wanted>,
    /// What was seen there last.
    endpoints_seen: watch::Sender<endpoints::Seen>,
    not_ready: watch::Sender<Option<String>>,
    /// Told when the remote is to be looked at before its time.
    look_now: Arc<Notify>,
    stop: CancellationToken,
}

/// Why the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Shutdown,
    /// The Secret with its signing key has another key now: it is to be started again.
    NewKey,
}

/// Runs until `shutdown` completes, the Secret with the signing key changes, or a task fails. `name`
/// is what no other agent of the cluster is called.
pub async fn run(
    config: Config,
    name: Option<&str>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<End> {
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {}", config.listen))?;
    let mirror = Mirror::new(config.repository())?;
    let kubernetes = config.kubernetes.clone();
    let cluster = KubeCluster::connect(kubernetes.kubeconfig, kubernetes.context).await?;
    let mut election = Election::new(&config, name, &cluster);
    let cluster = cluster.behind(election.fence.clone());
    let overlays = cluster.impersonating(&kubernetes.sync_service_account)?;
    let candidate = election.candidate();
    let signing::Signer { key, secret } = signing::load(&config, &cluster).await?;
    let shared = Arc::new(Shared {
        mirror: Arc::new(mirror),
        cluster: Arc::new(cluster),
        overlays: Arc::new(overlays),
        leadership: election.leadership,
        fence: election.fence,
        key,
        metrics: Metrics::default(),
        heads: watch::channel(None).0,
        fetch_failure: watch::channel(None).0,
        own: watch::channel(None).0,
        report: watch::channel(None).0,
        view: watch::channel(None).0,
        endpoints_wanted: watch::Sender::default(),
        endpoints_seen: watch::Sender::default(),
        not_ready: watch::channel(Some("the first pass is not done yet".to_owned())).0,
        look_now: Arc::new(Notify::new()),
        stop: CancellationToken::new(),
        config,
    });
    tracing::info!(
        cluster = %shared.config.cluster,
        trust_domain = %shared.config.trust_domain,
        repository = shared.config.git.url,
        listen = %listener.local_addr().context("the address that is listened on")?,
        signer = shared.key.as_ref().map(SigningKey::fingerprint),
        version = env!("CARGO_PKG_VERSION"),
        "the agent starts",
    );

    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let served = http::Served {
        not_ready: shared.not_ready.subscribe(),
        leadership: shared.leadership.subscribe(),
        heads: shared.heads.subscribe(),
        metrics: shared.metrics.clone(),
    };
    tasks.spawn(http::serve(
        listener,
        served,
        shared.stop.clone().cancelled_owned(),
    ));
    tasks.spawn(poll(shared.clone()));
    tasks.spawn(reload::credentials(shared.clone()));
    if let Some(webhook) = &shared.config.webhook {
        tasks.spawn(hear_webhooks(shared.clone(), webhook.clone()));
    }
    if let Some(page) = &shared.config.page {
        tasks.spawn(show_page(shared.clone(), page.clone()));
    }
    tasks.spawn(synchronise(shared.clone()));
    tasks.spawn(publish_own(shared.clone()));
    tasks.spawn(endpoints::look(shared.clone()));
    if let Some(workload) = &shared.config.workload_api {
        let (socket, shared) = (workload.socket.clone(), shared.clone());
        tasks.spawn(async move {
            let stop = shared.stop.clone();
            stop.run_until_cancelled(workload_api::follow(&socket, &shared.view))
                .await;
            Ok(())
        });
    }

    // Apart from the others: the Lease is held until all passes have ended.
    let leave = CancellationToken::new();
    let mut elector = tokio::spawn(leadership::elect(shared.clone(), candidate, leave.clone()));

    tokio::pin!(shutdown);
    let result = tokio::select! {
        () = &mut shutdown => {
            tracing::info!("the agent stops: passes under way are finished first");
            Ok(End::Shutdown)
        }
        () = signing::changed(secret, shared.key.clone()) => Ok(End::NewKey),
        ended = tasks.join_next() => match ended {
            Some(Ok(Ok(()))) | None => Err(anyhow::anyhow!("a task ended unasked")),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(error).context("a task panicked"),
        },
        _ = &mut elector => Err(anyhow::anyhow!("the election ended unasked")),
    };
    shared.stop.cancel();
    while tasks.join_next().await.is_some() {}
    leave.cancel();
    if !elector.is_finished() {
        elector.await.context("the election panicked")??;
    }
    tracing::info!("the agent has stopped");
    result
}

/// Lets webhooks ask for a look at the remote.
async fn hear_webhooks(shared: Arc<Shared>, webhook: Webhook) -> anyhow::Result<()> {
    let address = webhook.listen;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address} for webhooks"))?;
    let receiver = Receiver::new(webhook, shared.look_now.clone(), shared.metrics.clone());
    let stop = shared.stop.clone().cancelled_owned();
    webhook::serve(listener, receiver, stop).await
}

/// Serves the status page: also while another agent leads, as everything on it is read from the cluster.
async fn show_page(shared: Arc<Shared>, page: Page) -> anyhow::Result<()> {
    let address = page.listen;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address} for the status page"))?;
    let stop = shared.stop.clone().cancelled_owned();
    page::serve(listener, shared.cluster.clone(), stop).await
}

/// The one place of the agent that reads the clock.
#[expect(clippy::disallowed_methods, reason = "the shell passes the time in")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// A number that differs between agents and calls; not a secret.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
