//! Every metric of the agent, as a scrape shows it.

use std::collections::{BTreeMap, BTreeSet};

use trustweave::{
    agent::telemetry::{
        Metrics, PassLabels, PeerLabels, PhaseLabels, RejectionLabels, WebhookLabels, WriteLabels,
    },
    federation::lifecycle::Phase,
};

/// A scrape in which every metric has a sample.
pub(crate) fn scrape() -> String {
    let metrics = Metrics::default();
    let trust_domain = || "a.test".to_owned();
    for (r#loop, result) in [("sync", "success"), ("publish", "failure")] {
        metrics
            .passes
            .get_or_create(&PassLabels { r#loop, result })
            .inc();
        metrics.writes.get_or_create(&WriteLabels { result }).inc();
    }
    let webhook = WebhookLabels {
        provider: "github",
        result: "heard",
    };
    metrics.webhooks.get_or_create(&webhook).inc();
    metrics.sync_duration.observe(0.1);
    let phase = PhaseLabels {
        trust_domain: trust_domain(),
        phase: Phase::Federated.as_str(),
    };
    metrics.peer_phase.get_or_create(&phase).set(1);
    let rejection = RejectionLabels {
        trust_domain: trust_domain(),
        reason: "Rollback",
    };
    metrics.peer_rejected.get_or_create(&rejection).set(1);
    let peer = PeerLabels {
        trust_domain: trust_domain(),
    };
    for family in [
        &metrics.peer_serial,
        &metrics.peer_confirmed,
        &metrics.peer_held_back,
        &metrics.peer_revoked,
    ] {
        family.get_or_create(&peer).set(1);
    }
    for family in [
        &metrics.peer_expiry,
        &metrics.peer_last_expiry,
        &metrics.peer_life,
        &metrics.peer_issued,
        &metrics.peer_lag,
    ] {
        family.get_or_create(&peer).set(1.0);
    }
    metrics.encode()
}

/// Every metric, with the labels that its samples have.
pub(crate) fn labels() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    let scrape = scrape();
    for line in scrape.lines().filter(|it| !it.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let labels = found.entry(name.to_owned()).or_default();
        if let Some((inside, _)) = rest.strip_prefix('{').and_then(|it| it.split_once('}')) {
            let pairs = inside.split(',').filter_map(|pair| pair.split_once('='));
            labels.extend(pairs.map(|(label, _)| label.to_owned()));
        }
    }
    found
}
