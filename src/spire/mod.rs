//! The port to SPIRE: where the trust domain's own bundle comes from, what a workload holds, and what
//! peers' bundle endpoints serve.
//!
//! **Invariant:** nothing here writes. The agent changes SPIRE through Kubernetes objects only.

use std::future::Future;

use thiserror::Error;

pub mod configmap;
pub mod endpoint;
pub mod exec;
pub mod workload_api;

/// Where the own bundle is read.
pub trait BundleSource: Send + Sync + 'static {
    /// The bundle document as it is now.
    fn current(&self) -> impl Future<Output = Result<Vec<u8>, Error>> + Send;

    /// Completes when the bundle may have changed since the last call; it may complete too often.
    fn changed(&self) -> impl Future<Output = ()> + Send;
}

/// Why the own bundle can't be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The `ConfigMap` can't be read.
    #[error("read ConfigMap {namespace}/{name}")]
    ConfigMap {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The `ConfigMap` is there, but not the key.
    #[error(
        "ConfigMap {namespace}/{name} has no key `{key}`: is SPIRE's BundlePublisher `k8s_configmap` set up with format `spiffe`?"
    )]
    MissingKey {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// The command can't be run in SPIRE's container.
    #[error("execute `{command}` in pod {pod}")]
    Exec {
        /// The command.
        command: String,
        /// The pod, with its namespace.
        pod: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The command ended without success; with what it said.
    #[error("`{command}` in pod {pod} failed: {stderr}")]
    Command {
        /// The command.
        command: String,
        /// The pod, with its namespace.
        pod: String,
        /// What it wrote to its standard error.
        stderr: String,
    },
    /// No answer in time.
    #[error("no answer from SPIRE's container within {0} s")]
    Timeout(u64),
}

/// The source that a trust domain's declaration names.
pub enum Source {
    /// The `ConfigMap` of the `BundlePublisher`.
    ConfigMap(configmap::ConfigMap),
    /// A command in the server's container.
    Exec(exec::Exec),
}

impl BundleSource for Source {
    async fn current(&self) -> Result<Vec<u8>, Error> {
        match self {
            Self::ConfigMap(source) => source.current().await,
            Self::Exec(source) => source.current().await,
        }
    }

    async fn changed(&self) {
        match self {
            Self::ConfigMap(source) => source.changed().await,
            Self::Exec(source) => source.changed().await,
        }
    }
}
