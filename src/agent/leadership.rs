//! Of several agents of a cluster, one writes: who it is, and what that means for the loops.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Shared, config::Config, now, random};
use crate::cluster::{
    KubeCluster,
    lease::{Candidate, Fence, Leadership},
};

/// How this agent comes to lead.
pub(super) struct Election {
    /// `None` if there is nobody to share the work with.
    candidate: Option<Candidate>,
    /// Asked before each write.
    pub(super) fence: Fence,
    /// Where the agent stands at first.
    pub(super) leadership: watch::Sender<Leadership>,
}

impl Election {
    /// As configured: with leader election if it is asked for, or if the agent has a name of its own,
    /// as it has in a pod.
    pub(super) fn new(config: &Config, name: Option<&str>, cluster: &KubeCluster) -> Self {
        let settings = &config.leader_election;
        if !settings.enabled.unwrap_or(name.is_some()) {
            tracing::info!("no leader election: this agent must be the only one of its cluster");
            return Self {
                candidate: None,
                fence: Fence::open(),
                leadership: watch::Sender::new(Leadership::Leader),
            };
        }
        let name = name.map_or_else(
            || format!("{}-{:016x}", config.cluster, random()),
            str::to_owned,
        );
        tracing::info!(name, lease = settings.lease_name, "leader election");
        let fence = Fence::closed();
        let namespace = settings.namespace.as_deref();
        let candidate =
            cluster.candidate(namespace, &settings.lease_name, name, fence.clone(), now);
        let reason = "the Lease was not looked at yet".to_owned();
        Self {
            candidate: Some(candidate),
            fence,
            leadership: watch::Sender::new(Leadership::Unknown { reason }),
        }
    }

    /// The candidate's part, until `leave`.
    pub(super) fn candidate(&mut self) -> Option<Candidate> {
        self.candidate.take()
    }
}

/// Stands for election until `leave`, and tells the log and the metrics.
pub(super) async fn elect(
    shared: Arc<Shared>,
    candidate: Option<Candidate>,
    leave: CancellationToken,
) -> anyhow::Result<()> {
    let mut leadership = shared.leadership.subscribe();
    let leads = i64::from(leadership.borrow_and_update().leads());
    shared.metrics.leader.set(leads);
    let told = async {
        while leadership.changed().await.is_ok() {
            let now = leadership.borrow_and_update().clone();
            shared.metrics.leader.set(i64::from(now.leads()));
            match now {
                Leadership::Leader => tracing::info!("this agent writes"),
                Leadership::Standby { holder } => tracing::info!(holder, "on standby"),
                Leadership::Unknown { reason } => tracing::warn!(reason, "on standby"),
            }
        }
    };
    let standing = async {
        match candidate {
            Some(candidate) => candidate.run(&shared.leadership, leave.cancelled()).await,
            None => leave.cancelled().await,
        }
    };
    tokio::select! {
        () = standing => {}
        // The sender is `shared`'s own: it never ends.
        () = told => {}
    }
    Ok(())
}

/// Runs `term` whenever this agent leads. Its token says that the term is over: then it ends after
/// the pass under way, which writes nothing any more. The next term begins with nothing in memory.
pub(super) async fn terms<F>(
    shared: &Arc<Shared>,
    term: impl Fn(Arc<Shared>, CancellationToken) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut leadership = shared.leadership.subscribe();
    loop {
        let elected = leadership.wait_for(Leadership::leads);
        match shared.stop.run_until_cancelled(elected).await {
            Some(Ok(_)) => {}
            _ => return Ok(()),
        }
        let over = shared.stop.child_token();
        let lost = async {
            // An error would mean that nobody can tell any more: over, too.
            drop(leadership.wait_for(|it| !it.leads()).await);
            over.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = term(shared.clone(), over.clone()) => result?,
            () = lost => {}
        }
    }
}
