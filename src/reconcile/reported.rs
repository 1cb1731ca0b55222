//! What the agent of a cluster reports, read back: its `GitSync` and every `TrustPeer`.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    cluster::{
        Cluster, Error,
        types::{self, Condition, GitSyncStatus, TrustPeerStatus},
    },
    federation::lifecycle::Phase,
};

/// What an agent reports.
#[derive(Clone, Debug, Default)]
pub struct Reported {
    /// About the repository and what is applied.
    pub git_sync: GitSyncStatus,
    /// About each peer, by name.
    pub peers: Vec<ReportedPeer>,
}

/// A peer as its `TrustPeer` reports it.
#[derive(Clone, Debug)]
pub struct ReportedPeer {
    /// The peer.
    pub trust_domain: String,
    /// How it stands.
    pub status: TrustPeerStatus,
}

/// Why nothing was read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NotReported {
    /// The cluster can't be asked.
    #[error(transparent)]
    Cluster(#[from] Error),
    /// The agent's kinds are not there.
    #[error("the cluster has no kind {0}: is the agent installed?")]
    NoKind(&'static str),
    /// No agent ever reported.
    #[error(
        "the cluster has no GitSync `{}`: did the agent ever run?",
        types::GIT_SYNC_NAME
    )]
    NoGitSync,
    /// Another version of the agent wrote it.
    #[error("the status of {object} is of another version")]
    OtherVersion {
        /// Kind and name.
        object: String,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
}

/// The one `GitSync` of a cluster; an error says what is missing.
pub async fn git_sync<C: Cluster>(cluster: &C) -> Result<Value, NotReported> {
    match cluster.get(&types::git_sync_reference()).await {
        Err(Error::UnknownKind(_)) => Err(NotReported::NoKind("GitSync")),
        found => found?.ok_or(NotReported::NoGitSync),
    }
}

/// The same; `None` if there is none, or no such kind: no agent ever ran.
pub async fn find_git_sync<C: Cluster>(cluster: &C) -> Result<Option<Value>, Error> {
    match git_sync(cluster).await {
        Ok(found) => Ok(Some(found)),
        Err(NotReported::Cluster(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

impl Reported {
    /// Reads it.
    pub async fn read<C: Cluster>(cluster: &C) -> Result<Self, NotReported> {
        let git_sync = git_sync(cluster).await?;
        let listed = match cluster.list(&types::trust_peer_kind(), None).await {
            Err(Error::UnknownKind(_)) => return Err(NotReported::NoKind("TrustPeer")),
            listed => listed?,
        };
        let mut peers = Vec::new();
        for object in &listed {
            let trust_domain = object["spec"]["trustDomain"].as_str();
            peers.push(ReportedPeer {
                trust_domain: trust_domain.unwrap_or_default().to_owned(),
                status: status(object)?,
            });
        }
        peers.sort_by(|a, b| a.trust_domain.cmp(&b.trust_domain));
        Ok(Self {
            git_sync: status(&git_sync)?,
            peers,
        })
    }

    /// Nothing is amiss, and everybody who should be trusted is.
    pub fn is_ready(&self) -> bool {
        let conditions = &self.git_sync.conditions;
        condition(conditions, "Ready").is_some_and(|ready| ready.status == "True")
            && conditions.iter().all(|it| it.status != "False")
            && self
                .peers
                .iter()
                .all(|peer| !peer.is_declared() || peer.is_federated())
    }

    /// All of it for programs: `ready`, `gitSync`, `trustPeers`.
    pub fn json(&self) -> Value {
        let peer = |peer: &ReportedPeer| {
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

impl ReportedPeer {
    /// Whether the topology asks for it.
    pub fn is_declared(&self) -> bool {
        condition(&self.status.conditions, "Consented").is_none_or(|it| it.reason != "NoEdge")
    }

    /// Whether SPIRE holds its bundle, so that registrations may name it.
    pub fn is_federated(&self) -> bool {
        self.status.phase == Phase::Federated.as_str()
    }
}

/// The condition of a type.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

/// The status of an object; that of one which was never reported on is empty.
fn status<S: DeserializeOwned + Default>(object: &Value) -> Result<S, NotReported> {
    let Some(status) = object.get("status") else {
        return Ok(S::default());
    };
    serde_json::from_value(status.clone()).map_err(|source| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        NotReported::OtherVersion {
            object: format!("{kind} {name}"),
            source,
        }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What an agent might report.
    pub(crate) fn reported() -> Reported {
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
        let peer = |name: &str, status: Value| ReportedPeer {
            trust_domain: name.to_owned(),
            status: serde_json::from_value(status).unwrap(),
        };
        let peers = vec![peer("b.test", federated), peer("c.test", pending)];
        Reported {
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
        assert!(!Reported::default().is_ready(), "never reported");
    }
}
