//! The overlay's objects in the cluster: intent first, then what others stand on, the rest, deletions.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::{CONCURRENCY, Error, Scope, Sync, Writes, facts::is_member};
use crate::{
    cluster::{
        self, Cluster, Conflicts, Mode, inventory,
        types::{self, GitSyncStatus},
    },
    federation::{lifecycle::PeerState, resolve::Standing},
    git::Repository,
    model::manifest::{Gvk, Manifest, ObjectKey, ObjectRef},
    plan::{self, Action, Step, health, normalise::normalise, order, policy::is_left_alone},
    reconcile::overlay::{self, Overlay},
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
            normalise(&mut object);
            inventory::enrol(&mut object);
            members.push(Manifest {
                reference: ObjectRef::of(&object).unwrap_or(reference),
                object,
                origin,
            });
        }
        members
    }

    /// Applies the overlay, unless that is suspended, and takes peers that may not be named any more
    /// out of the registrations that the overlay says nothing about.
    pub(super) async fn keep_overlay(
        &mut self,
        scope: &Scope<'_>,
        states: &[PeerState],
        suspended: bool,
        writes: &mut Writes,
    ) -> Result<Overlay, Error> {
        let mut told = if suspended {
            Overlay::former(&GitSyncStatus::of(scope.live.git_sync.as_ref()))
        } else {
            self.apply_overlay(scope, writes).await?
        };
        // Withdrawn trust does not wait until somebody resumes: until then, the overlay says nothing
        // about any registration.
        let applied = if suspended { &[] } else { scope.manifests };
        self.detach(states, applied, scope, writes).await;
        told.corrected.clone_from(&writes.corrected);
        Ok(told)
    }

    /// Applies the overlay: intent, foundations, the rest, then deletions.
    async fn apply_overlay(
        &mut self,
        scope: &Scope<'_>,
        writes: &mut Writes,
    ) -> Result<Overlay, Error> {
        let (manifests, live) = (scope.manifests, scope.live);
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
        self.record_intent(&all_kinds, &all_namespaces, scope)
            .await?;

        let mut found = self.members_in(kinds.values(), writes).await;
        let members = found.len();
        let plan = self.plan(scope, &found);
        let mut told = Overlay::former(&GitSyncStatus::of(parent));
        told.note(&plan);
        for undecided in &plan.undecided {
            writes.failed_with(overlay::undecided(undecided), false);
        }
        let wrong = self.verify(plan.verify, scope.now).await;
        let ending = plan.ending.len();
        let (deletions, applies): (Vec<_>, Vec<_>) = plan
            .steps
            .into_iter()
            .chain(wrong)
            .partition(|step| step.action == Action::Delete);
        let (foundations, rest): (Vec<_>, Vec<_>) = applies
            .into_iter()
            .partition(|step| order::is_foundation(&step.reference.gvk));
        let definitions: Vec<Value> = foundations
            .iter()
            .filter(|step| step.reference.gvk.kind == "CustomResourceDefinition")
            .filter_map(|step| step.desired.clone())
            .collect();
        found.extend(self.apply_all(foundations, scope.now, writes).await);
        for definition in &definitions {
            if let Err(error) = self.overlays.established(definition).await {
                writes.failed(&error);
            }
        }
        found.extend(self.apply_all(rest, scope.now, writes).await);
        for manifest in manifests {
            if let Some(live) = found.get(&manifest.reference.key()) {
                told.stands(&manifest.reference, health::assess(live));
            }
        }
        if writes.failures.len() > failures {
            // What replaces the former objects is not there yet: they stay until it is.
            return Ok(told);
        }
        self.prune(deletions, members, scope, &mut told, writes)
            .await?;
        // What was kept is still ours, so its kind stays on record.
        let over = writes.failures.len() == failures
            && scope.complete
            && told.kept.is_empty()
            && told.held.is_none()
            && ending == 0;
        if over && (&declared, &namespaces) != (&all_kinds, &all_namespaces) {
            self.record_intent(&declared, &namespaces, scope).await?;
        }
        Ok(told)
    }

    fn plan(&mut self, scope: &Scope<'_>, found: &BTreeMap<ObjectKey, Value>) -> plan::Plan {
        self.fights.cool(scope.now);
        let rules = plan::Rules {
            now: scope.now,
            drift_grace: self.applying.drift_grace(),
            pruning: scope.complete,
            fights: &self.fights,
        };
        plan::plan(scope.manifests, found, &mut self.settled, &rules)
    }

    /// Takes peers that leave, and those whose bundle SPIRE lost, out of registrations of ours that
    /// the overlay does not say anything about at the moment: a broken file must neither keep
    /// withdrawn trust alive nor new pods without an identity.
    async fn detach(
        &mut self,
        states: &[PeerState],
        manifests: &[Manifest],
        scope: &Scope<'_>,
        writes: &mut Writes,
    ) {
        let unready = states
            .iter()
            .filter(|state| state.standing != Standing::Ready);
        let unready: BTreeSet<&str> = unready.map(|state| state.peer.as_str()).collect();
        let declared: BTreeSet<ObjectKey> = manifests.iter().map(|it| it.reference.key()).collect();
        let mut steps = Vec::new();
        for object in scope.live.registrations.iter().filter(|it| is_member(it)) {
            let Some(reference) = ObjectRef::of(object) else {
                continue;
            };
            let names = object["spec"]["federatesWith"].as_array();
            let leaves = |name: &Value| name.as_str().is_some_and(|it| unready.contains(it));
            let asked = names.is_some_and(|it| it.iter().any(leaves));
            if declared.contains(&reference.key()) || !asked || is_left_alone(object) {
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
            let live = Some(object.clone());
            steps.push(Step::new(Action::Update, reference, Some(desired), live));
        }
        self.apply_all(steps, scope.now, writes).await;
    }

    /// Writes the parent of our set, unless it says so already.
    async fn record_intent(
        &mut self,
        kinds: &BTreeSet<String>,
        namespaces: &BTreeSet<String>,
        scope: &Scope<'_>,
    ) -> Result<(), Error> {
        let live = scope.live.git_sync.as_ref();
        let parent = inventory::parent(kinds, namespaces);
        let key = types::git_sync_reference().key();
        if !live.is_some_and(|live| self.settled.stands(&key, &parent, live)) {
            let applied = self
                .cluster
                .apply(&parent, Conflicts::Take, Mode::Persist)
                .await?;
            self.settled.remember(key, &parent, &applied, scope.now);
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
}
