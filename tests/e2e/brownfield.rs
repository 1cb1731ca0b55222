//! A federation that people made by hand becomes a repository, and agents adopt it without touching trust.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};
use trustweave::model::{bundle::Bundle, distrust::KeyId};
use trustweave_testbed::{
    Cluster,
    federation::{CLASS_NAME, Federation, SPIRE_NAMESPACE, trust_domain},
};

use super::{ONE, TWO, bundle, holds_current_keys, plan, progress, rotate};

/// The clusters, with the workload that runs in each.
const WORKLOADS: [(&str, &str); 2] = [(ONE, "frontend-client"), (TWO, "backend-server")];

fn peer_of(cluster: &str) -> &'static str {
    if cluster == ONE { TWO } else { ONE }
}

/// What people did in a cluster, step by step, and left there.
async fn federate_by_hand(federation: &Federation, name: &str, workload: &str) {
    let cluster = federation.testbed.cluster(name).unwrap();
    let peer = federation.testbed.cluster(peer_of(name)).unwrap();
    let peer_id = peer.spire.bundle_endpoint_spiffe_id();
    let (peer_name, peer_url) = (peer.spire.trust_domain(), peer.spire.bundle_endpoint_url());

    // Step 1: the server's configuration, its port, Service and Route.
    let mut configuration = cluster.spire.configuration().unwrap();
    configuration["server"]["federation"]["federates_with"] = json!({peer_name: {
        "bundle_endpoint_url": peer_url,
        "bundle_endpoint_profile": {"https_spiffe": {"endpoint_spiffe_id": peer_id}},
    }});
    cluster.spire.stop_server().await.unwrap();
    cluster.spire.set_configuration(&configuration).unwrap();
    cluster.spire.start_server().await.unwrap();
    let mut manifests = installation(cluster, &configuration);

    // Step 2: the peer's bundle, pasted.
    let pasted = peer.spire.own_bundle().await.unwrap();
    manifests.push(json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterFederatedTrustDomain",
        "metadata": {"name": format!("{}-federation", peer.name())},
        "spec": {
            "trustDomain": peer_name, "className": CLASS_NAME,
            "bundleEndpointURL": peer_url,
            "bundleEndpointProfile": {"type": "https_spiffe", "endpointSPIFFEID": peer_id},
            "trustDomainBundle": format!("{pasted:#}"),
        },
    }));

    // Step 3: a workload that federates.
    let labels = json!({"app": workload});
    manifests.push(json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "federation-demo"},
    }));
    manifests.push(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": workload, "namespace": "federation-demo", "labels": labels},
        "spec": {"serviceAccountName": workload, "containers": [{"name": "workload", "image": "workload"}]},
    }));
    manifests.push(json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID",
        "metadata": {"name": workload},
        "spec": {
            "className": CLASS_NAME,
            "spiffeIDTemplate": format!(
                "spiffe://{}/ns/{{{{ .PodMeta.Namespace }}}}/sa/{{{{ .PodSpec.ServiceAccountName }}}}",
                trust_domain(name)
            ),
            "podSelector": {"matchLabels": labels},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "federation-demo"}},
            "federatesWith": [peer_name],
        },
    }));
    for manifest in manifests {
        let text = manifest.to_string();
        // The Route's definition takes a moment to be served.
        federation
            .until("what people apply to be there", async || {
                cluster.kubectl_apply(&text).await.map(Some)
            })
            .await
            .unwrap();
    }
}

