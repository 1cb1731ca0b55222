//! The example's two clusters, which federate as users install it: the agents are Deployments, made from `deploy/` as its
//! README says, with everything that an installation may have.
//!
//! * [`installation`](super::installation): how the agents get into the clusters, and how they are upgraded.
//! * [`agents`](super::agents): which of a cluster's agents leads, what each answers, and what it needs.
//! * [`workloads`](super::workloads): the example's client and server, and somebody who must not be let in.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{NodeSpec, Nodes};
use crate::credentials::{SshKey, ssh_key};
use crate::federation::{CLUSTERS, PATIENCE, cluster_spec, declaration_path, trust_domain};
use crate::measure::Measured;
use crate::process::wait_until;
use crate::repository::{self, Declared};

/// Where the agent is.
pub const NAMESPACE: &str = "trustweave-system";

/// The sources that a bundle may come from, but for `file`, which nothing writes here.
pub const SOURCES: [&str; 3] = ["configMap", "endpoint", "exec"];

/// The port at which a cluster serves its bundle to others: the example's server has 443.
const BUNDLE_ENDPOINT: u16 = 8443;

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program `trustweave`.
    pub trustweave: PathBuf,
    /// The program `example-workloads`.
    pub workloads: PathBuf,
    /// The project's root: `deploy/` and `examples/repo-layout` are taken from there.
    pub project: PathBuf,
}

/// Two clusters that trust each other.
pub struct Federation {
    /// The clusters and the remote.
    pub nodes: Nodes,
    pub(super) plan: Plan,
    topology: Value,
    members: Vec<Member>,
}

/// A cluster's part in the federation.
struct Member {
    spec: NodeSpec,
    key: SshKey,
}

impl Federation {
    /// Starts the clusters and commits the repository. The agents are not installed yet.
    pub async fn prepare(plan: Plan, progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let specs = CLUSTERS.map(|name| NodeSpec::new(cluster_spec(name)));
        let nodes = Nodes::start(&specs, progress).await?;
        let members = specs.into_iter().map(|spec| {
            let directory = agent_directory(&nodes, &spec.cluster.name);
            std::fs::create_dir_all(&directory).context("make the agent's directory")?;
            let key = ssh_key(&directory, "id_ed25519")?;
            anyhow::Ok(Member { spec, key })
        });
        let federation = Self {
            members: members.collect::<anyhow::Result<_>>()?,
            nodes,
            plan,
            topology: json!({"edges": [{"between": CLUSTERS.map(trust_domain)}]}),
        };
        federation.import_images().await?;
        let declared: Vec<Declared<'_>> = federation.members.iter().map(Member::declared).collect();
        let Self {
            nodes,
            plan,
            topology,
            ..
        } = &federation;
        repository::commit(&nodes.git, &plan.project, topology, &declared).await?;
        federation.connect_workloads().await?;
        Ok(federation)
    }

    fn member(&self, cluster: &str) -> anyhow::Result<&Member> {
        let mut members = self.members.iter();
        members
            .find(|member| member.spec.cluster.name == cluster)
            .with_context(|| format!("no cluster is named {cluster}"))
    }

    /// The public half of the key of a cluster's agents.
    pub(crate) fn signer(&self, cluster: &str) -> anyhow::Result<&str> {
        Ok(&self.member(cluster)?.key.public)
    }

    /// The directory of a cluster's kustomization.
    pub(super) fn agent_directory(&self, cluster: &str) -> PathBuf {
        agent_directory(&self.nodes, cluster)
    }

    /// Commits the declaration of a cluster's trust domain as it was first, but for a change of its `spec`.
    pub async fn declare(
        &self,
        cluster: &str,
        message: &str,
        change: impl FnOnce(&mut Value),
    ) -> anyhow::Result<()> {
        let mut declaration = self.member(cluster)?.declared().declaration(&self.topology);
        change(&mut declaration["spec"]);
        let (path, content) = (declaration_path(cluster), format!("{declaration:#}\n"));
        let files = [(path.as_str(), content.as_str())];
        self.nodes.git.commit("main", &files, message).await?;
        Ok(())
    }

