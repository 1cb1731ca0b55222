//! `trustweave resume`.

use clap::Args;
use serde_json::json;

use super::{Answer, Connection, block_on, output};
use crate::{
    cluster::{Cluster as _, types::git_sync_reference},
    reconcile::reported,
};

/// Have a cluster's overlay applied again, after `trustweave suspend`
///
/// What was changed in the repository meanwhile is applied, and what was changed in the cluster by
/// hand is put right.
///
/// Exit codes: 0 resumed, or was not suspended; 2 the cluster can't be asked, or has no agent.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave resume
  trustweave resume && trustweave sync --wait")]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        block_on(async {
            let cluster = self.connection.connect().await?;
            let live = reported::git_sync(&cluster).await?;
            let spec = &live["spec"];
            if spec["suspend"] != true && spec["suspendReason"].is_null() {
                output::note("the overlay is not suspended");
                return Ok(Answer::Yes);
            }
            let patch = json!({"spec": {"suspend": null, "suspendReason": null}});
            cluster.edit(&git_sync_reference(), &patch).await?;
            output::note("the overlay is applied again");
            Ok(Answer::Yes)
        })?
    }
}
