//! One commit and its compare-and-swap push.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use git2::{FileMode, Oid, PushOptions, Repository, Signature, Time, build::TreeUpdateBuilder};

use super::{
    Author, Draft, Error, Publish, Tip, access::Purpose, objects, signers::NAMESPACE, store::Store,
};
use crate::model::repository::{RepoPath, Revision};

/// How much of what a server says is kept, in bytes.
const MAX_WORDS: usize = 4096;

/// What became of a push.
pub(super) enum Pushed {
    /// The remote's branch took the commit.
    Accepted(Revision),
    /// The branch moved in between; with the commit that lost.
    Overtaken(Revision),
}

/// How long to wait before composing anew. The losing commit's name is as good as a random number,
/// and differs from publisher to publisher.
pub(super) fn backoff(attempt: u32, ours: &Revision) -> Duration {
    let ceiling = 25_u64 << attempt.min(6);
    let random = u64::from_str_radix(ours.short(), 16).unwrap_or(0);
    Duration::from_millis(random % ceiling)
}

/// Commits a draft on top of a tip and pushes it, if the remote's branch still is that tip.
///
/// What happened is told by the remote's references afterwards: `Remote::push` says nothing of a
/// server's refusal, and the texts of errors differ between servers.
pub(super) fn push(
    store: &mut Store,
    request: &Publish,
    tip: &Tip,
    draft: &Draft,
) -> Result<Pushed, Error> {
    let base = tip.revision.as_ref().map(objects::oid).transpose()?;
    // On top of what can't be read, nothing can be made: it is replaced.
    let replaced = base.is_some_and(|base| store.is_left_out(base));
    let parent = base.filter(|_| !replaced);
    let ours = commit(store.repository()?, request, parent, draft)?;
    let update = Update {
        from: base,
        to: Some(ours),
        replaced,
    };
    let revision = objects::revision(ours)?;
    Ok(if update.push(store, &request.branch)? {
        Pushed::Accepted(revision)
    } else {
        Pushed::Overtaken(revision)
    })
}

/// What is to happen to a remote's branch, if it still is what it was.
pub(super) struct Update {
    /// What it was; `None` if there was no such branch.
    pub(super) from: Option<Oid>,
    /// What it is to be; `None` to remove it.
    pub(super) to: Option<Oid>,
    /// Whether what it is to be need not descend from what it was.
    pub(super) replaced: bool,
}

impl Update {
    /// Whether it happened; if not, the branch was no longer what it was.
    pub(super) fn push(&self, store: &mut Store, branch: &str) -> Result<bool, Error> {
        let name = format!("refs/heads/{branch}");
        let (outcome, words) = send(store, &name, self)?;
        let found = store.list()?.get(&name).copied();
        if found == self.to {
            return Ok(true);
        }
        if found != self.from {
            return Ok(false);
        }
        let (url, branch) = (store.remote.url.clone(), branch.to_owned());
        Err(match outcome {
            Err(source) if words.is_empty() => Error::Push {
                url,
                branch,
                source,
            },
            _ => Error::Refused {
                url,
                branch,
                words: if words.is_empty() {
                    "no reason given".to_owned()
                } else {
                    words
                },
            },
        })
    }
}

/// Pushes an update; what libgit2 says of it, and the words of the server.
fn send(
    store: &mut Store,
    name: &str,
    asked: &Update,
) -> Result<(Result<(), git2::Error>, String), Error> {
    let from = asked.from.unwrap_or(Oid::ZERO_SHA1);
    let (said, status) = (RefCell::new(Vec::new()), RefCell::new(None));
    let (url, proxy, deadline) = (
        store.remote.url.clone(),
        store.remote.proxy()?,
        store.deadline,
    );
    let dialogue = store.remote.dialogue(Purpose::Write, deadline)?;
    let (mut callbacks, host_key) = dialogue.split();
    callbacks.sideband_progress(|text| {
        let mut said = said.borrow_mut();
        let room = MAX_WORDS.saturating_sub(said.len());
        said.extend_from_slice(text.get(..room).unwrap_or(text));
        Instant::now() < deadline
    });
    callbacks.push_update_reference(|_, refusal| {
        *status.borrow_mut() = refusal.map(str::to_owned);
        Ok(())
    });
    callbacks.push_negotiation(|updates| {
        let unmoved = updates.iter().all(|update| update.src() == from);
        if unmoved {
            Ok(())
        } else {
            Err(git2::Error::from_str("the branch has moved"))
        }
    });
    let mut options = PushOptions::new();
    options.remote_callbacks(callbacks).proxy_options(proxy);
    let mut remote = store
        .repository()?
        .remote_anonymous(&url)
        .map_err(|source| Error::Push {
            url: url.clone(),
            branch: name.to_owned(),
            source,
        })?;
    let force = if asked.replaced { "+" } else { "" };
    let refspec = match asked.to {
        Some(ours) => format!("{force}{ours}:{name}"),
        None => format!(":{name}"),
    };
    let outcome = remote.push(&[refspec], Some(&mut options));
    drop(options);
    if outcome.is_err()
        && let Some(refused) = host_key.refusal(&url)
    {
        return Err(refused);
    }
    let said = String::from_utf8_lossy(&said.take())
        .trim()
        .replace('\n', " ");
    let words = match (status.take(), said.is_empty()) {
        (Some(status), true) => status,
        (Some(status), false) => format!("{said} ({status})"),
        (None, _) => String::new(),
    };
    Ok((outcome, words))
}

/// Makes the signed commit. Only files of the request's directory are touched.
pub(super) fn commit(
    repository: &Repository,
    request: &Publish,
    base: Option<Oid>,
    draft: &Draft,
) -> Result<Oid, Error> {
    let content = content(repository, &request.directory, &request.author, base, draft)?;
    let signature = request.key.sign(NAMESPACE, content.as_bytes())?;
    repository
        .commit_signed(&content, &signature, None)
        .map_err(Error::Commit)
}

/// The commit object's text: the draft's files in a directory, on top of a commit.
pub(super) fn content(
    repository: &Repository,
    directory: &RepoPath,
    author: &Author,
    base: Option<Oid>,
    draft: &Draft,
) -> Result<String, Error> {
    let compose = || {
        let base = base.map(|base| repository.find_commit(base)).transpose()?;
        let mut update = TreeUpdateBuilder::new();
        for (name, bytes) in &draft.files {
            let path = match directory.as_str() {
                "" => name.clone(),
                directory => format!("{directory}/{name}"),
            };
            update.upsert(path, repository.blob(bytes)?, FileMode::Blob);
        }
        let baseline = match &base {
            Some(base) => base.tree()?,
            None => repository.find_tree(repository.treebuilder(None)?.write()?)?,
        };
        let tree = repository.find_tree(update.create_updated(repository, &baseline)?)?;
        let who = Signature::new(&author.name, &author.email, &Time::new(author.seconds, 0))?;
        let parents: Vec<_> = base.iter().collect();
        let buffer =
            repository.commit_create_buffer(&who, &who, &draft.message, &tree, &parents)?;
        String::from_utf8(buffer.to_vec())
            .map_err(|_| git2::Error::from_str("the commit is not UTF-8 text"))
    };
    compose().map_err(Error::Commit)
}
