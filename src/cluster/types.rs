//! The agent's own kinds in a cluster: `GitSync`, one, and `TrustPeer`, one per peer.
//!
//! They report; only `GitSync.spec` is for people to write.

#![expect(
    clippy::duplicated_attributes,
    reason = "every column of a table has a type"
)]

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::manifest::{Gvk, ObjectRef};

/// The `apiVersion` of both kinds.
pub const API_VERSION: &str = "trustweave.dev/v1alpha1";

/// The name of the one `GitSync` of a cluster.
pub const GIT_SYNC_NAME: &str = "trustweave";

/// For people, on the `GitSync`: any text that was not there before has the agent look at the remote and
/// make a pass at once.
pub const REQUESTED_AT: &str = "trustweave.dev/requested-at";

/// What this cluster's agent takes from git, and what came of it.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "trustweave.dev",
    version = "v1alpha1",
    kind = "GitSync",
    plural = "gitsyncs",
    shortname = "gs",
    category = "trustweave",
    status = "GitSyncStatus",
    derive = "PartialEq",
    derive = "Default",
    label("applyset.kubernetes.io/is-parent-type", "true"),
    doc = "What this cluster's agent takes from git, and what came of it. There is one, named `trustweave`; the agent makes it",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".status.cluster"),
    printcolumn(
        name = "Trust Domain",
        type_ = "string",
        json_path = ".status.trustDomain"
    ),
    printcolumn(
        name = "Revision",
        type_ = "string",
        json_path = ".status.shortRevision"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Objects", type_ = "integer", json_path = ".status.objects"),
    printcolumn(name = "Peers", type_ = "string", json_path = ".status.peers"),
    printcolumn(
        name = "Published",
        type_ = "integer",
        json_path = ".status.published.serial"
    ),
    printcolumn(name = "Synced", type_ = "date", json_path = ".status.lastChange"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = "1"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct GitSyncSpec {
    /// While true, nothing of the overlay is applied or pruned, and the SPIRE server is left as it
    /// is. Trust goes on: publishing, the delivery and the revocation of peers' bundles, and taking
    /// a peer that leaves out of registrations.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Why it is suspended, for those who find it so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend_reason: Option<String>,
    /// The deletions to be made that wait, by the digest that the condition `PruneAcknowledged`
    /// tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledge: Option<String>,
    /// The commit to go on from, when the reviewed branch no longer descends from the commit in
    /// force: its full name, so that nothing else is accepted with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_rewind: Option<String>,
}

/// What came of the last pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GitSyncStatus {
    /// The cluster that the agent serves.
    pub cluster: String,
    /// The trust domain of the cluster.
    pub trust_domain: String,
    /// The commit of the reviewed branch that is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Its first digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub short_revision: Option<String>,
    /// The commits that were in force, the newest first; at most 5.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<InForceStatus>,
    /// When the last pass changed something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_change: Option<String>,
    /// How many objects the overlay has.
    pub objects: u64,
    /// How many of the declared peers are federated, as `2/3`.
    pub peers: String,
    /// The public half of the agent's signing key, as in a `.pub` file: what belongs into
    /// `signers` of the trust domain's declaration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// The bundle that this agent published last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedStatus>,
    /// Where the agent reads its own trust domain's bundle; if it chose the place itself, also why it
    /// did not take another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle_source: Option<String>,
    /// What the agent remembers of the SPIRE server that it manages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerStatus>,
    /// `Ready`, `RepositoryValid`, `Healthy`, `Fetched` and `Published`; where the agent manages the
    /// SPIRE server, `ServerConfigured` and `EndpointExposed`; and when there is something to say,
    /// `PruneAcknowledged`, `Uncontested`, `SoleDeployer`, `ConfigurationSpelt` and
    /// `StaticFederation`.
    pub conditions: Vec<Condition>,
    /// What is wrong with the repository, as `trustweave check` says it; at most 20 lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<String>,
    /// What could not be applied, and why; at most 20 lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
    /// What is no longer declared but was not deleted, and why; at most 20 lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
    /// What people asked to leave alone; at most 20 lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_alone: Vec<String>,
    /// What people changed in the cluster, and when that is put right; at most 20 lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drifted: Vec<String>,
    /// What somebody changes again and again, and until when it is left so; at most 20 lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contested: Vec<String>,
    /// What another tool has in its inventory too; at most 20 lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<String>,
    /// How many of the overlay's objects are healthy, by the rules of kstatus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthStatus>,
    /// What is not, the worst first, and why; at most 20 lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unhealthy: Vec<String>,
    /// Acknowledged deletions that are under way, in short.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pruning: Vec<String>,
    /// The text of the annotation `trustweave.dev/requested-at` that a pass was made for last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handled_request: Option<String>,
}

/// A commit that was in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InForceStatus {
    /// Its name.
    pub revision: String,
    /// The first line of its message, without control characters, and no longer than 100 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When it came into force.
    pub since: String,
}

