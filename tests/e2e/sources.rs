//! Where an agent reads the bundle that it publishes.

use std::{fs, path::Path};

use serde_json::{Value, json};
use trustweave_testbed::federation::Federation;

use super::{
    ONE, TWO, condition, federated, holds_current_keys, own, plan, progress, publication, rotate,
};

/// Waits until a cluster's `GitSync` says something.
async fn told(federation: &Federation, cluster: &str, what: &str, says: impl Fn(&Value) -> bool) {
    let says = &says;
    federation
        .until(&format!("{what}, in {cluster}"), async || {
            let status = federation.status(cluster, "gitsync", "trustweave").await?;
            anyhow::ensure!(
                says(&status),
                "it says {} and {}",
                status["bundleSource"],
                condition(&status, "Published")
            );
            Ok(Some(()))
        })
        .await
        .unwrap();
}

fn source_is(start: &str) -> impl Fn(&Value) -> bool {
    move |status| {
        let source = status["bundleSource"].as_str();
        source.is_some_and(|source| source.starts_with(start))
    }
}

/// The number of publications of a cluster.
async fn publications(federation: &Federation, cluster: &str) -> usize {
    let branch = publication::branch(cluster);
    federation.testbed.git.log(&branch).await.unwrap().len()
}

/// Commits a declaration with this source.
async fn declare(federation: &Federation, cluster: &str, source: &Value) {
    let mut declaration = federation.declaration(cluster).unwrap();
    declaration["spec"]["spire"]["bundleSource"] = source.clone();
    let message = format!("Read the bundle of {cluster} elsewhere");
    federation
        .declare(cluster, &declaration, &message)
        .await
        .unwrap();
}

