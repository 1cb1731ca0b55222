//! Which commit is in force: the reviewed branch's tip, unless that went back.

use super::{Error, Sync, facts::Live};
use crate::{
    cluster::{
        Cluster,
        types::{GIT_SYNC_NAME, GitSyncStatus},
    },
    federation::conditions::clipped,
    git::{Heads, Repository},
    model::repository::Revision,
};

/// The commit that a pass goes by.
pub(super) struct Chosen {
    pub(super) revision: Revision,
    /// Why it is not the branch's tip.
    pub(super) held: Option<Held>,
}

/// Why the branch's tip is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile) struct Held {
    /// In one word, for conditions.
    pub(in crate::reconcile) reason: &'static str,
    /// In a sentence.
    pub(in crate::reconcile) message: String,
}

/// How much of a commit's subject is told, in characters.
const SUBJECT: usize = 99;

impl<R: Repository, C: Cluster> Sync<R, C> {
    /// What a commit that comes into force now is about; `None` if it is in force already, or can't
    /// be read: that stops nothing.
    pub(super) async fn subject(&self, revision: &Revision, live: &Live) -> Option<String> {
        let former = GitSyncStatus::of(live.git_sync.as_ref());
        let newest = former.history.first();
        if newest.is_some_and(|it| it.revision == revision.as_str()) {
            return None;
        }
        let subject = self.repository.subject(revision).await.ok()?;
        Some(clipped(&subject, SUBJECT))
    }

    /// The tip of the reviewed branch; or the commit in force, if the tip does not descend from it:
    /// somebody may be replaying an older state, in which withdrawn trust still stands.
    pub(super) async fn choose(&mut self, heads: &Heads, live: &Live) -> Result<Chosen, Error> {
        let tip = heads.main.as_ref().ok_or(Error::NoBranch)?;
        let chosen = |revision: &Revision, held| Chosen {
            revision: revision.clone(),
            held,
        };
        let former = GitSyncStatus::of(live.git_sync.as_ref());
        let in_force = former.revision.as_deref();
        let in_force = in_force.and_then(|name| Revision::parse(name).ok());
        if let Some(why) = &heads.unverified {
            let message = format!("the reviewed commit {tip} is not applied: {why}");
            let Some(in_force) = in_force else {
                return Err(Error::Unverified(message));
            };
            // Also fetches what a shallow first fetch left out.
            let newer = self.repository.descends(tip, &in_force).await?;
            if !newer && !self.repository.holds(&in_force).await? {
                return Err(Error::Unverified(message));
            }
            let reason = "Unverified";
            return Ok(chosen(&in_force, Some(Held { reason, message })));
        }
        let Some(in_force) = in_force else {
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
            let reason = "Rewound";
            Ok(chosen(&in_force, Some(Held { reason, message })))
        } else {
            Err(Error::Rewound(message))
        }
    }
}
