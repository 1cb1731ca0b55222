//! The repository a user keeps: its paths, and a tree of it in memory.
//!
//! A [`Tree`] is a value: a git adapter reads it from blobs (no worktree, so no symbolic link is
//! ever followed), the command line reads it from a directory, a test writes it down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Bound,
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    diagnostic::{Code, Diagnostic},
    trust_domain::{ClusterName, TrustDomain},
};

/// Files above this size are not read.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// A path inside the repository: relative, `/`-separated, normalised, never leaving the repository.
///
/// The repository's root is the empty path, shown as `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RepoPath(String);

/// Why a text is no [`RepoPath`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidRepoPath {
    /// The path starts at the file system's root.
    #[error("`{0}` is an absolute path")]
    Absolute(String),
    /// The path climbs above the repository's root.
    #[error("`{0}` leaves the repository")]
    Escapes(String),
    /// The path has a character that no path of a repository has.
    #[error("`{0}` has a control character or a backslash")]
    Character(String),
}

impl RepoPath {
    /// The repository's root.
    pub const ROOT: Self = Self(String::new());

    /// Parses and normalises a path relative to the repository's root.
    pub fn parse(text: &str) -> Result<Self, InvalidRepoPath> {
        Self::ROOT.join(text)
    }

    /// Resolves `relative` (which may hold `.` and `..`) against this directory.
    pub fn join(&self, relative: &str) -> Result<Self, InvalidRepoPath> {
        if relative.starts_with('/') {
            return Err(InvalidRepoPath::Absolute(relative.to_owned()));
        }
        if relative.chars().any(|c| c.is_control() || c == '\\') {
            return Err(InvalidRepoPath::Character(relative.to_owned()));
        }
        let mut parts: Vec<&str> = self.0.split('/').filter(|part| !part.is_empty()).collect();
        for part in relative.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    if parts.pop().is_none() {
                        return Err(InvalidRepoPath::Escapes(relative.to_owned()));
                    }
                }
                part => parts.push(part),
            }
        }
        Ok(Self(parts.join("/")))
    }

    /// The directory that holds this path; the root's parent is the root.
    #[must_use]
    pub fn parent(&self) -> Self {
        Self(
            self.0
                .rsplit_once('/')
                .map_or(String::new(), |(parent, _)| parent.to_owned()),
        )
    }

    /// The last part of the path; empty for the root.
    pub fn file_name(&self) -> &str {
        self.0
            .rsplit_once('/')
            .map_or(self.0.as_str(), |(_, name)| name)
    }

    /// The path as text, `/`-separated; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this path is `directory` or lies below it.
    pub fn is_within(&self, directory: &Self) -> bool {
        directory.0.is_empty()
            || self.0 == directory.0
            || self
                .0
                .strip_prefix(&directory.0)
                .is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "." } else { &self.0 })
    }
}

impl FromStr for RepoPath {
    type Err = InvalidRepoPath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// A commit's object name: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Revision(String);

/// The text is no object name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a git commit name (40 or 64 hexadecimal digits)")]
pub struct InvalidRevision(String);

impl Revision {
    /// Parses a full object name.
    pub fn parse(text: &str) -> Result<Self, InvalidRevision> {
        let hexadecimal = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hexadecimal && matches!(text.len(), 40 | 64) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidRevision(text.to_owned()))
        }
    }

    /// The full object name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 8 digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Revision {
    type Error = InvalidRevision;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Revision> for String {
    fn from(revision: Revision) -> Self {
        revision.0
    }
}

/// What stands at a path of a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file's content.
    File(Arc<[u8]>),
    /// A file above [`MAX_FILE_BYTES`]; its size in bytes.
    TooLarge(u64),
    /// A symbolic link: never followed.
    Symlink,
    /// A git submodule: never fetched.
    Submodule,
}

/// The content of one revision, files only, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<RepoPath, Entry>,
}

impl Tree {
    /// Puts an entry at a path, replacing what was there.
    pub fn insert(&mut self, path: RepoPath, entry: Entry) {
        self.entries.insert(path, entry);
    }

    /// What stands at the path.
    pub fn get(&self, path: &RepoPath) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Every path with its entry, in order of the paths.
    pub fn iter(&self) -> impl Iterator<Item = (&RepoPath, &Entry)> {
        self.entries.iter()
    }

    /// Every path below the directory with its entry, in order of the paths.
    pub fn below(&self, directory: &RepoPath) -> impl Iterator<Item = (&RepoPath, &Entry)> {
        self.entries
            .range((Bound::Included(directory.clone()), Bound::Unbounded))
            .skip_while(|(path, _)| !path.is_within(directory))
            .take_while(|(path, _)| {
                path.is_within(directory) || path.as_str().starts_with(directory.as_str())
            })
            .filter(|(path, _)| path.is_within(directory))
    }

    /// Whether some file lies below the path.
    pub fn is_directory(&self, path: &RepoPath) -> bool {
        !self.entries.contains_key(path) && self.below(path).next().is_some()
    }

    /// The names directly inside the directory that are directories themselves, in order.
    pub fn directories(&self, directory: &RepoPath) -> BTreeSet<&str> {
        let depth = if directory.as_str().is_empty() {
            0
        } else {
            directory.as_str().len() + 1
        };
        self.below(directory)
            .filter_map(|(path, _)| path.as_str().get(depth..)?.split_once('/'))
            .map(|(name, _)| name)
            .collect()
    }

