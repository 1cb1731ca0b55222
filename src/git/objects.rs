//! Reading commits from the object database.

use std::collections::BTreeMap;

use git2::{FileMode, ObjectType, Oid, Repository};

use super::Error;
use crate::model::{
    bundle::MAX_BUNDLE_BYTES,
    repository::{Entry, MAX_FILE_BYTES, RepoPath, Revision, Tree, publication},
};

/// How many files a revision may have.
const MAX_FILES: usize = 50_000;

/// How deep its directories may nest.
const MAX_DEPTH: usize = 32;

/// What its files may sum to, in bytes.
const MAX_TOTAL_BYTES: u64 = 128 << 20;

/// The object name of a revision.
pub(super) fn oid(revision: &Revision) -> Result<Oid, Error> {
    Oid::from_str(revision.as_str()).map_err(|source| Error::Read {
        what: format!("commit {revision}"),
        source,
    })
}

/// The revision of an object name.
pub(super) fn revision(oid: Oid) -> Result<Revision, Error> {
    Revision::parse(&oid.to_string()).map_err(|error| Error::Read {
        what: format!("object name {oid}"),
        source: git2::Error::from_str(&error.to_string()),
    })
}

/// The first paragraph of a commit's message, in one line.
pub(super) fn subject(repository: &Repository, revision: &Revision) -> Result<String, Error> {
    let commit = repository.find_commit(oid(revision)?);
    let commit = commit.map_err(|source| Error::Read {
        what: format!("commit {revision}"),
        source,
    })?;
    let bytes = commit.summary_bytes().unwrap_or_default();
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Every file of a commit below a directory, by its path in that directory; none if the commit does
/// not have it.
pub(super) fn tree(
    repository: &Repository,
    revision: &Revision,
    directory: &RepoPath,
) -> Result<Tree, Error> {
    let Some(root) = directory_tree(repository, revision, directory)? else {
        return Ok(Tree::default());
    };
    let mut reader = Reader {
        repository,
        revision,
        tree: Tree::default(),
        files: 0,
        bytes: 0,
    };
    reader.read(&root, &RepoPath::ROOT, 0)?;
    Ok(reader.tree)
}

/// What stands at the names of a publication's files in a directory of a commit. Whatever else is
/// there, and however much of it, is not looked at: whoever may push can put it there.
pub(super) fn publication(
    repository: &Repository,
    revision: &Revision,
    directory: &RepoPath,
) -> Result<BTreeMap<String, Entry>, Error> {
    let failed = |source| Error::Read {
        what: format!("`{directory}` at {revision}"),
        source,
    };
    let Some(tree) = directory_tree(repository, revision, directory)? else {
        return Ok(BTreeMap::new());
    };
    let mut found = BTreeMap::new();
    for name in publication::FILES {
        let Some(entry) = tree.get_name(name) else {
            continue;
        };
        let content = match entry.filemode() {
            mode if mode == i32::from(FileMode::Tree) => continue,
            mode => content(repository, mode, entry.id(), MAX_BUNDLE_BYTES as u64),
        };
        found.insert(name.to_owned(), content.map_err(failed)?);
    }
    Ok(found)
}

/// The files of a publication that can be used, by name.
pub(super) fn files(
    repository: &Repository,
    revision: &Revision,
    directory: &RepoPath,
) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let found = publication(repository, revision, directory)?;
    Ok(found
        .into_iter()
        .filter_map(|(name, entry)| match entry {
            Entry::File(content) => Some((name, content.to_vec())),
            _ => None,
        })
        .collect())
}

/// What an entry of a tree that is no directory stands for; a file above a size is not read.
fn content(repository: &Repository, mode: i32, id: Oid, limit: u64) -> Result<Entry, git2::Error> {
    if mode == i32::from(FileMode::Link) {
        return Ok(Entry::Symlink);
    }
    if mode == i32::from(FileMode::Commit) {
        return Ok(Entry::Submodule);
    }
    let (size, _) = repository.odb()?.read_header(id)?;
    if size as u64 > limit {
        return Ok(Entry::TooLarge(size as u64));
    }
    Ok(Entry::File(repository.find_blob(id)?.content().into()))
}

fn commit_tree<'r>(
    repository: &'r Repository,
    revision: &Revision,
) -> Result<git2::Tree<'r>, Error> {
    repository
        .find_commit(oid(revision)?)
        .and_then(|commit| commit.tree())
        .map_err(|source| Error::Read {
            what: format!("commit {revision}"),
            source,
        })
}

/// A directory of a commit; `None` if there is none at the path.
fn directory_tree<'r>(
    repository: &'r Repository,
    revision: &Revision,
    directory: &RepoPath,
) -> Result<Option<git2::Tree<'r>>, Error> {
    let root = commit_tree(repository, revision)?;
    if directory.as_str().is_empty() {
        return Ok(Some(root));
    }
    let failed = |source| Error::Read {
        what: format!("`{directory}` at {revision}"),
        source,
    };
    match root.get_path(directory.as_str().as_ref()) {
        Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
        Ok(entry) if entry.kind() != Some(ObjectType::Tree) => Ok(None),
        Ok(entry) => repository.find_tree(entry.id()).map(Some).map_err(failed),
    }
}

struct Reader<'a> {
    repository: &'a Repository,
    revision: &'a Revision,
    tree: Tree,
    files: usize,
    bytes: u64,
}

impl Reader<'_> {
    fn read(&mut self, tree: &git2::Tree<'_>, at: &RepoPath, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(self.too_large(format!("{MAX_DEPTH} nested directories")));
        }
        for entry in tree {
            let path = entry.name().ok().and_then(|name| at.join(name).ok());
            let Some(path) = path.filter(|path| path != at) else {
                tracing::warn!(directory = %at, "a file name that no path can hold is skipped");
                continue;
            };
            let failed = |source| Error::Read {
                what: format!("`{path}` at {}", self.revision),
                source,
            };
            let mode = entry.filemode();
            if mode == i32::from(FileMode::Tree) {
                let below = self.repository.find_tree(entry.id()).map_err(failed)?;
                self.read(&below, &path, depth + 1)?;
                continue;
            }
            let content =
                content(self.repository, mode, entry.id(), MAX_FILE_BYTES).map_err(failed)?;
            if let Entry::File(content) = &content {
                self.bytes += content.len() as u64;
            }
            self.files += 1;
            if self.files > MAX_FILES {
                return Err(self.too_large(format!("{MAX_FILES} files")));
            }
            if self.bytes > MAX_TOTAL_BYTES {
                return Err(self.too_large(format!("{MAX_TOTAL_BYTES} bytes of files")));
            }
            self.tree.insert(path, content);
        }
        Ok(())
    }

    fn too_large(&self, limit: String) -> Error {
        Error::TooLarge {
            revision: self.revision.clone(),
            limit,
        }
    }
}
