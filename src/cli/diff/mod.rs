//! `trustweave diff`.

mod live;
mod offline;
mod report;
mod server;

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::{
    Answer, Connection, block_on,
    output::{self, Format},
    repository,
};
use crate::model::trust_domain::ClusterName;

/// Show what a change does to trust and to every cluster
///
/// With --base, compares two states of the repository and needs no cluster. The change of trust
/// comes first: keys that are taken back, changed signers and bundle endpoints, who will trust whom,
/// what still waits for whose consent, and which registrations gain or lose a peer. Then follows each cluster's changed
/// objects. Registrations are shown as they will be once SPIRE holds every peer's bundle.
///
/// With --live, asks a cluster's API server by dry run what applying the overlay would change now.
/// Nothing is written.
///
/// The values of Secrets are never shown.
///
/// Exit codes: 0 no change, 1 changes, 2 something could not be read, so that the answer is
/// incomplete.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave diff --base main                      what the files in this directory change
  trustweave diff --base main --head my-branch     what a branch changes
  trustweave diff --base \"$(git merge-base origin/main HEAD)\" --head HEAD
  trustweave diff --live                           what the cluster of the current context lacks
  trustweave diff --live --context admin@cluster-2")]
pub(super) struct Arguments {
    /// The repository's directory
    #[arg(long, value_name = "DIR", default_value = ".")]
    repo: PathBuf,

    /// Compare with this commit
    #[arg(
        long,
        value_name = "REF",
        required_unless_present = "live",
        conflicts_with = "live"
    )]
    base: Option<String>,

    /// Take this commit instead of the files in the directory
    #[arg(long, value_name = "REF")]
    head: Option<String>,

    /// Compare with what stands in a cluster
    #[arg(long)]
    live: bool,

    /// Only this cluster's objects; with --live, its overlay, if its GitSync does not tell
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,

    #[command(flatten)]
    connection: Connection,

    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let head = repository::tree(&self.repo, self.head.as_deref())?;
        let report = match &self.base {
            Some(base) => {
                let base = repository::tree(&self.repo, Some(base))?;
                self.offline(&base, &head)?
            }
            None => block_on(self.against_cluster(&head))??,
        };
        match self.output {
            Format::Text => output::data(&report.text())?,
            Format::Json => output::json(&report.json())?,
        }
        match report.unread {
            0 if report.is_empty() => Ok(Answer::Yes),
            0 => Ok(Answer::No),
            count => bail!(
                "{}: the answer is incomplete",
                output::plural(count, "problem")
            ),
        }
    }
}
