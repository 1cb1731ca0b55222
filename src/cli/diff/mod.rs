//! `trustweave diff`.

mod document;
mod live;
mod markdown;
mod offline;
mod report;
mod server;
mod text;

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::json;

pub(super) use self::document::Document;
use super::{Answer, Connection, block_on, output, repository};
use crate::model::trust_domain::ClusterName;

/// Show what a change does to trust and to every cluster
///
/// With --base, compares two states of the repository and needs no cluster. The change of trust
/// comes first: changed signers and bundle endpoints, keys that are taken back, who will trust whom
/// and by which keys, what still waits for whom, and which registrations gain or lose a peer. Then
/// follow each cluster's changed objects. Registrations are shown as they will be once SPIRE holds
/// every peer's bundle.
///
/// With --live, asks a cluster's API server by dry run what applying the overlay would change now,
/// and says who else has set a field that would change. Nothing is written.
///
/// The markdown form is a comment for a pull request, never longer than a forge accepts. `trustweave
/// schema diff` prints the schema of the JSON form.
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
  trustweave diff --base origin/main -o markdown   a comment for the pull request
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
    output: Form,
}

/// In which form the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For a comment on a pull request.
    Markdown,
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
            Form::Text => output::styled(&text::text(&report))?,
            Form::Json => output::json(&json!(Document::of(&report)))?,
            Form::Markdown => output::data(&markdown::comment(
                &report,
                &self.again(),
                markdown::GITHUB_LIMIT,
            ))?,
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

    /// The command that gives the whole answer.
    fn again(&self) -> String {
        let mut command = "trustweave diff".to_owned();
        let head = self.head.as_deref();
        for (option, value) in [("--base", self.base.as_deref()), ("--head", head)] {
            if let Some(value) = value {
                command = format!("{command} {option} {value}");
            }
        }
        if self.live {
            command.push_str(" --live");
        }
        if let Some(cluster) = &self.cluster {
            command = format!("{command} --cluster {cluster}");
        }
        command
    }
}
