//! `trustweave status`.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    Answer, Connection, block_on,
    check::now,
    git_sync,
    output::{self, Format},
};
use crate::{
    cluster::{
        self, Cluster as _,
        types::{self, Condition, GitSyncStatus, TrustPeerStatus},
    },
    federation::{
        lifecycle::Phase,
        server::{ENDPOINT_EXPOSED, SERVER_CONFIGURED},
    },
};

/// Show how a cluster and its peers stand
///
/// Reads what the agent of a cluster reports: the GitSync and every TrustPeer, as
/// `kubectl get gitsync,trustpeers` does, and below what is wrong, if anything.
///
/// Exit codes: 0 everything is ready and every declared peer is federated, 1 not so, 2 the cluster
/// can't be asked, or has no agent.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave status
  trustweave status --context admin@cluster-2
  trustweave status -o json | jq '.trustPeers[].phase'")]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,

    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A peer as its `TrustPeer` reports it.
struct Peer {
    trust_domain: String,
    status: TrustPeerStatus,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let (git_sync, peers) = block_on(self.read())??;
        let ready = is_ready(&git_sync, &peers);
        match self.output {
            Format::Text => output::data(&text(&git_sync, &peers, now()))?,
            Format::Json => output::json(&json(&git_sync, &peers, ready))?,
        }
        Ok(if ready { Answer::Yes } else { Answer::No })
    }

    async fn read(&self) -> anyhow::Result<(GitSyncStatus, Vec<Peer>)> {
        let cluster = self.connection.connect().await?;
        let git_sync = git_sync::read(&cluster).await?;
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
        Ok((status(&git_sync)?, peers))
    }
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

