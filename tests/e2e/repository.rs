//! The overlay in the cluster: applied, pruned, and left alone while the repository is broken.

use serde_json::Value;
use trustweave_testbed::federation::{Federation, declaration_path, trust_domain};

use super::{
    ONE, TWO, condition, federated, plan, relationship,
    rules::{Rule, shows},
};

async fn exists(federation: &Federation, cluster: &str, what: &[&str]) -> bool {
    let cluster = federation.testbed.cluster(cluster).unwrap();
    cluster.kubectl(&[&["get"], what].concat()).await.is_ok()
}

async fn in_force(federation: &Federation, cluster: &str, commit: &str) {
    federation
        .until(
            &format!("{commit} to be in force in {cluster}"),
            async || {
                let status = federation.status(cluster, "gitsync", "trustweave").await?;
                let ready = condition(&status, "Ready");
                anyhow::ensure!(ready["status"] == "True", "the GitSync says {ready}");
                Ok((status["revision"] == commit).then_some(()))
            },
        )
        .await
        .unwrap();
}

async fn a_field_that_a_controller_takes_is_reported_not_taken_back(
    federation: &Federation,
    commit: &str,
) {
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let select = async |app: &str| {
        let patch = format!("{{\"spec\": {{\"selector\": {{\"app\": \"{app}\"}}}}}}");
        let what = [
            "patch",
            "service",
            "extra",
            "--namespace=federation-demo",
            "--field-manager=some-controller",
        ];
        cluster
            .kubectl(&[what.as_slice(), &["--patch", &patch]].concat())
            .await
            .unwrap();
    };
    select("other").await;
    federation
        .until("the conflict to be reported", async || {
            let status = federation.status(ONE, "gitsync", "trustweave").await?;
            let failures = status["failures"].to_string();
            let told = ["spec.selector", "some-controller"];
            Ok(told
                .iter()
                .all(|part| failures.contains(part))
                .then_some(()))
        })
        .await
        .unwrap();
    select("extra").await;
    in_force(federation, ONE, commit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_follow_the_overlay_and_only_ours_are_pruned() {
    let federation = federated(plan()).await;
    let git = &federation.testbed.git;
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let base = git
        .show("main", "clusters/cluster-1/kustomization.yaml")
        .await
        .unwrap();
    let service = |port: u16| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: extra\n  namespace: federation-demo\n\
             spec:\n  selector: {{app: extra}}\n  ports:\n  - port: {port}\n"
        )
    };
    let with_extra = base.replacen("resources:", "resources:\n  - extra.yaml", 1);
    assert_ne!(with_extra, base);
    let overlay = "clusters/cluster-1/kustomization.yaml";
    let extra = "clusters/cluster-1/extra.yaml";
    let commit = git
        .commit(
            "main",
            &[(overlay, &with_extra), (extra, &service(80))],
            "Add a service",
        )
        .await
        .unwrap();
    in_force(&federation, ONE, &commit).await;
    let get = ["service", "extra", "--namespace=federation-demo"];
    assert!(exists(&federation, ONE, &get).await);

    // Somebody else's object with our label, as controllers copy labels: not ours to delete.
    let found = cluster
        .kubectl(&[&["get"], get.as_slice(), &["--output=json"]].concat())
        .await
        .unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    let id = found["metadata"]["labels"]["applyset.kubernetes.io/part-of"]
        .as_str()
        .unwrap();
    let copied = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: copied\n  namespace: federation-demo\n  \
         labels: {{applyset.kubernetes.io/part-of: {id}}}\nspec:\n  ports:\n  - port: 80\n"
    );
    cluster.kubectl_apply(&copied).await.unwrap();

    let commit = git
        .commit("main", &[(extra, &service(81))], "Change the port")
        .await
        .unwrap();
    in_force(&federation, ONE, &commit).await;
    let changed = cluster
        .kubectl(
            &[
                &["get"],
                get.as_slice(),
                &["--output=jsonpath={.spec.ports[*].port}"],
            ]
            .concat(),
        )
        .await
        .unwrap();
    assert_eq!(changed.trim(), "81");

    a_field_that_a_controller_takes_is_reported_not_taken_back(&federation, &commit).await;

    git.delete("main", &[extra], "Remove the file")
        .await
        .unwrap();
    let commit = git
        .commit("main", &[(overlay, &base)], "Remove the service")
        .await
        .unwrap();
    in_force(&federation, ONE, &commit).await;
    assert!(!exists(&federation, ONE, &get).await);
    assert!(
        exists(
            &federation,
            ONE,
            &["service", "copied", "--namespace=federation-demo"]
        )
        .await
    );
    assert!(
        exists(
            &federation,
            ONE,
            &[
                "deployment",
                "frontend-client",
                "--namespace=federation-demo"
            ]
        )
        .await
    );
    let status = federation
        .status(ONE, "gitsync", "trustweave")
        .await
        .unwrap();
    assert_eq!(
        status["kept"],
        serde_json::json!([
            "Service federation-demo/copied: it carries our label, but was not applied by us"
        ])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_agent_may_not_apply_is_reported_and_the_rest_goes_on() {
    let federation = federated(plan()).await;
    let git = &federation.testbed.git;
    let overlay = "clusters/cluster-1/kustomization.yaml";
    let base = git.show("main", overlay).await.unwrap();
    let with_extra = base.replacen("resources:", "resources:\n  - extra.yaml", 1);
    let extra = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: forbidden\n  namespace: federation-demo\n\
                 ---\napiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: allowed\n  namespace: federation-demo\n";
    let files = [
        (overlay, with_extra.as_str()),
        ("clusters/cluster-1/extra.yaml", extra),
    ];
    git.commit("main", &files, "Add what is and what is not granted")
        .await
        .unwrap();
    federation
        .until("the missing right to be reported", async || {
            let status = federation.status(ONE, "gitsync", "trustweave").await?;
            let failures = status["failures"].to_string();
            Ok((failures.contains("configmaps") && failures.contains("forbidden")).then_some(()))
        })
        .await
        .unwrap();
    let allowed = ["serviceaccount", "allowed", "--namespace=federation-demo"];
    assert!(exists(&federation, ONE, &allowed).await);
    let peer = federation
        .status(ONE, "trustpeer", &trust_domain(TWO))
        .await
        .unwrap();
    assert_eq!(peer["phase"], "Federated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_repository_ends_nothing_not_even_after_a_restart() {
    let _shown = shows(&[Rule::Unreadable]);
    let mut federation = federated(plan()).await;
    let git = &federation.testbed.git;
    let before = relationship(&federation, ONE, TWO).await;
    let topology = git.show("main", "topology.yaml").await.unwrap();
    let declared = git.show("main", &declaration_path(TWO)).await.unwrap();
    let typo = declared.replacen("bundleEndpoint", "bundleEndpont", 1);
    let manifest = "base/frontend-client/workload/deployment.yaml";
    let good = git.show("main", manifest).await.unwrap();
    let path = declaration_path(TWO);
    let breakages = [
        (
            "topology.yaml",
            "topology: [",
            topology.as_str(),
            "topology.yaml:",
        ),
        (
            path.as_str(),
            typo.as_str(),
            declared.as_str(),
            "did you mean `bundleEndpoint`?",
        ),
        (
            manifest,
            "kind: Deployment\nmetadata: [",
            good.as_str(),
            "deployment.yaml:",
        ),
    ];
    for (path, broken, whole, told) in breakages {
        let commit = federation
            .testbed
            .git
            .commit("main", &[(path, broken)], "Break it")
            .await
            .unwrap();
        // With the memory of the process, and without it.
        for restart in [false, true] {
            if restart {
                federation.agent(ONE).unwrap().kill().unwrap();
                federation.start_agent(ONE).unwrap();
            }
            federation
                .until(
                    &format!("{path} to be reported, restarted: {restart}"),
                    async || {
                        let status = federation.status(ONE, "gitsync", "trustweave").await?;
                        let diagnostics = status["diagnostics"].to_string();
                        let ready = federation.http_get(ONE, "/readyz").await?;
                        anyhow::ensure!(ready.trim() == "ok", "not ready: {ready}");
                        Ok(
                            (status["revision"] == commit.as_str() && diagnostics.contains(told))
                                .then_some(()),
                        )
                    },
                )
                .await
                .unwrap();
            let peer = federation
                .status(ONE, "trustpeer", &trust_domain(TWO))
                .await
                .unwrap();
            assert_eq!(peer["phase"], "Federated", "{path}");
            assert_eq!(relationship(&federation, ONE, TWO).await, before, "{path}");
            let deployment = [
                "deployment",
                "frontend-client",
                "--namespace=federation-demo",
            ];
            assert!(exists(&federation, ONE, &deployment).await, "{path}");
        }
        let commit = federation
            .testbed
            .git
            .commit("main", &[(path, whole)], "Mend it")
            .await
            .unwrap();
        in_force(&federation, ONE, &commit).await;
    }
}
