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
use crate::{
    model::diagnostic::{Code, Diagnostic},
    reconcile::desired,
};

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
  trustweave check -o json | jq .           for programs
  trustweave check --explain wrong-kind     what a code means, and what to do about it")]
pub(super) struct Arguments {
    /// The repository's directory
    #[arg(default_value = ".")]
    repo: PathBuf,

    /// Check this commit instead of the files in the directory
    #[arg(long, value_name = "REF")]
    revision: Option<String>,

    /// Print what a code means, or what all mean, as Markdown, and check nothing
    #[arg(long, value_name = "CODE", num_args = 0..=1, default_missing_value = "", exclusive = true)]
    explain: Option<String>,

    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        if let Some(code) = &self.explain {
            return explain(code);
        }
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

/// Prints what one code means, or all.
fn explain(name: &str) -> anyhow::Result<Answer> {
    let page = |code: &Code| {
        format!(
            "### `{code}`\n\n{}\n\n* Why it matters: {}.\n* Cure: {}.\n",
            code.what(),
            code.why(),
            code.cure()
        )
    };
    if name.is_empty() {
        let pages: Vec<String> = Code::ALL.iter().map(page).collect();
        output::data(&pages.join("\n"))?;
        return Ok(Answer::Yes);
    }
    let Some(code) = Code::ALL.iter().find(|code| code.as_str() == name) else {
        let known: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        anyhow::bail!("there is no code `{name}`; there are {}", known.join(", "));
    };
    output::data(&page(code))?;
    Ok(Answer::Yes)
}

/// The command line is one of the two places that read the clock.
#[expect(clippy::disallowed_methods, reason = "the shell passes the time in")]
pub(super) fn now() -> Timestamp {
    Timestamp::now()
}