/// The objects of the installation, as the zero trust workload identity manager and people make them.
fn installation(cluster: &Cluster, configuration: &Value) -> Vec<Value> {
    let metadata = |name: &str| json!({"name": name, "namespace": SPIRE_NAMESPACE});
    let labels = json!({"app.kubernetes.io/name": "spire-server"});
    let mut stateful_set = metadata("spire-server");
    stateful_set["labels"] = json!({"app.kubernetes.io/managed-by": SPIRE_NAMESPACE});
    let manager = format!(
        "apiVersion: spire.spiffe.io/v1alpha1\nkind: ControllerManagerConfig\n\
         className: {CLASS_NAME}\nclusterName: {}\ntrustDomain: {}\n",
        cluster.name(),
        cluster.spire.trust_domain()
    );
    let volume = |name: &str| json!({"name": name, "configMap": {"name": name}});
    let port = &configuration["server"]["federation"]["bundle_endpoint"]["port"];
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    vec![
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("spire-server"),
            "data": {"server.conf": configuration.to_string()}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("spire-controller-manager"),
            "data": {"controller-manager-config.yaml": manager}}),
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": stateful_set, "spec": {
            "replicas": 0, "serviceName": "spire-server", "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "containers": [
                    {"name": "spire-server", "image": "spire-server",
                     "args": ["-config", "/run/spire/config/server.conf"],
                     "ports": [{"name": "federation", "containerPort": port}]},
                    {"name": "spire-controller-manager", "image": "spire-controller-manager"},
                ],
                "volumes": [volume("spire-server"), volume("spire-controller-manager")],
            }},
        }}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata("spire-server-federation"),
            "spec": {"selector": labels, "ports": [{"name": "federation", "port": 8443, "targetPort": port}]}}),
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "routes.route.openshift.io"},
        "spec": {
            "group": "route.openshift.io", "scope": "Namespaced",
            "names": {"kind": "Route", "plural": "routes", "singular": "route"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}}],
        }}),
        json!({"apiVersion": "route.openshift.io/v1", "kind": "Route",
        "metadata": metadata("spire-server-federation"), "spec": {
            "host": format!("federation.{}", cluster.spire.trust_domain()),
            "to": {"kind": "Service", "name": "spire-server-federation"},
            "port": {"targetPort": "federation"},
            "tls": {"termination": "passthrough", "insecureEdgeTerminationPolicy": "Redirect"},
        }}),
    ]
}

/// What a cluster's SPIRE trusts, and whom it tells so.
#[derive(Debug, PartialEq, Eq)]
struct Trust {
    keys: BTreeSet<KeyId>,
    /// The relationships, which are there or not.
    relationships: BTreeSet<String>,
    /// The workload's entries, each with its ID and whom it federates with.
    entries: BTreeMap<String, Vec<String>>,
}

async fn trust(cluster: &Cluster, peer: &str) -> anyhow::Result<Trust> {
    let held = cluster.spire.federated_bundle(peer).await?;
    let keys = held
        .as_ref()
        .map(bundle)
        .map(|it: Bundle| it.keys().collect());
    let relationships = cluster.spire.federation().await?.into_iter();
    let relationships = relationships.map(|it| it["trust_domain"].as_str().unwrap().to_owned());
    let entries = cluster.spire.entries().await?.into_iter();
    let of_workload = |entry: &Value| {
        entry["spiffe_id"]["path"]
            .as_str()
            .is_some_and(|path| path.starts_with("/ns/federation-demo/"))
    };
    let entries = entries.filter(of_workload).map(|entry| {
        let with = entry["federates_with"].as_array().into_iter().flatten();
        let with = with.map(|it| it.as_str().unwrap().to_owned());
        (entry["id"].as_str().unwrap().to_owned(), with.collect())
    });
    Ok(Trust {
        keys: keys.unwrap_or_default(),
        relationships: relationships.collect(),
        entries: entries.collect(),
    })
}

/// Looks again and again until it is told to end, and says what was ever otherwise, and how often it looked.
async fn watch(
    cluster: &Cluster,
    peer: &str,
    expected: &Trust,
    end: &AtomicBool,
) -> (Vec<String>, usize) {
    let (mut otherwise, mut looks) = (Vec::new(), 0);
    while !end.load(Ordering::Relaxed) {
        match trust(cluster, peer).await {
            Ok(found) if found == *expected => {}
            Ok(found) => otherwise.push(format!("{}: {found:?}", cluster.name())),
            Err(error) => otherwise.push(format!("{}: {error:#}", cluster.name())),
        }
        looks += 1;
    }
    (otherwise, looks)
}

