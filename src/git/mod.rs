//! The port to git: a mirror of the repository, and publishing by compare-and-swap.
//!
//! **Invariants:** content is read from the object database, never from a worktree, so no symbolic
//! link is followed; a push is judged by what the remote's references are afterwards, never by
//! error texts, and never taken for success because no error came; nothing here writes outside the
//! directory that it was asked to write; what is on a publication's branch, which whoever may push
//! decides, stops neither the reading nor the writing of another.
//!
//! libgit2 can't limit a fetch: what a server takes gets into the mirror, whatever its size, and
//! stays there until the mirror is made anew. It is streamed to disk; only files below the limits are
//! ever read from there. A delta, though, is applied in memory when it arrives. So the size of a push
//! is the server's to limit (`receive.maxInputSize`), and the memory and disk of the process its
//! supervisor's.

use std::{collections::BTreeMap, future::Future, time::Duration};

use thiserror::Error;

use crate::model::{
    repository::{Entry, RepoPath, Revision, Tree},
    trust_domain::TrustDomain,
};

mod access;
mod known_hosts;
mod libgit2;
mod local;
mod mirror;
mod objects;
mod proposal;
mod publish;
mod signers;
mod signing;
mod size;
mod store;
mod worker;
pub mod worktree;

pub use self::{
    access::{Access, BasicAuth, Credentials, Proxy, parse_url},
    known_hosts::HostKeyMismatch,
    local::LocalRepository,
    mirror::{Mirror, Pin, Settings},
    signers::Policy,
    signing::SigningKey,
};

/// What the remote's references point at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// The reviewed branch, or what is pinned; `None` if the remote does not have it.
    pub main: Option<Revision>,
    /// Why `main` must not be applied, if it is not signed as the policy wants it.
    pub unverified: Option<String>,
    /// Each trust domain's own branch.
    pub publications: BTreeMap<TrustDomain, Revision>,
}

/// A branch, or a directory on it, as it was found at the remote.
#[derive(Clone, Debug, Default)]
pub struct Tip {
    /// The commit; `None` if there is no such branch.
    pub revision: Option<Revision>,
    /// The files of a publication directly in the directory, by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// What should be committed on top of a [`Tip`].
#[derive(Clone, Debug)]
pub struct Draft {
    /// Files to write in the directory, by name; other files stay.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The commit's message.
    pub message: String,
}

/// Where and as whom to publish.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The branch.
    pub branch: String,
    /// The directory on the branch.
    pub directory: RepoPath,
    /// The author and committer of the commit.
    pub author: Author,
    /// The key that signs the commit.
    pub key: SigningKey,
}

/// Where, on top of what and as whom to propose a publication that people merge.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The branch that it is to be merged into.
    pub base: String,
    /// What it is to publish there. Its branch is the proposal's own: it is replaced as a whole.
    pub publication: Publish,
}

/// What a proposal has to be compared with, as it was found at the remote.
#[derive(Clone, Debug)]
pub struct Review {
    /// The branch that it is to be merged into.
    pub base: Tip,
    /// The proposal's branch, if there is one.
    pub proposed: Option<Tip>,
    /// Whether the proposal's branch is one commit on top of one of the base, changes the
    /// publication's files and nothing else, and the base has not changed them since.
    pub mergeable: bool,
}

/// The author of a commit.
#[derive(Clone, Debug)]
pub struct Author {
    /// The name.
    pub name: String,
    /// The address.
    pub email: String,
    /// When, in seconds since 1970.
    pub seconds: i64,
}

/// What became of a request to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// What stands there is what should stand there.
    Unchanged,
    /// A commit was made, and the remote's branch points at it.
    Committed {
        /// The commit.
        revision: Revision,
        /// How often it was tried: more than once if others were faster.
        attempts: u32,
    },
}

/// What became of a proposal's branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposed {
    /// It is one commit.
    Standing(Revision),
    /// It is gone.
    Removed,
    /// Somebody else has changed it since it was reviewed.
    Overtaken,
}

/// A repository that is fetched and published to.
pub trait Repository: Send + Sync + 'static {
    /// Lists the remote's references and fetches what changed. Nothing changed: nothing is fetched.
    fn fetch(&self) -> impl Future<Output = Result<Heads, Error>> + Send;

    /// The content of a commit that was fetched.
    fn tree(&self, revision: &Revision) -> impl Future<Output = Result<Tree, Error>> + Send;

    /// What stands at the names of a publication's files at the root of a commit that was fetched.
    fn publication(
        &self,
        revision: &Revision,
    ) -> impl Future<Output = Result<BTreeMap<String, Entry>, Error>> + Send;

    /// The first line of the message of a commit that was fetched, as its author wrote it.
    fn subject(&self, revision: &Revision) -> impl Future<Output = Result<String, Error>> + Send;

    /// Whether a commit is here, fetched now or once.
    fn holds(&self, revision: &Revision) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Whether a fetched commit is `ancestor`, or descends from it. What an earlier, shallow fetch
    /// left out of the history is fetched if need be.
    fn descends(
        &self,
        commit: &Revision,
        ancestor: &Revision,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Commits what `compose` makes of the tip, if anything, and pushes it, provided that the tip
    /// has not moved; if it has, composes anew on the new one.
    fn publish<F>(
        &self,
        request: Publish,
        compose: F,
    ) -> impl Future<Output = Result<Published, Error>> + Send
    where
        F: FnMut(&Tip) -> Option<Draft> + Send;

    /// What stands where a proposal is to be merged, and on its own branch.
    fn review(&self, proposal: &Proposal) -> impl Future<Output = Result<Review, Error>> + Send;

    /// Makes the proposal's branch one commit with a draft's files on top of the base that was
    /// reviewed, or removes it if there is no draft; provided that it still is what was reviewed.
    fn propose(
        &self,
        proposal: &Proposal,
        review: &Review,
        draft: Option<Draft>,
    ) -> impl Future<Output = Result<Proposed, Error>> + Send;
}

