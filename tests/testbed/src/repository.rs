//! The repository of a federation: the example, with what this machine's clusters declare on top.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cluster::ClusterSpec;
use crate::federation::{CLUSTERS, trust_domain};
use crate::git::GitRemote;
use crate::topology;

/// The path of the topology.
pub const TOPOLOGY_PATH: &str = "topology.yaml";

/// The path of the declaration of a cluster's trust domain.
pub fn declaration_path(cluster: &str) -> String {
    format!("trust-domains/{}/trust-domain.yaml", trust_domain(cluster))
}

/// What is declared about a cluster's trust domain.
pub(crate) struct Declared<'a> {
    pub(crate) cluster: &'a ClusterSpec,
    /// `bundleEndpoint`.
    pub(crate) endpoint: Value,
    /// The public half of the agent's key.
    pub(crate) signer: &'a str,
}

impl Declared<'_> {
    /// The declaration; it consents to exactly what the topology says.
    pub(crate) fn declaration(&self, topology: &Value) -> Value {
        let Self {
            cluster,
            endpoint,
            signer,
        } = self;
        let (import, export) =
            topology::consent(&topology::directions(topology), &cluster.trust_domain);
        json!({
            "apiVersion": "trustweave.dev/v1alpha1",
            "kind": "TrustDomain",
            "metadata": {"name": cluster.trust_domain},
            "spec": {
                "clusters": [{"name": cluster.name}],
                "spire": {
                    "distribution": "custom",
                    "namespace": cluster.spire_namespace,
                    "className": cluster.class_name,
                },
                "bundleEndpoint": endpoint,
                "signers": [signer],
                "consent": {"import": import, "export": export},
            },
        })
    }
}

/// The topology and all declarations, by path.
pub(crate) fn declared_files(topology: &Value, all: &[Declared<'_>]) -> Vec<(String, String)> {
    let content = json!({
        "apiVersion": "trustweave.dev/v1alpha1",
        "kind": "Topology",
        "metadata": {"name": "topology"},
        "spec": topology,
    });
    let mut files = vec![(TOPOLOGY_PATH.to_owned(), format!("{content:#}\n"))];
    files.extend(all.iter().map(|declared| {
        let declaration = declared.declaration(topology);
        let path = declaration_path(&declared.cluster.name);
        (path, format!("{declaration:#}\n"))
    }));
    files
}

/// Commits the example of the project, and the declarations on top of it. Every cluster beyond the example's gets a
/// copy of the overlay of cluster-2, which federates with all peers.
pub(crate) async fn commit(
    git: &GitRemote,
    project: &Path,
    topology: &Value,
    all: &[Declared<'_>],
) -> anyhow::Result<()> {
    let example = project.join("examples/repo-layout");
    git.commit_directory("main", &example, "Start from the example")
        .await?;
    let mut files = declared_files(topology, all);
    for declared in all {
        if !CLUSTERS.contains(&declared.cluster.name.as_str()) {
            files.extend(overlay(&example, &declared.cluster.name)?);
        }
    }
    git.commit(
        "main",
        &borrowed(&files),
        "Declare this machine's endpoints and keys",
    )
    .await?;
    Ok(())
}

/// The overlay of cluster-2, for another cluster.
fn overlay(example: &Path, cluster: &str) -> anyhow::Result<Vec<(String, String)>> {
    let model = CLUSTERS[1];
    let directory = example.join("clusters").join(model);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
    {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.push((
            format!("clusters/{cluster}/{name}"),
            text.replace(model, cluster),
        ));
    }
    Ok(files)
}

/// Files as [`GitRemote::commit`] takes them.
pub(crate) fn borrowed(files: &[(String, String)]) -> Vec<(&str, &str)> {
    let files = files.iter();
    files
        .map(|(path, content)| (path.as_str(), content.as_str()))
        .collect()
}
