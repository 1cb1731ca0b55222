//! The port to a cluster: reading, watching, server-side apply, and reports.
//!
//! **Invariants:** everything is written under the one field manager, by server-side apply, or, where
//! a field holds more than what is ours, by a patch of the very object that was read; nothing is
//! forced but what only the agent keeps; every request has a deadline; a kind is looked up in the
//! cluster, never guessed; nothing is written while another agent may hold the Lease.
//!
//! A [`KubeCluster`] acts as one identity. The agent has two, and so two of them: its own, with the
//! narrow rights that `deploy/` grants, and the `ServiceAccount` that it impersonates for the
//! overlay's objects ([`KubeCluster::impersonating`]), to which users grant what their overlays need.

use std::{collections::BTreeSet, future::Future, time::Duration};

use serde_json::Value;
use thiserror::Error;

use crate::model::manifest::{Gvk, ObjectRef};

mod apply;
mod discovery;
pub mod installation;
pub mod inventory;
pub mod lease;
mod observe;
mod refusal;
mod report;
mod rights;
pub mod secret;
mod throttle;
pub mod types;

pub use self::{discovery::KubeCluster, observe::Watched};

/// How long one request may take.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// What happens to fields that another manager owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflicts {
    /// The apply fails and says who owns what: for what people declare.
    Report,
    /// They become ours: for what only the agent keeps.
    Take,
}

/// Whether an apply is for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Persist,
    /// The server only tells what would be.
    DryRun,
}

/// How much a report matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something happened as it should.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Something worth an entry in the cluster's events.
#[derive(Clone, Debug)]
pub struct Happening {
    /// Which object it is about, as read from the cluster.
    pub regarding: Value,
    /// How much it matters.
    pub severity: Severity,
    /// One word in camel case.
    pub reason: String,
    /// One or two sentences.
    pub note: String,
}

impl Happening {
    /// Something about an object.
    pub fn about(regarding: &Value, severity: Severity, reason: &str, note: String) -> Self {
        Self {
            regarding: regarding.clone(),
            severity,
            reason: reason.to_owned(),
            note,
        }
    }
}

/// A cluster that is read and written.
pub trait Cluster: Send + Sync + 'static {
    /// The UID of the namespace `kube-system`: tells one cluster from another, also a cloned one.
    fn uid(&self) -> impl Future<Output = Result<String, Error>> + Send;

    /// The kind that the cluster prefers for a `Kind.group`; `None` if it has none.
    fn preferred(
        &self,
        group_kind: &str,
    ) -> impl Future<Output = Result<Option<Gvk>, Error>> + Send;

    /// Brings an object's namespace into the form that its kind needs: a cluster-scoped one has
    /// none.
    fn locate(&self, object: &mut Value) -> impl Future<Output = Result<(), Error>> + Send;

    /// One object; `None` if it is not there.
    fn get(
        &self,
        reference: &ObjectRef,
    ) -> impl Future<Output = Result<Option<Value>, Error>> + Send;

    /// All objects of a kind, in all namespaces, that have the label; all without one.
    fn list(
        &self,
        gvk: &Gvk,
        label: Option<(&str, &str)>,
    ) -> impl Future<Output = Result<Vec<Value>, Error>> + Send;

    /// Applies an object, and returns what the server made of it.
    fn apply(
        &self,
        object: &Value,
        conflicts: Conflicts,
        mode: Mode,
    ) -> impl Future<Output = Result<Value, Error>> + Send;

    /// Asks whether an object could be made anew as it is declared, though one of its name is there:
    /// by a dry run under another name.
    fn could_create(&self, object: &Value) -> impl Future<Output = Result<(), Error>> + Send;

    /// Changes what a JSON merge patch (RFC 7386) says of an object that is there. With a
    /// `metadata.resourceVersion` in the patch, an object that was written meanwhile stays as it is
    /// ([`Error::is_outdated`]).
    fn edit(
        &self,
        reference: &ObjectRef,
        patch: &Value,
    ) -> impl Future<Output = Result<Value, Error>> + Send;

    /// Replaces the records of who owns which field of an object, if it still is what was read.
    fn record_owners(
        &self,
        live: &Value,
        managed_fields: &Value,
    ) -> impl Future<Output = Result<Value, Error>> + Send;

    /// Applies the status of an object of the agent's own kinds.
    fn apply_status(&self, object: &Value) -> impl Future<Output = Result<Value, Error>> + Send;

    /// Deletes the very object that was read; another of the same name stays.
    fn delete(&self, live: &Value) -> impl Future<Output = Result<(), Error>> + Send;

    /// Waits until a kind can be used whose definition was just applied.
    fn established(&self, crd: &Value) -> impl Future<Output = Result<(), Error>> + Send;

    /// Adds an event. A failure is logged: nothing depends on it.
    fn announce(&self, happening: Happening) -> impl Future<Output = ()> + Send;

    /// Watches exactly these kinds from now on.
    fn watch(&self, kinds: &BTreeSet<Watched>);

    /// Completes when something watched changed since the last call; it may complete too often.
    fn changed(&self) -> impl Future<Output = ()> + Send;
}

