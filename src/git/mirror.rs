//! A bare mirror of the repository, owned by a thread of its own.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    Draft, Error, Heads, Proposal, Proposed, Publish, Published, Repository, Review, Tip,
    access::{Access, Remote},
    libgit2, objects,
    publish::{Pushed, backoff},
    signers::Policy,
    worker::Worker,
};
use crate::model::repository::{Entry, RepoPath, Revision, Tree};

/// How often a publication is composed anew before the caller is told to come again.
const MAX_ATTEMPTS: u32 = 32;

/// What is reviewed, if it is not the branch's tip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// A tag, by its name.
    Tag(String),
    /// A commit of the branch.
    Commit(Revision),
}

/// Where the repository is, and where its mirror is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The remote's URL: `https://…`, `ssh://…` or `git@host:path`, `git://…`, or `file://…`, which is
    /// only read.
    pub url: String,
    /// How it is reached.
    pub access: Access,
    /// The reviewed branch.
    pub branch: String,
    /// What is reviewed instead of the branch's tip.
    pub pin: Option<Pin>,
    /// Which commits are taken.
    pub policy: Policy,
    /// The mirror's directory. It is made, and may be removed at any time; a few next to it, whose
    /// names begin with its own, belong to it.
    pub directory: PathBuf,
    /// How long anything may take in all.
    pub deadline: Duration,
    /// How many files the mirror may grow by before it is made anew.
    pub max_files: usize,
}

impl Settings {
    /// For a remote that wants no credentials.
    pub fn new(url: &str, branch: &str, directory: PathBuf) -> Self {
        Self {
            url: url.to_owned(),
            access: Access::default(),
            branch: branch.to_owned(),
            pin: None,
            policy: Policy::default(),
            directory,
            deadline: Duration::from_mins(2),
            max_files: 2_000,
        }
    }

    /// Whether the remote can be talked to safely, with what is set.
    pub fn check(&self) -> Result<(), Error> {
        Remote::parse(&self.url, self.access.clone()).map(drop)
    }
}

/// A mirror of a remote repository.
pub struct Mirror {
    worker: Worker,
}

impl Mirror {
    /// Prepares a mirror; nothing is fetched yet.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        libgit2::initialise();
        let remote = Remote::parse(&settings.url, settings.access.clone())?;
        let worker = Worker::new(settings, remote);
        Ok(Self { worker })
    }
}

impl Repository for Mirror {
    async fn fetch(&self) -> Result<Heads, Error> {
        self.worker.run(super::store::Store::fetch).await
    }

    async fn tree(&self, revision: &Revision) -> Result<Tree, Error> {
        let revision = revision.clone();
        self.worker
            .run(move |store| objects::tree(store.repository()?, &revision, &RepoPath::ROOT))
            .await
    }

    async fn publication(&self, revision: &Revision) -> Result<BTreeMap<String, Entry>, Error> {
        let revision = revision.clone();
        self.worker
            .run(move |store| store.publication(&revision))
            .await
    }

    async fn subject(&self, revision: &Revision) -> Result<String, Error> {
        let revision = revision.clone();
        self.worker
            .run(move |store| objects::subject(store.repository()?, &revision))
            .await
    }

    async fn holds(&self, revision: &Revision) -> Result<bool, Error> {
        let oid = objects::oid(revision)?;
        self.worker.run(move |store| store.holds(oid)).await
    }

    async fn descends(&self, commit: &Revision, ancestor: &Revision) -> Result<bool, Error> {
        let (commit, ancestor) = (commit.clone(), ancestor.clone());
        self.worker
            .run(move |store| store.descends(&commit, &ancestor))
            .await
    }

    async fn publish<F>(&self, request: Publish, mut compose: F) -> Result<Published, Error>
    where
        F: FnMut(&Tip) -> Option<Draft> + Send,
    {
        for attempt in 1..=MAX_ATTEMPTS {
            let (branch, directory) = (request.branch.clone(), request.directory.clone());
            let tip = self
                .worker
                .run(move |store| store.tip(&branch, &directory))
                .await?;
            let Some(draft) = compose(&tip) else {
                return Ok(Published::Unchanged);
            };
            let job = request.clone();
            match self
                .worker
                .run(move |store| store.commit_and_push(&job, &tip, &draft))
                .await?
            {
                Pushed::Accepted(revision) => {
                    return Ok(Published::Committed {
                        revision,
                        attempts: attempt,
                    });
                }
                Pushed::Overtaken(ours) => {
                    tracing::debug!(branch = request.branch, attempt, "others were faster");
                    tokio::time::sleep(backoff(attempt, &ours)).await;
                }
            }
        }
        Err(Error::Contended {
            branch: request.branch,
            attempts: MAX_ATTEMPTS,
        })
    }

    async fn review(&self, proposal: &Proposal) -> Result<Review, Error> {
        let proposal = proposal.clone();
        self.worker.run(move |store| store.review(&proposal)).await
    }

    async fn propose(
        &self,
        proposal: &Proposal,
        review: &Review,
        draft: Option<Draft>,
    ) -> Result<Proposed, Error> {
        let (proposal, review) = (proposal.clone(), review.clone());
        self.worker
            .run(move |store| store.propose(&proposal, &review, draft.as_ref()))
            .await
    }
}
