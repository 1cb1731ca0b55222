//! Reading a repository for a verb: a directory's files, or a commit of the git repository there.

use std::path::Path;

use anyhow::Context as _;

use crate::{
    git::{LocalRepository, worktree},
    model::repository::Tree,
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
