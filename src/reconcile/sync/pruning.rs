//! Deletions of what is no longer declared, once nothing speaks against them.

use std::collections::BTreeSet;

use super::{Error, Scope, Sync, Writes, facts::Live};
use crate::{
    cluster::{
        Cluster,
        types::{self, GitSyncStatus},
    },
    git::Repository,
    model::{diagnostic::with_causes, manifest::ObjectRef},
    plan::{
        Step,
        guard::{self, Acknowledged, acknowledged_in, mark},
    },
    reconcile::overlay::Overlay,
};

impl<R: Repository, C: Cluster> Sync<R, C> {
    /// Deletes what may be deleted of `deletions`. `members` is how many objects are ours.
    pub(super) async fn prune(
        &mut self,
        deletions: Vec<Step>,
        members: usize,
        scope: &Scope<'_>,
        told: &mut Overlay,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        let references: Vec<ObjectRef> = deletions.iter().map(|it| it.reference.clone()).collect();
        let marks: BTreeSet<String> = references.iter().map(|it| mark(&it.key())).collect();
        // What is done, or declared again, is no longer under way.
        told.pruning.retain(|under_way| marks.contains(under_way));
        let mut acknowledged = Acknowledged {
            digests: BTreeSet::new(),
            under_way: told.pruning.clone(),
        };
        let percent = self.applying.prune_percent;
        let suspicious = guard::examine(&references, members, percent, &acknowledged);
        if suspicious.is_some() {
            acknowledged.digests = acknowledged_in(scope.tree, &self.identity.cluster);
            let git_sync = scope.live.git_sync.as_ref();
            let typed = git_sync.and_then(|it| it["spec"]["acknowledge"].as_str());
            acknowledged.digests.extend(typed.map(str::to_owned));
            told.held = guard::examine(&references, members, percent, &acknowledged);
            if told.held.is_none() {
                // On record before the first is made: what is left after a crash is still meant.
                told.pruning = marks;
                self.record_pruning(&told.pruning, scope.live).await?;
            }
        }
        for step in deletions {
            let approved = told.pruning.contains(&mark(&step.reference.key()));
            if told.held.is_none() || approved {
                self.delete(step, writes).await;
            }
        }
        Ok(())
    }

    async fn record_pruning(&self, marks: &BTreeSet<String>, live: &Live) -> Result<(), Error> {
        let Some(standing) = &live.git_sync else {
            return Ok(());
        };
        let status = GitSyncStatus {
            pruning: marks.iter().cloned().collect(),
            ..GitSyncStatus::of(Some(standing))
        };
        let name = types::GIT_SYNC_NAME.into();
        self.write_status(&types::git_sync_kind(), &name, &status, standing)
            .await
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
