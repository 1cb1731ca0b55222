//! The example's workloads in pods: the overlays' server and client, and a stranger.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::{Value, json};
use trustweave_packaging::product::EXAMPLE_WORKLOADS;

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

/// The clusters, by what runs in them.
const CLIENTS: &str = CLUSTERS[0];
const SERVERS: &str = CLUSTERS[1];

/// Who was let in and who was not, as they printed it.
pub struct Calls {
    /// A line of the client's.
    pub answered: String,
    /// A line of the stranger's.
    pub refused: String,
}

/// Builds the program `example-workloads` of a project, and says where it is.
///
/// Cargo is asked for a test of that program, as its dependencies then have the features that they have anyway in a
/// test of the whole workspace, and are not built once more.
pub fn build(project: &Path) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What cargo tells a test of its package makes build scripts run again that look at it.
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    let built = command
        .current_dir(project)
        .args(["test", "--workspace", "--no-run", "--test", "mtls"])
        .args(["--quiet", "--locked", "--message-format=json"])
        .output()
        .context("run cargo")?;
    anyhow::ensure!(
        built.status.success(),
        "cargo says: {}",
        String::from_utf8_lossy(&built.stderr)
    );
    let messages = String::from_utf8(built.stdout)?;
    let messages = messages.lines().map(serde_json::from_str::<Value>);
    let program = messages.filter_map(Result::ok).find_map(|message| {
        let kinds = message["target"]["kind"].as_array()?;
        let own = message["target"]["name"] == EXAMPLE_WORKLOADS.program
            && kinds.iter().any(|kind| kind == "bin")
            && message["profile"]["test"] == false;
        let path = message["executable"].as_str().filter(|_| own)?;
        Some(PathBuf::from(path))
    });
    program.context("cargo built no program `example-workloads`")
}

impl Federation {
    /// Commits what the example leaves to whoever adopts it: how cluster-1 reaches the server; and a stranger.
    pub(super) async fn connect_workloads(&self) -> anyhow::Result<()> {
        let git = &self.nodes.git;
        let [client, server] =
            [CLIENTS, SERVERS].map(|name| format!("clusters/{name}/kustomization.yaml"));
        let stranger = format!("clusters/{CLIENTS}/{STRANGER}.yaml");
        let resources = format!("resources:\n  - {STRANGER}.yaml");
        let with_stranger = git.show("main", &client).await?;
        let with_stranger = with_stranger.replacen("resources:", &resources, 1);
        let reachable = json!([
            {"op": "replace", "path": "/spec/ports/0/port", "value": 443},
            {"op": "add", "path": "/spec/type", "value": "LoadBalancer"},
        ]);
        let patch = json!({"target": {"kind": "Service"}, "patch": reachable.to_string()});
        // The example's kustomization ends with its patches.
        let reachable = format!("{}  - {patch}\n", git.show("main", &server).await?);
        let files = [
            (client.as_str(), with_stranger.as_str()),
            (server.as_str(), reachable.as_str()),
            (stranger.as_str(), &self.stranger()?),
        ];
        let message = "Lead from cluster-1 to the server, and add a stranger";
        git.commit("main", &files, message).await?;
        Ok(())
    }

    fn stranger(&self) -> anyhow::Result<String> {
        let base = self.plan.project.join("examples/repo-layout/base");
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
        let domain = trust_domain(SERVERS);
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

    /// Waits until the client is answered and the stranger is refused, who must not have been let in before either.
    pub async fn calls(&self) -> anyhow::Result<Calls> {
        let answered = self.prints(CLIENTS, CLIENT, "ok ").await?;
        let refused = self.prints(CLIENTS, STRANGER, "failed").await?;
        anyhow::ensure!(
            refused.contains("is not trusted here"),
            "the stranger prints `{refused}`"
        );
        let served = self.printed(SERVERS, SERVER).await?;
        anyhow::ensure!(
            !served.contains(&format!("/sa/{STRANGER}")),
            "the stranger was served:\n{served}"
        );
        Ok(Calls { answered, refused })
    }

    /// Does something, and waits until the client is answered after it. It is an error if meanwhile a call of the
    /// client fails, or a registration loses its peer, if only for a moment.
    pub async fn unharmed<T>(
        &self,
        deed: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        // Deeds are large, and each future that awaits one would hold it.
        let deed = Box::pin(deed);
        let before = self.failures().await?;
        let watched = self.keeping_peers(async {
            let done = deed.await?;
            self.prints(CLIENTS, CLIENT, "ok ").await?;
            Ok(done)
        });
        let done = Box::pin(watched).await?;
        let failures = self.failures().await?;
        anyhow::ensure!(
            failures == before,
            "calls of {CLIENT} failed: {:#?}",
            &failures[before.len().min(failures.len())..]
        );
        Ok(done)
    }

    async fn failures(&self) -> anyhow::Result<Vec<String>> {
        let printed = self.printed(CLIENTS, CLIENT).await?;
        let failed = printed.lines().filter(|line| line.starts_with("failed"));
        Ok(failed.map(str::to_owned).collect())
    }
}
