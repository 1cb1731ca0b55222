//! Bundle endpoints that are not a SPIRE server's own: one known by a certificate of the web, and one that proves an
//! identity of a third trust domain.

use serde_json::{Value, json};
use trustweave_testbed::{
    authority::Authority,
    endpoint::BundleEndpoint,
    federation::{Federation, trust_domain},
};

use super::{
    ONE, TWO, bundle, holds_current_keys,
    made_up::Publisher,
    plan,
    rules::{Rule, shows},
};

const PEER: &str = "peer.test";

/// Has the first cluster federate with a peer that is served by an endpoint, and the peer rotate there alone: git
/// never hears of the new key.
async fn a_rotation_at_the_endpoint_arrives(
    federation: &Federation,
    authority: &Authority,
    endpoint: &BundleEndpoint,
    declared: &Value,
) {
    let git = &federation.testbed.git;
    let publisher = Publisher::new(federation);
    publisher.publish(federation, authority, declared).await;
    let (path, content) = publisher.declaration(PEER, declared, &trust_domain(ONE));
    git.commit("main", &[(&path, &content)], "Declare the peer")
        .await
        .unwrap();
    federation
        .trust_domain_until(ONE, PEER, "the peer to be Federated", |status| {
            status["phase"] == "Federated"
        })
        .await
        .unwrap();
    let spire = &federation.testbed.cluster(ONE).unwrap().spire;
    let holds = async |document: &Value| {
        let expected = bundle(document);
        let what = format!("SPIRE to hold {} roots", expected.x509_authorities.len());
        federation
            .until(&what, async || {
                let held = spire.federated_bundle(PEER).await?;
                let held = held.as_ref().map(bundle);
                Ok(held.filter(|held| held.same_keys(&expected)).map(drop))
            })
            .await
            .unwrap();
    };
    let first = authority.bundle();
    holds(&first).await;

    let next = Authority::new(PEER).unwrap().bundle();
    let mut both = first.clone();
    both["keys"]
        .as_array_mut()
        .unwrap()
        .extend(next["keys"].as_array().unwrap().iter().cloned());
    both["spiffe_sequence"] = json!(2);
    // The answer comes late: meanwhile SPIRE goes on with what it holds.
    endpoint.hang();
    let before = endpoint.requests();
    federation
        .until("SPIRE to ask the endpoint", async || {
            Ok((endpoint.requests() > before).then_some(()))
        })
        .await
        .unwrap();
    holds(&first).await;
    endpoint.serve(&both);
    holds(&both).await;
    let branch = format!("trustweave/{PEER}");
    assert_eq!(git.log(&branch).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_followed_at_an_endpoint_of_the_web() {
    let _shown = shows(&[Rule::Endpoints]);
    let edge = json!({"between": [trust_domain(ONE), PEER]});
    let plan = plan()
        .with_clusters(1)
        .with_topology(json!({"edges": [edge]}));
    let federation = Federation::start(plan, &super::progress).await.unwrap();
    let authority = Authority::new(PEER).unwrap();
    let identity = federation.testbed.web_identity().unwrap();
    let endpoint = BundleEndpoint::start(&identity, &authority.bundle())
        .await
        .unwrap();
    let declared = json!({"profile": "https_web", "url": endpoint.url(), "refreshHint": 60});
    a_rotation_at_the_endpoint_arrives(&federation, &authority, &endpoint, &declared).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_followed_at_an_endpoint_in_a_third_trust_domain() {
    let _shown = shows(&[Rule::Endpoints]);
    let edges = [
        json!({"between": [trust_domain(ONE), trust_domain(TWO)]}),
        json!({"between": [trust_domain(ONE), PEER]}),
    ];
    let plan = plan().with_topology(json!({"edges": edges}));
    let federation = Federation::start(plan, &super::progress).await.unwrap();
    federation.federated().await.unwrap();
    // The endpoint proves an identity that only the second cluster's keys vouch for.
    holds_current_keys(&federation, ONE, TWO).await;
    let host = &federation.testbed.cluster(TWO).unwrap().spire;
    let identity = host.mint("/bundles-of-others").await.unwrap();
    let authority = Authority::new(PEER).unwrap();
    let endpoint = BundleEndpoint::start(&identity, &authority.bundle())
        .await
        .unwrap();
    let declared = json!({
        "profile": "https_spiffe",
        "url": endpoint.url(),
        "spiffeID": format!("spiffe://{}/bundles-of-others", trust_domain(TWO)),
        "refreshHint": 60,
    });
    a_rotation_at_the_endpoint_arrives(&federation, &authority, &endpoint, &declared).await;
}