/// Why git could not be read or written. No message holds credentials.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The mirror's directory, or a local repository, can't be used.
    #[error("open the repository in `{path}`")]
    Open {
        /// The directory.
        path: String,
        /// The cause.
        #[source]
        source: git2::Error,
    },
    /// The mirror's directory can't be made or removed.
    #[error("prepare the directory `{path}`")]
    Directory {
        /// The directory.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The remote can't be reached, or does not answer as a git server does.
    #[error("fetch from {url}")]
    Fetch {
        /// The remote, without credentials.
        url: String,
        /// The cause.
        #[source]
        source: git2::Error,
    },
    /// A name that stands for no commit.
    #[error("`{reference}` names no commit here")]
    Unknown {
        /// The name.
        reference: String,
        /// The cause.
        #[source]
        source: git2::Error,
    },
    /// An object can't be read.
    #[error("read {what}")]
    Read {
        /// The object.
        what: String,
        /// The cause.
        #[source]
        source: git2::Error,
    },
    /// A commit that libgit2 can't read, or with such a one in its history.
    #[error("the history of {0} is malformed")]
    Malformed(Revision),
    /// A revision with more in it than is read.
    #[error("revision {revision} has more than {limit}")]
    TooLarge {
        /// The commit.
        revision: Revision,
        /// The limit that it breaks.
        limit: String,
    },
    /// The commit can't be made.
    #[error("make a commit")]
    Commit(#[source] git2::Error),
    /// The push did not get through; the remote's branch is where it was.
    #[error("push to {branch} at {url}")]
    Push {
        /// The remote, without credentials.
        url: String,
        /// The branch.
        branch: String,
        /// The cause.
        #[source]
        source: git2::Error,
    },
    /// The server refused the push: a hook, a protected branch, a missing right.
    #[error("{url} refused the push to {branch}: {words}")]
    Refused {
        /// The remote, without credentials.
        url: String,
        /// The branch.
        branch: String,
        /// What the server said.
        words: String,
    },
    /// Others were faster, again and again.
    #[error("others wrote {branch} first, {attempts} times")]
    Contended {
        /// The branch.
        branch: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The branch is checked out: a commit from elsewhere would leave its files behind.
    #[error("`{0}` is checked out: switch to another branch first")]
    CheckedOut(String),
    /// A transport that is not supported, or not safe.
    #[error("{0}")]
    Url(String),
    /// A token, a key or another file that a connection needs can't be read.
    #[error("read `{path}`")]
    File {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file of certificate authorities that holds none.
    #[error("`{path}` holds no certificate authority in PEM")]
    Authority {
        /// The file.
        path: String,
    },
    /// The ssh server did not show a key that is known to be its own.
    #[error("{url} is not trusted")]
    HostKey {
        /// The remote.
        url: String,
        /// What is wrong with its key.
        #[source]
        source: HostKeyMismatch,
    },
    /// The commit that is pinned is not part of the reviewed branch.
    #[error("the pinned commit {commit} is not part of the branch `{branch}`")]
    NotReviewed {
        /// The commit.
        commit: Revision,
        /// The branch.
        branch: String,
    },
    /// The signing key can't be used.
    #[error("the signing key: {0}")]
    Key(String),
    /// libgit2 gave no answer in time. It can't be interrupted, so it is left behind.
    #[error("git gave no answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

impl Error {
    /// Whether objects of the local repository are missing or broken.
    fn is_broken_store(&self) -> bool {
        use git2::ErrorClass;
        let (Self::Fetch { source, .. }
        | Self::Push { source, .. }
        | Self::Read { source, .. }
        | Self::Open { source, .. }
        | Self::Commit(source)) = self
        else {
            return false;
        };
        matches!(
            source.class(),
            ErrorClass::Odb | ErrorClass::Object | ErrorClass::Zlib | ErrorClass::Indexer
        )
    }

    /// Whether the same request may succeed later, without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Fetch { .. }
            | Self::Push { .. }
            | Self::Read { .. }
            | Self::Directory { .. }
            | Self::Open { .. }
            | Self::Contended { .. }
            | Self::Timeout(_)
            | Self::File { .. } => true,
            Self::Unknown { .. }
            | Self::Malformed(_)
            | Self::TooLarge { .. }
            | Self::Commit(_)
            | Self::Refused { .. }
            | Self::CheckedOut(_)
            | Self::Url(_)
            | Self::Authority { .. }
            | Self::HostKey { .. }
            | Self::NotReviewed { .. }
            | Self::Key(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
