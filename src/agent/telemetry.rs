//! Logs and metrics.

use std::sync::{Arc, atomic::AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry, Unit},
};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging to standard error. `filter` is a list of directives such as
/// `info,trustweave=debug`; one that can't be parsed is replaced by `info`.
pub fn init_logs(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // A second start (in tests) keeps the first one's logs.
    let started = match format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
}

/// Labels of a pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PassLabels {
    /// `sync` or `publish`.
    pub r#loop: &'static str,
    /// `success` or `failure`.
    pub result: &'static str,
}

/// Labels of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PeerLabels {
    /// The peer's trust domain.
    pub trust_domain: String,
}

/// Labels of a peer's phase.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PhaseLabels {
    /// The peer's trust domain.
    pub trust_domain: String,
    /// The phase, as `status.phase` of the `TrustPeer` has it.
    pub phase: &'static str,
}

/// Labels of a peer whose publication is not delivered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RejectionLabels {
    /// The peer's trust domain.
    pub trust_domain: String,
    /// Why, as the reason of the condition `BundleAccepted` has it.
    pub reason: &'static str,
}

/// Labels of a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabels {
    /// `success` or `failure`.
    pub result: &'static str,
}

/// Labels of a call of the webhook.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WebhookLabels {
    /// Who called, as far as that was proven.
    pub provider: &'static str,
    /// `heard`, or why not.
    pub result: &'static str,
}

/// Every metric of the agent, and their registry.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// 1 while this agent writes: while it holds the Lease, if there is leader election.
    pub leader: Gauge,
    /// 1 while the remote repository can be read.
    pub repository_readable: Gauge,
    /// Calls of the webhook, by provider and result.
    pub webhooks: Family<WebhookLabels, Counter>,
    /// Passes, by loop and result.
    pub passes: Family<PassLabels, Counter>,
    /// How long a sync pass took, in seconds.
    pub sync_duration: Histogram,
    /// Writes to the cluster, by result; reports are not counted.
    pub writes: Family<WriteLabels, Counter>,
    /// What becomes of the overlay's objects.
    pub objects: ObjectMetrics,
    /// Commits published.
    pub publications: Counter,
    /// The serial published last.
    pub published_serial: Gauge,
    /// 1 for the phase that a peer is in.
    pub peer_phase: Family<PhaseLabels, Gauge>,
    /// The serial delivered last, by peer.
    pub peer_serial: Family<PeerLabels, Gauge>,
    /// When the first of a peer's roots ends, in seconds since 1970.
    pub peer_expiry: Family<PeerLabels, Gauge<f64, AtomicU64>>,
    /// When the last of a peer's roots ends, in seconds since 1970.
    pub peer_last_expiry: Family<PeerLabels, Gauge<f64, AtomicU64>>,
    /// The shortest life of a peer's roots, in seconds: what delays have to be measured by.
    pub peer_life: Family<PeerLabels, Gauge<f64, AtomicU64>>,
    /// When what a peer publishes was signed, in seconds since 1970.
    pub peer_issued: Family<PeerLabels, Gauge<f64, AtomicU64>>,
    /// How long a peer's last bundle took from its signature to its delivery, in seconds.
    pub peer_lag: Family<PeerLabels, Gauge<f64, AtomicU64>>,
    /// 1 while a workload was seen to hold exactly a peer's delivered roots; 0 if others.
    pub peer_confirmed: Family<PeerLabels, Gauge>,
    /// 1 while what a peer publishes is not delivered.
    pub peer_rejected: Family<RejectionLabels, Gauge>,
    /// How many registrations are applied without a peer that they want.
    pub peer_held_back: Family<PeerLabels, Gauge>,
    /// How many of a peer's keys are revoked here.
    pub peer_revoked: Family<PeerLabels, Gauge>,
}

/// What becomes of the overlay's objects after they were applied.
#[derive(Clone)]
pub struct ObjectMetrics {
    /// Writes that put back what somebody had changed in the cluster.
    pub drift_corrections: Counter,
    /// Objects that somebody changes again and again.
    pub contested: Gauge,
    /// Objects that have failed, by the rules of kstatus.
    pub failed: Gauge,
}

