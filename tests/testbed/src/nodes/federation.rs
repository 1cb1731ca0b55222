//! Clusters that federate as users install it: the agent is a Deployment, made from `deploy/` as its README says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use trustweave_packaging::product::{EXAMPLE_WORKLOADS, Product, TRUSTWEAVE};

use super::{NodeCluster, NodeSpec, Nodes, rollout};
use crate::access::write;
use crate::credentials::{SshKey, ssh_key};
use crate::federation::{CLUSTERS, PATIENCE, cluster_spec, trust_domain};
use crate::image::{Architecture, Tree, with_program};
use crate::process::wait_until;
use crate::repository::{self, Declared};

/// Where the agent is.
pub const NAMESPACE: &str = "trustweave-system";

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program `trustweave`.
    pub trustweave: PathBuf,
    /// The program `example-workloads`, if the pods of the example's overlays are to run.
    pub workloads: Option<PathBuf>,
    /// The project's root: `deploy/` and `examples/repo-layout` are taken from there.
    pub project: PathBuf,
    /// The clusters. Trust domains must be called as [`trust_domain`] has it.
    pub clusters: Vec<NodeSpec>,
    /// The `spec` of `topology.yaml`.
    pub topology: Value,
    /// How often an agent lists the remote's references.
    pub poll: Duration,
    /// What is installed besides the base of `deploy/`, as directories in it.
    pub parts: Vec<&'static str>,
}

impl Plan {
    /// The example: two clusters that trust each other, polled every second, without endpoints.
    pub fn new(trustweave: impl Into<PathBuf>, project: impl Into<PathBuf>) -> Self {
        Self {
            trustweave: trustweave.into(),
            workloads: None,
            project: project.into(),
            clusters: CLUSTERS
                .map(|name| NodeSpec::new(cluster_spec(name)))
                .into(),
            topology: json!({"edges": [{"between": CLUSTERS.map(trust_domain)}]}),
            poll: Duration::from_secs(1),
            parts: vec!["bundle-source"],
        }
    }
}

/// Clusters with agents that federate.
pub struct Federation {
    /// The clusters and the remote.
    pub nodes: Nodes,
    plan: Plan,
    keys: Vec<SshKey>,
}

impl Federation {
    /// Starts the clusters and commits the repository. The agents are not installed yet.
    pub async fn prepare(plan: Plan, progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let nodes = Nodes::start(&plan.clusters, progress).await?;
        let workloads = plan.workloads.iter().map(|path| (EXAMPLE_WORKLOADS, path));
        for (product, program) in std::iter::once((TRUSTWEAVE, &plan.trustweave)).chain(workloads) {
            let archive = image(product, program, nodes.directory())?;
            let clusters = nodes.clusters().iter();
            let imports = clusters.map(|cluster| cluster.import(&archive));
            futures::future::try_join_all(imports).await?;
        }
        let keys = nodes.clusters().iter().map(|cluster| {
            let directory = agent_directory(&nodes, cluster.name());
            std::fs::create_dir_all(&directory).context("make the agent's directory")?;
            ssh_key(&directory, "id_ed25519")
        });
        let keys = keys.collect::<anyhow::Result<_>>()?;
        let federation = Self { nodes, plan, keys };
        let Plan {
            project, topology, ..
        } = &federation.plan;
        repository::commit(
            &federation.nodes.git,
            project,
            topology,
            &federation.declared(),
        )
        .await?;
        Ok(federation)
    }

    /// Prepares, and installs all agents; returns when their pods are ready.
    pub async fn start(plan: Plan, progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let federation = Self::prepare(plan, progress).await?;
        federation.install().await?;
        Ok(federation)
    }

    /// Installs all agents, and returns when their pods are ready: how long the first pod of the slowest cluster took
    /// from being created.
    pub async fn install(&self) -> anyhow::Result<Duration> {
        let clusters = self.nodes.clusters().iter();
        let installed = clusters.map(async |cluster| {
            let label = "app.kubernetes.io/name=trustweave";
            let first_ready = rollout::first_ready(cluster, NAMESPACE, label);
            anyhow::Ok(tokio::try_join!(first_ready, self.install_in(cluster))?.0)
        });
        let times = futures::future::try_join_all(installed).await?;
        times.into_iter().max().context("there are no clusters")
    }

    pub(super) fn project(&self) -> &Path {
        &self.plan.project
    }

    /// The declaration of a cluster's trust domain, to be changed and committed to
    /// [`declaration_path`](crate::federation::declaration_path).
    pub fn declaration(&self, cluster: &str) -> anyhow::Result<Value> {
        let declared = self.declared();
        let found = declared.iter().find(|it| it.cluster.name == cluster);
        let found = found.with_context(|| format!("no cluster is named {cluster}"))?;
        Ok(found.declaration(&self.plan.topology))
    }

