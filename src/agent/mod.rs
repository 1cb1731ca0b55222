//! The agent: both loops, the poll of the remote, and the HTTP endpoints, under one supervision.
//!
//! A task that ends unasked ends the agent: it is started again by whoever runs it, and finds
//! everything where it was. Passes are never interrupted in the middle by a stop; a kill may come
//! at any moment.

pub mod config;
pub mod http;
pub mod reload;
pub mod telemetry;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    config::{Config, PublishBranch},
    telemetry::{Metrics, PassLabels, PeerLabels, PhaseLabels, WriteLabels},
};
use crate::{
    cluster::{
        Cluster, KubeCluster,
        types::{GitSyncStatus, git_sync_reference},
    },
    federation::{lifecycle::Phase, objects::ProbePods},
    git::{self, Heads, Mirror, Published, Repository, Settings, SigningKey},
    model::{
        attestation::Serial,
        declaration::{BundleSource as DeclaredSource, TrustDomainSpec},
    },
    reconcile::{
        publish::{self, Publisher, Target},
        schedule::{Backoff, GATHER, INTERVAL, Trigger, jittered},
        sync::{self, Identity, Inputs, Outcome, PublishReport, Sync},
    },
    spire::{self, BundleSource, Source, workload_api},
};

/// The address of the commits that the agent makes; nobody reads mail there.
const EMAIL_DOMAIN: &str = "trustweave.invalid";

/// Everything that the tasks share.
struct Shared {
    config: Config,
    mirror: Arc<Mirror>,
    cluster: Arc<KubeCluster>,
    key: Option<SigningKey>,
    metrics: Metrics,
    heads: watch::Sender<Option<Heads>>,
    fetch_failure: watch::Sender<Option<String>>,
    own: watch::Sender<Option<TrustDomainSpec>>,
    report: watch::Sender<Option<PublishReport>>,
    view: watch::Sender<Option<workload_api::View>>,
    not_ready: watch::Sender<Option<String>>,
    stop: CancellationToken,
}

