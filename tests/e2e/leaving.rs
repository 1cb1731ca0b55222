//! Who leaves is no longer trusted, and nobody else loses anything.

use std::time::Instant;

use serde_json::{Value, json};
use trustweave_testbed::federation::{Federation, trust_domain};

use super::{
    ONE, TWO, condition, federated, held, holds_current_keys, plan, rotate,
    rules::{Rule, shows},
};

/// The topology without any edge.
const NO_EDGES: &str = "apiVersion: trustweave.dev/v1alpha1\nkind: Topology\nmetadata: {name: topology}\nspec: {edges: []}\n";

/// The entries of a cluster's SPIRE that federate with a peer, and those that do not.
async fn entries(federation: &Federation, cluster: &str, peer: &str) -> (Vec<Value>, Vec<Value>) {
    let spire = &federation.testbed.cluster(cluster).unwrap().spire;
    let peer = trust_domain(peer);
    spire
        .entries()
        .await
        .unwrap()
        .into_iter()
        .partition(|entry| {
            let names = entry["federates_with"].as_array();
            names.is_some_and(|names| names.iter().any(|name| name == peer.as_str()))
        })
}

/// Whether an entry belongs to one of the agent's own probes.
fn is_probe(entry: &Value) -> bool {
    let path = entry["spiffe_id"]["path"].as_str().unwrap_or_default();
    path.starts_with("/trustweave/")
}

