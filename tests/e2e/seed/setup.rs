//! Steps 1 to 4: the endpoints, the exchange of bundles, the workloads, and the proof.

use serde_json::{Value, json};
use trustweave::model::bundle::Bundle;
use trustweave_testbed::federation::{CLASS_NAME, Federation, trust_domain};

use super::{
    CLUSTERS,
    story::{
        Commit, declaration, endpoint, example, host, overlay, registration, registration_path,
        topology, trust_domains, until_federates_with,
    },
};
use crate::{
    ONE, TWO, bundle, held, holds_current_keys,
    managed::{CONFIGURED, EXPOSED, configuration, get, told_in},
    own,
    publication::branch,
    relationship,
};

/// What the Service and the Route are called.
pub(super) const NAME: &str = "spire-server-federation";

/// `server.federation` of a cluster's server.
async fn section(federation: &Federation, cluster: &str) -> anyhow::Result<Value> {
    let cluster = federation.testbed.cluster(cluster)?;
    let configuration: Value = serde_json::from_str(&configuration(cluster).await)?;
    Ok(configuration["server"]["federation"].clone())
}

/// Steps 1.1 to 2.1.
pub(super) async fn the_bundles_are_served_and_published(federation: &Federation) {
    let declared = |name| declaration(federation, name, &endpoint(name, &host(name)), &[]);
    let files = [topology(&[]), declared(ONE), declared(TWO)];
    let commit = Commit::make(federation, "Declare both trust domains", &files).await;

    let expected = json!({"bundle_endpoint": {
        "address": "0.0.0.0", "port": 8443, "refresh_hint": "60s",
        "profile": [{"https_spiffe": {}}],
    }});
    for (name, ..) in CLUSTERS {
        federation
            .until("the endpoint in the server's configuration", async || {
                let section = section(federation, name).await?;
                anyhow::ensure!(section == expected, "it says {section}");
                Ok(Some(()))
            })
            .await
            .unwrap();
    }
    commit.replaces(
        "1.1",
        "edit `federation` in server.conf of each ConfigMap, kubectl apply",
    );

    let port = json!({"name": "federation", "containerPort": 8443, "protocol": "TCP"});
    for (name, ..) in CLUSTERS {
        let cluster = federation.testbed.cluster(name).unwrap();
        federation
            .until("the port in the StatefulSet", async || {
                let set = get(cluster, "statefulset", "spire-server").await;
                let container = &set["spec"]["template"]["spec"]["containers"][0];
                let ports = container["ports"].as_array().cloned().unwrap_or_default();
                Ok(ports.contains(&port).then_some(()))
            })
            .await
            .unwrap();
    }
    commit.replaces("1.2", "kubectl patch statefulset spire-server, twice");

    for (name, ..) in CLUSTERS {
        told_in(federation, name, EXPOSED, "Exposed").await;
        let cluster = federation.testbed.cluster(name).unwrap();
        let service = get(cluster, "service", NAME).await;
        assert_eq!(service["spec"]["type"], "ClusterIP");
        assert_eq!(
            service["spec"]["ports"],
            json!([{"name": "federation", "port": 8443, "protocol": "TCP", "targetPort": 8443}])
        );
        let route = get(cluster, "route", NAME).await;
        assert_eq!(route["spec"]["host"], host(name));
        assert_eq!(route["spec"]["to"]["name"], NAME);
        assert_eq!(route["spec"]["port"]["targetPort"], "federation");
        assert_eq!(
            route["spec"]["tls"],
            json!({"termination": "passthrough", "insecureEdgeTerminationPolicy": "Redirect"})
        );
    }
    commit.replaces("1.3", "kubectl apply a Service and a Route, twice");

    for (name, ..) in CLUSTERS {
        told_in(federation, name, CONFIGURED, "InForce").await;
        let spire = &federation.testbed.cluster(name).unwrap().spire;
        spire.until_rolled_out().await.unwrap();
        assert_eq!(spire.server_starts(), 2, "{name} is restarted once");
    }
    commit.replaces("1.4", "kubectl rollout restart statefulset, twice");

    for (name, ..) in CLUSTERS {
        let branch = branch(name);
        let expected = own(federation, name).await;
        federation
            .until("the published bundle", async || {
                let text = federation.testbed.git.show(&branch, "bundle.json").await?;
                let published = Bundle::parse(text.as_bytes())?;
                Ok(published.same_keys(&expected).then_some(()))
            })
            .await
            .unwrap();
    }
    commit.replaces(
        "2.1",
        "kubectl exec `spire-server bundle show` into a file, twice",
    );
}