/// Runs until `shutdown` completes, or a task fails.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {}", config.listen))?;
    let mirror = Mirror::new(Settings {
        url: config.git.url.clone(),
        branch: config.git.branch.clone(),
        directory: config.git.state_dir.join("mirror.git"),
        auth: config.git.basic_auth.as_ref().map(|auth| git::BasicAuth {
            username: auth.username.clone(),
            token_file: auth.token_file.clone(),
        }),
    })?;
    let kubernetes = config.kubernetes.clone();
    let cluster = KubeCluster::connect(kubernetes.kubeconfig, kubernetes.context).await?;
    let key = match &config.signing {
        None => None,
        Some(signing) => {
            let path = &signing.key_file;
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("read the signing key in `{}`", path.display()))?;
            Some(SigningKey::from_openssh(&text)?)
        }
    };
    let shared = Arc::new(Shared {
        mirror: Arc::new(mirror),
        cluster: Arc::new(cluster),
        key,
        metrics: Metrics::default(),
        heads: watch::channel(None).0,
        fetch_failure: watch::channel(None).0,
        own: watch::channel(None).0,
        report: watch::channel(None).0,
        view: watch::channel(None).0,
        not_ready: watch::channel(Some("the first pass is not done yet".to_owned())).0,
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
        metrics: shared.metrics.clone(),
    };
    tasks.spawn(http::serve(
        listener,
        served,
        shared.stop.clone().cancelled_owned(),
    ));
    tasks.spawn(poll(shared.clone()));
    tasks.spawn(synchronise(shared.clone()));
    tasks.spawn(publish_own(shared.clone()));
    if let Some(workload) = &shared.config.workload_api {
        let (socket, shared) = (workload.socket.clone(), shared.clone());
        tasks.spawn(async move {
            let stop = shared.stop.clone();
            stop.run_until_cancelled(workload_api::follow(&socket, &shared.view))
                .await;
            Ok(())
        });
    }

    tokio::pin!(shutdown);
    let result = tokio::select! {
        () = &mut shutdown => {
            tracing::info!("the agent stops: passes under way are finished first");
            Ok(())
        }
        ended = tasks.join_next() => match ended {
            Some(Ok(Ok(()))) | None => Err(anyhow::anyhow!("a task ended unasked")),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(error).context("a task panicked"),
        },
    };
    shared.stop.cancel();
    while tasks.join_next().await.is_some() {}
    tracing::info!("the agent has stopped");
    result
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

/// Lists the remote's references again and again, and fetches what changed.
async fn poll(shared: Arc<Shared>) -> anyhow::Result<()> {
    let period = Duration::from_millis(shared.config.git.poll_milliseconds.max(100));
    let mut backoff = Backoff::default();
    loop {
        let wait = match shared.mirror.fetch().await {
            Ok(heads) => {
                if shared
                    .fetch_failure
                    .send_if_modified(|failure| failure.take().is_some())
                {
                    tracing::info!("the remote can be read again");
                }
                backoff.reset();
                shared.heads.send_if_modified(|last| {
                    let changed = last.as_ref() != Some(&heads);
                    if changed {
                        tracing::debug!(
                            main = heads.main.as_ref().map(tracing::field::display),
                            publications = heads.publications.len(),
                            "references changed"
                        );
                        *last = Some(heads);
                    }
                    changed
                });
                jittered(period, period / 10, random())
            }
            Err(error) => {
                let text = sync::with_causes(&error);
                // The first failure is told; the ones after it are the same story.
                let news = shared.fetch_failure.send_if_modified(|failure| {
                    failure.is_none() && failure.replace(text.clone()).is_none()
                });
                if news {
                    tracing::warn!(
                        error = text,
                        "the remote can't be read; the last state stays in force"
                    );
                }
                if shared.heads.borrow().is_none() {
                    shared.not_ready.send_replace(Some(text));
                }
                backoff.after_failure(random()).max(period)
            }
        };
        if shared
            .stop
            .run_until_cancelled(tokio::time::sleep(wait))
            .await
            .is_none()
        {
            return Ok(());
        }
    }
}

/// Makes sync passes when something changed.
async fn synchronise(shared: Arc<Shared>) -> anyhow::Result<()> {
    let config = &shared.config;
    let identity = Identity {
        cluster: config.cluster.clone(),
        trust_domain: config.trust_domain.clone(),
        probe: ProbePods {
            namespace: config.probe.namespace.clone(),
            label: (config.probe.label.clone(), config.probe.value.clone()),
        },
        signer: shared.key.as_ref().map(SigningKey::public_key),
    };
    let mut sync = Sync::new(shared.mirror.clone(), shared.cluster.clone(), identity);
    let mut heads = shared.heads.subscribe();
    let mut view = shared.view.subscribe();
    let mut report = shared.report.subscribe();
    let mut fetch_failure = shared.fetch_failure.subscribe();
    let mut backoff = Backoff::default();
    let mut retry: Option<Duration> = None;
    let mut first = true;
    loop {
        let quiet = retry.unwrap_or_else(|| jittered(INTERVAL, INTERVAL / 10, random()));
        let trigger = tokio::select! {
            () = shared.stop.cancelled() => return Ok(()),
            Ok(()) = heads.changed() => if first { Trigger::Start } else { Trigger::Git },
            () = shared.cluster.changed(), if !first => Trigger::Cluster,
            Ok(()) = view.changed(), if !first => Trigger::Workload,
            Ok(()) = report.changed(), if !first => Trigger::OtherLoop,
            Ok(()) = fetch_failure.changed(), if !first => Trigger::Git,
            () = tokio::time::sleep(quiet), if !first => match retry {
                Some(_) => Trigger::Retry,
                None => Trigger::Interval,
            },
        };
        let Some(current) = heads.borrow_and_update().clone() else {
            continue;
        };
        if trigger != Trigger::Start {
            tokio::time::sleep(GATHER).await;
        }
        first = false;
        let observed = view.borrow_and_update().clone();
        let published = report.borrow_and_update().clone();
        let unreadable = fetch_failure.borrow_and_update().clone();
        let begun = Instant::now();
        let pass = sync.pass(Inputs {
            heads: &current,
            fetch_failure: unreadable.as_deref(),
            observed: observed.as_ref(),
            publish: published.as_ref(),
            now: now(),
        });
        // On the heap: it holds a request for each object under way.
        let outcome = Box::pin(pass).await;
        let own = sync.own_declaration().cloned();
        shared.own.send_if_modified(|last| {
            let changed = *last != own;
            *last = own;
            changed
        });
        let took = begun.elapsed();
        retry =
            finish_pass(&shared, trigger, &outcome, took).then(|| backoff.after_failure(random()));
        if retry.is_none() {
            backoff.reset();
        }
    }
}

/// Logs and counts a pass; whether it should be made again soon.
fn finish_pass(
    shared: &Shared,
    trigger: Trigger,
    outcome: &Result<Outcome, sync::Error>,
    took: Duration,
) -> bool {
    let metrics = &shared.metrics;
    metrics.sync_duration.observe(took.as_secs_f64());
    let labels = |result| PassLabels {
        r#loop: "sync",
        result,
    };
    match outcome {
        Ok(outcome) => {
            let clean = outcome.failures.is_empty();
            let result = if clean { "success" } else { "failure" };
            metrics.passes.get_or_create(&labels(result)).inc();
            let failures = outcome.failures.len() as u64;
            for (result, count) in [("success", outcome.writes as u64), ("failure", failures)] {
                metrics
                    .writes
                    .get_or_create(&WriteLabels { result })
                    .inc_by(count);
            }
            record_peers(metrics, outcome);
            let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let (revision, writes) = (outcome.revision.short(), outcome.writes);
            let (failures, diagnostics) = (outcome.failures.len(), outcome.diagnostics.len());
            if writes > 0 || failures > 0 {
                tracing::info!(%trigger, revision, writes, failures, diagnostics, milliseconds, "pass");
            } else {
                tracing::debug!(%trigger, revision, diagnostics, milliseconds, "pass: nothing to do");
            }
            shared.not_ready.send_replace(None);
            !clean
        }
        Err(error) => {
            metrics.passes.get_or_create(&labels("failure")).inc();
            let text = sync::with_causes(error);
            tracing::warn!(%trigger, error = text, "no pass; the last state stays in force");
            shared.not_ready.send_if_modified(|reason| {
                let waiting = reason.is_some();
                if waiting {
                    *reason = Some(text);
                }
                waiting
            });
            true
        }
    }
}

fn record_peers(metrics: &Metrics, outcome: &Outcome) {
    metrics.peer_phase.clear();
    for state in &outcome.peers {
        let trust_domain = state.peer.to_string();
        for phase in [
            Phase::Pending,
            Phase::Seeding,
            Phase::Federated,
            Phase::Draining,
        ] {
            let labels = PhaseLabels {
                trust_domain: trust_domain.clone(),
                phase: phase.as_str(),
            };
            let here = i64::from(phase == state.phase);
            metrics.peer_phase.get_or_create(&labels).set(here);
        }
        let labels = PeerLabels { trust_domain };
        if let Some(watermark) = &state.watermark {
            let serial = i64::try_from(watermark.serial.0).unwrap_or(i64::MAX);
            metrics.peer_serial.get_or_create(&labels).set(serial);
        }
        if let Some(expires) = state.expires {
            let seconds = expires.as_duration().as_secs_f64();
            metrics.peer_expiry.get_or_create(&labels).set(seconds);
        }
    }
}

/// Where the own bundle is read, as declared.
fn source(cluster: &KubeCluster, declaration: &TrustDomainSpec) -> Source {
    let (client, namespace) = (cluster.client(), &declaration.spire.namespace);
    match &declaration.spire.bundle_source {
        DeclaredSource::ConfigMap(source) => {
            Source::ConfigMap(spire::configmap::ConfigMap::new(client, namespace, source))
        }
        DeclaredSource::Exec(source) => {
            Source::Exec(spire::exec::Exec::new(client, namespace, source))
        }
    }
}

/// Publishes the own bundle when it, or what stands in git, changed.
async fn publish_own(shared: Arc<Shared>) -> anyhow::Result<()> {
    let stop = shared.stop.clone();
    let Some(key) = shared.key.clone() else {
        shared.report.send_replace(Some(PublishReport {
            published: None,
            failure: Some("the agent has no signing key: it does not publish".to_owned()),
        }));
        stop.cancelled().await;
        return Ok(());
    };
    let config = &shared.config;
    let target = match config.publish.branch {
        PublishBranch::Own => Target::own_branch(&config.trust_domain),
        PublishBranch::Main => Target::directory_on(&config.git.branch, &config.trust_domain),
    };
    let mut publisher: Option<Publisher> = None;
    let mut open: Option<(TrustDomainSpec, Source)> = None;
    let mut own = shared.own.subscribe();
    let mut heads = shared.heads.subscribe();
    let mut standing = None;
    let mut backoff = Backoff::default();
    let mut retry: Option<Duration> = None;
    let mut last = Serial(0);
    let mut trigger = Trigger::Start;
    loop {
        let declared = own.borrow_and_update().clone();
        if open.as_ref().map(|(declaration, _)| declaration) != declared.as_ref() {
            open = declared.map(|declaration| {
                let source = source(&shared.cluster, &declaration);
                (declaration, source)
            });
        }
        if let Some((declaration, source)) = &open {
            let pass = async {
                if publisher.is_none() {
                    publisher = Some(Publisher {
                        cluster: config.cluster.clone(),
                        cluster_uid: shared.cluster.uid().await?,
                        trust_domain: config.trust_domain.clone(),
                        target: target.clone(),
                        email_domain: EMAIL_DOMAIN,
                    });
                }
                last = last.max(remembered_serial(&shared, declaration).await?);
                let Some(publisher) = &publisher else {
                    anyhow::bail!("the cluster has no UID");
                };
                let outcome = publish::pass(
                    &*shared.mirror,
                    source,
                    publisher,
                    &key,
                    declaration,
                    last,
                    now(),
                )
                .await?;
                Ok(outcome)
            };
            retry = finish_publish(&shared, trigger, pass.await, &mut last)
                .then(|| backoff.after_failure(random()));
            if retry.is_none() {
                backoff.reset();
            }
        }
        let quiet = retry.unwrap_or_else(|| jittered(INTERVAL, INTERVAL / 10, random()));
        trigger = loop {
            let changed = async {
                match &open {
                    Some((_, source)) => source.changed().await,
                    None => std::future::pending().await,
                }
            };
            break tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = changed => Trigger::Bundle,
                Ok(()) = own.changed() => Trigger::OtherLoop,
                Ok(()) = heads.changed() => {
                    let tip = heads.borrow_and_update().as_ref().and_then(|heads| {
                        heads.publications.get(&config.trust_domain).cloned()
                    });
                    // Only what stands where we publish is our business.
                    if std::mem::replace(&mut standing, tip.clone()) == tip {
                        continue;
                    }
                    Trigger::Git
                }
                () = tokio::time::sleep(quiet) => match retry {
                    Some(_) => Trigger::Retry,
                    None => Trigger::Interval,
                },
            };
        };
    }
}

