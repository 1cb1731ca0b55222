//! The example repository, at work: clusters that federate through git, an agent of the product in each.
//!
//! The repository is `examples/repo-layout` with the declarations of trust domains rewritten for this machine: the
//! endpoints' loopback addresses, the agents' real keys, and the `ConfigMap` as the bundles' source, as no kubelet
//! is here to execute anything in a pod. The agents run as plain processes under the very rights that `deploy/`
//! grants.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::process::{Process, wait_until};
use crate::{Cluster, ClusterSpec, SshKey, Testbed, port, ssh_key};

/// The class of the example's SPIRE objects.
pub const CLASS_NAME: &str = "zero-trust-workload-identity-manager-spire";

/// The namespace of the example's SPIRE installations.
pub const SPIRE_NAMESPACE: &str = "zero-trust-workload-identity-manager";

/// The example's clusters.
pub const CLUSTERS: [&str; 2] = ["cluster-1", "cluster-2"];

/// How long anything of a federation may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program `trustweave`.
    pub trustweave: PathBuf,
    /// The project's root: `deploy/` and `examples/repo-layout` are taken from there.
    pub project: PathBuf,
    /// How often an agent lists the remote's references.
    pub poll: Duration,
    /// Whether the trust domains' endpoints are declared. Without one, SPIRE can't poll: git is the only way.
    pub endpoints: bool,
    /// Whether a SPIRE agent runs in each cluster, so that what a workload holds can be read back.
    pub workloads: bool,
    /// Whether each agent makes its signing key itself, in a Secret.
    pub signing_secret: bool,
}

/// Clusters that federate.
pub struct Federation {
    /// The clusters and the remote.
    pub testbed: Testbed,
    members: Vec<Member>,
    plan: Plan,
}

/// A cluster's part in the federation.
struct Member {
    key: SshKey,
    configuration: PathBuf,
    log: PathBuf,
    listen: u16,
    agent: Option<Process>,
}

/// The example's trust domain of a cluster.
pub fn trust_domain(cluster: &str) -> String {
    format!("apps.{cluster}.devcluster.openshift.com")
}

/// The other cluster of the example.
pub fn peer_of(cluster: &str) -> &'static str {
    if cluster == CLUSTERS[0] {
        CLUSTERS[1]
    } else {
        CLUSTERS[0]
    }
}

impl Federation {
    /// Starts the example's two clusters, prepares them as `deploy/` says, and commits the repository. The agents
    /// are not started yet.
    pub async fn prepare(plan: Plan, progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let specs = CLUSTERS.map(|name| ClusterSpec {
            name: name.to_owned(),
            trust_domain: trust_domain(name),
            class_name: CLASS_NAME.to_owned(),
            spire_namespace: SPIRE_NAMESPACE.to_owned(),
        });
        let testbed = Testbed::start(&specs, progress).await?;
        let mut federation = Self {
            testbed,
            members: Vec::new(),
            plan,
        };
        for index in 0..specs.len() {
            let member = federation.member(index).await?;
            federation.members.push(member);
        }
        federation.commit_repository().await?;
        Ok(federation)
    }

    /// Prepares, and starts all agents.
    pub async fn start(plan: Plan, progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let mut federation = Self::prepare(plan, progress).await?;
        for name in CLUSTERS {
            federation.start_agent(name)?;
        }
        Ok(federation)
    }

