//! `trustweave suspend`.

use clap::Args;
use serde_json::json;

use super::{Answer, Connection, block_on, output};
use crate::{
    cluster::{Cluster as _, types::git_sync_reference},
    reconcile::reported,
};

/// Stop applying a cluster's overlay, until `trustweave resume`
///
/// Nothing of the overlay is applied or deleted, and the SPIRE server is left as it is, whatever the
/// repository says. Trust goes on: the cluster's own bundle is published, peers' bundles are
/// delivered, revoked keys are taken away, and a peer that leaves is taken out of registrations.
///
/// Exit codes: 0 suspended, 2 the cluster can't be asked, or has no agent.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave suspend --reason 'migration of the shop, until Friday, Ada'
  trustweave suspend --context admin@cluster-2")]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,

    /// Why, for those who find it suspended
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        block_on(async {
            let cluster = self.connection.connect().await?;
            let live = reported::git_sync(&cluster).await?;
            let patch = json!({"spec": {"suspend": true, "suspendReason": self.reason}});
            cluster.edit(&git_sync_reference(), &patch).await?;
            let already = live["spec"]["suspend"] == true;
            output::note(if already {
                "the overlay was suspended before"
            } else {
                "the overlay is suspended: `trustweave resume` has it applied again"
            });
            Ok(Answer::Yes)
        })?
    }
}
