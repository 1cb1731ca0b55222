//! The files of a directory as a tree, for the command line.

use std::{fs, io, path::Path};

use crate::model::repository::{Entry, MAX_FILE_BYTES, RepoPath, Tree};

/// Reads every file below a directory, `.git` left out. Symbolic links are not followed.
pub fn read(directory: &Path) -> io::Result<Tree> {
    let mut tree = Tree::default();
    read_into(&mut tree, directory, &RepoPath::ROOT)?;
    Ok(tree)
}

fn read_into(tree: &mut Tree, directory: &Path, at: &RepoPath) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == ".git" {
            continue;
        }
        let Some(path) = name.to_str().and_then(|name| at.join(name).ok()) else {
            tracing::warn!(directory = %at, ?name, "a file name that no path can hold is skipped");
            continue;
        };
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            tree.insert(path, Entry::Symlink);
        } else if kind.is_dir() {
            read_into(tree, &entry.path(), &path)?;
        } else if kind.is_file() {
            let size = entry.metadata()?.len();
            let content = if size > MAX_FILE_BYTES {
                Entry::TooLarge(size)
            } else {
                Entry::File(fs::read(entry.path())?.into())
            };
            tree.insert(path, content);
        }
    }
    Ok(())
}
