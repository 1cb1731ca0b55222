//! `trustweave check`.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{
    Answer,
    output::{self, Format},
    repository,
};
use crate::{model::diagnostic::Diagnostic, reconcile::desired};

/// Validate a repository offline
///
/// Reads the topology, every trust domain's declaration and every cluster's overlay, exactly as the
/// agents do, and reports everything that is wrong at once: file, line, column, a stable code and
/// what to do about it. No cluster and no network is needed.
///
/// Exit codes: 0 no errors (there may be warnings), 1 errors, 2 the repository could not be read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave check                          the repository in this directory
  trustweave check examples/repo-layout     another directory
  trustweave check --revision main          a commit, without a checkout
  trustweave check -o json | jq .           for programs")]
pub(super) struct Arguments {
    /// The repository's directory
    #[arg(default_value = ".")]
    repo: PathBuf,

    /// Check this commit instead of the files in the directory
    #[arg(long, value_name = "REF")]
    revision: Option<String>,

    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let tree = repository::tree(&self.repo, self.revision.as_deref())?;
        let (declarations, diagnostics) = desired::check(&tree, now());
        let edges = declarations.topology.edges().len();
        match self.output {
            Format::Text => {
                output::diagnostics(&diagnostics, &tree);
                output::data(&format!(
                    "{} trust domains, {} clusters, {edges} directions of trust: {}\n",
                    declarations.trust_domains.len(),
                    declarations.clusters().len(),
                    output::summary(&diagnostics),
                ))?;
            }
            Format::Json => output::json(&json!({
                "trustDomains": declarations.trust_domains.keys().collect::<Vec<_>>(),
                "clusters": declarations.clusters(),
                "edges": edges,
                "diagnostics": output::diagnostics_json(&diagnostics),
            }))?,
        }
        let errors = diagnostics.iter().any(Diagnostic::is_error);
        Ok(if errors { Answer::No } else { Answer::Yes })
    }
}

/// The command line is one of the two places that read the clock.
#[expect(clippy::disallowed_methods, reason = "the shell passes the time in")]
pub(super) fn now() -> Timestamp {
    Timestamp::now()
}
