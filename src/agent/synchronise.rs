//! The loop from git to the cluster: when passes are made, and what is told of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    leadership::terms,
    now, random,
    telemetry::{Metrics, PassLabels, PeerLabels, PhaseLabels, RejectionLabels, WriteLabels},
};
use crate::{
    cluster::Cluster,
    federation::{lifecycle::Phase, objects::ProbePods},
    git::SigningKey,
    model::{bundle::Bundle, diagnostic::with_causes},
    reconcile::{
        schedule::{Backoff, GATHER, INTERVAL, Trigger, jittered},
        sync::{self, Identity, Inputs, Outcome, Sync},
    },
};

/// Makes sync passes when something changed, as long as this agent leads.
pub(super) async fn synchronise(shared: Arc<Shared>) -> anyhow::Result<()> {
    terms(&shared, |shared, over| async move {
        lead(&shared, &over).await;
        for cluster in [&shared.cluster, &shared.overlays] {
            cluster.watch(&BTreeSet::new());
        }
        shared.endpoints_wanted.send_replace(BTreeMap::new());
        // What another agent does from now on is not known here.
        shared.own.send_replace(None);
        shared.metrics.clear_peers();
        Ok(())
    })
    .await
}

/// Makes passes until the term is over.
async fn lead(shared: &Arc<Shared>, over: &CancellationToken) {
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
    let mut sync = Sync::new(
        shared.mirror.clone(),
        shared.cluster.clone(),
        shared.overlays.clone(),
        identity,
        config.applying,
    );
    let mut heads = shared.heads.subscribe();
    // Who stood by knows them already.
    heads.mark_changed();
    let mut view = shared.view.subscribe();
    let mut report = shared.report.subscribe();
    let mut fetch_failure = shared.fetch_failure.subscribe();
    let mut endpoints = shared.endpoints_seen.subscribe();
    let mut backoff = Backoff::default();
    let mut retry: Option<Duration> = None;
    let mut first = true;
    let mut wake = None;
    loop {
        let quiet = retry.unwrap_or_else(|| jittered(INTERVAL, INTERVAL / 10, random()));
        let quiet = wake.map_or(quiet, |at| quiet.min(until(at)));
        let trigger = tokio::select! {
            () = over.cancelled() => return,
            Ok(()) = heads.changed() => if first { Trigger::Start } else { Trigger::Git },
            () = shared.cluster.changed(), if !first => Trigger::Cluster,
            () = shared.overlays.changed(), if !first => Trigger::Cluster,
            Ok(()) = view.changed(), if !first => Trigger::Workload,
            Ok(()) = endpoints.changed(), if !first => Trigger::Endpoint,
            Ok(()) = report.changed(), if !first => Trigger::OtherLoop,
            Ok(()) = fetch_failure.changed(), if !first => Trigger::Git,
            () = tokio::time::sleep(quiet), if !first => match retry {
                Some(_) => Trigger::Retry,
                None if wake.is_some() => Trigger::Due,
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
        let seen = endpoints.borrow_and_update().clone();
        let begun = Instant::now();
        let pass = sync.pass(Inputs {
            heads: &current,
            fetch_failure: unreadable.as_deref(),
            observed: observed.as_ref(),
            endpoints: &seen,
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
        wake = outcome.as_ref().ok().and_then(|outcome| outcome.wake);
        if let Ok(outcome) = &outcome {
            shared.endpoints_wanted.send_if_modified(|wanted| {
                std::mem::replace(wanted, outcome.looks.clone()) != outcome.looks
            });
        }
        retry =
            finish_pass(shared, trigger, &outcome, took).then(|| backoff.after_failure(random()));
        if retry.is_none() {
            backoff.reset();
        }
    }
}

/// How long it is until a moment; a little more, so that it is certainly over then.
fn until(at: Timestamp) -> Duration {
    let left = Duration::try_from(at.duration_since(now())).unwrap_or_default();
    left + Duration::from_millis(10)
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
            let corrections = u64::try_from(outcome.corrections).unwrap_or(u64::MAX);
            metrics.objects.drift_corrections.inc_by(corrections);
            let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            metrics
                .objects
                .contested
                .set(gauge(outcome.contested as u64));
            metrics.objects.failed.set(gauge(outcome.failed_objects));
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
            let text = with_causes(error);
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
    metrics.clear_peers();
    for state in &outcome.peers {
        let trust_domain = state.peer.to_string();
        for phase in Phase::ALL {
            let labels = PhaseLabels {
                trust_domain: trust_domain.clone(),
                phase: phase.as_str(),
            };
            let here = i64::from(phase == state.phase);
            metrics.peer_phase.get_or_create(&labels).set(here);
        }
        if let Some(reason) = state.judgement.reason() {
            let labels = RejectionLabels {
                trust_domain: trust_domain.clone(),
                reason,
            };
            metrics.peer_rejected.get_or_create(&labels).set(1);
        }
        let labels = PeerLabels { trust_domain };
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let held_back = outcome.held_back.get(&state.peer).copied();
        for (family, value) in [
            (
                &metrics.peer_serial,
                state
                    .watermark()
                    .map(|it| i64::try_from(it.serial.0).unwrap_or(i64::MAX)),
            ),
            (&metrics.peer_confirmed, state.confirmed.map(i64::from)),
            (&metrics.peer_held_back, held_back.map(count)),
            (
                &metrics.peer_revoked,
                Some(count(state.memory.revoked.len())),
            ),
        ] {
            if let Some(value) = value {
                family.get_or_create(&labels).set(value);
            }
        }
        let seconds = |at: Timestamp| at.as_duration().as_secs_f64();
        for (family, value) in [
            (&metrics.peer_expiry, state.expires().map(seconds)),
            (
                &metrics.peer_last_expiry,
                state
                    .bundle
                    .as_ref()
                    .and_then(Bundle::latest_expiry)
                    .map(seconds),
            ),
            (
                &metrics.peer_life,
                state
                    .bundle
                    .as_ref()
                    .and_then(Bundle::shortest_life)
                    .map(|life| life.as_secs_f64()),
            ),
            (&metrics.peer_issued, state.issued.map(seconds)),
            (
                &metrics.peer_lag,
                state.memory.lag.map(|lag| lag.as_secs_f64()),
            ),
        ] {
            if let Some(value) = value {
                family.get_or_create(&labels).set(value);
            }
        }
    }
}