/// Why the cluster could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Another agent may hold the Lease by now.
    #[error(transparent)]
    NotHeld(#[from] lease::NotHeld),
    /// The client can't be made: no kubeconfig, or none that works.
    #[error("set up the connection to the cluster: {0}")]
    Connect(String),
    /// The cluster has no such kind.
    #[error("the cluster has no kind {}: is its CustomResourceDefinition installed?", .0.group_kind())]
    UnknownKind(Gvk),
    /// A namespaced object without a namespace.
    #[error("{0} has no namespace: set `namespace` in the kustomization, or in the object")]
    NoNamespace(Box<ObjectRef>),
    /// Not a Kubernetes object.
    #[error("an object without apiVersion, kind or name")]
    NotAnObject,
    /// Other managers own fields with other values.
    #[error("{reference}: {}", .fields.join("; "))]
    Conflict {
        /// The object.
        reference: Box<ObjectRef>,
        /// Each field with its owner, in words.
        fields: Vec<String>,
    },
    /// Fields that can't be changed once an object is there.
    #[error("{reference}: {}", .fields.join("; "))]
    Immutable {
        /// The object.
        reference: Box<ObjectRef>,
        /// Each field with what the server says, in words.
        fields: Vec<String>,
    },
    /// The API server answered with an error.
    #[error("{verb} {what}: {}", .status.message)]
    Api {
        /// What was tried.
        verb: &'static str,
        /// On what.
        what: String,
        /// The answer.
        status: Box<kube::core::Status>,
    },
    /// Whoever the request is made as lacks a right.
    #[error("{verb} {what}: {lack}")]
    Forbidden {
        /// What was tried.
        verb: &'static str,
        /// On what.
        what: String,
        /// Who lacks which right, and how it is granted.
        lack: Box<rights::Lack>,
    },
    /// No answer, or none that can be read.
    #[error("{verb} {what}")]
    Request {
        /// What was tried.
        verb: &'static str,
        /// On what.
        what: String,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// An answer of another form than the kind has; it is not repeated, as it may hold a secret.
    #[error("{verb} {what}: the answer can't be read")]
    Unreadable {
        /// What was tried.
        verb: &'static str,
        /// On what.
        what: String,
    },
    /// No answer in time.
    #[error("{verb} {what}: no answer within {} s", .deadline.as_secs())]
    Timeout {
        /// What was tried.
        verb: &'static str,
        /// On what.
        what: String,
        /// How long it was waited for.
        deadline: Duration,
    },
}

impl Error {
    fn from_kube(verb: &'static str, what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(status) => match rights::Lack::read(&status) {
                Some(lack) => Self::Forbidden {
                    verb,
                    what,
                    lack: Box::new(lack),
                },
                None => Self::Api { verb, what, status },
            },
            source => Self::Request {
                verb,
                what,
                source: Box::new(source),
            },
        }
    }

    /// Whether the same request may succeed later, without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Request { .. } | Self::Timeout { .. } | Self::UnknownKind(_) => true,
            Self::Api { status, .. } => status.code == 429 || status.code >= 500,
            Self::NotHeld(_)
            | Self::Forbidden { .. }
            | Self::Connect(_)
            | Self::NoNamespace(_)
            | Self::NotAnObject
            | Self::Unreadable { .. }
            | Self::Immutable { .. }
            | Self::Conflict { .. } => false,
        }
    }

    /// Whether the object was written by somebody else since it was read, or is another one.
    pub fn is_outdated(&self) -> bool {
        matches!(self, Self::Api { status, .. } if status.is_conflict())
    }

    /// How long the server asks to be left in peace, if it does.
    fn retry_after(&self) -> Option<Duration> {
        let Self::Api { status, .. } = self else {
            return None;
        };
        let seconds = status.details.as_ref().map(|it| it.retry_after_seconds);
        (status.code == 429).then(|| Duration::from_secs(seconds.unwrap_or(0).max(1).into()))
    }

    /// Whether the server said that there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { status, .. } if status.is_not_found())
    }
}
