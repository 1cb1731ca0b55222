//! What is wrong in a repository, where, why it matters and what to do about it.

use std::fmt;

use super::repository::RepoPath;

/// An error with what led to it, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// How much a [`Diagnostic`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file, or the part of it named by the position, is not used: last good state stays.
    Error,
    /// Used as written, though it is probably not what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in a file, both counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+) => {
        /// Stable identifier of a kind of diagnostic. The text form never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Code {
            /// Every code there is, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable text form.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

codes! {
    /// The file is not YAML, or not YAML that Trustweave reads (tags, too deep, duplicate keys).
    YamlSyntax = "yaml-syntax",
    /// A key is written twice in one mapping.
    DuplicateKey = "duplicate-key",
    /// A field that the kind does not have.
    UnknownField = "unknown-field",
    /// A field that must be there is missing.
    MissingField = "missing-field",
    /// A value of the wrong type or outside what is allowed.
    InvalidValue = "invalid-value",
    /// A file that must be there is missing.
    MissingFile = "missing-file",
    /// A file that is not read: too large, a symbolic link, a submodule, not UTF-8.
    UnreadableFile = "unreadable-file",
    /// A document with another `apiVersion` or `kind` than its place in the repository calls for.
    WrongKind = "wrong-kind",
    /// A name that no declaration stands for.
    UnknownTrustDomain = "unknown-trust-domain",
    /// Two declarations claim one cluster, or one name.
    DuplicateClaim = "duplicate-claim",
    /// A trust domain is asked to federate with itself.
    SelfFederation = "self-federation",
    /// An edge of the topology that the consent of one side forbids or does not yet allow.
    MissingConsent = "missing-consent",
    /// A kustomization field or feature that Trustweave does not render.
    UnsupportedKustomization = "unsupported-kustomization",
    /// A kustomization that includes itself, or leaves the repository.
    InvalidReference = "invalid-reference",
    /// A patch that does not apply.
    PatchFailed = "patch-failed",
    /// A document that is not a Kubernetes object.
    NotAnObject = "not-an-object",
    /// One object is declared twice.
    DuplicateObject = "duplicate-object",
    /// An object that Trustweave itself keeps must not be in an overlay.
    ReservedObject = "reserved-object",
    /// A declared cluster has no overlay.
    MissingOverlay = "missing-overlay",
    /// A published bundle that can't be used.
    InvalidBundle = "invalid-bundle",
    /// An entry that is well formed, and changes nothing.
    WithoutEffect = "without-effect",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One finding about the repository's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// What kind of finding it is.
    pub code: Code,
    /// The file it is about.
    pub path: RepoPath,
    /// Where in the file, if it is about one place.
    pub position: Option<Position>,
    /// What is wrong and why, without a full stop.
    pub message: String,
    /// What to do about it, without a full stop.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error about a whole file; refine it with [`Self::at`] and [`Self::help`].
    pub fn error(code: Code, path: &RepoPath, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            path: path.clone(),
            position: None,
            message: message.into(),
            help: None,
        }
    }

    /// A warning about a whole file; refine it with [`Self::at`] and [`Self::help`].
    pub fn warning(code: Code, path: &RepoPath, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, path, message)
        }
    }

    /// The same finding at a place in the file.
    #[must_use]
    pub fn at(mut self, position: impl Into<Option<Position>>) -> Self {
        self.position = position.into();
        self
    }

    /// The same finding with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether this finding takes its file out of use.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    /// One line: `path:line:column: severity[code]: message (help)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        if let Some(position) = self.position {
            write!(f, ":{position}")?;
        }
        write!(f, ": {}[{}]: {}", self.severity, self.code, self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// The candidate nearest to what was written, if one is near enough to be meant.
pub fn nearest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(written, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