/// One kubeconfig with a context for each cluster.
fn kubeconfig(federation: &Federation, path: &Path) {
    let mut merged = json!({
        "apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": [],
    });
    for name in [ONE, TWO] {
        let of_cluster = federation.testbed.cluster(name).unwrap().kubeconfig();
        let text = std::fs::read_to_string(of_cluster).unwrap();
        let mut part: Value = serde_json::from_str(&text).unwrap();
        for list in ["clusters", "users", "contexts"] {
            let item = &mut part[list][0];
            item["name"] = name.into();
            if list == "contexts" {
                item["context"]["cluster"] = name.into();
                item["context"]["user"] = name.into();
            }
            merged[list].as_array_mut().unwrap().push(item.clone());
        }
    }
    std::fs::write(path, merged.to_string()).unwrap();
}

fn trustweave(arguments: &[&str]) -> (Option<i32>, String, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_trustweave"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (run.status.code(), text(run.stdout), text(run.stderr))
}

/// Has `init` write a repository of both clusters, and fills in what it can't know.
fn repository(federation: &Federation, directory: &Path) {
    let path = federation.testbed.directory().join("both.kubeconfig");
    kubeconfig(federation, &path);
    let directory_text = directory.to_str().unwrap();
    let arguments = [
        "init",
        "--from-cluster",
        "--kubeconfig",
        path.to_str().unwrap(),
        "--context",
        ONE,
        "--context",
        TWO,
        "--output",
        directory_text,
    ];
    let (code, files, notes) = trustweave(&arguments);
    assert_eq!(code, Some(1), "the signers are not known: {files}{notes}");
    assert!(notes.contains("the signer is not known"), "{notes}");
    assert!(files.contains("topology.yaml"), "{files}");
    for (name, workload) in WORKLOADS {
        let overlay = format!("clusters/{name}/cluster-spiffe-ids/{workload}.yaml");
        assert!(files.contains(&overlay), "{files}");
        assert!(notes.contains("SPIRE polls what stands there"), "{notes}");
        let path = directory.join(format!(
            "trust-domains/{}/trust-domain.yaml",
            trust_domain(name)
        ));
        let text = std::fs::read_to_string(&path).unwrap();
        for found in [
            "distribution: ztwim",
            &format!("className: {CLASS_NAME}"),
            "expose: route",
        ] {
            assert!(text.contains(found), "{text}");
        }
        let key = federation.signer(name).unwrap().public.trim().to_owned();
        let signed = text.replace("signers: []", &format!("signers: ['{key}']"));
        assert_ne!(signed, text);
        std::fs::write(&path, signed).unwrap();
    }
    let (code, answer, problems) = trustweave(&["check", directory_text]);
    assert_eq!((code, problems.as_str()), (Some(0), ""), "{answer}");
    assert!(answer.contains("2 directions of trust"), "{answer}");
    // What is there is not changed, though init would write other signers.
    let (code, files, notes) = trustweave(&arguments);
    assert_eq!((code, files.as_str()), (Some(1), ""), "{notes}");
    assert!(notes.contains("nothing is written"), "{notes}");
}