/// How many objects stand how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthStatus {
    /// As they should be.
    pub current: u64,
    /// On their way.
    pub in_progress: u64,
    /// Stuck.
    pub failed: u64,
    /// Being deleted, to be made anew.
    pub terminating: u64,
}

/// What the agent remembers of the SPIRE server that it manages, or still has to give back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerStatus {
    /// `ztwim`, `helm` or `custom`; empty if nothing of the agent is there.
    pub distribution: String,
    /// The server's namespace.
    pub namespace: String,
    /// Its `StatefulSet`.
    pub stateful_set: String,
    /// The server's container in it.
    pub container: String,
    /// The `ConfigMap` with its configuration.
    pub config_map: String,
    /// The key in it.
    pub config_key: String,
    /// The objects that the agent made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectStatus>,
    /// The digest of what was asked for when each piece was written last.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub written: BTreeMap<String, String>,
    /// Who undid what the agent wrote; after the second time it stops.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reverts: Vec<RevertStatus>,
    /// The text of the annotation `trustweave.dev/resume-server` that was heeded last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<String>,
    /// The trust domains that the server federates with by its own configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub federates_with: Vec<String>,
}

/// An object in the server's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectStatus {
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Somebody undid what the agent wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RevertStatus {
    /// What was undone: `configuration`, `workload`, `service`, `exposure` or `operator`.
    pub piece: String,
    /// When it was seen.
    pub at: String,
    /// The field manager that did.
    pub by: String,
}

impl GitSyncStatus {
    /// What a live `GitSync` reports; one that is not there, or of another version, reports nothing.
    pub fn of(git_sync: Option<&Value>) -> Self {
        let status = git_sync.and_then(|git_sync| git_sync.get("status"));
        let status = status.cloned().unwrap_or_default();
        serde_json::from_value(status).unwrap_or_default()
    }
}

/// The bundle that this agent published last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PublishedStatus {
    /// The publisher's own counter.
    pub serial: u64,
    /// The epoch of the declaration.
    pub epoch: u64,
    /// SHA-256 of the canonical bundle.
    pub digest: String,
    /// The branch.
    pub branch: String,
}

/// A trust domain that this cluster's workloads trust, or are to trust, or did.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "trustweave.dev",
    version = "v1alpha1",
    kind = "TrustPeer",
    plural = "trustpeers",
    shortname = "tp",
    category = "trustweave",
    status = "TrustPeerStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A trust domain that this cluster's workloads trust, are to trust, or did. The agent writes it; nothing in it is for people to set",
    printcolumn(
        name = "Trust Domain",
        type_ = "string",
        json_path = ".spec.trustDomain"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Serial", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.shortDigest"),
    printcolumn(
        name = "Pushed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Pushed')].status"
    ),
    printcolumn(
        name = "Confirmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Confirmed')].status"
    ),
    printcolumn(
        name = "Expires",
        type_ = "string",
        json_path = ".status.earliestExpiry"
    ),
    printcolumn(
        name = "Delivered",
        type_ = "date",
        json_path = ".status.lastDelivered"
    ),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.message")
)]
#[serde(rename_all = "camelCase")]
pub struct TrustPeerSpec {
    /// The peer.
    pub trust_domain: String,
}