    /// Installs what an agent needs in a cluster, and writes its configuration.
    async fn member(&self, index: usize) -> anyhow::Result<Member> {
        let cluster = &self.testbed.clusters()[index];
        let deploy = self.plan.project.join("deploy");
        for part in [deploy.clone(), deploy.join("bundle-source")] {
            apply_directory(cluster, &part).await?;
        }
        let rights = deploy.join("overlay-rights.yaml");
        let rights = rights.to_str().context("a path that is not UTF-8")?;
        cluster
            .kubectl(&["apply", "--server-side", "--filename", rights])
            .await?;
        // The probe selects the agent's pod: it is scheduled, though nothing runs it here.
        wait_until("the agent's pod to be scheduled", PATIENCE, async || {
            let pods = cluster
                .kubectl(&[
                    "get",
                    "pods",
                    "--namespace=trustweave-system",
                    "--output=jsonpath={.items[*].spec.nodeName}",
                ])
                .await?;
            Ok((!pods.is_empty()).then_some(()))
        })
        .await?;

        let directory = self.testbed.directory().join(format!("agent-{index}"));
        std::fs::create_dir_all(&directory).context("make the agent's directory")?;
        let key = ssh_key(&directory, "id_ed25519")?;
        let kubeconfig = cluster
            .service_account_kubeconfig("trustweave-system", "trustweave")
            .await?;
        let listen = port::free()?;
        let mut configuration = json!({
            "apiVersion": "trustweave.dev/v1alpha1",
            "kind": "AgentConfig",
            "cluster": cluster.name(),
            "trustDomain": cluster.spire.trust_domain(),
            "git": {
                "url": self.testbed.git.url(),
                "stateDir": directory.join("state"),
                "pollMilliseconds": u64::try_from(self.plan.poll.as_millis())?,
            },
            "kubernetes": {"kubeconfig": kubeconfig},
            "signing": {"keyFile": key.private},
            "listen": format!("127.0.0.1:{listen}"),
        });
        if self.plan.signing_secret {
            let rights = deploy.join("signing-key/rbac.yaml");
            let rights = rights.to_str().context("a path that is not UTF-8")?;
            cluster
                .kubectl(&["apply", "--server-side", "--filename", rights])
                .await?;
            configuration["signing"] = json!({
                "secret": {"namespace": "trustweave-system", "name": "trustweave-signing"},
            });
        }
        if self.plan.workloads {
            let socket = cluster.spire.start_agent().await?;
            configuration["workloadApi"] = json!({"socket": socket});
            let peers = self.testbed.clusters().iter();
            let peers: Vec<&str> = peers
                .map(|peer| peer.spire.trust_domain())
                .filter(|peer| *peer != cluster.spire.trust_domain())
                .collect();
            cluster.spire.workload_entry(&peers).await?;
        }
        let path = directory.join("config.yaml");
        // JSON is YAML.
        std::fs::write(&path, format!("{configuration:#}")).context("write a configuration")?;
        Ok(Member {
            key,
            configuration: path,
            log: directory.join("agent.log"),
            listen,
            agent: None,
        })
    }

