//! A revoked key is gone at once, stays gone, and takes nothing else with it.

use std::time::Instant;

use serde_json::{Value, json};
use trustweave::model::{bundle::Bundle, distrust::KeyId};
use trustweave_testbed::{
    authority::Authority,
    endpoint::BundleEndpoint,
    federation::{Federation, trust_domain},
};

use super::{
    ONE, TWO, bundle, condition, federated, held, holds_current_keys,
    made_up::Publisher,
    own, plan, relationship, rotate,
    rules::{Rule, shows},
};

/// A trust domain without a cluster.
const PEER: &str = "peer.test";

/// The trust domain of a cluster, or the one without.
fn named(name: &str) -> String {
    match name {
        PEER => PEER.to_owned(),
        cluster => trust_domain(cluster),
    }
}

/// An entry of `distrust.yaml` about a key of a trust domain.
fn entry(of: &str, key: &KeyId, hour: u8) -> Value {
    json!({
        "trustDomain": named(of), "key": key, "reason": "the test says so",
        "time": format!("2026-01-01T{hour:02}:00:00Z"),
    })
}

/// Commits a trust domain's `distrust.yaml`.
async fn distrust(federation: &Federation, by: &str, revoked: &[Value], unrevoked: &[Value]) {
    let name = named(by);
    let document = json!({
        "apiVersion": "trustweave.dev/v1alpha1", "kind": "Distrust",
        "metadata": {"name": name},
        "spec": {"revoked": revoked, "unrevoked": unrevoked},
    });
    let path = format!("trust-domains/{name}/distrust.yaml");
    let git = &federation.testbed.git;
    git.commit(
        "main",
        &[(&path, &format!("{document:#}\n"))],
        "Change what is distrusted",
    )
    .await
    .unwrap();
}

/// Waits until a cluster's SPIRE holds exactly these keys of a peer.
async fn holds(federation: &Federation, cluster: &str, peer: &str, expected: &Bundle) {
    let what = format!("SPIRE of {cluster} to hold exactly the expected keys of {peer}");
    federation
        .until(&what, async || {
            let held = held(federation, cluster, peer).await;
            Ok(held.filter(|held| held.same_keys(expected)).map(drop))
        })
        .await
        .unwrap();
}

