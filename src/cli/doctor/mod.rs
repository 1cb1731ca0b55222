//! `trustweave doctor`.

use std::path::PathBuf;

use clap::Args;

use self::text::Examined;
use super::{
    Answer, block_on,
    check::now,
    clusters::Clusters,
    facts::{self, Asked},
    output::{self, Format},
};
use crate::federation::checkup::{self, Federation, RepositoryFacts};

mod text;

/// Find out what keeps a federation from working
///
/// Looks at a repository, at clusters, at the bundle endpoints of their peers, and at all of these together,
/// and tells for each check whether it passed; if not, what was seen, why it matters, and how it is cured.
/// Nothing is changed anywhere, and no Secret is read.
///
/// Without --context the cluster of the current context is examined, unless --no-cluster is given. A
/// repository is examined with --repo only. Bundle endpoints are asked from where this program runs: what a
/// cluster's own network does to them is not seen.
///
/// Exit codes: 0 no check failed, or only such as warn, 1 a check failed with an error, 2 nothing could be
/// examined.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave doctor                                       the current context's cluster
  trustweave doctor --context one --context two --repo .  two clusters and the repository
  trustweave doctor --repo . --no-cluster                 a repository alone
  trustweave doctor -o json | jq '.examined[].checks[] | select(.status == \"failed\")'
  trustweave doctor --explain relationship-class          what a check is about")]
pub(super) struct Arguments {
    #[command(flatten)]
    clusters: Clusters,

    /// Examine no cluster
    #[arg(long, conflicts_with_all = ["kubeconfigs", "contexts", "namespace"], requires = "repo")]
    no_cluster: bool,

    /// The namespace of the SPIRE server, if several run in a cluster
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,

    /// Examine the git repository in this directory, too
    #[arg(long, value_name = "DIR")]
    repo: Option<PathBuf>,

    /// The commit whose declarations count
    #[arg(long, value_name = "REF", default_value = "HEAD", requires = "repo")]
    revision: String,

    /// Do not ask the bundle endpoints of peers
    #[arg(long)]
    no_endpoints: bool,

    /// Print what a check is about, or what all are, as Markdown, and examine nothing
    #[arg(long, value_name = "CHECK", num_args = 0..=1, default_missing_value = "", exclusive = true)]
    explain: Option<String>,

    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        if let Some(id) = &self.explain {
            return explain(id);
        }
        let repository = self.repository()?;
        let clusters = if self.no_cluster {
            Vec::new()
        } else {
            let asked = Asked {
                namespace: self.namespace.as_deref(),
                endpoints: !self.no_endpoints,
                now: now(),
            };
            block_on(self.clusters.facts(&asked, true))??
        };
        let mut examined = Vec::new();
        if let (Some(facts), Some(directory)) = (&repository, &self.repo) {
            examined.push(Examined {
                subject: format!("repository {} at {}", directory.display(), self.revision),
                notes: Vec::new(),
                outcomes: checkup::repository(facts),
            });
        }
        for facts in &clusters {
            let mut outcomes = checkup::cluster(facts);
            if !self.no_endpoints {
                outcomes.extend(checkup::endpoints(facts));
            }
            examined.push(Examined {
                subject: facts.name.clone(),
                notes: facts.objects.unread.clone(),
                outcomes,
            });
        }
        if clusters.len() > 1 || (repository.is_some() && !clusters.is_empty()) {
            examined.push(Examined {
                subject: "all of these together".to_owned(),
                notes: Vec::new(),
                outcomes: checkup::across(&Federation {
                    clusters: &clusters,
                    repository: repository.as_ref(),
                }),
            });
        }
        match self.output {
            Format::Text => output::data(&text::text(&examined))?,
            Format::Json => output::json(&text::json(&examined))?,
        }
        let mut all = examined.iter().flat_map(|it| &it.outcomes);
        Ok(if all.any(checkup::Outcome::is_error) {
            Answer::No
        } else {
            Answer::Yes
        })
    }

    fn repository(&self) -> anyhow::Result<Option<RepositoryFacts>> {
        let directory = self.repo.as_deref();
        let found = directory.map(|it| facts::repository(it, &self.revision, now()));
        found.transpose()
    }
}

/// Prints what one check is about, or all.
fn explain(id: &str) -> anyhow::Result<Answer> {
    let catalogue = checkup::catalogue();
    if id.is_empty() {
        output::data(&text::catalogue(&catalogue))?;
        return Ok(Answer::Yes);
    }
    let Some(about) = catalogue.iter().find(|it| it.id == id) else {
        let known: Vec<&str> = catalogue.iter().map(|it| it.id).collect();
        anyhow::bail!("there is no check `{id}`; there are {}", known.join(", "));
    };
    output::data(&text::page(about))?;
    Ok(Answer::Yes)
}
