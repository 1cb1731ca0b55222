//! The port to forges: pull requests by which people decide about what the agent proposes.
//!
//! **Invariants:** the token is read again for every call, goes to the API's own address only, by TLS
//! whose certificate was verified, and gets into no text; nothing but pull requests from the agent's
//! own branch is looked at or changed; nothing is ever merged. What a forge says is clipped, and
//! never more than told.
//!
//! Forges call them pull or merge requests: here, a request.

use std::{future::Future, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use thiserror::Error;

mod address;
mod client;
mod connection;
mod dialect;
mod gitea;
mod github;
mod gitlab;
#[cfg(test)]
mod tests;

pub use self::{
    address::{Address, Unclear},
    client::{Client, Settings},
};

/// Whose API is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// GitHub, also an Enterprise Server.
    GitHub,
    /// GitLab.
    GitLab,
    /// Gitea, and Forgejo.
    #[serde(alias = "forgejo")]
    Gitea,
}

/// An HTTP proxy on the way to a forge.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Its URL, `http://…` or `https://…`, without credentials.
    pub url: String,
    /// The user name, and the file with the password, that it is shown.
    pub auth: Option<(String, PathBuf)>,
}

/// From where to where a request leads, in one project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branches {
    /// The branch that is to be merged.
    pub head: String,
    /// The branch that it is to be merged into.
    pub base: String,
}

/// What a request says to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// One line.
    pub title: String,
    /// Markdown.
    pub body: String,
}

/// A request, as the forge has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number in the project.
    pub number: u64,
    /// Where people find it.
    pub url: String,
    /// What became of it.
    pub state: State,
    /// What it says.
    pub words: Words,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// People have not decided yet.
    Open,
    /// It was merged.
    Merged,
    /// It was closed without being merged.
    Closed,
}

/// What came of opening a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// There is a new one.
    New(Request),
    /// There was one already, for the same branches.
    AlreadyThere,
}

/// A forge, and one project in it.
pub trait Forge: Send + Sync + 'static {
    /// The requests for the branches, the newest first. Of those that are not open, very old ones may
    /// be missing.
    fn requests(
        &self,
        branches: &Branches,
    ) -> impl Future<Output = Result<Vec<Request>, Error>> + Send;

    /// Opens a request, if none is open for the branches.
    fn open(
        &self,
        branches: &Branches,
        words: &Words,
    ) -> impl Future<Output = Result<Opened, Error>> + Send;

    /// Has a request say something else.
    fn rewrite(&self, number: u64, words: &Words)
    -> impl Future<Output = Result<(), Error>> + Send;

    /// Closes a request without merging it.
    fn close(&self, number: u64) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Why a forge could not be asked. No message holds a token.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A token or the certificate authorities can't be read.
    #[error("read `{path}`")]
    File {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A token that no header can carry.
    #[error("`{0}` holds no token: it is empty, or has characters that no token has")]
    Token(String),
    /// Nothing to verify the forge's certificate with.
    #[error("no certificate authorities to verify the forge with: {0}")]
    Authorities(String),
    /// No connection to the forge or to the proxy, or none that is safe.
    #[error("connect to {host}: {reason}")]
    Connect {
        /// Host and port.
        host: String,
        /// The cause.
        reason: String,
    },
    /// The answer broke off, is not HTTP, or not what the API is to answer.
    #[error("the answer of {host} can't be read: {reason}")]
    Answer {
        /// Host and port.
        host: String,
        /// The cause.
        reason: String,
    },
    /// Another answer than success.
    #[error("{host} answered {status} to {asked}: {words}{}", hint(*.status))]
    Status {
        /// Host and port.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The method and the path.
        asked: String,
        /// What the forge said.
        words: String,
    },
    /// No whole answer in time.
    #[error("{host}: no whole answer within {} s", .limit.as_secs())]
    Timeout {
        /// Host and port.
        host: String,
        /// How long it had.
        limit: Duration,
    },
}

/// What a status usually means.
fn hint(status: u16) -> &'static str {
    match status {
        401 => " (the token is not valid, or no longer)",
        403 => " (the token may not do that, or asks too often)",
        404 => " (there is no such project, or the token may not see it)",
        301 | 302 | 307 | 308 => " (the project was moved: correct `git.url` or `apiUrl`)",
        _ => "",
    }
}

impl Error {
    /// Whether the same request may succeed later, without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            // Tokens are rotated by writing their files.
            Self::Connect { .. }
            | Self::Answer { .. }
            | Self::Timeout { .. }
            | Self::File { .. } => true,
            Self::Status { status, .. } => matches!(status, 403 | 408 | 429 | 500..),
            Self::Token(_) | Self::Authorities(_) => false,
        }
    }
}