    fn declared(&self) -> Vec<Declared<'_>> {
        let clusters = self.plan.clusters.iter().zip(&self.keys);
        let declared = clusters.map(|(spec, key)| Declared {
            cluster: &spec.cluster,
            endpoint: json!("none"),
            signer: &key.public,
        });
        declared.collect()
    }

    /// `kubectl apply -k` of a kustomization on top of `deploy/`, next to a copy of it.
    async fn install_in(&self, cluster: &NodeCluster) -> anyhow::Result<()> {
        let directory = agent_directory(&self.nodes, cluster.name());
        copy_directory(&self.plan.project.join("deploy"), &directory.join("deploy"))?;
        let configuration = json!({
            "apiVersion": "trustweave.dev/v1alpha1",
            "kind": "AgentConfig",
            "cluster": cluster.name(),
            "trustDomain": cluster.spire.trust_domain(),
            "git": {
                "url": self.nodes.git_url(),
                "stateDir": "/var/lib/trustweave",
                "pollMilliseconds": u64::try_from(self.plan.poll.as_millis())?,
            },
            "signing": {"keyFile": "/etc/trustweave/signing/id_ed25519"},
        });
        // JSON is YAML.
        write(
            &directory.join("config.yaml"),
            &format!("{configuration:#}\n"),
        )?;
        let mut resources = vec!["deploy".to_owned(), "deploy/overlay-rights.yaml".to_owned()];
        resources.extend(self.plan.parts.iter().map(|part| format!("deploy/{part}")));
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": resources,
            "generatorOptions": {"disableNameSuffixHash": true},
            "configMapGenerator": [{
                "name": "trustweave", "namespace": NAMESPACE, "files": ["config.yaml"],
            }],
            "secretGenerator": [{
                "name": "trustweave-signing", "namespace": NAMESPACE, "files": ["id_ed25519"],
            }],
        });
        write(
            &directory.join("kustomization.yaml"),
            &format!("{kustomization:#}\n"),
        )?;
        let path = directory.to_str().context("a path that is not UTF-8")?;
        cluster
            .kubectl(&["apply", "--server-side", "--kustomize", path])
            .await?;
        cluster
            .until_rolled_out(NAMESPACE, "deployment/trustweave")
            .await
    }

    /// The status of an object of the agent's kinds.
    pub async fn status(&self, cluster: &str, kind: &str, name: &str) -> anyhow::Result<Value> {
        let object = self
            .nodes
            .cluster(cluster)?
            .kubectl(&["get", kind, name, "--output=json"])
            .await?;
        let object: Value = serde_json::from_str(&object)?;
        Ok(object["status"].clone())
    }

    /// Waits until every cluster is federated with all clusters that it should trust; else the error has the end of
    /// the agent's log.
    pub async fn federated(&self) -> anyhow::Result<()> {
        let directions = crate::topology::directions(&self.plan.topology);
        let clusters = || self.nodes.clusters().iter();
        for (importer, exporter) in directions {
            let Some(cluster) = clusters().find(|it| it.spire.trust_domain() == importer) else {
                continue;
            };
            let name = cluster.name();
            let what = format!("the peer {exporter} to be Federated in {name}");
            let waited = wait_until(&what, PATIENCE, async || {
                let status = self.status(name, "trustpeer", &exporter).await?;
                anyhow::ensure!(status["phase"] == "Federated", "its status is {status:#}");
                Ok(Some(()))
            })
            .await;
            if let Err(error) = waited {
                let log = self.log(name).await.unwrap_or_default();
                return Err(error.context(format!("the agent's log:\n{log}")));
            }
        }
        Ok(())
    }

    /// The end of the log of a cluster's agent.
    pub async fn log(&self, cluster: &str) -> anyhow::Result<String> {
        let namespace = format!("--namespace={NAMESPACE}");
        let cluster = self.nodes.cluster(cluster)?;
        cluster
            .kubectl(&["logs", "deployment/trustweave", &namespace, "--tail=20"])
            .await
    }
}

fn agent_directory(nodes: &Nodes, cluster: &str) -> PathBuf {
    nodes.directory().join(format!("agent-{cluster}"))
}

/// The image that is published, with any program in it, linked statically or not.
fn image(product: Product, program: &Path, directory: &Path) -> anyhow::Result<PathBuf> {
    let archive = directory.join(format!("{}.tar", product.name));
    let path = format!(
        "{}/{}",
        trustweave_packaging::product::PROGRAMS,
        product.program
    );
    let tree = with_program(Tree::base(), &path, program)?;
    let platforms = [(Architecture::OWN, tree)].into();
    product
        .image()
        .write(&platforms, &archive)
        .with_context(|| format!("cannot write {}", archive.display()))?;
    Ok(archive)
}

fn copy_directory(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in
        std::fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?
    {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_directory(&from, &to)?;
        } else {
            std::fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}
