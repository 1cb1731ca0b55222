//! Handing peers' bundles to SPIRE: relationships and probes.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::Value;

use super::{CONCURRENCY, Sync, Writes, facts::Live};
use crate::{
    cluster::{Cluster, Conflicts, Mode},
    federation::{
        lifecycle::{Action, Memory, PeerState},
        objects::{self, CONTROL_PROBE, Context},
    },
    git::Repository,
    model::{
        diagnostic::with_causes,
        manifest::{ObjectKey, ObjectRef},
    },
};

impl<R: Repository, C: Cluster> Sync<R, C> {
    /// Applies relationships and probes: a relationship before its probe, as the probe's change
    /// makes SPIRE's controller manager look at once.
    pub(super) async fn deliver(
        &mut self,
        context: &Context,
        states: &mut [PeerState],
        live: &Live,
        now: Timestamp,
        writes: &mut Writes,
    ) {
        let probed = states.iter().any(|state| state.probe.is_some());
        let control = probed.then(|| objects::control_probe(context));
        let standing: BTreeMap<ObjectKey, &Value> = live
            .cftds
            .iter()
            .chain(&live.registrations)
            .filter_map(|object| Some((ObjectRef::of(object)?.key(), object)))
            .collect();
        let (cluster, settled) = (&self.cluster, &self.settled);
        let mut deliveries = Vec::new();
        let of_peers = states.iter().map(|state| {
            let objects = state.cftd.iter().chain(&state.probe).collect::<Vec<_>>();
            (Some(state.peer.clone()), objects)
        });
        let of_all = control.iter().map(|control| (None, vec![control]));
        for (peer, objects) in of_peers.chain(of_all) {
            let standing = &standing;
            deliveries.push(async move {
                let mut applied = Vec::new();
                for object in objects {
                    let Some(reference) = ObjectRef::of(object) else {
                        continue;
                    };
                    let key = reference.key();
                    let live = standing.get(&key);
                    if live.is_some_and(|live| settled.stands(&key, object, live)) {
                        continue;
                    }
                    match cluster.apply(object, Conflicts::Take, Mode::Persist).await {
                        Ok(result) => applied.push((key, object, result)),
                        Err(error) => return (peer, applied, Some(error)),
                    }
                }
                (peer, applied, None)
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
                tracing::info!(object = key.name, kind = key.group_kind, "delivered");
                settling.push((key, object.clone(), result));
            }
            if let Some(error) = error {
                let peer_name = peer.as_ref().map(tracing::field::display);
                tracing::warn!(peer = peer_name, error = %with_causes(&error), "delivery failed");
                writes.failed(&error);
                failed.extend(peer);
            }
        }
        for (key, object, result) in settling {
            self.settled.remember(key, &object, &result, now);
        }
        for state in states.iter_mut().filter(|s| failed.contains(&s.peer)) {
            undo(state, live);
        }
        self.remove_probes(states, control.is_some(), live, writes)
            .await;
        self.remove_relationships(states, live, writes).await;
    }

    /// Deletes relationships that trust nothing any more.
    async fn remove_relationships(
        &mut self,
        states: &mut [PeerState],
        live: &Live,
        writes: &mut Writes,
    ) {
        for state in states {
            let Some(name) = &state.delete else { continue };
            let mut objects = live.cftds.iter();
            let Some(object) = objects.find(|it| it["metadata"]["name"] == name.as_str()) else {
                continue;
            };
            match self.cluster.delete(object).await {
                Ok(()) => {
                    tracing::info!(peer = %state.peer, "the relationship is deleted");
                    writes.made += 1;
                }
                Err(error) => {
                    writes.failed(&error);
                    undo(state, live);
                }
            }
        }
    }

    /// Deletes probes of ours that no peer needs.
    async fn remove_probes(
        &mut self,
        states: &[PeerState],
        controlled: bool,
        live: &Live,
        writes: &mut Writes,
    ) {
        let needed: BTreeSet<&str> = states
            .iter()
            .filter_map(|state| state.probe.as_ref()?["metadata"]["name"].as_str())
            .chain(controlled.then_some(CONTROL_PROBE))
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

/// What was not written is not remembered as delivered; a revocation is remembered all the same.
fn undo(state: &mut PeerState, live: &Live) {
    let former = live.peers.get(&state.peer);
    let former = former.map(|(_, status)| Memory::from(status));
    state.memory = Memory {
        revoked: std::mem::take(&mut state.memory.revoked),
        ..former.unwrap_or_default()
    };
    state.action = Action::Keep;
}
