//! A proposal: one commit on a branch of its own, which people merge.

use git2::{ErrorCode, FileMode, Oid, Repository, build::TreeUpdateBuilder};

use super::{
    Draft, Error, Proposal, Proposed, Review, objects,
    publish::{Update, commit},
    store::Store,
};
use crate::model::repository::{RepoPath, publication};

/// Makes a proposal's branch one commit on top of the base that was reviewed, or removes it.
pub(super) fn propose(
    store: &mut Store,
    proposal: &Proposal,
    review: &Review,
    draft: Option<&Draft>,
) -> Result<Proposed, Error> {
    let onto = review.base.revision.as_ref();
    let onto = onto.map(objects::oid).transpose()?;
    let standing = review.proposed.as_ref();
    let standing = standing.and_then(|tip| tip.revision.as_ref());
    let request = &proposal.publication;
    let ours = match draft {
        Some(draft) => Some(commit(store.repository()?, request, onto, draft)?),
        None => None,
    };
    let update = Update {
        from: standing.map(objects::oid).transpose()?,
        to: ours,
        replaced: true,
    };
    Ok(match (update.push(store, &request.branch)?, ours) {
        (false, _) => Proposed::Overtaken,
        (true, Some(ours)) => Proposed::Standing(objects::revision(ours)?),
        (true, None) => Proposed::Removed,
    })
}

/// The commit that a proposal is made on top of; `None` if it is anything else than one commit that
/// changes a publication's files, or if the base has others by now than that commit had.
pub(super) fn parent(
    repository: &Repository,
    directory: &RepoPath,
    onto: Oid,
    proposed: Oid,
) -> Result<Option<Oid>, Error> {
    let look = || -> Result<Option<Oid>, git2::Error> {
        let proposal = repository.find_commit(proposed)?;
        if proposal.parent_count() != 1 {
            return Ok(None);
        }
        let parent = proposal.parent(0)?;
        let (before, after) = (parent.tree()?, proposal.tree()?);
        let onto = repository.find_commit(onto)?.tree()?;
        let mut update = TreeUpdateBuilder::new();
        for name in publication::FILES {
            let path = match directory.as_str() {
                "" => name.to_owned(),
                directory => format!("{directory}/{name}"),
            };
            let Some(file) = blob(&after, &path)? else {
                return Ok(None);
            };
            if blob(&before, &path)? != blob(&onto, &path)? {
                return Ok(None);
            }
            update.upsert(path, file, FileMode::Blob);
        }
        let expected = update.create_updated(repository, &before)?;
        Ok((expected == after.id()).then(|| parent.id()))
    };
    match look() {
        Ok(found) => Ok(found),
        // Its parent is not of the history that is here.
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(source) => Err(Error::Read {
            what: format!("the proposal {proposed}"),
            source,
        }),
    }
}

/// The plain file at a path.
fn blob(tree: &git2::Tree<'_>, path: &str) -> Result<Option<Oid>, git2::Error> {
    match tree.get_path(path.as_ref()) {
        Ok(entry) if entry.filemode() == i32::from(FileMode::Blob) => Ok(Some(entry.id())),
        Ok(_) => Ok(None),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
