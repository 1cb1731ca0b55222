//! `trustweave agent`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Answer, block_on};
use crate::agent::{
    self, reload,
    telemetry::{LogFormat, init_logs},
};

/// Run the agent of a cluster
///
/// Follows the repository, applies the cluster's overlay, publishes the cluster's own trust bundle,
/// signed, and delivers the peers' bundles to SPIRE. Nothing it holds in memory or on disk is
/// needed to go on after a restart.
///
/// SIGTERM and SIGINT stop it after the passes under way. A changed configuration or signing key is
/// taken up without a restart; one that is not usable is reported, and the former stays in force.
#[derive(Debug, Args)]
#[command(after_help = "The configuration file:
  apiVersion: trustweave.dev/v1alpha1
  kind: AgentConfig
  cluster: cluster-1                      applies clusters/cluster-1
  trustDomain: cluster-1.example.org      publishes its bundle
  git:
    url: https://git.example.org/federation.git
    stateDir: /var/lib/trustweave
    pollMilliseconds: 15000
    basicAuth: {username: bot, tokenFile: /etc/trustweave/git/token}
                                          or ssh, caFile, proxy, pin, verify: docs/git.md
  publish:                                branch: own, main or pullRequest: docs/git.md
    basicAuth: {username: bot, tokenFile: /etc/trustweave/git-push/token}
  kubernetes: {syncServiceAccount: trustweave-sync}
                                          who overlays are applied as, in the agent's namespace
  leaderElection: {enabled: true, leaseName: trustweave}
                                          default: enabled if the agent has a --name
  signing: {keyFile: /etc/trustweave/signing/id_ed25519}
                                          or {secret: {name: trustweave-signing}}: made if absent
  webhook: {secretFile: /etc/trustweave/webhook/secret}
                                          port 8081, /webhook: look at the repository now
  page: {listen: 127.0.0.1:8082}          the status page; without it there is none
  listen: 0.0.0.0:8080                    /healthz, /readyz, /metrics")]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "TRUSTWEAVE_CONFIG")]
    config: PathBuf,

    /// What no other agent of the cluster is called; with it, the agent writes only while it holds
    /// the Lease
    #[arg(long, value_name = "NAME", env = "TRUSTWEAVE_NAME")]
    name: Option<String>,

    /// What is logged: directives such as `info,trustweave=debug`
    #[arg(
        long,
        value_name = "DIRECTIVES",
        default_value = "info",
        env = "TRUSTWEAVE_LOG"
    )]
    log: String,

    /// How log lines are written
    #[arg(
        long,
        value_enum,
        default_value = "text",
        env = "TRUSTWEAVE_LOG_FORMAT"
    )]
    log_format: LogFormat,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        init_logs(self.log_format, &self.log);
        let mut config = reload::read(&self.config)?;
        block_on(async {
            let mut terminate = signal(SignalKind::terminate()).context("listen to signals")?;
            let mut interrupt = signal(SignalKind::interrupt()).context("listen to signals")?;
            loop {
                let mut watch = reload::Watch::new(&self.config, &config)?;
                let stop = CancellationToken::new();
                let agent = agent::run(
                    config.clone(),
                    self.name.as_deref(),
                    stop.clone().cancelled_owned(),
                );
                tokio::pin!(agent);
                let again = tokio::select! {
                    result = &mut agent => {
                        if result? == agent::End::Shutdown {
                            return anyhow::Ok(());
                        }
                        tracing::info!("the signing key changed: the agent starts again");
                        // Whatever changed meanwhile is taken along, if it is usable.
                        if let Ok(now) = reload::read(&self.config) {
                            config = now;
                        }
                        continue;
                    }
                    _ = terminate.recv() => false,
                    _ = interrupt.recv() => false,
                    () = watch.changed() => true,
                };
                stop.cancel();
                agent.await?;
                if !again {
                    return Ok(());
                }
                tracing::info!("the configuration changed: the agent starts again");
                config = reload::read(&self.config)?;
            }
        })??;
        Ok(Answer::Yes)
    }
}