/// The URL that a cluster's SPIRE polls a peer at.
async fn url(federation: &Federation, cluster: &str, peer: &str) -> String {
    let object = relationship(federation, cluster, peer).await;
    object["spec"]["bundleEndpointURL"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// How many X.509 roots of a peer a workload of a cluster holds.
async fn roots_of_a_workload(
    federation: &Federation,
    cluster: &str,
    peer: &str,
) -> anyhow::Result<usize> {
    let spire = &federation.testbed.cluster(cluster)?.spire;
    let socket = spire.start_agent().await?;
    let address = format!("unix:{}", socket.display());
    let client = spiffe::WorkloadApiClient::connect_to(address).await?;
    let bundles = client.fetch_x509_bundles().await?;
    let peer = named(peer);
    let mut found = bundles.iter();
    let found = found.find(|(name, _)| name.as_ref() == peer.as_str());
    Ok(found.map_or(0, |(_, bundle)| bundle.authorities().len()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_is_gone_at_once_and_the_endpoint_is_polled_again_once_it_is_clean() {
    let mut shown = shows(&[Rule::Revocation]);
    let mut plan = plan();
    (plan.endpoints, plan.workloads) = (true, true);
    let federation = federated(plan).await;
    let two = federation.testbed.cluster(TWO).unwrap();
    let old = own(&federation, TWO).await;
    let bad = old.keys().next().unwrap();
    let bad_id = {
        let shown = two
            .spire
            .server(&["localauthority", "x509", "show", "-output", "json"])
            .await
            .unwrap();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        shown["active"]["authority_id"].as_str().unwrap().to_owned()
    };
    // The second cluster's workloads would not survive an authority that they have not heard of.
    two.spire.stop_agent().await.unwrap();
    rotate(&federation, TWO).await;
    two.spire.activate_prepared_x509().await.unwrap();
    holds_current_keys(&federation, ONE, TWO).await;
    federation
        .until("the workload to hold both keys", async || {
            Ok((roots_of_a_workload(&federation, ONE, TWO).await? == 2).then_some(()))
        })
        .await
        .unwrap();
    let good = own(&federation, TWO).await.without(|key| *key == bad);

    // The endpoint still serves the key: SPIRE's poll must not bring it back.
    let begun = Instant::now();
    distrust(&federation, TWO, &[entry(TWO, &bad, 1)], &[]).await;
    holds(&federation, ONE, TWO, &good).await;
    let in_spire = begun.elapsed();
    federation
        .until("the workload to hold the good key alone", async || {
            Ok((roots_of_a_workload(&federation, ONE, TWO).await? == 1).then_some(()))
        })
        .await
        .unwrap();
    shown.measured(
        "revocation committed -> the key is gone from the peer's SPIRE (https_spiffe)",
        in_spire,
    );
    shown.measured(
        "revocation committed -> no workload trusts the key (https_spiffe)",
        begun.elapsed(),
    );
    assert!(url(&federation, ONE, TWO).await.contains(".invalid/"));
    let status = federation
        .peer_until(ONE, TWO, "the revocation to be reported", |status| {
            condition(status, "RevocationSettled")["reason"] == "EndpointCut"
        })
        .await
        .unwrap();
    assert_eq!(status["phase"], "Federated");

    // SPIRE gives the key up itself: its endpoint is clean from now on.
    for verb in ["taint", "revoke"] {
        two.spire
            .server(&["localauthority", "x509", verb, "-authorityID", &bad_id])
            .await
            .unwrap();
    }
    trustweave_testbed::process::wait_until(
        "the endpoint to be polled again",
        std::time::Duration::from_mins(3),
        async || {
            let status = federation
                .status(ONE, "trustpeer", &trust_domain(TWO))
                .await?;
            let settled = condition(&status, "RevocationSettled")["reason"].clone();
            anyhow::ensure!(settled == "EndpointClean", "it is {settled}");
            Ok(Some(()))
        },
    )
    .await
    .unwrap();
    assert!(!url(&federation, ONE, TWO).await.contains(".invalid/"));
    holds(&federation, ONE, TWO, &good).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_that_was_under_way_does_not_keep_a_revoked_key() {
    let mut shown = shows(&[Rule::Revocation]);
    let edge = json!({"between": [trust_domain(ONE), PEER]});
    let mut plan = plan()
        .with_clusters(1)
        .with_topology(json!({"edges": [edge]}));
    plan.workloads = true;
    let federation = Federation::start(plan, &super::progress).await.unwrap();
    let (authority, other) = (
        Authority::new(PEER).unwrap(),
        Authority::new(PEER).unwrap().bundle(),
    );
    let mut both = authority.bundle();
    let keys = both["keys"].as_array_mut().unwrap();
    keys.extend(other["keys"].as_array().unwrap().iter().cloned());
    let identity = federation.testbed.web_identity().unwrap();
    let endpoint = BundleEndpoint::start(&identity, &both).await.unwrap();
    let declared = json!({"profile": "https_web", "url": endpoint.url(), "refreshHint": 60});
    let publisher = Publisher::new(&federation);
    publisher.publish(&federation, &authority, &declared).await;
    let (path, content) = publisher.declaration(PEER, &declared, &trust_domain(ONE));
    let git = &federation.testbed.git;
    git.commit("main", &[(&path, &content)], "Declare the peer")
        .await
        .unwrap();
    // SPIRE's own polling brings a key that git has not heard of.
    let spire = &federation.testbed.cluster(ONE).unwrap().spire;
    spire.workload_entry(&[PEER]).await.unwrap();
    let in_spire = async || {
        let held = spire.federated_bundle(PEER).await?;
        let held = held.as_ref().map(bundle);
        anyhow::Ok(held.map_or(0, |held| held.x509_authorities.len()))
    };
    let has = async |what: &str, keys: usize| {
        federation
            .until(what, async || {
                let workload = roots_of_a_workload(&federation, ONE, PEER).await?;
                Ok((in_spire().await? == keys && workload == keys).then_some(()))
            })
            .await
            .unwrap();
    };
    has("SPIRE and a workload to have both keys", 2).await;

    endpoint.hang();
    let before = endpoint.requests();
    federation
        .until("a poll to be under way", async || {
            Ok((endpoint.requests() > before).then_some(()))
        })
        .await
        .unwrap();
    let bad = bundle(&other).keys().next().unwrap();
    let begun = Instant::now();
    distrust(&federation, PEER, &[entry(PEER, &bad, 1)], &[]).await;
    has("SPIRE and a workload to have the good key alone", 1).await;
    shown.measured(
        "revocation committed -> no workload trusts the key (https_web, a poll under way)",
        begun.elapsed(),
    );

    // The answer of that poll comes late, with the revoked key.
    endpoint.serve(&both);
    trustweave_testbed::wait_until(
        "the same to be pushed once more",
        std::time::Duration::from_mins(2),
        async || {
            let cluster = federation.testbed.cluster(ONE)?;
            let url = cluster
                .kubectl(&[
                    "get",
                    "clusterfederatedtrustdomain",
                    PEER,
                    "--output=jsonpath={.spec.bundleEndpointURL}",
                ])
                .await?;
            anyhow::ensure!(url.starts_with("https://peer.test.invalid/"), "{url}");
            Ok((!url.ends_with(".0")).then_some(()))
        },
    )
    .await
    .unwrap();
    has(
        "SPIRE and a workload to have the good key alone, for good",
        1,
    )
    .await;
    shown.measured(
        "the same, with the revoked key in the late answer -> gone for good",
        begun.elapsed(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_outlives_its_entry_and_is_lifted_by_its_author_alone() {
    let _shown = shows(&[Rule::Sticky]);
    let federation = federated(plan()).await;
    rotate(&federation, TWO).await;
    holds_current_keys(&federation, ONE, TWO).await;
    let all = own(&federation, TWO).await;
    let bad = all.keys().next().unwrap();
    let good = all.clone().without(|key| *key == bad);
    // Whoever trusts may distrust for themselves.
    distrust(&federation, ONE, &[entry(TWO, &bad, 1)], &[]).await;
    holds(&federation, ONE, TWO, &good).await;

    distrust(&federation, ONE, &[], &[]).await;
    // Nor does the key's own trust domain lift what another distrusts.
    distrust(&federation, TWO, &[], &[entry(TWO, &bad, 2)]).await;
    let tip = federation.testbed.git.tip("main").await.unwrap().unwrap();
    federation
        .until("the commits to be in force", async || {
            let status = federation.status(ONE, "gitsync", "trustweave").await?;
            Ok((status["revision"] == tip.as_str()).then_some(()))
        })
        .await
        .unwrap();
    // Neither does the loss of everything that the agent itself keeps.
    let one = federation.testbed.cluster(ONE).unwrap();
    one.kubectl(&["delete", "trustpeer", "--all"])
        .await
        .unwrap();
    rotate(&federation, TWO).await;
    let all = own(&federation, TWO).await;
    let good = all.clone().without(|key| *key == bad);
    holds(&federation, ONE, TWO, &good).await;
    let status = federation
        .status(ONE, "trustpeer", &trust_domain(TWO))
        .await
        .unwrap();
    assert_eq!(status["revoked"][0]["by"], trust_domain(ONE));
    assert_eq!(status["phase"], "Federated");

    distrust(&federation, ONE, &[], &[entry(TWO, &bad, 2)]).await;
    holds(&federation, ONE, TWO, &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_every_key_is_revoked_nothing_is_trusted_and_workloads_keep_their_identities() {
    let mut shown = shows(&[Rule::Revocation, Rule::Leaving]);
    let federation = federated(plan()).await;
    let all = own(&federation, TWO).await;
    let entries: Vec<_> = all.keys().map(|key| entry(TWO, &key, 1)).collect();
    let begun = Instant::now();
    distrust(&federation, ONE, &entries, &[]).await;
    holds(&federation, ONE, TWO, &Bundle::empty()).await;
    shown.measured(
        "every key revoked by commit -> the bundle is empty in the peer's SPIRE",
        begun.elapsed(),
    );
    let status = federation
        .peer_until(ONE, TWO, "the phase Distrusted", |status| {
            status["phase"] == "Distrusted"
        })
        .await
        .unwrap();
    assert_eq!(status["message"], "every key of the peer is revoked");
    let one = federation.testbed.cluster(ONE).unwrap();
    federation
        .until(
            "no entry to federate, and the frontend to have one",
            async || {
                let entries = one.spire.entries().await?;
                let federates = |entry: &Value| {
                    let names = entry["federates_with"].as_array();
                    names.is_some_and(|names| !names.is_empty())
                };
                let frontend = entries.iter().any(|entry| {
                    let path = entry["spiffe_id"]["path"].as_str().unwrap_or_default();
                    path.contains("frontend")
                });
                Ok((frontend && !entries.iter().any(federates)).then_some(()))
            },
        )
        .await
        .unwrap();
    // The other direction is nobody's loss.
    let expected = bundle(&one.spire.own_bundle().await.unwrap());
    holds(&federation, TWO, ONE, &expected).await;
}
