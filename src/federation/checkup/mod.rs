//! What an excellent doctor checks: each thing that keeps a federation from working has a check with a
//! name that never changes, that says what was seen, why it matters and how it is cured.
//!
//! Checks are of four levels: a repository's, a cluster's, what an endpoint answers, and several
//! clusters' together. A check takes facts and returns what it has [`Seen`]; it never asks anybody.
//!
//! **Invariant:** what could not be looked at is [`Seen::Unknown`], never well.

use std::fmt;

use serde_json::Value;

use crate::model::diagnostic::Severity;

mod across;
mod agent;
mod endpoint;
mod facts;
mod reach;
mod registrations;
mod relationships;
mod repository;
mod server;
#[cfg(test)]
pub(super) mod tests;

pub use self::{
    facts::{Answer, ClusterFacts, Federation, RepositoryFacts, Silence},
    registrations::registrations as registered,
    relationships::{Polled, polled},
};

/// What has to be looked at for a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A repository.
    Repository,
    /// One cluster.
    Cluster,
    /// The bundle endpoints of a cluster's peers, as they answer from where the doctor runs.
    Endpoint,
    /// Several clusters, or a cluster and a repository.
    Across,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repository => "repository",
            Self::Cluster => "cluster",
            Self::Endpoint => "endpoint",
            Self::Across => "across",
        })
    }
}

/// What a check is about.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name; it never changes its meaning.
    pub id: &'static str,
    /// What it looks at.
    pub level: Level,
    /// How much it matters if it fails.
    pub severity: Severity,
    /// What holds if it passes, as a sentence without a full stop.
    pub title: &'static str,
    /// What happens if it fails.
    pub why: &'static str,
    /// What to do then.
    pub cure: &'static str,
}

/// What a check has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// What the title says.
    Well,
    /// Not so, for each subject.
    Amiss(Vec<Amiss>),
    /// It can't be known, and why.
    Unknown(String),
}

/// One subject with which something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amiss {
    /// The object, file, or trust domain.
    pub subject: String,
    /// What was seen, as a sentence without a full stop.
    pub seen: String,
}

impl Amiss {
    fn new(subject: impl Into<String>, seen: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            seen: seen.into(),
        }
    }
}

impl From<Vec<Amiss>> for Seen {
    fn from(amiss: Vec<Amiss>) -> Self {
        if amiss.is_empty() {
            Self::Well
        } else {
            Self::Amiss(amiss)
        }
    }
}

impl From<Option<Amiss>> for Seen {
    fn from(amiss: Option<Amiss>) -> Self {
        Vec::from_iter(amiss).into()
    }
}

/// A check of facts of one kind.
struct Check<F: ?Sized> {
    about: About,
    look: fn(&F) -> Seen,
}

/// A check that was made.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub about: About,
    /// What came of it.
    pub seen: Seen,
}

impl Outcome {
    /// Whether it failed, and that is an error.
    pub fn is_error(&self) -> bool {
        matches!(self.seen, Seen::Amiss(_)) && self.about.severity == Severity::Error
    }

    /// Whether it failed, and that is a warning.
    pub fn is_warning(&self) -> bool {
        matches!(self.seen, Seen::Amiss(_)) && self.about.severity == Severity::Warning
    }
}

/// The rooms with checks of one cluster.
const CLUSTER: [&[Check<ClusterFacts>]; 5] = [
    server::CHECKS,
    endpoint::CHECKS,
    relationships::CHECKS,
    registrations::CHECKS,
    agent::CHECKS,
];

/// Makes all checks of one cluster.
pub fn cluster(facts: &ClusterFacts) -> Vec<Outcome> {
    let checks = CLUSTER.into_iter().flatten();
    checks.map(|check| made(check, facts)).collect()
}

/// Makes all checks of the endpoints that a cluster's relationships poll.
pub fn endpoints(facts: &ClusterFacts) -> Vec<Outcome> {
    let checks = reach::CHECKS.iter();
    checks.map(|check| made(check, facts)).collect()
}

/// Makes all checks of a repository.
pub fn repository(facts: &RepositoryFacts) -> Vec<Outcome> {
    let checks = repository::CHECKS.iter();
    checks.map(|check| made(check, facts)).collect()
}

/// Makes all checks of several clusters, or of a cluster and a repository.
pub fn across(facts: &Federation<'_>) -> Vec<Outcome> {
    across::examine(facts)
}

fn made<F>(check: &Check<F>, facts: &F) -> Outcome {
    Outcome {
        about: check.about,
        seen: (check.look)(facts),
    }
}

/// Every check there is, by level.
pub fn catalogue() -> Vec<About> {
    let of_cluster = CLUSTER.into_iter().flatten().map(|check| check.about);
    let of_repository = repository::CHECKS.iter().map(|check| check.about);
    let of_endpoints = reach::CHECKS.iter().map(|check| check.about);
    let mut all: Vec<About> = of_repository
        .chain(of_cluster)
        .chain(of_endpoints)
        .collect();
    all.extend(across::ABOUT);
    all
}

/// An object in words: its kind and name.
fn named(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, metadata) = (text(&object["kind"]), &object["metadata"]);
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{}", text(&metadata["name"])),
        None => format!("{kind} {}", text(&metadata["name"])),
    }
}
