//! Handing peers' bundles to SPIRE: relationships and probes.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use serde_json::Value;

use super::{
    CONCURRENCY, Sync, Writes,
    facts::{Live, memory},
    with_causes,
};
use crate::{
    cluster::{Cluster, Conflicts, Mode},
    federation::{
        lifecycle::{Delivery, PeerState},
        objects,
    },
    git::Repository,
    model::manifest::{ObjectKey, ObjectRef},
    plan,
};

impl<R: Repository, C: Cluster> Sync<R, C> {
    /// Applies relationships and probes: a relationship before its probe, as the probe's change
    /// makes SPIRE's controller manager look at once.
    pub(super) async fn deliver(
        &mut self,
        states: &mut [PeerState],
        live: &Live,
        writes: &mut Writes,
    ) {
        let standing: BTreeMap<ObjectKey, &Value> = live
            .cftds
            .iter()
            .chain(&live.registrations)
            .filter_map(|object| Some((ObjectRef::of(object)?.key(), object)))
            .collect();
        let (cluster, settled) = (&self.cluster, &self.settled);
        let mut deliveries = Vec::new();
        for state in states.iter() {
            let standing = &standing;
            deliveries.push(async move {
                let mut applied = Vec::new();
                for object in state.cftd.iter().chain(&state.probe) {
                    let Some(reference) = ObjectRef::of(object) else {
                        continue;
                    };
                    let key = reference.key();
                    let in_force = standing.get(&key).is_some_and(|live| {
                        settled.contains(&key, object, live)
                            || plan::ownership::in_force(object, live)
                    });
                    if in_force {
                        continue;
                    }
                    match cluster.apply(object, Conflicts::Take, Mode::Persist).await {
                        Ok(result) => applied.push((key, object, result)),
                        Err(error) => return (state.peer.clone(), applied, Some(error)),
                    }
                }
                (state.peer.clone(), applied, None)
            });
        }
        let results: Vec<_> = stream::iter(deliveries)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut failed = BTreeSet::new();
        let mut settling = Vec::new();
        for (peer, applied, error) in results {
            writes.made += applied.len();
            for (key, object, result) in applied {
                tracing::info!(%peer, object = key.name, kind = key.group_kind, "delivered");
                settling.push((key, object.clone(), result));
            }
            if let Some(error) = error {
                tracing::warn!(%peer, error = %with_causes(&error), "delivery failed");
                writes.failed(&error);
                failed.insert(peer);
            }
        }
        for (key, object, result) in settling {
            self.settled.remember(key, &object, &result);
        }
        for state in states.iter_mut().filter(|s| failed.contains(&s.peer)) {
            // What was not written is not remembered as delivered.
            state.watermark = live
                .peers
                .get(&state.peer)
                .and_then(|(_, s)| memory(s).watermark);
            state.delivery = Delivery::Keep;
        }
        self.remove_probes(states, live, writes).await;
    }

    /// Deletes probes of ours that no peer needs.
    async fn remove_probes(&mut self, states: &[PeerState], live: &Live, writes: &mut Writes) {
        let needed: BTreeSet<&str> = states
            .iter()
            .filter_map(|state| state.probe.as_ref()?["metadata"]["name"].as_str())
            .collect();
        for object in &live.registrations {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            if !objects::is_probe(object) || needed.contains(name) {
                continue;
            }
            match self.cluster.delete(object).await {
                Ok(()) => writes.made += 1,
                Err(error) => writes.failed(&error),
            }
        }
    }
}
