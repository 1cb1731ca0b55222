//! More than two: a mesh, a hub with its spokes, a direction without its counterpart, and two hundred trust domains.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::json;
use trustweave_testbed::{
    authority::Authority,
    federation::{Federation, trust_domain},
    measure::{resident, writes_of_a_pass_with_nothing_to_do},
    wait_until,
};

use super::{
    ONE, TWO, condition, federated, holds_current_keys, in_force,
    made_up::Publisher,
    plan,
    rules::{Rule, shows},
};

const THREE: &str = "cluster-3";

/// The trust domains that a cluster's SPIRE has bundles of.
async fn trusted(federation: &Federation, cluster: &str) -> BTreeSet<String> {
    let spire = &federation.testbed.cluster(cluster).unwrap().spire;
    let trusted = spire.federated_trust_domains().await.unwrap();
    trusted.into_iter().collect()
}

fn trust_domains(clusters: &[&str]) -> BTreeSet<String> {
    clusters.iter().map(|name| trust_domain(name)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_mesh_of_three_each_holds_exactly_the_others_keys() {
    let _shown = shows(&[Rule::Shapes]);
    let federation = federated(plan().with_clusters(3)).await;
    let directions = federation.cluster_directions();
    assert_eq!(directions.len(), 6);
    for (cluster, peer) in &directions {
        holds_current_keys(&federation, cluster, peer).await;
    }
    for (cluster, others) in [
        (ONE, [TWO, THREE]),
        (TWO, [ONE, THREE]),
        (THREE, [ONE, TWO]),
    ] {
        assert_eq!(trusted(&federation, cluster).await, trust_domains(&others));
    }
    // The server's registration follows the topology: it names both others.
    for peer in [ONE, TWO] {
        let spire = &federation.testbed.cluster(THREE).unwrap().spire;
        federation
            .until(
                &format!("a workload's entry in {THREE} that federates with {peer}"),
                async || {
                    let entries = spire.entries_federating_with(&trust_domain(peer)).await?;
                    let workload = entries.iter().any(|entry| {
                        let path = entry["spiffe_id"]["path"].as_str().unwrap_or_default();
                        path.starts_with("/ns/federation-demo/")
                    });
                    Ok(workload.then_some(()))
                },
            )
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spokes_trust_the_hub_only_and_a_direction_is_its_importers_alone() {
    let _shown = shows(&[Rule::Shapes]);
    let hub = json!({
        "name": "all",
        "hub": trust_domain(ONE),
        "spokes": [trust_domain(TWO), trust_domain(THREE)],
    });
    let topology = json!({"groups": [hub]});
    let mut federation = federated(plan().with_clusters(3).with_topology(topology)).await;
    holds_current_keys(&federation, ONE, TWO).await;
    holds_current_keys(&federation, ONE, THREE).await;
    for spoke in [TWO, THREE] {
        holds_current_keys(&federation, spoke, ONE).await;
        assert_eq!(trusted(&federation, spoke).await, trust_domains(&[ONE]));
    }

    let one_way = json!({"from": trust_domain(TWO), "to": trust_domain(THREE)});
    let commit = federation
        .set_topology(
            json!({"groups": [hub], "edges": [one_way]}),
            "Let the second trust the third",
        )
        .await
        .unwrap();
    federation
        .peer_until(TWO, THREE, "the third to be Federated", |status| {
            status["phase"] == "Federated"
        })
        .await
        .unwrap();
    holds_current_keys(&federation, TWO, THREE).await;
    in_force(&federation, THREE, &commit).await;
    assert_eq!(trusted(&federation, THREE).await, trust_domains(&[ONE]));
    let peers = federation
        .testbed
        .cluster(THREE)
        .unwrap()
        .kubectl(&["get", "trustpeers", "--output=name"])
        .await
        .unwrap();
    assert_eq!(
        peers.trim(),
        format!("trustpeer.trustweave.dev/{}", trust_domain(ONE))
    );
}

/// How many trust domains the hub federates with.
const SPOKES: usize = 199;

/// Every part of the hub has to come through within this, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_federates_with_two_hundred_trust_domains() {
    let _shown = shows(&[Rule::Shapes]);
    let hub = trust_domain(ONE);
    let names: Vec<String> = (1..=SPOKES).map(|n| format!("spoke-{n:03}.test")).collect();
    let topology = json!({"groups": [{"name": "all", "hub": hub, "spokes": names}]});
    let plan = plan().with_clusters(1).with_topology(topology);
    let mut federation = Federation::prepare(plan, &super::progress).await.unwrap();
    let publisher = Publisher::new(&federation);
    let endpoint = json!("none");
    let mut declarations = Vec::new();
    for name in &names {
        let authority = Authority::new(name).unwrap();
        publisher.publish(&federation, &authority, &endpoint).await;
        declarations.push(publisher.declaration(name, &endpoint, &hub));
    }
    let declarations: Vec<(&str, &str)> = declarations
        .iter()
        .map(|(path, content)| (path.as_str(), content.as_str()))
        .collect();
    let git = &federation.testbed.git;
    git.commit("main", &declarations, "Declare the spokes")
        .await
        .unwrap();

    let begun = Instant::now();
    federation.start_agent(ONE).unwrap();
    let spire = &federation.testbed.cluster(ONE).unwrap().spire;
    let held = wait_until("SPIRE to hold all bundles", PATIENCE, async || {
        let held = spire.federated_trust_domains().await?.len();
        anyhow::ensure!(held == SPOKES, "it holds {held}");
        Ok(Some(begun.elapsed()))
    });
    let federated = wait_until("all peers to be Federated", PATIENCE, async || {
        let status = federation.status(ONE, "gitsync", "trustweave").await?;
        anyhow::ensure!(
            status["peers"] == format!("{SPOKES}/{SPOKES}"),
            "the status is {status:#}"
        );
        Ok(Some(begun.elapsed()))
    });
    let (held, federated) = tokio::join!(held, federated);
    let kibibytes = resident(federation.agent(ONE).unwrap().id()).unwrap();
    eprintln!(
        "{SPOKES} peers: SPIRE holds their bundles after {held:?}, all Federated after {federated:?}; the agent has \
         {:.1} MiB; {:?} passes, {:?} writes",
        f64::from(kibibytes) / 1024.0,
        federation.metric(ONE, "trustweave_passes_total").await,
        federation.metric(ONE, "trustweave_writes_total").await,
    );
    federated.unwrap();
    held.unwrap();
    let status = federation
        .status(ONE, "gitsync", "trustweave")
        .await
        .unwrap();
    assert_eq!(condition(&status, "Ready")["status"], "True", "{status:#}");

    // At this size too, a pass over what is in force writes nothing.
    let begun = Instant::now();
    let writes = writes_of_a_pass_with_nothing_to_do(&federation)
        .await
        .unwrap();
    eprintln!(
        "a commit that changes nothing is in force after {:?}",
        begun.elapsed()
    );
    assert_eq!(writes, 0);
}
