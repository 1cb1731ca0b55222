//! Reading a repository for a verb: a directory's files, or a commit of the git repository there.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;

use crate::{
    git::{self, LocalRepository, worktree},
    model::{
        repository::{RepoPath, Revision, Tree, publication_branch},
        trust_domain::TrustDomain,
    },
};

/// The tree at a commit of the repository, or of the files in the directory.
pub(super) fn tree(directory: &Path, reference: Option<&str>) -> anyhow::Result<Tree> {
    match reference {
        None => worktree::read(directory)
            .with_context(|| format!("read the repository in `{}`", directory.display())),
        Some(reference) => {
            let repository = LocalRepository::open(directory)
                .with_context(|| format!("open the git repository in `{}`", directory.display()))?;
            let revision = repository.resolve(reference)?;
            Ok(repository.tree(&revision)?)
        }
    }
}

/// What stands in the repository for a trust domain.
pub(super) struct Found {
    /// The place, in words.
    pub(super) place: String,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// The commit, if it stands on a branch of its own.
    pub(super) revision: Option<Revision>,
}

/// The trust domain's own branch: the local one, and that of `origin`.
pub(super) fn branches(
    repository: &LocalRepository,
    trust_domain: &TrustDomain,
) -> anyhow::Result<Vec<Found>> {
    let branch = publication_branch(trust_domain);
    let mut found = Vec::new();
    for place in ["heads", "remotes/origin"] {
        let reference = format!("refs/{place}/{branch}");
        match repository.resolve(&reference) {
            Ok(revision) => found.push(Found {
                place: format!("{reference} ({})", revision.short()),
                files: repository.files(&revision, &RepoPath::ROOT)?,
                revision: Some(revision),
            }),
            Err(git::Error::Unknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}
