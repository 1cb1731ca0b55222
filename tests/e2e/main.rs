//! End to end: two real clusters with SPIRE, a git server, and the agent's real program under the rights of
//! `deploy/`. Each test has a federation of its own.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]
#![expect(
    clippy::print_stderr,
    reason = "a slow first build must be seen to progress"
)]

mod applying;
mod attacks;
mod brownfield;
mod clients;
mod credentials;
mod doctor;
mod endpoint;
mod endpoints;
mod faults;
mod identities;
mod leaving;
mod made_up;
mod managed;
mod mesh;
mod model;
mod overlay;
mod page;
mod proposals;
mod pruning;
mod publication;
mod refusals;
mod replicas;
mod repository;
mod revocation;
mod rotation;
mod rules;
mod seed;
mod server;
mod signers;
mod sources;
mod verify;
mod ztwim;

use std::{process::Command, time::Duration};

use serde_json::Value;
use trustweave::model::bundle::Bundle;
use trustweave_testbed::federation::{Federation, Plan};

const ONE: &str = "cluster-1";
const TWO: &str = "cluster-2";

/// A plan for the tests: a fast poll, and nothing that they do not ask for.
fn plan() -> Plan {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_trustweave"), env!("CARGO_MANIFEST_DIR"));
    plan.poll = Duration::from_millis(300);
    plan
}

/// A verb of `trustweave` that looks at both clusters and at the repository on the git server.
fn asking(federation: &Federation, verb: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trustweave"));
    command.args([verb, "--output", "json", "--revision", "main", "--repo"]);
    command.arg(federation.testbed.git.path());
    for name in [ONE, TWO] {
        let cluster = federation.testbed.cluster(name).unwrap();
        command.arg("--kubeconfig").arg(cluster.kubeconfig());
    }
    command
}

fn progress(line: &str) {
    eprintln!("{line}");
}

async fn federated(plan: Plan) -> Federation {
    let federation = Federation::start(plan, &progress).await.unwrap();
    federation.federated().await.unwrap();
    federation
}

/// A bundle document, read. SPIRE writes an empty list of keys as null.
fn bundle(document: &Value) -> Bundle {
    if document["keys"].is_null() {
        return Bundle::empty();
    }
    Bundle::parse(document.to_string().as_bytes()).unwrap()
}

/// What a cluster's SPIRE holds of the other's trust domain.
async fn held(federation: &Federation, cluster: &str, peer: &str) -> Option<Bundle> {
    let peer = trustweave_testbed::federation::trust_domain(peer);
    let cluster = federation.testbed.cluster(cluster).unwrap();
    let found = cluster.spire.federated_bundle(&peer).await.unwrap();
    found.as_ref().map(bundle)
}

/// A cluster's own bundle, as its SPIRE tells it.
async fn own(federation: &Federation, cluster: &str) -> Bundle {
    let cluster = federation.testbed.cluster(cluster).unwrap();
    bundle(&cluster.spire.own_bundle().await.unwrap())
}

/// Prepares a new key in a cluster's SPIRE.
async fn rotate(federation: &Federation, cluster: &str) {
    let cluster = federation.testbed.cluster(cluster).unwrap();
    cluster.spire.rotate_x509().await.unwrap();
}

/// Waits until a cluster's SPIRE holds exactly the peer's current keys.
async fn holds_current_keys(federation: &Federation, cluster: &str, peer: &str) {
    let expected = own(federation, peer).await;
    federation
        .until(
            &format!("SPIRE of {cluster} to hold the keys of {peer}"),
            async || {
                let held = held(federation, cluster, peer).await;
                Ok(held.filter(|held| held.same_keys(&expected)).map(drop))
            },
        )
        .await
        .unwrap();
}

/// Waits until a commit of main is what a cluster goes by.
async fn in_force(federation: &Federation, cluster: &str, commit: &str) {
    federation
        .until(&format!("{commit} in force in {cluster}"), async || {
            let status = federation.status(cluster, "gitsync", "trustweave").await?;
            Ok((status["revision"] == commit).then_some(()))
        })
        .await
        .unwrap();
}

/// The live `ClusterFederatedTrustDomain` of a peer.
async fn relationship(federation: &Federation, cluster: &str, peer: &str) -> Value {
    let name = trustweave_testbed::federation::trust_domain(peer);
    let cluster = federation.testbed.cluster(cluster).unwrap();
    let object = cluster
        .kubectl(&["get", "clusterfederatedtrustdomain", &name, "--output=json"])
        .await
        .unwrap();
    serde_json::from_str(&object).unwrap()
}

/// A condition of a status.
fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .find(|condition| condition["type"] == kind)
        .unwrap_or(&Value::Null)
}