/// Waits until a cluster trusts nothing of a peer, and says so.
async fn distrusts(federation: &Federation, cluster: &str, peer: &str) -> Value {
    let what = format!("SPIRE of {cluster} to hold no key of {peer}");
    federation
        .until(&what, async || {
            let held = held(federation, cluster, peer).await;
            let keys = held.map_or(0, |held| held.keys().count());
            Ok((keys == 0).then_some(()))
        })
        .await
        .unwrap();
    federation
        .peer_until(cluster, peer, "the phase Distrusted or Gone", |status| {
            ["Distrusted", "Gone"].contains(&status["phase"].as_str().unwrap_or_default())
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_edge_leaves_no_key_and_takes_no_identity_away() {
    let mut shown = shows(&[Rule::Leaving]);
    let federation = federated(plan()).await;
    federation
        .until("a workload's entry that federates", async || {
            let (federating, _) = entries(&federation, ONE, TWO).await;
            Ok(federating
                .iter()
                .any(|entry| !is_probe(entry))
                .then_some(()))
        })
        .await
        .unwrap();
    let (federating, others) = entries(&federation, ONE, TWO).await;
    assert!(federating.iter().any(|entry| !is_probe(entry)));
    let git = &federation.testbed.git;
    let begun = Instant::now();
    git.commit("main", &[("topology.yaml", NO_EDGES)], "Remove the edge")
        .await
        .unwrap();
    for (cluster, peer) in [(ONE, TWO), (TWO, ONE)] {
        let status = distrusts(&federation, cluster, peer).await;
        assert_eq!(condition(&status, "Pushed")["reason"], "TakenAway");
        assert!(entries(&federation, cluster, peer).await.0.is_empty());
    }
    shown.measured(
        "edge removed by commit -> no key of the peer and no federating entry on both sides",
        begun.elapsed(),
    );
    let (_, after) = entries(&federation, ONE, TWO).await;
    for entry in others.iter().filter(|entry| !is_probe(entry)) {
        assert!(after.contains(entry), "changed: {entry}");
    }
    // The workload that federated has its identity still.
    for entry in federating.iter().filter(|entry| !is_probe(entry)) {
        let stands = after.iter().any(|it| it["spiffe_id"] == entry["spiffe_id"]);
        assert!(stands, "gone: {entry}");
    }

    // What comes back goes on from what is remembered, with whatever was rotated meanwhile.
    rotate(&federation, TWO).await;
    let topology = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/repo-layout/topology.yaml"),
    )
    .unwrap();
    git.commit(
        "main",
        &[("topology.yaml", &topology)],
        "Bring the edge back",
    )
    .await
    .unwrap();
    federation.federated().await.unwrap();
    holds_current_keys(&federation, ONE, TWO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_that_people_keep_block_distrust_until_it_is_forced() {
    let _shown = shows(&[Rule::Leaving, Rule::Consent]);
    let federation = federated(plan()).await;
    let one = federation.testbed.cluster(ONE).unwrap();
    let peer = trust_domain(TWO);
    let legacy = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID",
        "metadata": {"name": "legacy"},
        "spec": {
            "className": one.spire.class_name(),
            "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/legacy",
            "podSelector": {"matchLabels": {"app": "legacy"}},
            "federatesWith": [peer],
        },
    });
    let path = federation.testbed.directory().join("legacy.json");
    std::fs::write(&path, legacy.to_string()).unwrap();
    one.kubectl(&["apply", "--filename", path.to_str().unwrap()])
        .await
        .unwrap();
    federation
        .peer_until(
            ONE,
            TWO,
            "the foreign registration to be reported",
            |status| status["namedByOthers"] == json!(["ClusterSPIFFEID.spire.spiffe.io legacy"]),
        )
        .await
        .unwrap();

    // Consent is withdrawn by one side alone.
    let mut declaration = federation.declaration(TWO).unwrap();
    declaration["spec"]["consent"]["export"] = json!([]);
    federation
        .declare(TWO, &declaration, "Export to nobody")
        .await
        .unwrap();
    let status = federation
        .peer_until(ONE, TWO, "the block to be reported", |status| {
            let message = status["message"].as_str().unwrap_or_default();
            status["phase"] == "Draining" && message.contains("legacy")
        })
        .await
        .unwrap();
    assert_eq!(condition(&status, "Consented")["reason"], "MissingConsent");
    assert!(held(&federation, ONE, TWO).await.unwrap().keys().count() > 0);

    one.kubectl(&[
        "annotate",
        "trustpeer",
        &peer,
        "trustweave.dev/force-distrust=true",
    ])
    .await
    .unwrap();
    distrusts(&federation, ONE, TWO).await;
    // What people keep is as they left it.
    let legacy = one
        .kubectl(&["get", "clusterspiffeid", "legacy", "--output=json"])
        .await
        .unwrap();
    let legacy: Value = serde_json::from_str(&legacy).unwrap();
    assert_eq!(legacy["spec"]["federatesWith"], json!([peer]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trust_domain_that_is_removed_is_given_up_by_its_peers_and_gives_up_its_own() {
    let _shown = shows(&[Rule::Leaving]);
    let federation = federated(plan()).await;
    let git = &federation.testbed.git;
    let declaration = format!("trust-domains/{}/trust-domain.yaml", trust_domain(TWO));
    git.commit("main", &[("topology.yaml", NO_EDGES)], "Remove the edge")
        .await
        .unwrap();
    git.delete("main", &[&declaration], "Remove the trust domain")
        .await
        .unwrap();
    for (cluster, peer) in [(ONE, TWO), (TWO, ONE)] {
        distrusts(&federation, cluster, peer).await;
        assert!(entries(&federation, cluster, peer).await.0.is_empty());
    }
    let status = federation
        .status(TWO, "gitsync", "trustweave")
        .await
        .unwrap();
    assert_eq!(condition(&status, "Ready")["reason"], "Retired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_main_that_goes_back_is_not_followed_until_it_is_accepted_by_name() {
    let _shown = shows(&[Rule::NoRewind]);
    let federation = federated(plan()).await;
    let git = &federation.testbed.git;
    let before = git.tip("main").await.unwrap().unwrap();
    let removed = git
        .commit("main", &[("topology.yaml", NO_EDGES)], "Remove the edge")
        .await
        .unwrap();
    distrusts(&federation, ONE, TWO).await;

    // Somebody replays the state in which the edge stood.
    git.git(&["update-ref", "refs/heads/main", &before])
        .await
        .unwrap();
    let status = federation
        .until("the rewind to be reported", async || {
            let status = federation.status(ONE, "gitsync", "trustweave").await?;
            let ready = condition(&status, "Ready");
            Ok((ready["reason"] == "Rewound").then(|| status.clone()))
        })
        .await
        .unwrap();
    assert_eq!(status["revision"], removed.as_str());
    let message = condition(&status, "Ready")["message"].as_str().unwrap();
    let tip = git.tip("main").await.unwrap().unwrap();
    assert!(message.contains(&tip), "{message}");
    assert_eq!(
        held(&federation, ONE, TWO)
            .await
            .map_or(0, |it| it.keys().count()),
        0
    );

    let accepted = json!({"spec": {"acceptRewind": tip}}).to_string();
    for name in [ONE, TWO] {
        let cluster = federation.testbed.cluster(name).unwrap();
        cluster
            .kubectl(&[
                "patch",
                "gitsync",
                "trustweave",
                "--type=merge",
                "--patch",
                &accepted,
            ])
            .await
            .unwrap();
    }
    federation.federated().await.unwrap();
    holds_current_keys(&federation, ONE, TWO).await;
}