/// Writes the bundle of a cluster's SPIRE into a file, as something else would keep it there.
async fn write_bundle(federation: &Federation, cluster: &str, path: &Path) {
    let cluster = federation.testbed.cluster(cluster).unwrap();
    let bundle = cluster.spire.own_bundle().await.unwrap();
    let draft = path.with_extension("new");
    fs::write(&draft, bundle.to_string()).unwrap();
    fs::rename(&draft, path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_are_published_from_the_bundle_endpoint_and_from_a_file() {
    // As the zero trust workload identity manager: the ConfigMap has PEM certificates only.
    let mut federation = Federation::prepare(plan().with_roots_only(), &progress)
        .await
        .unwrap();
    let url = federation
        .testbed
        .cluster(ONE)
        .unwrap()
        .spire
        .bundle_endpoint_url();
    let file = federation.testbed.directory().join("bundle.json");
    write_bundle(&federation, TWO, &file).await;
    declare(&federation, ONE, &json!({"endpoint": {"url": url}})).await;
    declare(&federation, TWO, &json!({"file": {"path": file}})).await;
    for cluster in [ONE, TWO] {
        federation.start_agent(cluster).unwrap();
    }
    federation.federated().await.unwrap();
    told(
        &federation,
        ONE,
        "the endpoint",
        source_is(&format!("endpoint {url}, ")),
    )
    .await;
    told(&federation, TWO, "the file", source_is("file /")).await;
    for (cluster, peer) in [(ONE, TWO), (TWO, ONE)] {
        holds_current_keys(&federation, cluster, peer).await;
        // JWT keys among them, which no PEM has.
        assert!(!own(&federation, peer).await.jwt_authorities.is_empty());
        assert_eq!(publications(&federation, peer).await, 1);
    }

    rotate(&federation, ONE).await;
    holds_current_keys(&federation, TWO, ONE).await;
    // The endpoint's own certificate is still signed by the older authority then.
    let one = federation.testbed.cluster(ONE).unwrap();
    one.spire.activate_prepared_x509().await.unwrap();
    rotate(&federation, ONE).await;
    holds_current_keys(&federation, TWO, ONE).await;

    rotate(&federation, TWO).await;
    write_bundle(&federation, TWO, &file).await;
    holds_current_keys(&federation, ONE, TWO).await;
    assert_eq!(publications(&federation, TWO).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_takes_what_works_says_why_and_never_what_holds_less() {
    let federation = federated(plan()).await;
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let namespace = format!("--namespace={}", cluster.spire.namespace());
    told(
        &federation,
        ONE,
        "the ConfigMap",
        source_is("auto: configMap "),
    )
    .await;
    let whole = own(&federation, ONE).await;

    // SPIRE does not bring back a ConfigMap that was deleted. What is there instead has no JWT keys.
    let pem = cluster.spire.server(&["bundle", "show"]).await.unwrap();
    cluster
        .kubectl(&["delete", "configmap", "spire-bundle", &namespace])
        .await
        .unwrap();
    let create = ["create", "configmap", "spire-bundle", &namespace];
    let literal = format!("--from-literal=bundle.crt={pem}");
    cluster
        .kubectl(&[&create[..], &[&literal]].concat())
        .await
        .unwrap();
    told(&federation, ONE, "what each source lacks", |status| {
        let published = condition(status, "Published")["message"].to_string();
        [
            "no source of the own bundle works",
            "has no key `bundle.spiffe`",
            "bundle endpoint https://spire-server-federation.",
            "grant it the verbs get and create on pods/exec",
        ]
        .iter()
        .all(|part| published.contains(part))
    })
    .await;
    the_right_that_is_asked_for_is_enough(&federation).await;
    // What was published stands.
    assert_eq!(publications(&federation, ONE).await, 1);
    holds_current_keys(&federation, TWO, ONE).await;

    // A bundle that lacks keys is not the whole one, though it is SPIFFE's format.
    let mut less = cluster.spire.own_bundle().await.unwrap();
    let keys = less["keys"].as_array_mut().unwrap();
    keys.retain(|key| key["use"] == "x509-svid");
    let patch = |bundle: &Value| {
        let patch = json!({"data": {"bundle.spiffe": bundle.to_string()}});
        format!("--patch={patch}")
    };
    let what = [
        "patch",
        "configmap",
        "spire-bundle",
        &namespace,
        "--type=merge",
    ];
    cluster
        .kubectl(&[&what[..], &[&patch(&less)]].concat())
        .await
        .unwrap();
    told(&federation, ONE, "the missing key", |status| {
        condition(status, "Published")["message"]
            .to_string()
            .contains("it lacks key ")
    })
    .await;
    assert_eq!(publications(&federation, ONE).await, 1);

    // Whole again, in other bytes: the same source as before, and nothing new to publish.
    let bundle = cluster.spire.own_bundle().await.unwrap();
    cluster
        .kubectl(&[&what[..], &[&patch(&bundle)]].concat())
        .await
        .unwrap();
    told(&federation, ONE, "the bundle to be read again", |status| {
        condition(status, "Published")["status"] == "True"
    })
    .await;
    assert!(own(&federation, ONE).await.same_keys(&whole));
    assert_eq!(publications(&federation, ONE).await, 1);
}

/// Once it is granted, the API server only misses the pod, which nothing runs here.
async fn the_right_that_is_asked_for_is_enough(federation: &Federation) {
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let namespace = format!("--namespace={}", cluster.spire.namespace());
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    for part in ["bundle-source-exec", "bundle-source-endpoint"] {
        let part = deploy.join(part);
        let apply = [
            "apply",
            "--server-side",
            "--kustomize",
            part.to_str().unwrap(),
        ];
        cluster.kubectl(&apply).await.unwrap();
    }
    // Nothing tells the agent of a right: a write to what it watches makes it look at once.
    let touched = std::sync::atomic::AtomicUsize::new(0);
    federation
        .until("the agent to miss the pod only", async || {
            let count = touched.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let touch = format!("touched={count}");
            let annotate = [
                "annotate",
                "--overwrite",
                "configmap",
                "spire-bundle",
                &namespace,
            ];
            cluster
                .kubectl(&[&annotate[..], &[&touch]].concat())
                .await?;
            let status = federation.status(ONE, "gitsync", "trustweave").await?;
            let published = condition(&status, "Published")["message"].to_string();
            let missing = "there is no pod zero-trust-workload-identity-manager/spire-server-0";
            anyhow::ensure!(published.contains(missing), "it says {published}");
            Ok(Some(()))
        })
        .await
        .unwrap();
}