    /// Commits that a cluster's bundle comes by a source, and waits until it does; how its status says it.
    pub async fn read_by(&self, cluster: &str, source: &str) -> anyhow::Result<String> {
        let message = format!("Read the bundle of {cluster} by {source}");
        self.declare(cluster, &message, |spec| {
            spec["spire"]["bundleSource"] = json!({source: {}});
        })
        .await?;
        let what = format!("the agent of {cluster} to read its bundle by {source}");
        wait_until(&what, PATIENCE, async || {
            let status = self.status(cluster, "gitsync", "trustweave").await?;
            let read = status["bundleSource"].as_str().unwrap_or_default();
            anyhow::ensure!(read.starts_with(source), "it reads `{read}`");
            Ok(Some(read.to_owned()))
        })
        .await
    }

    /// Waits until the agent of a cluster has SPIRE serve its bundle to others; how its conditions say it.
    pub async fn bundle_served(&self, cluster: &str) -> anyhow::Result<Vec<String>> {
        let mut told = Vec::new();
        for kind in ["ServerConfigured", "EndpointExposed"] {
            let what = format!("the condition {kind} in {cluster}");
            let message = wait_until(&what, PATIENCE, async || {
                let status = self.status(cluster, "gitsync", "trustweave").await?;
                let conditions = status["conditions"].as_array().into_iter().flatten();
                let found = { conditions }.find(|condition| condition["type"] == kind);
                let found = found.context("it is not told")?;
                anyhow::ensure!(found["status"] == "True", "it is {found:#}");
                Ok(Some(format!(
                    "{kind}: {}",
                    found["message"].as_str().unwrap_or_default()
                )))
            });
            told.push(self.with_log(cluster, message.await).await?);
        }
        Ok(told)
    }

    /// Has nothing that others send reach a cluster's bundle endpoint any more. Inside the cluster it goes on.
    pub async fn cut_endpoint(&self, cluster: &str) -> anyhow::Result<()> {
        let node = self.nodes.cluster(cluster)?;
        let rules = format!(
            "add table ip endpoint_cut; \
             add chain ip endpoint_cut arriving {{ type filter hook prerouting priority raw; }}; \
             add rule ip endpoint_cut arriving ip daddr {} tcp dport {BUNDLE_ENDPOINT} drop",
            node.address()
        );
        node.run_on_node(Path::new("nft"), &[&rules]).await?;
        Ok(())
    }

    /// Lets others reach it again.
    pub async fn restore_endpoint(&self, cluster: &str) -> anyhow::Result<()> {
        let node = self.nodes.cluster(cluster)?;
        let rules = "delete table ip endpoint_cut";
        node.run_on_node(Path::new("nft"), &[rules]).await?;
        Ok(())
    }

    /// Waits until both clusters are federated; else the error has the end of the agents' log.
    pub async fn federated(&self) -> anyhow::Result<()> {
        for cluster in CLUSTERS {
            let federated = |status: &Value| status["phase"] == "Federated";
            let waited = self.until_peer(cluster, "the peer to be Federated", federated);
            self.with_log(cluster, waited.await).await?;
        }
        Ok(())
    }

    async fn with_log<T>(&self, cluster: &str, result: anyhow::Result<T>) -> anyhow::Result<T> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                let log = self.log(cluster).await.unwrap_or_default();
                Err(error.context(format!("the log of the agents of {cluster}:\n{log}")))
            }
        }
    }
}

impl Member {
    /// SPIRE serves its bundle where the cloud's load balancer leads to it, which the agent is to set up.
    fn declared(&self) -> Declared<'_> {
        let own = &self.spec.cluster.trust_domain;
        Declared {
            cluster: &self.spec.cluster,
            endpoint: json!({
                "profile": "https_spiffe",
                "url": format!("https://federation.{own}:{BUNDLE_ENDPOINT}"),
                "spiffeID": format!("spiffe://{own}/spire/server"),
                "refreshHint": 60,
                "manage": true,
                "expose": "loadBalancer",
            }),
            signer: &self.key.public,
        }
    }
}

fn agent_directory(nodes: &Nodes, cluster: &str) -> PathBuf {
    nodes.directory().join(format!("agent-{cluster}"))
}
