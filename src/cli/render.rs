//! `trustweave render`.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Answer, output, repository};
use crate::{
    model::{
        declarations::Declarations, diagnostic::Diagnostic, repository::overlay_directory,
        trust_domain::ClusterName, yaml,
    },
    reconcile::desired,
    render,
};

/// Print the objects of a cluster's overlay
///
/// Renders `clusters/<CLUSTER>/kustomization.yaml` in-process and prints the same objects as
/// `kubectl kustomize clusters/<CLUSTER>`. With --resolved, federatesWith is filled and filtered as
/// it will be once SPIRE holds every peer's bundle.
///
/// Exit codes: 0 rendered, 1 rendered with errors in some files, 2 could not be read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave render --cluster cluster-1
  trustweave render --repo examples/repo-layout --cluster cluster-1 | kubectl diff -f -
  trustweave render --cluster cluster-1 --resolved")]
pub(super) struct Arguments {
    /// The repository's directory
    #[arg(long, value_name = "DIR", default_value = ".")]
    repo: PathBuf,

    /// Render this commit instead of the files in the directory
    #[arg(long, value_name = "REF")]
    revision: Option<String>,

    /// The cluster whose overlay is rendered
    #[arg(long)]
    cluster: ClusterName,

    /// Fill in federatesWith as the agent does
    #[arg(long)]
    resolved: bool,

    /// How the objects are written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// In which form objects are written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// YAML documents.
    #[default]
    Yaml,
    /// One JSON `List`.
    Json,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let tree = repository::tree(&self.repo, self.revision.as_deref())?;
        let (manifests, diagnostics) = if self.resolved {
            let (declarations, mut diagnostics) = Declarations::load(&tree, None);
            let Some((trust_domain, _)) = declarations.trust_domain_of(&self.cluster) else {
                output::diagnostics(&diagnostics, &tree);
                bail!("no trust domain declares the cluster `{}`", self.cluster);
            };
            let peers = desired::settled_peers(&declarations, trust_domain);
            let resolved = desired::overlay(&tree, &declarations, &self.cluster, &peers);
            diagnostics.extend(resolved.diagnostics);
            (resolved.manifests, diagnostics)
        } else {
            let rendered = render::render(&tree, &overlay_directory(&self.cluster));
            (rendered.manifests, rendered.diagnostics)
        };
        output::diagnostics(&diagnostics, &tree);
        let objects: Vec<Value> = manifests
            .into_iter()
            .map(|manifest| manifest.object)
            .collect();
        match self.output {
            Format::Yaml => output::data(&yaml::emit(&objects))?,
            Format::Json => output::json(&serde_json::json!({
                "apiVersion": "v1", "kind": "List", "items": objects,
            }))?,
        }
        let errors = diagnostics.iter().any(Diagnostic::is_error);
        Ok(if errors { Answer::No } else { Answer::Yes })
    }
}
