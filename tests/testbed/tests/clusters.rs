//! Two real clusters with SPIRE: started, federated by hand, and gone.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]
#![expect(
    clippy::print_stderr,
    reason = "a slow first build must be seen to progress"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use trustweave_testbed::{Cluster, ClusterSpec, Testbed, wait_until};

const SOON: Duration = Duration::from_secs(40);

fn spec(name: &str) -> ClusterSpec {
    ClusterSpec {
        name: name.to_owned(),
        trust_domain: format!("apps.{name}.devcluster.openshift.com"),
        class_name: "zero-trust-workload-identity-manager-spire".to_owned(),
        spire_namespace: "zero-trust-workload-identity-manager".to_owned(),
        spire_version: None,
        ca_ttl: None,
        roots_only: false,
    }
}

/// Command lines of running processes that mention a directory.
fn users_of(directory: &Path) -> Vec<String> {
    let needle = directory.to_str().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.unwrap().path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(needle))
        .collect()
}

async fn federate(cluster: &Cluster, peer: &Cluster) {
    let federation = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterFederatedTrustDomain",
        "metadata": {"name": peer.name()},
        "spec": {
            "trustDomain": peer.spire.trust_domain(),
            "bundleEndpointURL": peer.spire.bundle_endpoint_url(),
            "bundleEndpointProfile": {
                "type": "https_spiffe",
                "endpointSPIFFEID": peer.spire.bundle_endpoint_spiffe_id(),
            },
            "className": cluster.spire.class_name(),
            "trustDomainBundle": peer.spire.own_bundle().await.unwrap().to_string(),
        },
    });
    cluster
        .kubectl_apply(&federation.to_string())
        .await
        .unwrap();
}

async fn until_bound(cluster: &Cluster) {
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app"},
        "spec": {
            "selector": {"matchLabels": {"app": "app"}},
            "template": {
                "metadata": {"labels": {"app": "app"}},
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            },
        },
    });
    cluster
        .kubectl_apply(&deployment.to_string())
        .await
        .unwrap();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    wait_until("the pod to be bound", SOON, async || {
        let pods = pods.list(&ListParams::default().labels("app=app")).await?;
        Ok(pods.items.into_iter().find_map(|pod| pod.spec?.node_name))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_start_and_stop() {
    let testbed = Testbed::start(&[spec("cluster-1"), spec("cluster-2")], &|line| {
        eprintln!("{line}");
    })
    .await
    .unwrap();
    let directory = testbed.directory().to_owned();
    let one = testbed.cluster("cluster-1").unwrap();
    let two = testbed.cluster("cluster-2").unwrap();

    for cluster in testbed.clusters() {
        let bundle = cluster.spire.own_bundle().await.unwrap();
        assert!(!bundle["keys"].as_array().unwrap().is_empty());
        let config_maps: Api<ConfigMap> =
            Api::namespaced(cluster.client(), cluster.spire.namespace());
        let published = config_maps.get("spire-bundle").await.unwrap().data.unwrap();
        let published: serde_json::Value =
            serde_json::from_str(&published["bundle.spiffe"]).unwrap();
        assert_eq!(published["keys"], bundle["keys"]);
        assert_eq!(
            cluster.spire.federated_bundle("nobody.test").await.unwrap(),
            None
        );
        until_bound(cluster).await;
    }

    federate(one, two).await;
    federate(two, one).await;
    for (cluster, peer) in [(one, two), (two, one)] {
        let expected = peer.spire.own_bundle().await.unwrap();
        wait_until("the peer's bundle", SOON, async || {
            let bundle = cluster
                .spire
                .federated_bundle(peer.spire.trust_domain())
                .await?;
            Ok(bundle.filter(|bundle| bundle["keys"] == expected["keys"]))
        })
        .await
        .unwrap();
    }

    assert_eq!(one.spire.federation().await.unwrap().len(), 1);
    a_workload_sees_the_peer(&testbed, one, two).await;
    faults_pass(one).await;
    rights_are_the_service_accounts(one).await;

    let begin = Instant::now();
    drop(testbed);
    eprintln!("ended in {:.1} s", begin.elapsed().as_secs_f32());
    let kept = std::env::var_os("TRUSTWEAVE_TESTBED_KEEP").is_some_and(|value| !value.is_empty());
    assert_eq!(directory.exists(), kept);
    assert_eq!(users_of(&directory), Vec::<String>::new());
}

async fn a_workload_sees_the_peer(testbed: &Testbed, cluster: &Cluster, peer: &Cluster) {
    cluster.spire.start_agent().await.unwrap();
    cluster
        .spire
        .workload_entry(&[peer.spire.trust_domain()])
        .await
        .unwrap();
    let output = testbed.directory().join("svid");
    std::fs::create_dir_all(&output).unwrap();
    wait_until("the workload's federated bundle", SOON, async || {
        cluster
            .spire
            .agent(&[
                "api",
                "fetch",
                "x509",
                "-timeout",
                "2s",
                "-write",
                output.to_str().unwrap(),
            ])
            .await?;
        Ok(output
            .join("federated_bundle.0.0.pem")
            .exists()
            .then_some(()))
    })
    .await
    .unwrap();
    let entries = cluster.spire.entries().await.unwrap();
    assert!(
        entries
            .iter()
            .any(|entry| entry["spiffe_id"]["path"] == "/testbed/workload")
    );
}

async fn faults_pass(cluster: &Cluster) {
    let spire = &cluster.spire;
    let before = spire.own_bundle().await.unwrap();
    let prepared = spire.rotate_x509().await.unwrap();
    assert_eq!(spire.activate_prepared_x509().await.unwrap(), prepared);
    spire.stop_server().await.unwrap();
    assert!(spire.own_bundle().await.is_err());
    spire.start_server().await.unwrap();
    let after = spire.own_bundle().await.unwrap();
    let keys = |bundle: &serde_json::Value| {
        bundle["keys"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|key| key["use"] == "x509-svid")
            .count()
    };
    assert_eq!((keys(&before), keys(&after)), (1, 2));
    spire.stop_controller_manager().await.unwrap();
    spire.start_controller_manager().await.unwrap();

    cluster.stop_api_server().await.unwrap();
    assert!(cluster.client().apiserver_version().await.is_err());
    cluster.start_api_server().await.unwrap();
    assert_eq!(
        cluster
            .client()
            .apiserver_version()
            .await
            .unwrap()
            .git_version,
        "v1.36.3"
    );
}

async fn rights_are_the_service_accounts(cluster: &Cluster) {
    cluster
        .kubectl(&["create", "serviceaccount", "narrow"])
        .await
        .unwrap();
    let kubeconfig = cluster
        .service_account_kubeconfig("default", "narrow")
        .await
        .unwrap();
    let flag = format!("--kubeconfig={}", kubeconfig.display());
    let who = cluster.kubectl(&[&flag, "auth", "whoami"]).await.unwrap();
    assert!(
        who.contains("system:serviceaccount:default:narrow"),
        "{who}"
    );
    let error = cluster.kubectl(&[&flag, "get", "nodes"]).await.unwrap_err();
    assert!(format!("{error:#}").contains("Forbidden"), "{error:#}");
}
