//! What the document says goes on by itself, and what nobody should have to look after.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Instant,
};

use serde_json::{Value, json};
use trustweave_testbed::{
    Cluster,
    federation::{Federation, SPIRE_NAMESPACE, trust_domain},
};

use super::{
    CLUSTERS,
    setup::NAME,
    story::{host, until_federates_with},
};
use crate::{
    ONE, TWO, held, holds_current_keys,
    managed::{get, pass_in, patch},
    progress, relationship, rotate,
};

/// "Automatic updates": the document has `federates_with` in server.conf for that. The relationship is enough.
pub(super) async fn rotations_arrive_by_polling_alone(federation: &Federation) {
    let peer = trust_domain(TWO);
    let before = federation.status(ONE, "trustpeer", &peer).await.unwrap();
    federation.testbed.git.stop().await.unwrap();
    let begun = Instant::now();
    rotate(federation, TWO).await;
    holds_current_keys(federation, ONE, TWO).await;
    let seconds = begun.elapsed().as_secs_f64();
    federation.testbed.git.start().await.unwrap();
    let asked = federation.testbed.router.asked(&host(TWO));
    assert!(asked.led > 0, "{asked:?}");
    // Git has it as well, once it is back.
    federation
        .peer_until(ONE, TWO, "another serial", |status| {
            status["version"] != before["version"]
        })
        .await
        .unwrap();
    progress(&format!(
        "seed automatic updates: `federates_with` in server.conf, a restart for each peer -> no commit; git is away, \
         SPIRE polls through the Route -> seen after {seconds:.1} s"
    ));
}

/// The versions of everything that the agents and people keep in a cluster, by kind and name.
async fn versions(cluster: &Cluster) -> BTreeMap<String, String> {
    let of_server = [
        "configmap/spire-server",
        "statefulset/spire-server",
        "service/spire-server-federation",
        "route/spire-server-federation",
    ];
    let in_namespace = |namespace: &str| format!("--namespace={namespace}");
    let (spire, demo) = (
        in_namespace(SPIRE_NAMESPACE),
        in_namespace("federation-demo"),
    );
    let queries: [Vec<&str>; 4] = [
        [of_server.as_slice(), &[spire.as_str()]].concat(),
        vec!["clusterfederatedtrustdomains,clusterspiffeids,trustpeers"],
        vec!["namespaces"],
        vec!["serviceaccounts,services,deployments", &demo],
    ];
    let mut versions = BTreeMap::new();
    for query in queries {
        let get = [&["get", "--output=json"], query.as_slice()].concat();
        let found: Value = serde_json::from_str(&cluster.kubectl(&get).await.unwrap()).unwrap();
        for object in found["items"].as_array().unwrap() {
            let metadata = &object["metadata"];
            let name = format!("{} {}", object["kind"], metadata["name"]);
            versions.insert(name, metadata["resourceVersion"].to_string());
        }
    }
    assert!(versions.len() > 12, "{versions:?}");
    versions
}

/// After convergence there is not one write, though passes are made and SPIRE's controller manager makes its own.
pub(super) async fn nobody_writes_any_more(federation: &Federation) {
    let clusters = [ONE, TWO].map(|name| federation.testbed.cluster(name).unwrap());
    let all = async || {
        let mut all = Vec::new();
        for cluster in clusters {
            let writes = federation.metric(cluster.name(), "trustweave_writes_total");
            all.push((versions(cluster).await, writes.await.unwrap().to_string()));
        }
        all
    };
    let (number, standing) = (Cell::new(0), RefCell::new(all().await));
    federation
        .until("everything to stand still", async || {
            number.set(number.get() + 1);
            pass_in(federation, &[ONE, TWO], number.get()).await;
            let now = all().await;
            let before = standing.replace(now.clone());
            Ok((now == before).then_some(()))
        })
        .await
        .unwrap();
    let before = standing.into_inner();
    let begun = Instant::now();
    for more in 1..=5 {
        pass_in(federation, &[ONE, TWO], number.get() + more).await;
    }
    // Longer than a pass of SPIRE's controller manager: each server has polled its peer once more.
    let router = &federation.testbed.router;
    let polls = || [ONE, TWO].map(|name| router.asked(&host(name)).led);
    let polled = polls();
    federation
        .until("each server to poll its peer", async || {
            let now = polls();
            Ok(polled
                .iter()
                .zip(now)
                .all(|(then, now)| now > *then)
                .then_some(()))
        })
        .await
        .unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(all().await, before);
    let count: usize = before.iter().map(|(versions, _)| versions.len()).sum();
    progress(&format!(
        "seed after convergence: writes per minute: 0 ({count} objects, 5 passes of each agent, {seconds:.1} s)"
    ));
}

/// A hand edit of what is in no other test: relationship and registration. The server's pieces are in `server.rs`.
pub(super) async fn hand_edits_are_put_back(federation: &Federation) {
    for (name, peer, workload) in CLUSTERS {
        let cluster = federation.testbed.cluster(name).unwrap();
        let relationship_name = trust_domain(peer);
        let standing = relationship(federation, name, peer).await["spec"].clone();
        let url = standing["bundleEndpointURL"].clone();
        let edited = json!({"spec": {"bundleEndpointURL": format!("https://by-hand.{}", trust_domain(peer))}});
        let kind = "clusterfederatedtrustdomain";
        patch(cluster, kind, &relationship_name, "merge", &edited).await;
        federation
            .until("the relationship's URL to be put back", async || {
                let found = relationship(federation, name, peer).await;
                let found = &found["spec"]["bundleEndpointURL"];
                let (found, url) = (found.as_str(), url.as_str());
                // A new fragment may be needed for SPIRE to take the bundle again.
                let base = |url: Option<&str>| url?.split('#').next().map(str::to_owned);
                anyhow::ensure!(base(found) == base(url), "it is {found:?}");
                Ok(Some(()))
            })
            .await
            .unwrap();

        let removed = json!([{"op": "remove", "path": "/spec/federatesWith"}]);
        patch(cluster, "clusterspiffeid", workload, "json", &removed).await;
        federation
            .until("the registration to name the peer again", async || {
                let registration = get(cluster, "clusterspiffeid", workload).await;
                let named = &registration["spec"]["federatesWith"];
                anyhow::ensure!(*named == json!([trust_domain(peer)]), "it names {named}");
                Ok(Some(()))
            })
            .await
            .unwrap();

        for (kind, object) in [
            (kind, relationship_name.as_str()),
            ("clusterspiffeid", workload),
        ] {
            let uid = get(cluster, kind, object).await["metadata"]["uid"].clone();
            cluster.kubectl(&["delete", kind, object]).await.unwrap();
            federation
                .until(&format!("{kind} {object} to be made again"), async || {
                    let found = get(cluster, kind, object).await;
                    let again = !found.is_null() && found["metadata"]["uid"] != uid;
                    Ok(again.then_some(()))
                })
                .await
                .unwrap();
        }
        until_federates_with(federation, name, workload, &[&trust_domain(peer)]).await;
        holds_current_keys(federation, name, peer).await;
        assert!(held(federation, name, peer).await.is_some());
    }
    for name in [ONE, TWO] {
        let spire = &federation.testbed.cluster(name).unwrap().spire;
        assert_eq!(spire.server_starts(), 2, "nothing of that restarts {name}");
    }
    progress(&format!(
        "seed hand edits: {NAME}'s pieces (see server.rs), ClusterFederatedTrustDomain and ClusterSPIFFEID, edited and \
         deleted -> put back"
    ));
}
