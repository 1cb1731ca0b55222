//! The port to SPIRE: where the trust domain's own bundle comes from, what a workload holds, and what
//! peers' bundle endpoints serve.
//!
//! **Invariant:** nothing here writes. The agent changes SPIRE through Kubernetes objects only.

use std::future::Future;

use thiserror::Error;

use crate::model::bundle::{Bundle, InvalidBundle};

pub mod auto;
pub mod configmap;
pub mod endpoint;
pub mod exec;
pub mod file;
pub mod local_endpoint;
mod polled;
mod source;
pub mod workload_api;

pub use self::source::Source;

/// Where the own bundle is read.
pub trait BundleSource: Send + Sync + 'static {
    /// The bundle as it is now.
    fn current(&self) -> impl Future<Output = Result<Bundle, Error>> + Send;

    /// Completes when the bundle may have changed since the last call; it may complete too often.
    fn changed(&self) -> impl Future<Output = ()> + Send;

    /// What the source is, for people: its kind and its place.
    fn describe(&self) -> String;
}

/// Why the own bundle can't be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The `ConfigMap` can't be read.
    #[error("read ConfigMap {name}")]
    ConfigMap {
        /// Its name, with its namespace.
        name: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no such `ConfigMap`.
    #[error("there is no ConfigMap {0}")]
    NoConfigMap(String),
    /// The agent may not read the `ConfigMap`.
    #[error(
        "the agent may not read ConfigMap {0}: grant it the verbs get, list and watch (deploy/bundle-source)"
    )]
    ConfigMapForbidden(String),
    /// The `ConfigMap` is there, but not the key.
    #[error(
        "ConfigMap {name} has no key `{key}`: is SPIRE's BundlePublisher `k8s_configmap` set up with format `spiffe`?"
    )]
    MissingKey {
        /// Its name, with its namespace.
        name: String,
        /// The key.
        key: String,
    },
    /// The `ConfigMap` holds nothing to verify the endpoint with.
    #[error("ConfigMap {name} has no X.509 root under {keys}")]
    NoRoots {
        /// Its name, with its namespace.
        name: String,
        /// The keys that were looked at.
        keys: String,
    },
    /// The bundle endpoint does not answer with a bundle, at any of its addresses.
    #[error("bundle endpoint {}", .0.iter().map(|(url, error)| format!("{url}: {error}")).collect::<Vec<_>>().join("; "))]
    Endpoint(Vec<(String, endpoint::Error)>),
    /// The command can't be run in SPIRE's container.
    #[error(transparent)]
    Exec(#[from] exec::Failure),
    /// The file can't be read.
    #[error("read the file {path}")]
    File {
        /// Its path.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// There is an answer, but no bundle in it.
    #[error("{place} holds no SPIFFE bundle")]
    NotABundle {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: InvalidBundle,
    },
    /// No answer in time.
    #[error("{place}: no answer within {seconds} s")]
    Timeout {
        /// Who did not answer.
        place: String,
        /// How long it had.
        seconds: u64,
    },
    /// None of the sources that `auto` may take gives a whole bundle.
    #[error("no source of the own bundle works: {0}")]
    NoSource(String),
}