/// The serial that the cluster remembers to have published in this epoch.
async fn remembered_serial(
    shared: &Shared,
    declaration: &TrustDomainSpec,
) -> anyhow::Result<Serial> {
    let found = shared.cluster.get(&git_sync_reference()).await?;
    let status = found
        .as_ref()
        .and_then(|found| found.get("status"))
        .cloned();
    let status: GitSyncStatus =
        serde_json::from_value(status.unwrap_or_default()).unwrap_or_default();
    Ok(status
        .published
        .filter(|published| published.epoch == declaration.epoch)
        .map_or(Serial(0), |published| Serial(published.serial)))
}

/// Logs, counts and reports a pass; whether it should be made again soon.
fn finish_publish(
    shared: &Shared,
    trigger: Trigger,
    outcome: anyhow::Result<publish::Outcome>,
    last: &mut Serial,
) -> bool {
    let metrics = &shared.metrics;
    let labels = |result| PassLabels {
        r#loop: "publish",
        result,
    };
    let failed = outcome.is_err();
    let report = match outcome {
        Ok(outcome) => {
            metrics.passes.get_or_create(&labels("success")).inc();
            let standing = outcome.standing;
            *last = (*last).max(Serial(standing.serial));
            let serial = i64::try_from(standing.serial).unwrap_or(i64::MAX);
            metrics.published_serial.set(serial);
            if let Published::Committed { revision, attempts } = outcome.published {
                metrics.publications.inc();
                tracing::info!(%trigger, %revision, attempts, serial, branch = standing.branch, "published the own bundle");
            }
            PublishReport {
                published: Some(standing),
                failure: None,
            }
        }
        Err(error) => {
            metrics.passes.get_or_create(&labels("failure")).inc();
            let text = format!("{error:#}");
            let published = shared.report.borrow().clone().and_then(|r| r.published);
            let known = shared
                .report
                .borrow()
                .as_ref()
                .and_then(|r| r.failure.clone());
            if known.as_ref() != Some(&text) {
                tracing::warn!(%trigger, error = text, "the own bundle is not published");
            }
            PublishReport {
                published,
                failure: Some(text),
            }
        }
    };
    shared.report.send_if_modified(|before| {
        let changed = before.as_ref() != Some(&report);
        *before = Some(report);
        changed
    });
    failed
}
