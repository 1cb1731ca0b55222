//! Commits on branches of a repository on this machine.

use git2::{ErrorCode, ObjectType};

use super::{Author, Draft, Error, LocalRepository, objects, publish};
use crate::model::repository::{RepoPath, Revision};

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
