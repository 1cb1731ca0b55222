//! The overlay's objects in the cluster: intent first, then what others stand on, the rest, deletions.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::{
    CONCURRENCY, Error, Sync, Writes,
    facts::{Live, is_member},
};
use crate::{
    cluster::{self, Cluster, Conflicts, Mode, inventory, types},
    federation::{lifecycle::PeerState, resolve::Standing},
    git::Repository,
    model::{
        diagnostic::with_causes,
        manifest::{Gvk, Manifest, ObjectKey, ObjectRef},
    },
    plan::{self, Action, Step, mask, order, ownership},
};

impl<R: Repository, C: Cluster> Sync<R, C> {
    /// The overlay's objects as members of our set, in their namespaces.
    pub(super) async fn members(
        &self,
        manifests: Vec<Manifest>,
        writes: &mut Writes,
    ) -> Vec<Manifest> {
        let mut members = Vec::new();
        for manifest in manifests {
            let Manifest {
                mut object,
                origin,
                reference,
            } = manifest;
            match self.overlays.locate(&mut object).await {
                // An unknown kind's definition may be among the objects that are applied first.
                Ok(()) | Err(cluster::Error::UnknownKind(_)) => {}
                Err(error) => {
                    writes.failed(&error);
                    continue;
                }
            }
            inventory::enrol(&mut object);
            members.push(Manifest {
                reference: ObjectRef::of(&object).unwrap_or(reference),
                object,
                origin,
            });
        }
        members
    }

    /// Applies the overlay: intent, foundations, the rest, then deletions.
    pub(super) async fn apply_overlay(
        &mut self,
        manifests: &[Manifest],
        live: &Live,
        complete: bool,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        let failures = writes.failures.len();
        let mut kinds: BTreeMap<String, Gvk> = manifests
            .iter()
            .map(|m| (m.reference.gvk.group_kind(), m.reference.gvk.clone()))
            .collect();
        let declared: BTreeSet<String> = kinds.keys().cloned().collect();
        let parent = live.git_sync.as_ref();
        let recorded = parent.map(inventory::group_kinds).unwrap_or_default();
        for former in recorded.difference(&declared) {
            match self.overlays.preferred(former).await {
                Ok(Some(gvk)) => drop(kinds.insert(former.clone(), gvk)),
                Ok(None) => {}
                Err(error) => writes.failed(&error),
            }
        }
        let namespaces: BTreeSet<String> = manifests
            .iter()
            .filter_map(|m| m.reference.namespace.clone())
            .collect();
        // Before anything is applied or deleted, the record covers what was and what will be.
        let all_kinds: BTreeSet<String> = kinds.keys().cloned().collect();
        let mut all_namespaces = parent.map(inventory::namespaces).unwrap_or_default();
        all_namespaces.extend(namespaces.iter().cloned());
        self.record_intent(&all_kinds, &all_namespaces, parent)
            .await?;

        let found = self.members_in(kinds.values(), writes).await;
        let plan = plan::plan(manifests, &found, &self.settled, complete);
        for (reference, why) in &plan.kept {
            writes.kept.push(format!("{reference}: {why}"));
        }
        let (deletions, applies): (Vec<_>, Vec<_>) = plan
            .steps
            .into_iter()
            .partition(|step| step.action == Action::Delete);
        let (foundations, rest): (Vec<_>, Vec<_>) = applies
            .into_iter()
            .partition(|step| order::is_foundation(&step.reference.gvk));
        let definitions: Vec<Value> = foundations
            .iter()
            .filter(|step| step.reference.gvk.kind == "CustomResourceDefinition")
            .filter_map(|step| step.desired.clone())
            .collect();
        self.apply_all(foundations, writes).await;
        for definition in &definitions {
            if let Err(error) = self.overlays.established(definition).await {
                writes.failed(&error);
            }
        }
        self.apply_all(rest, writes).await;
        if writes.failures.len() > failures {
            // What replaces the former objects is not there yet: they stay until it is.
            return Ok(());
        }
        for step in deletions {
            self.delete(step, writes).await;
        }
        // What was kept is still ours, so its kind stays on record.
        let over = writes.failures.len() == failures && complete && writes.kept.is_empty();
        if over && (&declared, &namespaces) != (&all_kinds, &all_namespaces) {
            self.record_intent(&declared, &namespaces, parent).await?;
        }
        Ok(())
    }