/// Steps 2.2, 4.1 and 4.3.
pub(super) async fn the_bundles_are_exchanged(federation: &Federation) {
    let [one, two] = trust_domains();
    let agrees = |name, peer| declaration(federation, name, &endpoint(name, &host(name)), &[peer]);
    let files = [
        topology(&[[&one, &two]]),
        agrees(ONE, &two),
        agrees(TWO, &one),
    ];
    let commit = Commit::make(federation, "Let both trust domains federate", &files).await;
    federation.federated().await.unwrap();
    for (name, peer, _) in CLUSTERS {
        let found = relationship(federation, name, peer).await;
        let spec = &found["spec"];
        assert_eq!(spec["trustDomain"], trust_domain(peer));
        assert_eq!(spec["className"], CLASS_NAME);
        assert_eq!(
            spec["bundleEndpointProfile"],
            json!({
                "type": "https_spiffe",
                "endpointSPIFFEID": format!("spiffe://{}/spire/server", trust_domain(peer)),
            })
        );
        let document = spec["trustDomainBundle"].as_str().unwrap();
        let delivered = bundle(&serde_json::from_str(document).unwrap());
        assert!(delivered.same_keys(&own(federation, peer).await));
    }
    commit.replaces(
        "2.2",
        "paste the other's bundle into a ClusterFederatedTrustDomain, kubectl apply, twice",
    );

    for (name, peer, _) in CLUSTERS {
        let spire = &federation.testbed.cluster(name).unwrap().spire;
        let listed = spire.federated_trust_domains().await.unwrap();
        assert_eq!(listed, [trust_domain(peer)]);
        holds_current_keys(federation, name, peer).await;
    }
    commit.replaces("4.1", "look at `spire-server bundle list` in each cluster");

    for (name, peer, _) in CLUSTERS {
        let cluster = federation.testbed.cluster(name).unwrap();
        let get = ["get", "clusterfederatedtrustdomain", "--output=wide"];
        let listed = cluster.kubectl(&get).await.unwrap();
        let rows: Vec<&str> = listed.lines().skip(1).collect();
        assert_eq!(rows.len(), 1, "{listed}");
        for part in [trust_domain(peer), format!("https://{}", host(peer))] {
            assert!(rows[0].contains(&part), "{listed}");
        }
    }
    commit.replaces(
        "4.3",
        "kubectl get clusterfederatedtrustdomain in each cluster",
    );
}

/// Steps 3.1, 3.2 and 4.2.
pub(super) async fn the_workloads_are_registered(federation: &Federation) {
    let mut files = example("base/namespace");
    for (name, _, workload) in CLUSTERS {
        let directory = format!("base/{workload}/workload");
        files.extend(example(&directory));
        let resources = ["../../base/namespace", &format!("../../{directory}")];
        files.push(overlay(name, &resources));
    }
    let commit = Commit::make(federation, "Add the demo's namespace and accounts", &files).await;
    for (name, _, workload) in CLUSTERS {
        let cluster = federation.testbed.cluster(name).unwrap();
        federation
            .until("the service account", async || {
                let namespace = "--namespace=federation-demo";
                let get = ["get", "serviceaccount", workload, namespace];
                cluster.kubectl(&get).await.map(Some)
            })
            .await
            .unwrap();
    }
    commit.replaces("3.1", "kubectl apply a Namespace and ServiceAccounts");

    let mut files = Vec::new();
    for (name, peer, workload) in CLUSTERS {
        let text = registration(name, workload, &[&trust_domain(peer)]);
        files.push((registration_path(name), text));
        let directory = format!("../../base/{workload}/workload");
        let resources = ["../../base/namespace", &directory, "cluster-spiffe-id.yaml"];
        files.push(overlay(name, &resources));
    }
    let commit = Commit::make(federation, "Register the demo's workloads", &files).await;
    for (name, peer, workload) in CLUSTERS {
        let cluster = federation.testbed.cluster(name).unwrap();
        federation
            .until("the registration to name the peer", async || {
                let registration = get(cluster, "clusterspiffeid", workload).await;
                let named = &registration["spec"]["federatesWith"];
                anyhow::ensure!(*named == json!([trust_domain(peer)]), "it names {named}");
                Ok(Some(()))
            })
            .await
            .unwrap();
    }
    commit.replaces("3.2", "kubectl apply a ClusterSPIFFEID in each cluster");

    for (name, peer, workload) in CLUSTERS {
        until_federates_with(federation, name, workload, &[&trust_domain(peer)]).await;
    }
    commit.replaces("4.2", "look at `spire-server entry show` in each cluster");

    // The whole repository is as it should be, by now.
    for (name, ..) in CLUSTERS {
        told_in(federation, name, "RepositoryValid", "Valid").await;
        told_in(federation, name, "Ready", "InForce").await;
    }
}

/// Step 1.1 has the peers in the server's configuration too: possible, and needed by nothing.
pub(super) async fn the_peer_is_in_the_servers_own_configuration(federation: &Federation) {
    let ([_, two], third) = (trust_domains(), trust_domain("cluster-3"));
    let mut statically = endpoint(ONE, &host(ONE));
    statically["staticFederatesWith"] = json!(true);
    let files = [declaration(federation, ONE, &statically, &[&two, &third])];
    let subject = "Have cluster-1's server name its peer itself";
    let commit = Commit::make(federation, subject, &files).await;
    let expected = json!({two.as_str(): {
        "bundle_endpoint_url": format!("https://{}", host(TWO)),
        "bundle_endpoint_profile": [{"https_spiffe": {
            "endpoint_spiffe_id": format!("spiffe://{two}/spire/server"),
        }}],
    }});
    let one = federation.testbed.cluster(ONE).unwrap();
    federation
        .until("the peer in the server's own configuration", async || {
            let running = one.spire.configuration()?;
            let named = &running["server"]["federation"]["federates_with"];
            anyhow::ensure!(*named == expected, "it names {named}");
            Ok(Some(()))
        })
        .await
        .unwrap();
    told_in(federation, ONE, CONFIGURED, "InForce").await;
    one.spire.until_rolled_out().await.unwrap();
    assert_eq!(one.spire.server_starts(), 3);
    let two = federation.testbed.cluster(TWO).unwrap();
    assert_eq!(two.spire.server_starts(), 2, "nothing changed there");
    assert!(held(federation, ONE, TWO).await.is_some());
    commit.replaces(
        "1.1 (optional)",
        "edit `federates_with` in server.conf, restart",
    );
}
