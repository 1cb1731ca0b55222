//! A repository on this machine: what stands in it, and commits on its branches.

use std::{collections::BTreeMap, path::Path};

use git2::{ErrorCode, ObjectType};

use super::{Author, Draft, Error, libgit2, objects, publish};
use crate::model::repository::{RepoPath, Revision, Tree};

/// A repository on this machine .
pub struct LocalRepository {
    repository: git2::Repository,
    /// Where in the repository the opened directory is.
    directory: RepoPath,
}

impl LocalRepository {
    /// Opens the repository that a directory belongs to.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        libgit2::initialise();
        let repository = git2::Repository::discover(directory).map_err(|source| Error::Open {
            path: directory.display().to_string(),
            source,
        })?;
        // A directory outside the worktree (a bare repository's own, say) stands for all of it.
        let inside = || {
            let worktree = repository.workdir()?.canonicalize().ok()?;
            let directory = directory.canonicalize().ok()?;
            let relative = directory.strip_prefix(worktree).ok()?.to_str()?;
            RepoPath::parse(relative).ok()
        };
        let directory = inside().unwrap_or(RepoPath::ROOT);
        Ok(Self {
            repository,
            directory,
        })
    }

    /// The commit that a name stands for, as in `git rev-parse`.
    pub fn resolve(&self, reference: &str) -> Result<Revision, Error> {
        let unknown = |source| Error::Unknown {
            reference: reference.to_owned(),
            source,
        };
        let object = self
            .repository
            .revparse_single(reference)
            .map_err(unknown)?;
        objects::revision(object.peel_to_commit().map_err(unknown)?.id())
    }

    /// Every file of a commit below the opened directory, by its path in there.
    pub fn tree(&self, revision: &Revision) -> Result<Tree, Error> {
        objects::tree(&self.repository, revision, &self.directory)
    }

    /// The files of a publication in a directory of a commit, by name; the path is the repository's.
    pub fn files(
        &self,
        revision: &Revision,
        directory: &RepoPath,
    ) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        objects::files(&self.repository, revision, directory)
    }
}

impl LocalRepository {
    /// Commits a draft's files at the root of a local branch, on top of `parent`, and moves the
    /// branch there. Other files of the parent stay. The commit is not signed.
    ///
    /// A branch that is not there is made; one that is must still point at `parent`, and must not be
    /// checked out, as its files would then differ from it.
    pub fn commit(
        &self,
        branch: &str,
        parent: Option<&Revision>,
        draft: &Draft,
        author: &Author,
    ) -> Result<Revision, Error> {
        let name = format!("refs/heads/{branch}");
        let parent = parent.map(objects::oid).transpose()?;
        let current = match self.repository.find_reference(&name) {
            Ok(reference) => Some(reference.peel_to_commit().map_err(Error::Commit)?.id()),
            Err(error) if error.code() == ErrorCode::NotFound => None,
            Err(error) => return Err(Error::Commit(error)),
        };
        if current.is_some() && current != parent {
            return Err(Error::Contended {
                branch: branch.to_owned(),
                attempts: 1,
            });
        }
        if self.is_checked_out(&name) {
            return Err(Error::CheckedOut(branch.to_owned()));
        }
        let content = publish::content(&self.repository, &RepoPath::ROOT, author, parent, draft)?;
        let write = || {
            let odb = self.repository.odb()?;
            let ours = odb.write(ObjectType::Commit, content.as_bytes())?;
            let summary = draft.message.lines().next().unwrap_or_default();
            match current {
                Some(current) => {
                    self.repository
                        .reference_matching(&name, ours, true, current, summary)?;
                }
                None => {
                    self.repository.reference(&name, ours, false, summary)?;
                }
            }
            Ok(ours)
        };
        objects::revision(write().map_err(Error::Commit)?)
    }

    /// Whether the work tree, or a linked one, stands on the branch.
    fn is_checked_out(&self, name: &str) -> bool {
        let stands_on = |repository: &git2::Repository| {
            // Also of a branch without any commit yet, on which HEAD does not resolve.
            let head = repository.find_reference("HEAD").ok();
            let target =
                head.and_then(|head| head.symbolic_target().ok().flatten().map(str::to_owned));
            !repository.is_bare() && target.as_deref() == Some(name)
        };
        let linked = self.repository.worktrees().ok();
        stands_on(&self.repository)
            || linked.iter().flatten().flatten().any(|worktree| {
                let opened = worktree
                    .and_then(|worktree| self.repository.find_worktree(worktree).ok())
                    .and_then(|worktree| git2::Repository::open_from_worktree(&worktree).ok());
                opened.is_some_and(|opened| stands_on(&opened))
            })
    }
}
