//! Who else writes the overlay's objects: adopted, put right, asked about, left alone.

use serde_json::{Value, json};
use trustweave_testbed::federation::Federation;

use super::{
    ONE, condition,
    overlay::{NAMESPACE, config_map, declare, kubectl, live, prepared, ready, until, value},
};

const NAMES: [&str; 3] = ["kubectl", "flux", "argo"];

/// Changes a value by `kubectl patch`, under a field manager of one's own if there is one.
async fn patch(federation: &Federation, name: &str, to: &str, manager: Option<&str>) {
    let patch = format!("{{\"data\": {{\"a\": \"{to}\"}}}}");
    let manager = manager.map(|manager| format!("--field-manager={manager}"));
    let what = ["patch", "configmap", name, "--namespace", NAMESPACE];
    let how = ["--type=merge", "--patch", patch.as_str()];
    let arguments = [what.as_slice(), &how].concat();
    let arguments: Vec<_> = arguments.into_iter().chain(manager.as_deref()).collect();
    kubectl(federation, &arguments).await;
}

/// What `kubectl`, Flux and Argo CD left in the cluster.
async fn left_behind(federation: &Federation) {
    let cluster = federation.testbed.cluster(ONE).unwrap();
    kubectl(federation, &["create", "namespace", NAMESPACE]).await;
    let theirs = |name: &str| config_map(name, &json!({"a": "theirs", "extra": "theirs"}));
    cluster
        .kubectl_apply(&theirs("kubectl").to_string())
        .await
        .unwrap();
    let mut flux = theirs("flux");
    flux["metadata"]["labels"] = json!({"kustomize.toolkit.fluxcd.io/name": "apps"});
    let mut argo = theirs("argo");
    argo["metadata"]["annotations"] = json!({"argocd.argoproj.io/tracking-id": "apps:/ConfigMap"});
    for (object, manager) in [(flux, "kustomize-controller"), (argo, "argocd-controller")] {
        let path = federation.testbed.directory().join("left.json");
        std::fs::write(&path, object.to_string()).unwrap();
        let file = path.to_str().unwrap();
        let manager = format!("--field-manager={manager}");
        let apply = ["apply", "--server-side", &manager, "--filename", file];
        kubectl(federation, &apply).await;
    }
}

