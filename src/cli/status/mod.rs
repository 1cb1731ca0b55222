//! `trustweave status`.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Answer, Connection, block_on, check::now, git_sync, output};
use crate::{
    cluster::{
        self, Cluster as _, KubeCluster,
        types::{self, Condition, GitSyncStatus, TrustPeerStatus},
    },
    federation::lifecycle::Phase,
};

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

/// A peer as its `TrustPeer` reports it.
struct Peer {
    trust_domain: String,
    status: TrustPeerStatus,
}

/// What an agent reports.
struct Report {
    git_sync: GitSyncStatus,
    peers: Vec<Peer>,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        block_on(async {
            let cluster = self.connection.connect().await?;
            if self.watch {
                return self.watch(&cluster).await;
            }
            let mut report = read(&cluster).await?;
            if let Some(seconds) = self.wait {
                let until_ready = async {
                    while !report.is_ready() {
                        tokio::time::sleep(LOOK).await;
                        report = read(&cluster).await?;
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
            let report = match read(cluster).await {
                Ok(report) => report,
                Err(error) if shown.is_none() => return Err(error),
                // An API server that is away for a while comes back.
                Err(error) => {
                    output::error(&error);
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

    fn written(&self, report: &Report) -> String {
        match self.output {
            Form::Text => text::text(report, now(), false),
            Form::Wide => text::text(report, now(), true),
            Form::Json => format!("{:#}\n", report.json()),
        }
    }
}

async fn read(cluster: &KubeCluster) -> anyhow::Result<Report> {
    let git_sync = git_sync::read(cluster).await?;
    let listed = match cluster.list(&types::trust_peer_kind(), None).await {
        Err(cluster::Error::UnknownKind(_)) => {
            bail!("the cluster has no kind TrustPeer: is the agent installed?")
        }
        listed => listed?,
    };
    let mut peers = Vec::new();
    for object in &listed {
        peers.push(Peer {
            trust_domain: object["spec"]["trustDomain"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            status: status(object)?,
        });
    }
    peers.sort_by(|a, b| a.trust_domain.cmp(&b.trust_domain));
    Ok(Report {
        git_sync: status(&git_sync)?,
        peers,
    })
}

/// The status of an object; that of one which was never reported on is empty.
fn status<S: DeserializeOwned + Default>(object: &Value) -> anyhow::Result<S> {
    match object.get("status") {
        None => Ok(S::default()),
        Some(status) => serde_json::from_value(status.clone()).with_context(|| {
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            format!("the status of {kind} {name} is of another version")
        }),
    }
}

fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

impl Report {
    /// Nothing is amiss, and everybody who should be trusted is.
    fn is_ready(&self) -> bool {
        let conditions = &self.git_sync.conditions;
        condition(conditions, "Ready").is_some_and(|ready| ready.status == "True")
            && conditions
                .iter()
                .all(|condition| condition.status != "False")
            && self
                .peers
                .iter()
                .all(|peer| !peer.is_declared() || peer.is_federated())
    }

    fn json(&self) -> Value {
        let peer = |peer: &Peer| {
            let mut object = json!({"trustDomain": peer.trust_domain});
            if let (Some(object), Value::Object(status)) =
                (object.as_object_mut(), json!(peer.status))
            {
                object.extend(status);
            }
            object
        };
        json!({
            "ready": self.is_ready(),
            "gitSync": self.git_sync,
            "trustPeers": self.peers.iter().map(peer).collect::<Vec<_>>(),
        })
    }
}

impl Peer {
    /// Whether the topology asks for it.
    fn is_declared(&self) -> bool {
        condition(&self.status.conditions, "Consented")
            .is_none_or(|condition| condition.reason != "NoEdge")
    }

    fn is_federated(&self) -> bool {
        self.status.phase == Phase::Federated.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an agent might report.
    pub(super) fn reported() -> Report {
        let condition = |kind: &str, status: &str, reason: &str, message: &str| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let git_sync = json!({
            "cluster": "cluster-1", "trustDomain": "a.test", "objects": 12, "peers": "1/2",
            "shortRevision": "0123abcd", "lastChange": "2026-01-01T00:00:00Z",
            "published": {"serial": 4},
            "conditions": [
                condition("Ready", "False", "WritesFailed", "1 write(s) failed"),
                condition("Published", "True", "Published", "serial 4 stands"),
                condition("ServerConfigured", "Unknown", "RollingOut", "0 of 1 pods are ready"),
            ],
            "failures": ["Deployment.apps shop/api: no"],
        });
        let federated = json!({
            "phase": "Federated", "version": "0.7", "shortDigest": "0123456789ab",
            "lastDelivered": "2026-01-01T00:03:00Z", "earliestExpiry": "2026-01-02T00:05:00Z",
            "registrations": 3, "message": "SPIRE holds the peer's bundle",
            "conditions": [
                condition("Consented", "True", "BothSides", ""),
                condition("Pushed", "True", "Delivered", ""),
                condition("Confirmed", "Unknown", "NotObserved", ""),
            ],
        });
        let pending = json!({
            "phase": "Pending", "message": "nothing is published yet",
            "heldBack": ["ClusterSPIFFEID.spire.spiffe.io api"],
            "conditions": [condition("Consented", "True", "BothSides", "")],
        });
        let peer = |name: &str, status: Value| Peer {
            trust_domain: name.to_owned(),
            status: serde_json::from_value(status).unwrap(),
        };
        let peers = vec![peer("b.test", federated), peer("c.test", pending)];
        Report {
            git_sync: serde_json::from_value(git_sync).unwrap(),
            peers,
        }
    }

    #[test]
    fn ready_means_all_declared_peers_are_federated() {
        let mut report = reported();
        assert!(!report.is_ready());
        report.git_sync.conditions[0].status = "True".to_owned();
        assert!(!report.is_ready(), "c.test is Pending");
        report.peers[1].status.conditions[0].reason = "NoEdge".to_owned();
        assert!(report.is_ready(), "nobody asks for c.test");
        report.git_sync.conditions[1].status = "False".to_owned();
        assert!(!report.is_ready(), "not published");
        let nothing = Report {
            git_sync: GitSyncStatus::default(),
            peers: Vec::new(),
        };
        assert!(!nothing.is_ready(), "never reported");
    }
}
