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
    ($(
        $(#[doc = $doc:literal])+
        $variant:ident = $text:literal { why: $why:literal, cure: $cure:literal, },
    )+) => {
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

            /// What it tells, in a sentence.
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc,)+).trim(),)+
                }
            }

            /// Why it matters, without a full stop.
            pub const fn why(self) -> &'static str {
                match self {
                    $(Self::$variant => $why,)+
                }
            }

            /// What to do about it, without a full stop.
            pub const fn cure(self) -> &'static str {
                match self {
                    $(Self::$variant => $cure,)+
                }
            }
        }
    };
}

codes! {
    /// The file is not YAML, or not YAML that Trustweave reads (tags, too deep, too many values).
    YamlSyntax = "yaml-syntax" {
        why: "nothing of the file can be used: what was good before stays in force",
        cure: "correct the place that the message names",
    },
    /// A key is written twice in one mapping.
    DuplicateKey = "duplicate-key" {
        why: "one of the two is a mistake, and programs do not agree on which of them counts",
        cure: "keep one of the two",
    },
    /// A field that the kind does not have.
    UnknownField = "unknown-field" {
        why: "a typo would otherwise change nothing, silently",
        cure: "correct the name, or remove the field; `trustweave schema` has an editor tell it while you type",
    },
    /// A field that must be there is missing.
    MissingField = "missing-field" {
        why: "there is no default that would be right for everybody",
        cure: "add the field",
    },
    /// A value of the wrong type or outside what is allowed.
    InvalidValue = "invalid-value" {
        why: "the declaration can't be used: of the same trust domain, what was good before stays in force",
        cure: "write one of the values that the message names",
    },
    /// A file that must be there is missing.
    MissingFile = "missing-file" {
        why: "what needs it can't be used, and nothing is concluded from its absence",
        cure: "commit the file, or correct the path; paths are relative to the file that names them",
    },
    /// A file that is not read: too large, a symbolic link, a submodule, not UTF-8.
    UnreadableFile = "unreadable-file" {
        why: "agents follow nothing out of the repository, and their memory must not depend on who may push",
        cure: "commit the file itself, as text, within the limits of `docs/kustomize.md`",
    },
    /// A document with another `apiVersion` or `kind` than its place in the repository calls for.
    WrongKind = "wrong-kind" {
        why: "a document in the wrong place means nothing there",
        cure: "write the `apiVersion` and `kind` that the message names, or move the document",
    },
    /// A name that no declaration stands for.
    UnknownTrustDomain = "unknown-trust-domain" {
        why: "nothing is known of such a peer, neither its signers nor its endpoint: nothing of it is delivered",
        cure: "correct the name, or add `trust-domains/<trust domain>/trust-domain.yaml`",
    },
    /// Two trust domains claim one cluster.
    DuplicateClaim = "duplicate-claim" {
        why: "a cluster belongs to one trust domain, and nothing says which: what was good before stays in force",
        cure: "remove the cluster from one of the two",
    },
    /// A trust domain is asked to federate with itself.
    SelfFederation = "self-federation" {
        why: "a SPIRE server has its own bundle anyway; the edge means nothing",
        cure: "correct one of the two names, or remove the edge",
    },
    /// An edge of the topology that the consent of one side forbids or does not yet allow.
    MissingConsent = "missing-consent" {
        why: "nobody is trusted until both sides agree by name: the edge waits",
        cure: "have the owners that the message names add the peer to `consent.import` or `consent.export`",
    },
    /// A kustomization field or feature that Trustweave does not render.
    UnsupportedKustomization = "unsupported-kustomization" {
        why: "to ignore it would apply something else than what is written",
        cure: "use what the message names in its place, or commit the rendered manifests",
    },
    /// A kustomization that includes itself, leaves the repository, or names what is not there.
    InvalidReference = "invalid-reference" {
        why: "what it stands for is not known: it is left out, and what is left out is not pruned",
        cure: "correct the path or the name",
    },
    /// A patch that does not apply, or that changes nothing.
    PatchFailed = "patch-failed" {
        why: "an object without its patch is not the one that was meant: it is left out, and not pruned",
        cure: "correct the patch's target or path, or remove the patch",
    },
    /// A document that is not a Kubernetes object.
    NotAnObject = "not-an-object" {
        why: "it can't be applied",
        cure: "give it `apiVersion`, `kind` and `metadata.name`, or take the file out of `resources`",
    },
    /// One object is declared twice.
    DuplicateObject = "duplicate-object" {
        why: "the two would be applied over each other, and nothing says which of them is meant",
        cure: "keep one of the two, or list its file or base only once",
    },
    /// An object that Trustweave itself keeps must not be in an overlay.
    ReservedObject = "reserved-object" {
        why: "two writers of one object undo each other, and SPIRE ignores the younger of two relationships with \
              one trust domain",
        cure: "remove it from the overlay: an edge in `topology.yaml` makes the relationship",
    },
    /// A declared cluster has no overlay, or one without any object.
    MissingOverlay = "missing-overlay" {
        why: "that is no wish to delete everything: nothing of the cluster is applied or pruned",
        cure: "create `clusters/<cluster>/kustomization.yaml`, and list manifests in `resources`",
    },
    /// A published bundle that can't be used.
    InvalidBundle = "invalid-bundle" {
        why: "peers refuse it, and keep the last one that was good",
        cure: "restore the commit of the trust domain's agent, which alone writes these files",
    },
    /// An entry that is well formed, and changes nothing.
    WithoutEffect = "without-effect" {
        why: "who wrote it probably meant something else",
        cure: "correct it as the message says, or remove it",
    },
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