    /// Commits the example, and the declarations on top of it.
    async fn commit_repository(&self) -> anyhow::Result<()> {
        let example = self.plan.project.join("examples/repo-layout");
        let git = &self.testbed.git;
        git.commit_directory("main", &example, "Start from the example")
            .await?;
        let mut files = Vec::new();
        for cluster in self.testbed.clusters() {
            files.push((
                declaration_path(cluster.name()),
                format!("{:#}\n", self.declaration(cluster.name())?),
            ));
        }
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, content)| (path.as_str(), content.as_str()))
            .collect();
        git.commit("main", &files, "Declare this machine's endpoints and keys")
            .await?;
        Ok(())
    }

    /// The declaration of a cluster's trust domain, to be changed and committed.
    pub fn declaration(&self, cluster: &str) -> anyhow::Result<Value> {
        let (member, cluster) = self.find(cluster)?;
        let own = cluster.spire.trust_domain();
        let peers: Vec<&str> = self
            .testbed
            .clusters()
            .iter()
            .map(|peer| peer.spire.trust_domain())
            .filter(|peer| *peer != own)
            .collect();
        let endpoint = if self.plan.endpoints {
            json!({
                "profile": "https_spiffe",
                "url": cluster.spire.bundle_endpoint_url(),
                "spiffeID": cluster.spire.bundle_endpoint_spiffe_id(),
                "refreshHint": 60,
            })
        } else {
            json!("none")
        };
        Ok(json!({
            "apiVersion": "trustweave.dev/v1alpha1",
            "kind": "TrustDomain",
            "metadata": {"name": own},
            "spec": {
                "clusters": [{"name": cluster.name()}],
                "spire": {
                    "distribution": "custom",
                    "namespace": cluster.spire.namespace(),
                    "className": cluster.spire.class_name(),
                },
                "bundleEndpoint": endpoint,
                "signers": [member.key.public],
                "consent": {"import": peers, "export": peers},
            },
        }))
    }

    /// Commits a declaration to main.
    pub async fn declare(
        &self,
        cluster: &str,
        declaration: &Value,
        message: &str,
    ) -> anyhow::Result<String> {
        let content = format!("{declaration:#}\n");
        let path = declaration_path(cluster);
        self.testbed
            .git
            .commit("main", &[(path.as_str(), content.as_str())], message)
            .await
    }

    fn find(&self, name: &str) -> anyhow::Result<(&Member, &Cluster)> {
        let cluster = self.testbed.cluster(name)?;
        let position = self
            .testbed
            .clusters()
            .iter()
            .position(|c| c.name() == name);
        let member = position.and_then(|position| self.members.get(position));
        Ok((member.context("the cluster has no agent")?, cluster))
    }

    /// Starts a cluster's agent, or starts it again.
    pub fn start_agent(&mut self, name: &str) -> anyhow::Result<()> {
        let position = self
            .testbed
            .clusters()
            .iter()
            .position(|c| c.name() == name);
        let position = position.with_context(|| format!("no cluster is named {name}"))?;
        let member = &self.members[position];
        let arguments = ["agent", "--config"].map(Into::into).into_iter();
        let arguments = arguments.chain([member.configuration.clone().into_os_string()]);
        let process = self.testbed.spawn(
            &format!("trustweave-{name}"),
            &self.plan.trustweave,
            arguments,
            [
                ("TRUSTWEAVE_LOG", "info,trustweave=debug"),
                ("NO_COLOR", "1"),
            ],
            &member.log,
        )?;
        self.members[position].agent = Some(process);
        Ok(())
    }

    /// A cluster's agent.
    pub fn agent(&self, name: &str) -> anyhow::Result<&Process> {
        let (member, _) = self.find(name)?;
        member.agent.as_ref().context("the agent was not started")
    }

    /// The public half of the key of a cluster's agent.
    pub fn signer(&self, name: &str) -> anyhow::Result<&SshKey> {
        Ok(&self.find(name)?.0.key)
    }

    /// Where a cluster's agent logs.
    pub fn log(&self, name: &str) -> anyhow::Result<&Path> {
        Ok(&self.find(name)?.0.log)
    }

    /// What a cluster's agent answers to GET on a path of its HTTP endpoint, after the headers.
    pub async fn http_get(&self, name: &str, path: &str) -> anyhow::Result<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (member, _) = self.find(name)?;
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", member.listen)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer
            .split_once("\r\n\r\n")
            .context("an HTTP answer without headers")?;
        Ok(body.to_owned())
    }

    /// The URL of a cluster's agent.
    pub fn agent_url(&self, name: &str) -> anyhow::Result<String> {
        Ok(format!("http://127.0.0.1:{}", self.find(name)?.0.listen))
    }

    /// The value of a metric of a cluster's agent: the sum over its labels.
    pub async fn metric(&self, name: &str, metric: &str) -> anyhow::Result<f64> {
        let text = self.http_get(name, "/metrics").await?;
        Ok(text
            .lines()
            .filter_map(|line| line.strip_prefix(metric))
            .filter(|rest| rest.starts_with(['{', ' ']))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// The status of an object of the agent's kinds.
    pub async fn status(&self, cluster: &str, kind: &str, name: &str) -> anyhow::Result<Value> {
        let object = self
            .testbed
            .cluster(cluster)?
            .kubectl(&["get", kind, name, "--output=json"])
            .await?;
        let object: Value = serde_json::from_str(&object)?;
        Ok(object["status"].clone())
    }

    /// Waits until a cluster's `TrustPeer` of another cluster's trust domain has a status that satisfies.
    pub async fn peer_until(
        &self,
        cluster: &str,
        peer: &str,
        what: &str,
        satisfies: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let name = trust_domain(peer);
        let satisfies = &satisfies;
        self.until(&format!("{what}, in {cluster} about {peer}"), async || {
            let status = self.status(cluster, "trustpeer", &name).await?;
            anyhow::ensure!(satisfies(&status), "its status is {status:#}");
            Ok(Some(status))
        })
        .await
    }

    /// Waits until every cluster is federated with the other.
    pub async fn federated(&self) -> anyhow::Result<()> {
        for cluster in CLUSTERS {
            self.peer_until(
                cluster,
                peer_of(cluster),
                "the peer to be Federated",
                |status| status["phase"] == "Federated",
            )
            .await?;
        }
        Ok(())
    }

    /// Waits; at the deadline the error has the end of all agents' logs.
    pub async fn until<T, F>(&self, what: &str, probe: impl FnMut() -> F) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<Option<T>>>,
    {
        wait_until(what, PATIENCE, probe).await.map_err(|error| {
            let logs = self
                .members
                .iter()
                .filter_map(|member| member.agent.as_ref());
            let logs: Vec<_> = logs
                .map(|agent| format!("{}:\n{}", agent.log().display(), agent.last_lines()))
                .collect();
            error.context(logs.join("\n"))
        })
    }
}

/// The path of the declaration of a cluster's trust domain.
pub fn declaration_path(cluster: &str) -> String {
    format!("trust-domains/{}/trust-domain.yaml", trust_domain(cluster))
}

/// `kubectl apply -k`, again until definitions that it just made are served.
async fn apply_directory(cluster: &Cluster, directory: &Path) -> anyhow::Result<()> {
    let directory = directory.to_str().context("a path that is not UTF-8")?;
    cluster
        .kubectl(&["apply", "--server-side", "--kustomize", directory])
        .await?;
    Ok(())
}
