//! `trustweave init`.

use std::{
    fs,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{ArgAction, Args, builder::FalseyValueParser};

use self::{
    interview::Asker,
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
mod interview;
mod live;
mod proposal;
#[cfg(test)]
mod tests;
mod text;

/// Propose a declaration, or a whole repository, from running clusters
///
/// Prints a `trust-domain.yaml` with what is found in the cluster: SPIRE's installation, its bundle
/// endpoint, whom it trusts, and the public key that the agent signs with, if one runs there. Each value
/// says where it was found. On a terminal, what can't be known is asked for: without a running cluster,
/// that is everything. Elsewhere, or with --no-input, it is left empty, each told on standard error;
/// `trustweave check` refuses the file until it is filled in.
///
/// With --output it writes a whole repository of all clusters that are asked: a declaration of each trust
/// domain, a topology with exactly the trust that stands today, and an overlay of each cluster with the
/// registrations that people keep there by hand. No file that is there is changed: if one differs, the
/// difference is shown and nothing is written. On a terminal, what would be written is shown first. An agent that starts on that repository adopts what
/// stands, and changes nobody's trust.
///
/// Nothing is changed in a cluster, and no Secret is read but the one that deploy/signing-key has the agent
/// make.
///
/// Exit codes: 0 cluster, trust domain, SPIRE and signer are known, 1 one of them is not, or files are in the
/// way, 2 a cluster can't be asked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave init
  trustweave init --from-cluster
  trustweave init --from-cluster --context admin@cluster-2 --trust-domain b.example.org
  trustweave init --from-cluster --output federation --context one --context two")]
pub(super) struct Arguments {
    /// Read a running cluster; only on a terminal it may be left out, and is asked for
    #[arg(long)]
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

    /// Ask nobody anything, also on a terminal
    #[arg(long, visible_alias = "yes", env = "CI", hide_env_values = true, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    no_input: bool,
}

impl Arguments {
    pub(super) fn run(mut self) -> anyhow::Result<Answer> {
        let mut terminal = self.terminal();
        let asked = self.contexts.len().max(1);
        if asked > 1 && self.output.is_none() && terminal.is_none() {
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
        if !self.from_cluster {
            let Some(terminal) = &mut terminal else {
                anyhow::bail!("there is nobody to ask, so a cluster has to be: say --from-cluster");
            };
            let question = "Read what is installed in a running cluster";
            self.from_cluster = interview::agrees(question, terminal)?;
        }
        let mut known = if self.from_cluster {
            block_on(self.read(&mut terminal))??
        } else {
            vec![self.said(0, Known::default())]
        };
        if let Some(terminal) = &mut terminal {
            let alone = known.len() == 1;
            for (index, known) in known.iter_mut().enumerate() {
                let context = self.contexts.get(index).map(String::as_str);
                interview::complete(known, context, alone, terminal)?;
            }
            if self.output.is_none() {
                self.output = interview::directory(alone, terminal)?;
            }
        }
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
                write(directory, &proposed, |new| match &mut terminal {
                    Some(terminal) => confirm(directory, new, terminal),
                    None => Ok(true),
                })?
            }
        };
        Ok(if complete && written {
            Answer::Yes
        } else {
            Answer::No
        })
    }

    /// Whom to ask, if anybody is there who sees questions and can answer them.
    fn terminal(&self) -> Option<Terminal> {
        let is_there = io::stdin().is_terminal() && io::stderr().is_terminal();
        (is_there && !self.no_input).then_some(Terminal)
    }

    /// What is said on the command line is meant, also where the cluster says another thing.
    fn said(&self, index: usize, mut known: Known) -> Known {
        if let Some(said) = self.clusters.get(index) {
            known.cluster = Some(Found::new(said.clone(), "the command line"));
        }
        if let Some(said) = self.trust_domains.get(index) {
            known.trust_domain = Some(Found::new(said.clone(), "the command line"));
        }
        known
    }

    async fn read(&self, terminal: &mut Option<Terminal>) -> anyhow::Result<Vec<Known>> {
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
            let context = || match &name {
                Some(name) => format!("the cluster of context {name}"),
                None => "the cluster".to_owned(),
            };
            let cluster = connection.connect().await.with_context(context)?;
            let known = live::known(&cluster, self.namespace.as_deref()).await;
            let mut known = known.with_context(context)?;
            if let Some(terminal) = terminal
                && known.servers.len() > 1
            {
                let namespace = interview::namespace(&known.servers, terminal)?;
                let meant = live::known(&cluster, Some(&namespace)).await;
                known = meant.with_context(context)?;
            }
            all.push(self.said(index, known));
        }
        Ok(all)
    }
}

/// Somebody at a terminal.
struct Terminal;

impl Asker for Terminal {
    fn answer(&mut self, prompt: &str) -> anyhow::Result<String> {
        output::prompt(prompt);
        let mut line = String::new();
        if io::stdin()
            .read_line(&mut line)
            .context("read the answer")?
            == 0
        {
            anyhow::bail!("there is no answer, so nothing is written");
        }
        Ok(line)
    }

    fn tell(&mut self, line: &str) {
        output::note(line);
    }
}

/// Shows what would be written, and asks whether to.
fn confirm(
    directory: &Path,
    new: &[(&RepoPath, &String)],
    terminal: &mut Terminal,
) -> anyhow::Result<bool> {
    for (path, content) in new {
        terminal.tell(&format!("--- {path}\n{content}"));
    }
    let question = format!(
        "Write these {} files into {}",
        new.len(),
        directory.display()
    );
    interview::agrees(&question, terminal)
}

fn is_complete(known: &Known) -> bool {
    let installation = known.installation.as_ref();
    let found = installation.and_then(|it| it.class_name.as_ref());
    let said = known.said.as_ref().map(|it| &it.class_name);
    let class_name = found.map(|it| &it.value).or(said);
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

/// Writes all files, or none if one that is there would be changed, or if `agreed` does not agree to
/// those that are new; whether they all stand now.
fn write(
    directory: &Path,
    proposed: &Proposed,
    agreed: impl FnOnce(&[(&RepoPath, &String)]) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
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
    if !new.is_empty() && !agreed(&new)? {
        output::note("nothing is written");
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