/// Where the peer is in its life, and what was delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrustPeerStatus {
    /// `Pending`, `Seeding`, `Federated`, `Draining`, `Distrusted` or `Gone`.
    pub phase: String,
    /// Whether the peer was `Federated` and has not left since: it stays in registrations.
    pub was_federated: bool,
    /// The version that was accepted with nothing to compare it with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_use: Option<String>,
    /// Epoch and serial of the newest delivery, as `<epoch>.<serial>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The newest delivery; nothing older is ever delivered again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<WatermarkStatus>,
    /// The first digits of the delivered bundle's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub short_digest: Option<String>,
    /// When the newest bundle was delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_delivered: Option<String>,
    /// When the first of the delivered X.509 roots ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earliest_expiry: Option<String>,
    /// The registrations that want the peer and do not get it yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held_back: Vec<String>,
    /// Registrations that the agent does not keep, and that name the peer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub named_by_others: Vec<String>,
    /// The peer's keys that are revoked here; in force until their author lifts them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<RevokedStatus>,
    /// When the last of all X.509 roots ends that were ever delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_until: Option<String>,
    /// Since when no registration names the leaving peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unnamed_since: Option<String>,
    /// Since when SPIRE refuses entries that federate with the peer, though it accepts others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<String>,
    /// How often the bundle was pushed again for that.
    #[serde(skip_serializing_if = "is_zero")]
    pub repairs: u32,
    /// How long, in seconds, the last bundle took from its signature to its delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_lag_seconds: Option<i64>,
    /// How many of the overlay's registrations name the peer.
    pub registrations: u64,
    /// The most telling sentence of the conditions.
    pub message: String,
    /// `Consented`, `BundleAccepted`, `Ready`, `Pushed`, `Confirmed`, and those that are told only
    /// when there is something to say: `Unique`, `RevocationSettled`, `NamedByReadyOnly`,
    /// `PolledByRelationshipOnly`, `DeliveredInTime`.
    pub conditions: Vec<Condition>,
}

/// The newest delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WatermarkStatus {
    /// The epoch of the peer's declaration.
    pub epoch: u64,
    /// The publisher's serial.
    pub serial: u64,
    /// How often the set of revoked keys changed.
    pub revocations: u64,
    /// How often this very bundle was pushed again.
    pub nonce: u64,
    /// SHA-256 of the published bundle.
    pub digest: String,
    /// SPIRE's own counter of the bundle; it starts again when SPIRE's datastore is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiffe_sequence: Option<u64>,
}

/// A revoked key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RevokedStatus {
    /// SHA-256 of the `SubjectPublicKeyInfo`, of an X.509 key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x509: Option<String>,
    /// The thumbprint (RFC 7638), of a JWT key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<String>,
    /// The `kid`, of a JWT key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The trust domain whose `distrust.yaml` says so.
    pub by: String,
    /// Since when.
    pub since: String,
}

/// For fields that are left out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A condition as Kubernetes writes it (`meta/v1.Condition`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word in camel case.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// When `status` changed last.
    pub last_transition_time: String,
}

impl Condition {
    /// A condition that came to be `now`, or keeps its time if `previous` has the same status.
    pub fn new(
        kind: &str,
        status: Option<bool>,
        reason: &str,
        message: &str,
        previous: &[Self],
        now: &str,
    ) -> Self {
        let status = match status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let since = previous
            .iter()
            .find(|before| before.kind == kind && before.status == status)
            .map_or(now, |before| before.last_transition_time.as_str());
        Self {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: since.to_owned(),
        }
    }
}

/// The identity of the one `GitSync`.
pub fn git_sync_reference() -> ObjectRef {
    ObjectRef {
        gvk: git_sync_kind(),
        namespace: None,
        name: GIT_SYNC_NAME.to_owned(),
    }
}

/// The kind `GitSync`.
pub fn git_sync_kind() -> Gvk {
    Gvk::new(API_VERSION, "GitSync")
}

/// The kind `TrustPeer`.
pub fn trust_peer_kind() -> Gvk {
    Gvk::new(API_VERSION, "TrustPeer")
}

/// The `CustomResourceDefinition`s of both kinds, as JSON.
pub fn crds() -> Vec<Value> {
    [GitSync::crd(), TrustPeer::crd()]
        .iter()
        .map(|crd: &CustomResourceDefinition| serde_json::to_value(crd).unwrap_or_default())
        .collect()
}
