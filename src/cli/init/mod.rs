//! `trustweave init`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;

use self::{
    live::Known,
    proposal::{Proposed, declaration, repository},
};
use super::{Answer, Connection, block_on, output};
use crate::{
    federation::installation::Found,
    git::worktree,
    model::{
        repository::{Entry, RepoPath},
        trust_domain::{ClusterName, TrustDomain},
    },
    plan::diff,
};

mod declaration;
mod live;
mod proposal;
#[cfg(test)]
mod tests;
mod text;

/// Propose a declaration, or a whole repository, from running clusters
///
/// Prints a `trust-domain.yaml` with what is found in the cluster: SPIRE's installation, its bundle
/// endpoint, whom it trusts, and the public key that the agent signs with, if one runs there. Each value
/// says where it was found. What can't be known is left empty, each told on standard error; `trustweave
/// check` refuses the file until it is filled in.
///
/// With --output it writes a whole repository of all clusters that are asked: a declaration of each trust
/// domain, a topology with exactly the trust that stands today, and an overlay of each cluster with the
/// registrations that people keep there by hand. No file that is there is changed: if one differs, the
/// difference is shown and nothing is written. An agent that starts on that repository adopts what
/// stands, and changes nobody's trust.
///
/// Nothing is changed in a cluster, and no Secret is read but the one that deploy/signing-key has the agent
/// make.
///
/// Exit codes: 0 cluster, trust domain, SPIRE and signer are known, 1 one of them is not, or files are in the
/// way, 2 a cluster can't be asked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave init --from-cluster
  trustweave init --from-cluster --context admin@cluster-2 --trust-domain b.example.org
  trustweave init --from-cluster --output federation --context one --context two")]
pub(super) struct Arguments {
    /// Ask a running cluster
    #[arg(long, required = true)]
    from_cluster: bool,

    /// The kubeconfig file, if not the default one or those of `KUBECONFIG`
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// A context in the kubeconfig, if not the current one; several with --output
    #[arg(long = "context", value_name = "NAME")]
    contexts: Vec<String>,

    /// The cluster's name, if it is not found or another is meant; one for each context
    #[arg(long = "cluster", value_name = "NAME")]
    clusters: Vec<ClusterName>,

    /// The trust domain of the cluster's SPIRE, if it is not found; one for each context
    #[arg(long = "trust-domain", value_name = "NAME")]
    trust_domains: Vec<TrustDomain>,

    /// The namespace of the SPIRE server, if several run in the cluster
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,

    /// Write a repository into this directory, which may be there already
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let asked = self.contexts.len().max(1);
        if asked > 1 && self.output.is_none() {
            anyhow::bail!("several clusters make a repository: say where with --output");
        }
        for (flag, said) in [
            ("--cluster", self.clusters.len()),
            ("--trust-domain", self.trust_domains.len()),
        ] {
            if said > 0 && said != asked {
                anyhow::bail!("{flag} is said {said} times, for {asked} clusters");
            }
        }
        let known = block_on(self.read())??;
        let complete = known.iter().all(is_complete);
        let written = match &self.output {
            None => {
                for known in &known {
                    let (text, notes) = declaration(known);
                    tell(&notes);
                    output::data(&text)?;
                }
                true
            }
            Some(directory) => {
                let nameless = known
                    .iter()
                    .any(|it| it.cluster.is_none() || it.trust_domain.is_none());
                if nameless {
                    for known in &known {
                        tell(&known.notes);
                    }
                    anyhow::bail!(
                        "not every cluster's name and trust domain is known: say them with --cluster and \
                         --trust-domain, one for each context"
                    );
                }
                let proposed = repository(&known);
                tell(&proposed.notes);
                write(directory, &proposed)?
            }
        };
        Ok(if complete && written {
            Answer::Yes
        } else {
            Answer::No
        })
    }

    async fn read(&self) -> anyhow::Result<Vec<Known>> {
        let mut contexts: Vec<_> = self.contexts.iter().cloned().map(Some).collect();
        if contexts.is_empty() {
            contexts.push(None);
        }
        let mut all = Vec::new();
        for (index, context) in contexts.into_iter().enumerate() {
            let name = context.clone();
            if let Some(name) = &name {
                output::note(&format!("reading the cluster of context {name}"));
            }
            let connection = Connection {
                kubeconfig: self.kubeconfig.clone(),
                context,
            };
            let reading = async {
                let cluster = connection.connect().await?;
                live::known(&cluster, self.namespace.as_deref()).await
            };
            let mut known = reading.await.with_context(|| match &name {
                Some(name) => format!("the cluster of context {name}"),
                None => "the cluster".to_owned(),
            })?;
            // What is said here is meant, also where the cluster says another thing.
            if let Some(said) = self.clusters.get(index) {
                known.cluster = Some(Found::new(said.clone(), "the command line"));
            }
            if let Some(said) = self.trust_domains.get(index) {
                known.trust_domain = Some(Found::new(said.clone(), "the command line"));
            }
            all.push(known);
        }
        Ok(all)
    }
}

fn is_complete(known: &Known) -> bool {
    let installation = known.installation.as_ref();
    let class_name = installation.and_then(|it| it.class_name.as_ref());
    known.cluster.is_some()
        && known.trust_domain.is_some()
        && known.signer.is_some()
        && class_name.is_some()
}

fn tell(notes: &[String]) {
    for note in notes {
        output::note(&format!("note: {note}"));
    }
}

/// Writes all files, or none if one that is there would be changed; whether they all stand now.
fn write(directory: &Path, proposed: &Proposed) -> anyhow::Result<bool> {
    let mut new: Vec<(&RepoPath, &String)> = Vec::new();
    let mut free = true;
    for (path, content) in &proposed.files {
        let shown = || directory.join(path.as_str()).display().to_string();
        let standing = worktree::file(directory, path).with_context(shown)?;
        match standing {
            None => new.push((path, content)),
            Some(Entry::File(bytes)) if *bytes == *content.as_bytes() => {}
            Some(Entry::File(bytes)) => {
                free = false;
                let before = String::from_utf8_lossy(&bytes);
                output::note(&diff::texts(path.as_str(), &before, content));
            }
            Some(_) => {
                free = false;
                output::note(&format!(
                    "{path} is there, and is no file of this repository"
                ));
            }
        }
    }
    if !free {
        output::note(
            "nothing is written: the files above are there and differ. Move them away, or take over by \
             hand what is new",
        );
        return Ok(false);
    }
    for (path, content) in new {
        let target = directory.join(path.as_str());
        let parent = target.parent().unwrap_or(directory);
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        worktree::write(directory, path, content)
            .with_context(|| format!("write {}", target.display()))?;
        output::data(&format!("{}\n", target.display()))?;
    }
    Ok(true)
}