/// Nothing is amiss, and everybody who should be trusted is.
fn is_ready(git_sync: &GitSyncStatus, peers: &[Peer]) -> bool {
    let ready = condition(&git_sync.conditions, "Ready");
    ready.is_some_and(|ready| ready.status == "True")
        && git_sync
            .conditions
            .iter()
            .all(|condition| condition.status != "False")
        && peers
            .iter()
            .all(|peer| !peer.is_declared() || peer.is_federated())
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

fn text(git_sync: &GitSyncStatus, peers: &[Peer], now: Timestamp) -> String {
    let cell = |text: &str| if text.is_empty() { "<none>" } else { text }.to_owned();
    let optional = |text: &Option<String>| cell(text.as_deref().unwrap_or_default());
    let state = |conditions: &[Condition], kind: &str| {
        cell(condition(conditions, kind).map_or("", |found| &found.status))
    };
    let moment = |text: &Option<String>| text.as_ref()?.parse::<Timestamp>().ok();
    let since = |text: &Option<String>| match moment(text) {
        Some(at) => output::age(at, now),
        None => optional(text),
    };
    let serial = git_sync
        .published
        .as_ref()
        .map(|published| published.serial.to_string());
    let mut text = output::table(
        &[
            "CLUSTER",
            "TRUST DOMAIN",
            "REVISION",
            "READY",
            "OBJECTS",
            "PEERS",
            "PUBLISHED",
            "SYNCED",
        ],
        vec![vec![
            cell(&git_sync.cluster),
            cell(&git_sync.trust_domain),
            optional(&git_sync.short_revision),
            state(&git_sync.conditions, "Ready"),
            git_sync.objects.to_string(),
            cell(&git_sync.peers),
            optional(&serial),
            since(&git_sync.last_change),
        ]],
    );
    text.push('\n');
    if peers.is_empty() {
        text.push_str("no peers\n");
    } else {
        let row = |peer: &Peer| {
            let status = &peer.status;
            vec![
                cell(&peer.trust_domain),
                cell(&status.phase),
                optional(&status.version),
                optional(&status.short_digest),
                state(&status.conditions, "Pushed"),
                state(&status.conditions, "Confirmed"),
                moment(&status.earliest_expiry).map_or_else(
                    || optional(&status.earliest_expiry),
                    |at| output::until(at, now),
                ),
                since(&status.last_delivered),
                status.registrations.to_string(),
                status.message.clone(),
            ]
        };
        text.push_str(&output::table(
            &[
                "TRUST DOMAIN",
                "PHASE",
                "SERIAL",
                "DIGEST",
                "PUSHED",
                "CONFIRMED",
                "EXPIRES",
                "DELIVERED",
                "REGISTRATIONS",
                "STATUS",
            ],
            peers.iter().map(row).collect(),
        ));
    }
    for (title, lines) in complaints(git_sync, peers) {
        let _ = write!(text, "\n{title}:\n");
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

/// How the SPIRE server stands, and what is wrong, by title.
fn complaints(git_sync: &GitSyncStatus, peers: &[Peer]) -> Vec<(&'static str, Vec<String>)> {
    let amiss = git_sync
        .conditions
        .iter()
        .filter(|condition| condition.status == "False");
    let server = git_sync.conditions.iter().filter(|condition| {
        let of_server = [SERVER_CONFIGURED, ENDPOINT_EXPOSED].contains(&condition.kind.as_str());
        of_server && condition.status != "False"
    });
    let held_back = peers.iter().flat_map(|peer| {
        let wait = |reference| format!("{reference} waits for {}", peer.trust_domain);
        peer.status.held_back.iter().map(wait)
    });
    let complaints = [
        (
            "Not well",
            amiss
                .map(|one| format!("{}: {}", one.kind, one.message))
                .collect(),
        ),
        (
            "SPIRE server",
            server
                .map(|one| format!("{}: {}: {}", one.kind, one.reason, one.message))
                .collect(),
        ),
        ("Could not be written", git_sync.failures.clone()),
        ("Wrong with the repository", git_sync.diagnostics.clone()),
        ("Held back", held_back.collect()),
    ];
    complaints
        .into_iter()
        .filter(|(_, lines): &(_, Vec<String>)| !lines.is_empty())
        .collect()
}

fn json(git_sync: &GitSyncStatus, peers: &[Peer], ready: bool) -> Value {
    let peer = |peer: &Peer| {
        let mut object = json!({"trustDomain": peer.trust_domain});
        if let (Some(object), Value::Object(status)) = (object.as_object_mut(), json!(peer.status))
        {
            object.extend(status);
        }
        object
    };
    json!({
        "ready": ready,
        "gitSync": git_sync,
        "trustPeers": peers.iter().map(peer).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported() -> (GitSyncStatus, Vec<Peer>) {
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
        (serde_json::from_value(git_sync).unwrap(), peers)
    }

    #[test]
    fn the_tables_tell_the_whole_story() {
        let (git_sync, peers) = reported();
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        insta::assert_snapshot!(text(&git_sync, &peers, now), @r"
        CLUSTER     TRUST DOMAIN   REVISION   READY   OBJECTS   PEERS   PUBLISHED   SYNCED
        cluster-1   a.test         0123abcd   False   12        1/2     4           5m

        TRUST DOMAIN   PHASE       SERIAL   DIGEST         PUSHED   CONFIRMED   EXPIRES   DELIVERED   REGISTRATIONS   STATUS
        b.test         Federated   0.7      0123456789ab   True     Unknown     in 24h    2m          3               SPIRE holds the peer's bundle
        c.test         Pending     <none>   <none>         <none>   <none>      <none>    <none>      0               nothing is published yet

        Not well:
          Ready: 1 write(s) failed

        SPIRE server:
          ServerConfigured: RollingOut: 0 of 1 pods are ready

        Could not be written:
          Deployment.apps shop/api: no

        Held back:
          ClusterSPIFFEID.spire.spiffe.io api waits for c.test
        ");
    }

    #[test]
    fn ready_means_all_declared_peers_are_federated() {
        let (mut git_sync, mut peers) = reported();
        assert!(!is_ready(&git_sync, &peers));
        git_sync.conditions[0].status = "True".to_owned();
        assert!(!is_ready(&git_sync, &peers), "c.test is Pending");
        peers[1].status.conditions[0].reason = "NoEdge".to_owned();
        assert!(is_ready(&git_sync, &peers), "nobody asks for c.test");
        git_sync.conditions[1].status = "False".to_owned();
        assert!(!is_ready(&git_sync, &peers), "not published");
        assert!(!is_ready(&GitSyncStatus::default(), &[]), "never reported");
    }
}