    /// Takes peers that leave, and those whose bundle SPIRE lost, out of registrations of ours that
    /// the overlay does not say anything about at the moment: a broken file must neither keep
    /// withdrawn trust alive nor new pods without an identity.
    pub(super) async fn detach(
        &mut self,
        states: &[PeerState],
        manifests: &[Manifest],
        live: &Live,
        writes: &mut Writes,
    ) {
        let unready = states
            .iter()
            .filter(|state| state.standing != Standing::Ready);
        let unready: BTreeSet<&str> = unready.map(|state| state.peer.as_str()).collect();
        let declared: BTreeSet<ObjectKey> = manifests.iter().map(|it| it.reference.key()).collect();
        let mut steps = Vec::new();
        for object in live.registrations.iter().filter(|it| is_member(it)) {
            let Some(reference) = ObjectRef::of(object) else {
                continue;
            };
            let names = object["spec"]["federatesWith"].as_array();
            let leaves = |name: &Value| name.as_str().is_some_and(|it| unready.contains(it));
            if declared.contains(&reference.key()) || !names.is_some_and(|it| it.iter().any(leaves))
            {
                continue;
            }
            let metadata = &object["metadata"];
            let mut desired = json!({
                "apiVersion": object["apiVersion"], "kind": object["kind"],
                "metadata": {
                    "name": metadata["name"],
                    "labels": metadata["labels"],
                    "annotations": metadata.get("annotations").cloned().unwrap_or(json!({})),
                },
                "spec": object["spec"],
            });
            if let Some(names) = desired["spec"]["federatesWith"].as_array_mut() {
                names.retain(|name| !leaves(name));
            }
            steps.push(Step {
                action: Action::Update,
                reference,
                desired: Some(desired),
                live: Some(object.clone()),
            });
        }
        self.apply_all(steps, writes).await;
    }

    /// Writes the parent of our set, unless it says so already.
    async fn record_intent(
        &mut self,
        kinds: &BTreeSet<String>,
        namespaces: &BTreeSet<String>,
        live: Option<&Value>,
    ) -> Result<(), Error> {
        let parent = inventory::parent(kinds, namespaces);
        let key = types::git_sync_reference().key();
        if !live.is_some_and(|live| self.settled.stands(&key, &parent, live)) {
            let applied = self
                .cluster
                .apply(&parent, Conflicts::Take, Mode::Persist)
                .await?;
            self.settled.remember(key, &parent, &applied);
        }
        Ok(())
    }

    /// All live objects of our set. A kind that can't be listed stops no other one.
    async fn members_in(
        &self,
        kinds: impl Iterator<Item = &Gvk>,
        writes: &mut Writes,
    ) -> BTreeMap<ObjectKey, Value> {
        let id = inventory::id();
        let (cluster, id) = (&self.overlays, &id);
        let mut lists = Vec::new();
        for gvk in kinds {
            lists.push(async move {
                match cluster.list(gvk, Some((inventory::PART_OF, id))).await {
                    // Its definition is not applied yet, or was deleted with all that it had.
                    Err(cluster::Error::UnknownKind(_)) => Ok(Vec::new()),
                    result => result,
                }
            });
        }
        let lists: Vec<_> = stream::iter(lists)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut found = BTreeMap::new();
        for list in lists {
            match list {
                Ok(objects) => found.extend(objects.into_iter().filter_map(|object| {
                    let key = ObjectRef::of(&object)?.key();
                    Some((key, object))
                })),
                Err(error) => writes.failed(&error),
            }
        }
        found
    }

    /// Applies all steps at once. One that fails does not stop the others.
    async fn apply_all(&mut self, steps: Vec<Step>, writes: &mut Writes) {
        let cluster = &self.overlays;
        let applies = steps.into_iter().map(|step| async move {
            let Some(mut desired) = step.desired else {
                return (
                    step.reference,
                    Value::Null,
                    Err(cluster::Error::NotAnObject),
                );
            };
            // Its kind may be known only now.
            let result = match cluster.locate(&mut desired).await {
                Ok(()) => apply_and_take_over(&**cluster, &desired).await,
                Err(error) => Err(error),
            };
            (step.reference, desired, result)
        });
        let results: Vec<_> = stream::iter(applies)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for (reference, desired, result) in results {
            match result {
                Ok(result) => {
                    tracing::info!(object = %reference, "applied");
                    writes.made += 1;
                    self.settled.remember(reference.key(), &desired, &result);
                }
                Err(error) => {
                    let text = mask::redacted(&with_causes(&error), &desired);
                    tracing::warn!(object = %reference, error = text, "not applied");
                    writes.failed_with(text, error.is_retryable());
                }
            }
        }
    }

    async fn delete(&mut self, step: Step, writes: &mut Writes) {
        let Some(live) = step.live else { return };
        self.settled.forget(&step.reference.key());
        match self.overlays.delete(&live).await {
            Ok(()) => {
                tracing::info!(object = %step.reference, "deleted");
                writes.made += 1;
            }
            Err(error) => {
                tracing::warn!(object = %step.reference, error = %with_causes(&error), "not deleted");
                writes.failed(&error);
            }
        }
    }
}

/// Applies an object, and makes what `kubectl apply` left in it ours.
async fn apply_and_take_over<C: Cluster>(
    cluster: &C,
    desired: &Value,
) -> Result<Value, cluster::Error> {
    let applied = cluster
        .apply(desired, Conflicts::Report, Mode::Persist)
        .await?;
    let Some(records) = ownership::taken_over(&applied) else {
        return Ok(applied);
    };
    match cluster.record_owners(&applied, &records).await {
        Ok(taken) => Ok(taken),
        Err(error) => {
            // The next apply tries again; until then a change of these fields is a conflict.
            tracing::warn!(error = %with_causes(&error), "what kubectl applied is not taken over");
            Ok(applied)
        }
    }
}
