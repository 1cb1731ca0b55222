//! `trustweave verify`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    Answer, block_on,
    check::now,
    clusters::Clusters,
    facts::{self, Asked},
    output::{self, Format},
};
use crate::{
    federation::proof::{Proof, prove},
    model::trust_domain::TrustDomain,
};

mod text;

/// How often clusters are looked at while something is waited for.
const PAUSE: Duration = Duration::from_secs(1);

/// Prove that a federation works, from end to end
///
/// For every active edge into the clusters that are looked at: what the exporter publishes is signed and is
/// what its SPIRE holds; exactly that stands in the importer's relationship; registrations name the
/// exporter, and SPIRE accepts their entries; a workload reads back exactly these keys. Whether the
/// exporter's endpoint serves them, too, is told, and decides nothing: git brings them. A timeline shows how
/// the newest bundle came.
///
/// Which edges there are, and what is published, is read from the repository: fetch first, or name the git
/// server's own directory. What workloads read back is known where the agent has the Workload API
/// (deploy/workload-api). Nothing is changed anywhere.
///
/// Exit codes: 0 every edge is proven, 1 something is not so or can't be seen, 2 nothing could be looked at.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave verify --context one --context two           both clusters, the repository in this directory
  trustweave verify --repo federation --without-view      where no agent has the Workload API
  trustweave verify --rotation a.example.org              wait for the next rotation, and show how it arrives
  trustweave verify -o json | jq '.proofs[] | select(.proven | not)'")]
pub(super) struct Arguments {
    #[command(flatten)]
    clusters: Clusters,

    /// The namespace of the SPIRE server, if several run in a cluster
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,

    /// The git repository with the declarations and the publications
    #[arg(long, value_name = "DIR", default_value = ".")]
    repo: PathBuf,

    /// The commit whose declarations count
    #[arg(long, value_name = "REF", default_value = "HEAD")]
    revision: String,

    /// Take an edge for proven though no workload's own view of its bundles is seen
    #[arg(long)]
    without_view: bool,

    /// Do not ask the bundle endpoints of peers
    #[arg(long)]
    no_endpoints: bool,

    /// Wait until this trust domain publishes another bundle and every edge is proven with it
    #[arg(long, value_name = "TRUST_DOMAIN")]
    rotation: Option<TrustDomain>,

    /// How long, in seconds, to wait for every edge to be proven
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        default_value_if("rotation", clap::builder::ArgPredicate::IsPresent, "600")
    )]
    timeout: u64,

    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let proofs = block_on(self.proofs())??;
        if proofs.is_empty() {
            anyhow::bail!(
                "no active edge leads into these clusters: `trustweave status` says what the agents know, \
                 `trustweave check` what the repository lacks"
            );
        }
        match self.output {
            Format::Text => output::data(&text::text(&proofs, self.without_view))?,
            Format::Json => output::json(&text::json(&proofs, self.without_view))?,
        }
        Ok(if self.hold(&proofs) {
            Answer::Yes
        } else {
            Answer::No
        })
    }

    /// Looks until all is proven, or the time is over.
    async fn proofs(&self) -> anyhow::Result<Vec<Proof>> {
        let mut proofs = self.look(true).await?;
        let former = self.version(&proofs)?;
        let arrived = |proofs: &[Proof]| -> anyhow::Result<bool> {
            Ok(self.hold(proofs) && (self.rotation.is_none() || self.version(proofs)? != former))
        };
        if self.timeout == 0 || arrived(&proofs)? {
            return Ok(proofs);
        }
        match &self.rotation {
            Some(it) => output::note(&format!("waiting for the next bundle of {it}")),
            None => output::note("waiting for every edge to be proven"),
        }
        let waiting = async {
            loop {
                tokio::time::sleep(PAUSE).await;
                proofs = self.look(false).await?;
                if arrived(&proofs)? {
                    return anyhow::Ok(());
                }
            }
        };
        match tokio::time::timeout(Duration::from_secs(self.timeout), waiting).await {
            Ok(ended) => ended?,
            Err(_elapsed) if self.rotation.is_some() && self.version(&proofs)? == former => {
                anyhow::bail!("nothing new was published within {} s", self.timeout)
            }
            Err(_elapsed) => {}
        }
        Ok(proofs)
    }

    /// The version that the awaited trust domain publishes.
    fn version(&self, proofs: &[Proof]) -> anyhow::Result<Option<String>> {
        let Some(awaited) = &self.rotation else {
            return Ok(None);
        };
        let mut proofs = proofs.iter();
        match proofs.find(|it| it.exporter == *awaited) {
            Some(proof) => Ok(proof.version.clone()),
            None => anyhow::bail!("no active edge leads from {awaited} into these clusters"),
        }
    }

    fn hold(&self, proofs: &[Proof]) -> bool {
        proofs.iter().all(|it| it.holds(self.without_view))
    }

    async fn look(&self, told: bool) -> anyhow::Result<Vec<Proof>> {
        let now = now();
        let repository = facts::repository(&self.repo, &self.revision, now)?;
        let asked = Asked {
            namespace: self.namespace.as_deref(),
            endpoints: !self.no_endpoints,
            now,
        };
        let clusters = self.clusters.facts(&asked, told).await?;
        Ok(prove(&clusters, &repository))
    }
}
