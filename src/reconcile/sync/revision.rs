//! Which commit is in force: the reviewed branch's tip, unless that went back.

use super::{Error, Sync, facts::Live};
use crate::{
    cluster::{
        Cluster,
        types::{GIT_SYNC_NAME, GitSyncStatus},
    },
    git::{Heads, Repository},
    model::repository::Revision,
};

/// The commit that a pass goes by.
pub(super) struct Chosen {
    pub(super) revision: Revision,
    /// Why it is not the branch's tip.
    pub(super) rewound: Option<String>,
}

impl<R: Repository, C: Cluster> Sync<R, C> {
    /// The tip of the reviewed branch; or the commit in force, if the tip does not descend from it:
    /// somebody may be replaying an older state, in which withdrawn trust still stands.
    pub(super) async fn choose(&mut self, heads: &Heads, live: &Live) -> Result<Chosen, Error> {
        let tip = heads.main.as_ref().ok_or(Error::NoBranch)?;
        let chosen = |revision: &Revision, rewound| Chosen {
            revision: revision.clone(),
            rewound,
        };
        let former = GitSyncStatus::of(live.git_sync.as_ref());
        let in_force = former.revision.as_deref();
        let Some(in_force) = in_force.and_then(|name| Revision::parse(name).ok()) else {
            return Ok(chosen(tip, None));
        };
        let accepted = live
            .git_sync
            .as_ref()
            .is_some_and(|sync| sync["spec"]["acceptRewind"] == tip.as_str());
        if in_force == *tip || accepted || self.repository.descends(tip, &in_force).await? {
            return Ok(chosen(tip, None));
        }
        let message = format!(
            "the reviewed branch is at {tip}, which does not descend from {in_force}, the commit in \
             force; to go on from there: kubectl patch gitsync {GIT_SYNC_NAME} --type=merge \
             --patch='{{\"spec\":{{\"acceptRewind\":\"{tip}\"}}}}'"
        );
        if self.repository.holds(&in_force).await? {
            Ok(chosen(&in_force, Some(message)))
        } else {
            Err(Error::Rewound(message))
        }
    }
}