impl ObjectMetrics {
    fn new(registry: &mut Registry) -> Self {
        Self {
            drift_corrections: registered(
                registry,
                "drift_corrections",
                "Writes that put back what somebody had changed in the cluster",
            ),
            contested: registered(
                registry,
                "contested_objects",
                "Objects that somebody changes again and again",
            ),
            failed: registered(
                registry,
                "failed_objects",
                "Objects of the overlay that have failed",
            ),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("trustweave");
        let leader = registered(&mut registry, "leader", "1 while this agent writes");
        let repository_readable = registered(
            &mut registry,
            "repository_readable",
            "1 while the remote repository can be read",
        );
        let webhooks = registered(&mut registry, "webhooks", "Calls of the webhook");
        let passes = registered(&mut registry, "passes", "Passes of the agent's loops");
        let sync_duration = Histogram::new([0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
        registry.register_with_unit(
            "sync_duration",
            "How long a sync pass took",
            Unit::Seconds,
            sync_duration.clone(),
        );
        let writes = registered(&mut registry, "writes", "Writes to the cluster");
        let objects = ObjectMetrics::new(&mut registry);
        let publications = registered(&mut registry, "publications", "Bundles committed");
        let published_serial = registered(
            &mut registry,
            "published_serial",
            "The serial published last",
        );
        let peer_phase = registered(
            &mut registry,
            "peer_phase",
            "1 for the phase that a peer is in",
        );
        let peer_serial = registered(&mut registry, "peer_serial", "The serial delivered last");
        let peer_expiry = registered(
            &mut registry,
            "peer_expiry_timestamp_seconds",
            "When the first of a peer's roots ends",
        );
        let peer_last_expiry = registered(
            &mut registry,
            "peer_last_expiry_timestamp_seconds",
            "When the last of a peer's roots ends",
        );
        let peer_life = registered(
            &mut registry,
            "peer_root_life_seconds",
            "The shortest life of a peer's roots",
        );
        let peer_issued = registered(
            &mut registry,
            "peer_issued_timestamp_seconds",
            "When what a peer publishes was signed",
        );
        let peer_lag = registered(
            &mut registry,
            "peer_delivery_lag_seconds",
            "How long a peer's last bundle took from its signature to its delivery",
        );
        let peer_confirmed = registered(
            &mut registry,
            "peer_confirmed",
            "Whether a workload was seen to hold exactly the peer's delivered roots",
        );
        let peer_rejected = registered(
            &mut registry,
            "peer_rejected",
            "1 while what a peer publishes is not delivered",
        );
        let peer_held_back = registered(
            &mut registry,
            "peer_held_back_registrations",
            "Registrations that are applied without a peer that they want",
        );
        let peer_revoked = registered(
            &mut registry,
            "peer_revoked_keys",
            "Keys of a peer that are revoked here",
        );
        Self {
            registry: Arc::new(registry),
            leader,
            repository_readable,
            webhooks,
            passes,
            sync_duration,
            writes,
            objects,
            publications,
            published_serial,
            peer_phase,
            peer_serial,
            peer_expiry,
            peer_last_expiry,
            peer_life,
            peer_issued,
            peer_lag,
            peer_confirmed,
            peer_rejected,
            peer_held_back,
            peer_revoked,
        }
    }
}

/// A metric that was registered under a name.
fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

impl Metrics {
    /// Forgets what was told of peers: one that is gone must not be told of for ever.
    pub fn clear_peers(&self) {
        self.peer_phase.clear();
        self.peer_rejected.clear();
        for family in [
            &self.peer_serial,
            &self.peer_confirmed,
            &self.peer_held_back,
            &self.peer_revoked,
        ] {
            family.clear();
        }
        for family in [
            &self.peer_expiry,
            &self.peer_last_expiry,
            &self.peer_life,
            &self.peer_issued,
            &self.peer_lag,
        ] {
            family.clear();
        }
    }

    /// The text exposition (`OpenMetrics` 1.0).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "encode metrics");
        }
        text
    }
}