async fn relationship(federation: &Federation, name: &str) -> Value {
    let cluster = federation.testbed.cluster(name).unwrap();
    let found = cluster
        .kubectl(&["get", "clusterfederatedtrustdomains", "--output=json"])
        .await
        .unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    let items = found["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "relationships in {name}: {found}");
    items[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_federation_made_by_hand_is_adopted_and_trust_never_changes() {
    let mut federation = Federation::prepare(plan(), &progress).await.unwrap();
    for (name, workload) in WORKLOADS {
        federate_by_hand(&federation, name, workload).await;
    }
    let mut before = BTreeMap::new();
    let mut objects = BTreeMap::new();
    for (name, _) in WORKLOADS {
        let cluster = federation.testbed.cluster(name).unwrap();
        let peer = trust_domain(peer_of(name));
        let stands = federation
            .until("the federation by hand to stand", async || {
                let found = trust(cluster, &peer).await?;
                let federates = found.entries.values().any(|with| with.contains(&peer));
                anyhow::ensure!(federates && !found.keys.is_empty(), "{found:?}");
                Ok(Some(found))
            })
            .await
            .unwrap();
        before.insert(name, stands);
        objects.insert(name, relationship(&federation, name).await);
    }

    let directory = federation.testbed.directory().join("adopted");
    repository(&federation, &directory);
    let message = "Declare what stands";
    let commit = federation
        .testbed
        .git
        .commit_directory("main", &directory, message)
        .await
        .unwrap();
    for name in [ONE, TWO] {
        federation.start_agent(name).unwrap();
    }
    let end = AtomicBool::new(false);
    let watched = [ONE, TWO].map(|name| {
        let cluster = federation.testbed.cluster(name).unwrap();
        let (expected, peer) = (&before[name], trust_domain(peer_of(name)));
        let end = &end;
        async move { watch(cluster, &peer, expected, end).await }
    });
    let adopted = async {
        let federated = federation.federated().await;
        if federated.is_ok() {
            for name in [ONE, TWO] {
                super::in_force(&federation, name, &commit).await;
            }
            // Longer than a pass of SPIRE's controller manager, and than a poll of SPIRE: counted by looks at
            // SPIRE, as nothing tells that nothing more will happen.
            settle(&federation).await;
        }
        end.store(true, Ordering::Relaxed);
        federated
    };
    let (federated, looks) = tokio::join!(adopted, futures::future::join_all(watched));
    federated.unwrap();
    for (otherwise, looks) in looks {
        assert!(looks > 10, "looked {looks} times");
        assert!(
            otherwise.is_empty(),
            "trust changed in {} of {looks} looks:\n{}",
            otherwise.len(),
            otherwise.join("\n")
        );
    }

    for (name, workload) in WORKLOADS {
        let (was, is) = (&objects[name], relationship(&federation, name).await);
        for field in ["name", "uid"] {
            assert_eq!(was["metadata"][field], is["metadata"][field]);
        }
        // It is the agent's from now on: the watermark is there.
        assert_eq!(
            is["metadata"]["annotations"]["trustweave.dev/serial"], "1",
            "{is}"
        );
        let peer = federation
            .status(name, "trustpeer", &trust_domain(peer_of(name)))
            .await
            .unwrap();
        assert_eq!(peer["phase"], "Federated");
        let cluster = federation.testbed.cluster(name).unwrap();
        let registration = cluster
            .kubectl(&["get", "clusterspiffeid", workload, "--output=json"])
            .await
            .unwrap();
        assert!(
            registration.contains("applyset.kubernetes.io/part-of"),
            "{registration}"
        );
    }

    // Nothing was tried that the objects' former keepers would have had to give up.
    for name in [ONE, TWO] {
        let log = std::fs::read_to_string(federation.log(name).unwrap()).unwrap();
        let mut passes = log.lines().filter(|line| line.contains("failures="));
        assert!(passes.all(|line| line.contains("failures=0")), "{log}");
    }

    // From here on, rotations go through git, too.
    rotate(&federation, TWO).await;
    holds_current_keys(&federation, ONE, TWO).await;
}

/// Waits until each SPIRE has polled its peer once more, which takes it as long as a few passes of its controller manager.
async fn settle(federation: &Federation) {
    for name in [ONE, TWO] {
        let log = federation
            .testbed
            .cluster(name)
            .unwrap()
            .directory()
            .join("log/spire-server.log");
        let polls = || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            log.matches("Bundle refreshed").count()
        };
        let seen = polls();
        federation
            .until(
                &format!("SPIRE of {name} to poll its peer once more"),
                async || Ok((polls() > seen).then_some(())),
            )
            .await
            .unwrap();
    }
}
