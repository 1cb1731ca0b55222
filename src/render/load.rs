//! Files of the repository, within what an overlay may read.

use super::{accumulate::Renderer, kustomization::FILE_NAMES};
use crate::model::{
    diagnostic::{Code, Diagnostic, Position, nearest},
    repository::{Entry, RepoPath},
};

/// How much is read for one overlay, each use of a file counted.
const MAX_BYTES: usize = 64 << 20;

/// Where an entry stands: the kustomization, and the place in it.
pub(super) type Place<'p> = (&'p RepoPath, Position);

/// A diagnostic about an entry.
pub(super) fn refuse((file, at): Place<'_>, code: Code, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(code, file, message).at(at)
}

impl<'a> Renderer<'a> {
    /// The one kustomization file of a directory.
    pub(super) fn kustomization_file(
        &self,
        directory: &RepoPath,
    ) -> Result<Option<RepoPath>, Diagnostic> {
        let mut found = FILE_NAMES
            .iter()
            .filter_map(|name| directory.join(name).ok())
            .filter(|path| self.tree.get(path).is_some());
        let (first, second) = (found.next(), found.next());
        match (&first, &second) {
            (Some(first), Some(second)) => Err(Diagnostic::error(
                Code::InvalidReference,
                second,
                format!("`{}` stands beside it", first.file_name()),
            )
            .help("keep one of the two")),
            _ => Ok(first),
        }
    }

    /// A file's text.
    pub(super) fn text(&mut self, path: &RepoPath) -> Result<&'a str, Diagnostic> {
        let text = self.tree.text(path)?;
        self.count(path, text.len())?;
        Ok(text)
    }

    /// The text of a file that an entry names, inside the kustomization's directory.
    pub(super) fn text_of(
        &mut self,
        directory: &RepoPath,
        entry: &str,
        place: Place<'_>,
    ) -> Result<(RepoPath, &'a str), Diagnostic> {
        let path = self.file(directory, entry, place)?;
        let text = self
            .text(&path)
            .map_err(|error| missing(error, &path, place))?;
        Ok((path, text))
    }

    /// The content of a file that an entry names, inside the kustomization's directory; it need not
    /// be a text.
    pub(super) fn bytes_of(
        &mut self,
        directory: &RepoPath,
        entry: &str,
        place: Place<'_>,
    ) -> Result<Vec<u8>, Diagnostic> {
        let path = self.file(directory, entry, place)?;
        match self.tree.get(&path) {
            Some(Entry::File(content)) => {
                self.count(&path, content.len())?;
                Ok(content.to_vec())
            }
            // It says why there is no text.
            _ => match self.text(&path) {
                Ok(text) => Ok(text.as_bytes().to_vec()),
                Err(error) => Err(missing(error, &path, place)),
            },
        }
    }

    /// The path of a file that an entry names, which must be inside the kustomization's directory.
    pub(super) fn file(
        &self,
        directory: &RepoPath,
        entry: &str,
        place: Place<'_>,
    ) -> Result<RepoPath, Diagnostic> {
        let path = self.resolve(directory, entry, place)?;
        if path.is_within(directory) {
            return Ok(path);
        }
        let message = format!("`{entry}` is a file outside the kustomization's directory");
        Err(refuse(place, Code::InvalidReference, message)
            .help("list its directory, with a kustomization.yaml of its own"))
    }

    fn count(&mut self, path: &RepoPath, bytes: usize) -> Result<(), Diagnostic> {
        self.bytes += bytes;
        if self.bytes > MAX_BYTES {
            let message = format!("the overlay reads more than {} MiB", MAX_BYTES >> 20);
            return Err(Diagnostic::error(Code::UnreadableFile, path, message));
        }
        Ok(())
    }

    /// The path that an entry names; nothing on the way may be a link or a submodule.
    pub(super) fn resolve(
        &self,
        directory: &RepoPath,
        entry: &str,
        place: Place<'_>,
    ) -> Result<RepoPath, Diagnostic> {
        if is_remote(entry) {
            let message = format!("`{entry}` is remote: nothing is fetched");
            return Err(refuse(place, Code::UnsupportedKustomization, message)
                .help("commit the files to this repository and name them here"));
        }
        let path = directory
            .join(entry)
            .map_err(|error| refuse(place, Code::InvalidReference, error.to_string()))?;
        let mut part = path.parent();
        while !part.as_str().is_empty() {
            if let Some(Entry::Symlink | Entry::Submodule) = self.tree.get(&part) {
                self.tree.text(&part)?;
            }
            part = part.parent();
        }
        Ok(path)
    }

    /// There is nothing at a path that an entry names.
    pub(super) fn nothing_at(&self, path: &RepoPath, place: Place<'_>) -> Diagnostic {
        let parent = path.parent();
        let names: Vec<&str> = self
            .tree
            .below(&parent)
            .filter(|(near, _)| near.parent() == parent)
            .map(|(near, _)| near.file_name())
            .chain(self.tree.directories(&parent))
            .collect();
        let message = format!("there is no file or directory `{path}`");
        let diagnostic = refuse(place, Code::InvalidReference, message);
        match nearest(path.file_name(), names) {
            Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
            None => diagnostic,
        }
    }
}

/// A file that is missing is the mistake of the entry that names it.
fn missing(error: Diagnostic, path: &RepoPath, place: Place<'_>) -> Diagnostic {
    match error.code {
        Code::MissingFile => refuse(
            place,
            Code::InvalidReference,
            format!("there is no file `{path}`"),
        ),
        _ => error,
    }
}

/// Whether kustomize would fetch the entry.
fn is_remote(entry: &str) -> bool {
    let prefixes = ["git@", "git::", "gh:", "github.com/", "gitlab.com/"];
    entry.contains("://")
        || entry.contains("?ref=")
        || prefixes.iter().any(|prefix| entry.starts_with(prefix))
}
