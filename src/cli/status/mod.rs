//! `trustweave status`.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use clap::{Args, ValueEnum};

use super::{Answer, Connection, block_on, check::now, output};
use crate::{cluster::KubeCluster, reconcile::reported::Reported};

mod text;

/// How often the cluster is looked at with --watch or --wait.
const LOOK: Duration = Duration::from_secs(1);

/// In which form the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    #[default]
    Text,
    /// For people, with everything that is known of each peer.
    Wide,
    /// For programs.
    Json,
}

/// Show how a cluster and its peers stand
///
/// Reads what the agent of a cluster reports: the GitSync and every TrustPeer, as
/// `kubectl get gitsync,trustpeers` does, and below what is wrong, if anything. With --watch the
/// answer is shown anew whenever it changes; with -o json that is one line each time.
///
/// Exit codes: 0 everything is ready and every declared peer is federated, 1 not so, 2 the cluster
/// can't be asked, or has no agent.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave status
  trustweave status --context admin@cluster-2 -o wide
  trustweave status --watch
  trustweave status --wait 300 && ./roll-out
  trustweave status -o json | jq '.trustPeers[].phase'")]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,

    /// Show every change, until interrupted
    #[arg(short, long)]
    watch: bool,

    /// Wait so many seconds at most for everything to be ready
    #[arg(long, value_name = "SECONDS", conflicts_with = "watch")]
    wait: Option<u64>,

    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        block_on(async {
            let cluster = self.connection.connect().await?;
            if self.watch {
                return self.watch(&cluster).await;
            }
            let mut report = Reported::read(&cluster).await?;
            if let Some(seconds) = self.wait {
                let until_ready = async {
                    while !report.is_ready() {
                        tokio::time::sleep(LOOK).await;
                        report = Reported::read(&cluster).await?;
                    }
                    anyhow::Ok(())
                };
                // What stands at the end is shown, ready or not.
                if let Ok(ended) =
                    tokio::time::timeout(Duration::from_secs(seconds), until_ready).await
                {
                    ended?;
                }
            }
            output::data(&self.written(&report))?;
            Ok(if report.is_ready() {
                Answer::Yes
            } else {
                Answer::No
            })
        })?
    }

    /// Shows every change, until whoever reads goes away or interrupts.
    async fn watch(&self, cluster: &KubeCluster) -> anyhow::Result<Answer> {
        let is_screen = self.output != Form::Json && io::stdout().is_terminal();
        let mut shown = None;
        loop {
            let report = match Reported::read(cluster).await {
                Ok(report) => report,
                Err(error) if shown.is_none() => return Err(error.into()),
                // An API server that is away for a while comes back.
                Err(error) => {
                    output::error(&error.into());
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            };
            let text = match self.output {
                Form::Json => format!("{}\n", report.json()),
                Form::Text | Form::Wide => self.written(&report),
            };
            if shown.as_ref() != Some(&text) {
                if is_screen {
                    output::screen(&text)?;
                } else {
                    let between = shown.is_some() && self.output != Form::Json;
                    output::data(&format!("{}{text}", if between { "\n" } else { "" }))?;
                }
                shown = Some(text);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn written(&self, report: &Reported) -> String {
        match self.output {
            Form::Text => text::text(report, now(), false),
            Form::Wide => text::text(report, now(), true),
            Form::Json => format!("{:#}\n", report.json()),
        }
    }
}
