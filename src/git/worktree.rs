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
            tree.insert(path, content(&entry.path(), entry.metadata()?.len())?);
        }
    }
    Ok(())
}

fn content(path: &Path, size: u64) -> io::Result<Entry> {
    Ok(if size > MAX_FILE_BYTES {
        Entry::TooLarge(size)
    } else {
        Entry::File(fs::read(path)?.into())
    })
}

/// One file of the directory; `None` if there is nothing at the path.
pub fn file(directory: &Path, path: &RepoPath) -> io::Result<Option<Entry>> {
    let path = directory.join(path.as_str());
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(found) if found.is_symlink() => Ok(Some(Entry::Symlink)),
        Ok(found) if found.is_file() => content(&path, found.len()).map(Some),
        Ok(_) => Err(io::Error::other("this is not a file")),
    }
}

/// Writes one file of the directory, whole or not at all. What stands at its path is replaced, and
/// not followed.
pub fn write(directory: &Path, path: &RepoPath, content: &str) -> io::Result<()> {
    let target = directory.join(path.as_str());
    let draft = target.with_file_name(format!(".{}.new", path.file_name()));
    let written = fs::File::create_new(&draft)
        .and_then(|mut file| io::Write::write_all(&mut file, content.as_bytes()))
        .and_then(|()| fs::rename(&draft, &target));
    if written.is_err() {
        // What stood there before still does.
        drop(fs::remove_file(&draft));
    }
    written
}
