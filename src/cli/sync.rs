//! `trustweave sync`.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::{
    Answer, Connection, block_on,
    check::now,
    output::{self, Format},
};
use crate::{
    cluster::{
        Cluster as _, KubeCluster,
        types::{Condition, GitSyncStatus, REQUESTED_AT, git_sync_reference},
    },
    reconcile::reported,
};

/// How often the answer is looked for.
const LOOK: Duration = Duration::from_millis(250);

/// Have a cluster's agent look at the repository and apply it now
///
/// The agent does so by itself soon after every commit; this is for who does not want to wait, or
/// wants to know when it is done.
///
/// Exit codes: 0 asked for, or with --wait: done, and all is as declared; 1 done, and something is
/// not (the reason is told); 2 the cluster can't be asked, has no agent, is suspended, or the agent
/// did not answer in time.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  git push && trustweave sync --wait
  trustweave sync --wait --timeout 300 -o json | jq -r .revision")]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,

    /// Wait until it is done, and tell what came of it
    #[arg(long)]
    wait: bool,

    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "wait")]
    timeout: u64,

    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let status = block_on(self.request())??;
        let Some(status) = status else {
            return Ok(Answer::Yes);
        };
        match self.output {
            Format::Text => output::data(&text(&status))?,
            Format::Json => output::json(&json!(status))?,
        }
        Ok(if is_ready(&status) {
            Answer::Yes
        } else {
            Answer::No
        })
    }

    /// Asks for a pass, and waits for it if wanted: what the agent reported then.
    async fn request(&self) -> anyhow::Result<Option<GitSyncStatus>> {
        let cluster = self.connection.connect().await?;
        let live = reported::git_sync(&cluster).await?;
        if live["spec"]["suspend"] == true {
            bail!("the overlay is suspended: `trustweave resume` first");
        }
        let request = now().to_string();
        let patch = json!({"metadata": {"annotations": {REQUESTED_AT: request}}});
        cluster.edit(&git_sync_reference(), &patch).await?;
        if !self.wait {
            output::note("the agent was asked to look at the repository now");
            return Ok(None);
        }
        output::note("waiting for the agent");
        let answered = self.answer(&cluster, &request);
        answered.await.map(Some)
    }

    async fn answer(&self, cluster: &KubeCluster, request: &str) -> anyhow::Result<GitSyncStatus> {
        let timeout = Duration::from_secs(self.timeout);
        let begun = Instant::now();
        loop {
            let live = reported::git_sync(cluster).await?;
            let status = GitSyncStatus::of(Some(&live));
            if status.handled_request.as_deref() == Some(request) {
                return Ok(status);
            }
            if begun.elapsed() > timeout {
                let reason = ready(&status).map_or("nothing", |ready| ready.message.as_str());
                bail!(
                    "no answer within {} s: does the agent run? It reported last: {reason}",
                    self.timeout
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn ready(status: &GitSyncStatus) -> Option<&Condition> {
    let mut conditions = status.conditions.iter();
    conditions.find(|condition| condition.kind == "Ready")
}

/// Whether the remote was read and all is as declared.
fn is_ready(status: &GitSyncStatus) -> bool {
    let holds = |kind: &str| {
        let mut conditions = status.conditions.iter();
        conditions.any(|condition| condition.kind == kind && condition.status == "True")
    };
    holds("Ready") && holds("Fetched")
}

fn text(status: &GitSyncStatus) -> String {
    let revision = status.revision.as_deref().unwrap_or("none");
    let mut text = format!("revision: {revision}\n");
    for kind in ["Ready", "Fetched", "Healthy"] {
        let mut conditions = status.conditions.iter();
        let found = conditions.find(|condition| condition.kind == kind);
        if let Some(Condition {
            status, message, ..
        }) = found
        {
            let _ = writeln!(text, "{kind}: {status}: {message}");
        }
    }
    for failure in &status.failures {
        let _ = writeln!(text, "not applied: {failure}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_yes_only_if_the_remote_was_read_and_all_is_well() {
        let status = |ready: &str, fetched: &str| GitSyncStatus {
            revision: Some("abc".to_owned()),
            conditions: [("Ready", ready), ("Fetched", fetched)]
                .map(|(kind, status)| Condition {
                    kind: kind.to_owned(),
                    status: status.to_owned(),
                    message: format!("about {kind}"),
                    ..Condition::default()
                })
                .into(),
            failures: vec!["ConfigMap n/x: no".to_owned()],
            ..GitSyncStatus::default()
        };
        assert!(is_ready(&status("True", "True")));
        assert!(!is_ready(&status("False", "True")) && !is_ready(&status("True", "False")));
        insta::assert_snapshot!(text(&status("False", "True")), @r"
        revision: abc
        Ready: False: about Ready
        Fetched: True: about Fetched
        not applied: ConfigMap n/x: no
        ");
    }
}