fn managers(live: &Value) -> Vec<&str> {
    let records = live["metadata"]["managedFields"].as_array().unwrap().iter();
    records.map(|it| it["manager"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_else_writes_an_object_is_met_as_the_repository_says() {
    let mut federation = prepared(1).await;
    left_behind(&federation).await;
    let mut objects: Vec<Value> = NAMES
        .iter()
        .map(|name| config_map(name, &json!({"a": "ours"})))
        .collect();
    let commit = declare(&federation, &objects, &[], "Declare what is there").await;
    federation.start_agent(ONE).unwrap();
    ready(&federation, &commit).await;
    // The repository's values won, and nothing of the former tools is left.
    for name in NAMES {
        let live = value(&federation, name, "ours").await;
        assert_eq!(managers(&live), ["trustweave"], "{live:#}");
        assert_eq!(live["data"], json!({"a": "ours"}));
        let metadata = live["metadata"].to_string();
        for mark in ["toolkit.fluxcd.io", "argoproj.io", "last-applied"] {
            assert!(!metadata.contains(mark), "{metadata}");
        }
    }

    // A person's change is put right, and counted.
    patch(&federation, "kubectl", "by hand", None).await;
    value(&federation, "kubectl", "ours").await;
    let events = "--output=jsonpath={range .items[*]}{.reason}{.note}{.message}{\"\\n\"}{end}";
    federation
        .until("the correction to be told", async || {
            let told = kubectl(&federation, &["get", "events", events]).await;
            let words = ["DriftCorrected", "ConfigMap federation-demo/kubectl"];
            let field = ".data.a by kubectl-patch";
            let all = words.iter().chain([&field]).all(|word| told.contains(word));
            anyhow::ensure!(all, "the events are {told}");
            Ok(Some(()))
        })
        .await
        .unwrap();
    let metric = "trustweave_drift_corrections_total";
    assert!(federation.metric(ONE, metric).await.unwrap() >= 1.0);

    // A controller's value is asked about, and then left or overwritten as the repository says.
    patch(&federation, "flux", "scaled", Some("autoscaler")).await;
    until(&federation, "the conflict to be told", |status| {
        let failures = status["failures"].to_string();
        let words = [".data.a by autoscaler", "`yield .data.a`"];
        words.iter().all(|word| failures.contains(word))
    })
    .await;
    for (answer, expected) in [("yield .data.a", "scaled"), ("take", "ours")] {
        objects[1]["metadata"]["annotations"] = json!({"trustweave.dev/conflicts": answer});
        let commit = declare(&federation, &objects, &[], answer).await;
        ready(&federation, &commit).await;
        value(&federation, "flux", expected).await;
    }

    // What is to be left alone is, until it is not.
    reconcile(&federation, "argo", "disabled").await;
    until(&federation, "the object to be left alone", |status| {
        status["leftAlone"] == json!(["ConfigMap federation-demo/argo"])
    })
    .await;
    patch(&federation, "argo", "by hand", None).await;
    let commit = declare(&federation, &objects, &[("notes.txt", "x")], "Another").await;
    ready(&federation, &commit).await;
    value(&federation, "argo", "by hand").await;
    reconcile(&federation, "argo", "enabled").await;
    value(&federation, "argo", "ours").await;
    nothing_is_written_after_a_restart(&mut federation).await;
}

/// Says on a live object whether it is to be left alone.
async fn reconcile(federation: &Federation, name: &str, value: &str) {
    let annotation = format!("trustweave.dev/reconcile={value}");
    let what = ["annotate", "configmap", name, "--namespace", NAMESPACE];
    let how = ["--overwrite", annotation.as_str()];
    kubectl(federation, &[what.as_slice(), &how].concat()).await;
}

/// What is as declared is so to an agent that remembers nothing.
async fn nothing_is_written_after_a_restart(federation: &mut Federation) {
    let before = live(federation, "kubectl").await;
    federation.agent(ONE).unwrap().kill().unwrap();
    federation.start_agent(ONE).unwrap();
    let commit = {
        let files = [("notes.txt", "after the restart")];
        let git = &federation.testbed.git;
        git.commit("main", &files, "Have a pass made")
            .await
            .unwrap()
    };
    ready(federation, &commit).await;
    let written = federation.metric(ONE, "trustweave_writes_total").await;
    assert!(written.unwrap() < 0.5);
    assert_eq!(live(federation, "kubectl").await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_errors_are_told_at_once_and_what_can_be_applied_is() {
    let mut federation = prepared(0).await;
    federation.start_agent(ONE).unwrap();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "shops.example.org"},
        "spec": {
            "group": "example.org", "scope": "Cluster",
            "names": {"kind": "Shop", "plural": "shops", "singular": "shop"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}},
            }}}],
        },
    });
    let shop = json!({
        "apiVersion": "example.org/v1", "kind": "Shop", "metadata": {"name": "corner"},
        "spec": {"size": 1},
    });
    let mut fixed = config_map("fixed", &json!({"a": "1"}));
    fixed["immutable"] = json!(true);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "balanced", "namespace": NAMESPACE},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    });
    let all = [definition, shop, fixed.clone(), service];
    let commit = declare(&federation, &all, &[], "A kind with its first object").await;
    ready(&federation, &commit).await;
    kubectl(&federation, &["get", "shop", "corner"]).await;
    // Nothing waits for health, and it is told.
    let status = until(&federation, "health to be told", |status| {
        status["unhealthy"].to_string().contains("balanced")
    })
    .await;
    assert_eq!(condition(&status, "Healthy")["status"], "Unknown");

    // Two errors in one commit, one of them a field that can't be changed.
    let first = live(&federation, "fixed").await;
    fixed["data"]["a"] = "2".into();
    let mut wrong = config_map("wrong", &json!({}));
    wrong["data"] = json!({"not a key": "x"});
    let mut broken = all.to_vec();
    broken[2] = fixed.clone();
    broken.push(wrong);
    broken.push(config_map("right", &json!({"a": "1"})));
    declare(&federation, &broken, &[], "Two mistakes").await;
    until(&federation, "both errors to be told", |status| {
        let failures = status["failures"].to_string();
        let words = ["fixed", "immutable", "trustweave.dev/recreate", "not a key"];
        words.iter().all(|word| failures.contains(word))
    })
    .await;
    value(&federation, "right", "1").await;
    assert_eq!(live(&federation, "fixed").await, first);

    // With leave it is made anew.
    fixed["metadata"]["annotations"] = json!({"trustweave.dev/recreate": "allowed"});
    let mended = [all[0].clone(), all[1].clone(), fixed, all[3].clone()];
    let commit = declare(&federation, &mended, &[], "Allow it").await;
    ready(&federation, &commit).await;
    let second = value(&federation, "fixed", "2").await;
    assert_ne!(second["metadata"]["uid"], first["metadata"]["uid"]);
}