    /// The file's text, or what keeps it from being read.
    pub fn text(&self, path: &RepoPath) -> Result<&str, Diagnostic> {
        let unreadable = |message: String, help: &str| {
            Err(Diagnostic::error(Code::UnreadableFile, path, message).help(help))
        };
        match self.get(path) {
            None => Err(Diagnostic::error(
                Code::MissingFile,
                path,
                if self.is_directory(path) {
                    "this is a directory, not a file".to_owned()
                } else {
                    "there is no such file".to_owned()
                },
            )),
            Some(Entry::TooLarge(size)) => unreadable(
                format!("the file has {size} bytes, more than the {MAX_FILE_BYTES} that are read"),
                "split it into several files",
            ),
            Some(Entry::Symlink) => unreadable(
                "symbolic links are not followed".to_owned(),
                "put the file itself here",
            ),
            Some(Entry::Submodule) => unreadable(
                "git submodules are not fetched".to_owned(),
                "commit the files themselves",
            ),
            Some(Entry::File(content)) => match std::str::from_utf8(content) {
                Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
                Err(_) => unreadable(
                    "the file is not UTF-8 text".to_owned(),
                    "save it with the encoding UTF-8",
                ),
            },
        }
    }
}

impl<P: AsRef<str>, C: AsRef<[u8]>> FromIterator<(P, C)> for Tree {
    /// A tree from paths and contents; paths that are no [`RepoPath`] are left out.
    fn from_iter<T: IntoIterator<Item = (P, C)>>(files: T) -> Self {
        let entries = files
            .into_iter()
            .filter_map(|(path, content)| {
                let path = RepoPath::parse(path.as_ref()).ok()?;
                Some((path, Entry::File(content.as_ref().into())))
            })
            .collect();
        Self { entries }
    }
}

/// `topology.yaml`: who should federate with whom.
pub fn topology_path() -> RepoPath {
    RepoPath("topology.yaml".to_owned())
}

/// `trust-domains`: one directory per trust domain.
pub fn trust_domains_directory() -> RepoPath {
    RepoPath("trust-domains".to_owned())
}

/// `trust-domains/<trust-domain>`.
pub fn trust_domain_directory(trust_domain: &TrustDomain) -> RepoPath {
    RepoPath(format!("trust-domains/{trust_domain}"))
}

/// `trust-domains/<trust-domain>/trust-domain.yaml`: the declaration of the trust domain.
pub fn trust_domain_path(trust_domain: &TrustDomain) -> RepoPath {
    RepoPath(format!("trust-domains/{trust_domain}/trust-domain.yaml"))
}

/// `trust-domains/<trust-domain>/distrust.yaml`.
pub fn distrust_path(trust_domain: &TrustDomain) -> RepoPath {
    RepoPath(format!("trust-domains/{trust_domain}/distrust.yaml"))
}

/// `clusters`: one overlay per cluster.
pub fn clusters_directory() -> RepoPath {
    RepoPath("clusters".to_owned())
}

/// `clusters/<cluster>`: the overlay that the agent of that cluster applies.
pub fn overlay_directory(cluster: &ClusterName) -> RepoPath {
    RepoPath(format!("clusters/{cluster}"))
}

/// `trustweave/<trust-domain>`: the branch that only the agent of the trust domain writes.
pub fn publication_branch(trust_domain: &TrustDomain) -> String {
    format!("trustweave/{trust_domain}")
}

/// `trustweave-proposals/<trust-domain>`: the branch on which the agent of the trust domain proposes a
/// publication on the reviewed branch. It is nobody's publication.
pub fn proposal_branch(trust_domain: &TrustDomain) -> String {
    format!("trustweave-proposals/{trust_domain}")
}

/// The names of the files of a publication, on its branch or in its directory.
pub mod publication {
    /// The SPIFFE bundle, canonical bytes.
    pub const BUNDLE: &str = "bundle.json";
    /// What the publisher says about the bundle.
    pub const ATTESTATION: &str = "bundle.attestation.json";
    /// The SSH signature over the attestation's bytes.
    pub const SIGNATURE: &str = "bundle.attestation.json.sig";
    /// All of them.
    pub const FILES: [&str; 3] = [BUNDLE, ATTESTATION, SIGNATURE];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_and_never_escape() {
        let base = RepoPath::parse("clusters/a").unwrap();
        assert_eq!(
            base.join("../../base/./x.yaml").unwrap().as_str(),
            "base/x.yaml"
        );
        assert_eq!(base.join("").unwrap(), base);
        assert!(matches!(
            base.join("../../.."),
            Err(InvalidRepoPath::Escapes(_))
        ));
        assert!(matches!(
            base.join("/etc/passwd"),
            Err(InvalidRepoPath::Absolute(_))
        ));
        assert!(matches!(
            base.join("a\\b"),
            Err(InvalidRepoPath::Character(_))
        ));
    }

    #[test]
    fn a_directory_lists_what_is_below_it_and_nothing_else() {
        let tree: Tree = [
            ("a-b/x", ""),
            ("a/x", ""),
            ("a/y/z", ""),
            ("a/y/q", ""),
            ("ab", ""),
        ]
        .into_iter()
        .collect();
        let a = RepoPath::parse("a").unwrap();
        let below: Vec<_> = tree.below(&a).map(|(path, _)| path.as_str()).collect();
        assert_eq!(below, ["a/x", "a/y/q", "a/y/z"]);
        assert_eq!(tree.directories(&a), BTreeSet::from(["y"]));
        assert_eq!(
            tree.directories(&RepoPath::ROOT),
            BTreeSet::from(["a", "a-b"])
        );
        assert!(tree.is_directory(&a));
        assert!(!tree.is_directory(&RepoPath::parse("ab").unwrap()));
    }
}
