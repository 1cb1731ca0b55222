//! The example's workloads in pods: the overlays' server and client, and a stranger.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::federation::Federation;
use crate::federation::{CLUSTERS, PATIENCE, trust_domain};
use crate::process::wait_until;

/// The namespace of the example's workloads.
const NAMESPACE: &str = "federation-demo";

/// The example's client, in cluster-1.
pub const CLIENT: &str = "frontend-client";

/// The example's server, in cluster-2.
pub const SERVER: &str = "backend-server";

/// A client in cluster-1 that is like the example's, but whose registration federates with nobody.
pub const STRANGER: &str = "stranger";

impl Federation {
    /// Commits what the example leaves to whoever adopts it: how cluster-1 reaches the server; and a stranger.
    pub async fn connect_workloads(&self) -> anyhow::Result<()> {
        let git = &self.nodes.git;
        let [client, server] = CLUSTERS.map(|name| format!("clusters/{name}/kustomization.yaml"));
        let stranger = format!("clusters/{}/{STRANGER}.yaml", CLUSTERS[0]);
        let resources = format!("resources:\n  - {STRANGER}.yaml");
        let with_stranger = git.show("main", &client).await?;
        let with_stranger = with_stranger.replacen("resources:", &resources, 1);
        // Where a router would listen.
        let address = self.nodes.cluster(CLUSTERS[1])?.address();
        let ingress = json!([
            {"op": "replace", "path": "/spec/ports/0/port", "value": 443},
            {"op": "add", "path": "/spec/externalIPs", "value": [address]},
        ]);
        let ingress = json!({"target": {"kind": "Service"}, "patch": ingress.to_string()});
        // The example's kustomization ends with its patches.
        let with_ingress = format!("{}  - {ingress}\n", git.show("main", &server).await?);
        let files = [
            (client.as_str(), with_stranger.as_str()),
            (server.as_str(), with_ingress.as_str()),
            (stranger.as_str(), &self.stranger()?),
        ];
        let message = "Lead from cluster-1 to the server, and add a stranger";
        git.commit("main", &files, message).await?;
        Ok(())
    }

    fn stranger(&self) -> anyhow::Result<String> {
        let base = self.project().join("examples/repo-layout/base");
        let mut manifests = Vec::new();
        for (file, namespaced) in [
            ("workload/service-account.yaml", true),
            ("workload/deployment.yaml", true),
            ("cluster-spiffe-id.yaml", false),
        ] {
            let path = base.join(CLIENT).join(file);
            let manifest = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let metadata = format!("metadata:\n  namespace: {NAMESPACE}\n");
            manifests.push(
                manifest
                    .replace(CLIENT, STRANGER)
                    // It is still a client.
                    .replace(&format!("args: [{STRANGER}]"), &format!("args: [{CLIENT}]"))
                    .replacen("metadata:\n", &metadata, usize::from(namespaced)),
            );
        }
        let domain = trust_domain(CLUSTERS[1]);
        let url = json!({
            "name": "BACKEND_URL", "value": format!("https://{SERVER}-{NAMESPACE}.{domain}"),
        });
        let id = format!("spiffe://{domain}/ns/{NAMESPACE}/sa/{SERVER}");
        let id = json!({"name": "BACKEND_SPIFFE_ID", "value": id});
        let environment = "          env:\n";
        let with_server = format!("{environment}            - {url}\n            - {id}\n");
        Ok(manifests
            .join("---\n")
            .replacen(environment, &with_server, 1))
    }

    /// What the pods of one of the example's workloads have printed.
    pub async fn printed(&self, cluster: &str, workload: &str) -> anyhow::Result<String> {
        let namespace = format!("--namespace={NAMESPACE}");
        let workload = format!("--selector=app={workload}");
        let logs = ["logs", &namespace, &workload, "--tail=-1"];
        self.nodes.cluster(cluster)?.kubectl(&logs).await
    }

    /// Waits until a workload prints another line with a text, and returns it.
    pub async fn prints(
        &self,
        cluster: &str,
        workload: &str,
        text: &str,
    ) -> anyhow::Result<String> {
        let with_text = |log: &str| -> Vec<String> {
            let lines = log.lines().filter(|line| line.contains(text));
            lines.map(str::to_owned).collect()
        };
        // Its pod may not run yet.
        let before = self.printed(cluster, workload).await.unwrap_or_default();
        let before = with_text(&before).len();
        let what = format!("{workload} of {cluster} to print `{text}`");
        wait_until(&what, PATIENCE, async || {
            let log = self.printed(cluster, workload).await?;
            let mut found = with_text(&log);
            anyhow::ensure!(found.len() > before, "it printed:\n{log}");
            Ok(found.pop())
        })
        .await
    }

    /// The resident memory, in KiB, of the process of an agent in a cluster; of several, of the largest.
    pub async fn resident(&self, cluster: &str) -> anyhow::Result<u32> {
        let script = "for process in /proc/[0-9]*; do \
                      if [ \"$(cat $process/comm)\" = trustweave ]; then grep VmRSS $process/status; fi; done";
        let cluster = self.nodes.cluster(cluster)?;
        let answer = cluster
            .run_on_node(Path::new("/bin/sh"), &["-c", script])
            .await?;
        let sizes = answer
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok());
        sizes.max().context("no agent runs on the node")
    }
}
