//! The example repository, at work: clusters that federate through git, an agent of the product in each.
//!
//! The repository is `examples/repo-layout` with the declarations of trust domains rewritten for this machine: the
//! endpoints' loopback addresses, the agents' real keys, and the `ConfigMap` as the bundles' source, as no kubelet
//! is here to execute anything in a pod. The agents run as plain processes under the very rights that `deploy/`
//! grants.
//!
//! The example has two clusters; a [`Plan`] may have any number ([`Plan::with_clusters`]) and any topology
//! ([`Plan::topology`]). Declarations consent to exactly what the topology says, and every cluster beyond the
//! example's gets a copy of the overlay of cluster-2, which federates with all peers.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use serde_json::{Value, json};

use crate::faulty_api::FaultyApi;
use crate::process::{Process, http_body, wait_until};
use crate::repository::{self, Declared, borrowed};
use crate::topology::{self, Directions};
use crate::{Cluster, ClusterSpec, Installed, SpireVersion, SshKey, Testbed, port, ssh_key};

pub use crate::repository::{TOPOLOGY_PATH, declaration_path};

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
    /// Whether a SPIRE agent runs in each cluster, so that what a workload holds can be read back. The workload's
    /// entry federates with what the topology has at the start.
    pub workloads: bool,
    /// Whether each agent makes its signing key itself, in a Secret.
    pub signing_secret: bool,
    /// The clusters. Trust domains must be called as [`trust_domain`] has it.
    pub clusters: Vec<ClusterSpec>,
    /// The `spec` of `topology.yaml`. It may name trust domains without a cluster, which a test declares itself.
    pub topology: Value,
}

impl Plan {
    /// The example: two clusters that trust each other, polled every second, without endpoints and workloads.
    ///
    /// `trustweave` is the program, `project` the project's root.
    pub fn new(trustweave: impl Into<PathBuf>, project: impl Into<PathBuf>) -> Self {
        Self {
            trustweave: trustweave.into(),
            project: project.into(),
            poll: Duration::from_secs(1),
            endpoints: false,
            workloads: false,
            signing_secret: false,
            clusters: CLUSTERS.map(cluster_spec).into(),
            topology: json!({"edges": [{"between": CLUSTERS.map(trust_domain)}]}),
        }
    }

    /// `cluster-1` to `cluster-<number>`, each trusting every other.
    #[must_use]
    pub fn with_clusters(mut self, number: usize) -> Self {
        let names = (1..=number).map(|number| format!("cluster-{number}"));
        self.clusters = names.map(|name| cluster_spec(&name)).collect();
        let trust_domains = self.clusters.iter().map(|cluster| &cluster.trust_domain);
        let trust_domains: Vec<&String> = trust_domains.collect();
        self.topology =
            json!({"groups": [{"name": "all", "mesh": true, "members": trust_domains}]});
        self
    }

    /// Another topology.
    #[must_use]
    pub fn with_topology(mut self, spec: Value) -> Self {
        self.topology = spec;
        self
    }

    /// A version of SPIRE for all clusters; set it in [`Plan::clusters`] for one.
    #[must_use]
    pub fn with_spire(mut self, version: SpireVersion) -> Self {
        for cluster in &mut self.clusters {
            cluster.spire_version = Some(version);
        }
        self
    }

    /// How the SPIRE server is present, in all clusters.
    #[must_use]
    pub fn with_installed(mut self, installed: &Installed) -> Self {
        for cluster in &mut self.clusters {
            cluster.installed = installed.clone();
        }
        self
    }

    /// SPIRE publishes its X.509 roots only, in all clusters.
    #[must_use]
    pub fn with_roots_only(mut self) -> Self {
        for cluster in &mut self.clusters {
            cluster.roots_only = true;
        }
        self
    }

    /// How long SPIRE's authorities live, in all clusters.
    #[must_use]
    pub fn with_ca_ttl(mut self, ca_ttl: Duration) -> Self {
        for cluster in &mut self.clusters {
            cluster.ca_ttl = Some(ca_ttl);
        }
        self
    }
}

/// A cluster with the example's trust domain and SPIRE.
pub fn cluster_spec(name: &str) -> ClusterSpec {
    ClusterSpec {
        name: name.to_owned(),
        trust_domain: trust_domain(name),
        class_name: CLASS_NAME.to_owned(),
        spire_namespace: SPIRE_NAMESPACE.to_owned(),
        spire_version: None,
        ca_ttl: None,
        installed: Installed::Process,
        roots_only: false,
    }
}

/// Clusters that federate.
pub struct Federation {
    /// The clusters and the remote.
    pub testbed: Testbed,
    /// What the environment of agents has besides.
    pub environment: Vec<(String, String)>,
    members: Vec<Member>,
    plan: Plan,
}

/// A further agent of a cluster, which stands for election.
pub struct Replica {
    /// The program.
    pub process: Process,
    listen: u16,
}

impl Replica {
    /// What it answers to GET on a path of its HTTP endpoint, after the headers.
    pub async fn http_get(&self, path: &str) -> anyhow::Result<String> {
        http_body(self.listen, path).await
    }

    /// The value of a metric: the sum over its labels.
    pub async fn metric(&self, metric: &str) -> anyhow::Result<f64> {
        Ok(sum(&self.http_get("/metrics").await?, metric))
    }
}

/// A cluster's part in the federation.
struct Member {
    key: SshKey,
    configuration: PathBuf,
    log: PathBuf,
    listen: u16,
    page: u16,
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
    /// Starts the clusters, prepares them as `deploy/` says, and commits the repository. The agents are not started
    /// yet.
    pub async fn prepare(plan: Plan, progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let federation = Self::prepare_empty(plan, progress).await?;
        let Plan {
            project, topology, ..
        } = &federation.plan;
        let git = &federation.testbed.git;
        repository::commit(git, project, topology, &federation.declared()?).await?;
        Ok(federation)
    }

    /// The same with an empty repository: nobody has committed anything yet.
    pub async fn prepare_empty(
        plan: Plan,
        progress: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<Self> {
        for cluster in &plan.clusters {
            anyhow::ensure!(
                cluster.trust_domain == trust_domain(&cluster.name),
                "the trust domain of {} must be {}",
                cluster.name,
                trust_domain(&cluster.name)
            );
        }
        let testbed = Testbed::start(&plan.clusters, progress).await?;
        let mut federation = Self {
            testbed,
            environment: Vec::new(),
            members: Vec::new(),
            plan,
        };
        let members = (0..federation.plan.clusters.len()).map(|index| federation.member(index));
        federation.members = futures::future::try_join_all(members).await?;
        Ok(federation)
    }

    /// Prepares, and starts all agents.
    pub async fn start(plan: Plan, progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let mut federation = Self::prepare(plan, progress).await?;
        for name in federation.names() {
            federation.start_agent(&name)?;
        }
        Ok(federation)
    }

    /// The clusters' names.
    pub fn names(&self) -> Vec<String> {
        let clusters = self.plan.clusters.iter();
        clusters.map(|cluster| cluster.name.clone()).collect()
    }

    /// The directions of trust that the topology has now, by trust domain.
    pub fn directions(&self) -> Directions {
        topology::directions(&self.plan.topology)
    }

    /// The directions of trust between running clusters, by cluster.
    pub fn cluster_directions(&self) -> Directions {
        let name = |trust_domain: &str| {
            let mut clusters = self.plan.clusters.iter();
            let found = clusters.find(|cluster| cluster.trust_domain == trust_domain);
            found.map(|cluster| cluster.name.clone())
        };
        let directions = self.directions().into_iter();
        directions
            .filter_map(|(importer, exporter)| Some((name(&importer)?, name(&exporter)?)))
            .collect()
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
        let (listen, page) = (port::free()?, port::free()?);
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
            "page": {"listen": format!("127.0.0.1:{page}")},
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
            let (peers, _) = topology::consent(&self.directions(), cluster.spire.trust_domain());
            let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
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
            page,
            agent: None,
        })
    }

    /// What every cluster's trust domain declares.
    fn declared(&self) -> anyhow::Result<Vec<Declared<'_>>> {
        let names = self.names().into_iter();
        names.map(|name| self.declared_by(&name)).collect()
    }

    fn declared_by(&self, name: &str) -> anyhow::Result<Declared<'_>> {
        let (member, cluster) = self.find(name)?;
        let mut specs = self.plan.clusters.iter();
        let spec = specs.find(|spec| spec.name == name);
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
        Ok(Declared {
            cluster: spec.context("the cluster is not in the plan")?,
            endpoint,
            signer: &member.key.public,
        })
    }

    /// Commits another topology together with the declarations that consent to it. Returns the commit.
    ///
    /// What a test declared itself is declared anew.
    pub async fn set_topology(&mut self, spec: Value, message: &str) -> anyhow::Result<String> {
        self.plan.topology = spec;
        let files = repository::declared_files(&self.plan.topology, &self.declared()?);
        let git = &self.testbed.git;
        git.commit("main", &borrowed(&files), message).await
    }

    /// The declaration of a cluster's trust domain, to be changed and committed.
    pub fn declaration(&self, cluster: &str) -> anyhow::Result<Value> {
        Ok(self.declared_by(cluster)?.declaration(&self.plan.topology))
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
        self.start_agent_by(name, &[])
    }

    /// The same by a command that gets the agent's command line as its last arguments, and becomes the agent.
    pub fn start_agent_by(&mut self, name: &str, command: &[&OsStr]) -> anyhow::Result<()> {
        let position = self
            .testbed
            .clusters()
            .iter()
            .position(|c| c.name() == name);
        let position = position.with_context(|| format!("no cluster is named {name}"))?;
        let member = &self.members[position];
        let line = [
            self.plan.trustweave.as_os_str(),
            "agent".as_ref(),
            "--config".as_ref(),
            member.configuration.as_os_str(),
        ];
        let mut line = command.iter().copied().chain(line);
        let program = line.next().context("a command without a program")?;
        let process = self.testbed.spawn(
            &format!("trustweave-{name}"),
            Path::new(program),
            line,
            self.agent_environment(),
            &member.log,
        )?;
        self.members[position].agent = Some(process);
        Ok(())
    }

    /// Starts a further agent of a cluster under a name: of all that have one, one writes.
    pub fn start_replica(&self, cluster: &str, name: &str) -> anyhow::Result<Replica> {
        let (member, _) = self.find(cluster)?;
        let directory = self.testbed.directory().join(format!("agent-{name}"));
        std::fs::create_dir_all(&directory).context("make the agent's directory")?;
        let listen = port::free()?;
        let configuration = std::fs::read_to_string(&member.configuration)?;
        let mut configuration: Value = serde_json::from_str(&configuration)?;
        configuration["git"]["stateDir"] = json!(directory.join("state"));
        configuration["listen"] = json!(format!("127.0.0.1:{listen}"));
        configuration["page"]["listen"] = json!(format!("127.0.0.1:{}", port::free()?));
        let path = directory.join("config.yaml");
        std::fs::write(&path, format!("{configuration:#}")).context("write a configuration")?;
        let arguments = ["agent", "--name", name, "--config"].map(Into::into);
        let process = self.testbed.spawn(
            &format!("trustweave-{name}"),
            &self.plan.trustweave,
            arguments.into_iter().chain([path.into_os_string()]),
            self.agent_environment(),
            &directory.join("agent.log"),
        )?;
        Ok(Replica { process, listen })
    }

    /// Lets the overlay of a cluster have any object.
    pub async fn grant_every_kind(&self, cluster: &str) -> anyhow::Result<()> {
        let grant = [
            "create",
            "clusterrolebinding",
            "overlays",
            "--clusterrole=cluster-admin",
            "--serviceaccount=trustweave-system:trustweave-sync",
        ];
        self.testbed.cluster(cluster)?.kubectl(&grant).await?;
        Ok(())
    }

    /// Changes the configuration of a cluster's agent, before it is started.
    pub fn configure(&self, name: &str, change: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
        let path = &self.find(name)?.0.configuration;
        let mut configuration = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        change(&mut configuration);
        std::fs::write(path, format!("{configuration:#}")).context("write a configuration")
    }

    /// Has a cluster's agent ask the API server through a way that can fail.
    pub fn ask_through(&self, name: &str, way: &FaultyApi) -> anyhow::Result<()> {
        let path = &self.find(name)?.0.configuration;
        let configuration: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        let path = configuration["kubernetes"]["kubeconfig"].as_str();
        let path = path.context("the agent has no kubeconfig")?;
        let mut kubeconfig: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        let authority = std::fs::read(self.testbed.web_authority())?;
        let authority = base64::engine::general_purpose::STANDARD.encode(authority);
        kubeconfig["clusters"][0]["cluster"] =
            json!({"server": way.url(), "certificate-authority-data": authority});
        std::fs::write(path, kubeconfig.to_string()).context("write a kubeconfig")
    }

    fn agent_environment(&self) -> Vec<(String, String)> {
        let always = [
            ("TRUSTWEAVE_LOG", "info,trustweave=debug"),
            ("NO_COLOR", "1"),
        ];
        let always = always.map(|(name, value)| (name.to_owned(), value.to_owned()));
        always.into_iter().chain(self.environment.clone()).collect()
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
        http_body(self.find(name)?.0.listen, path).await
    }

    /// The URL of a cluster's agent.
    pub fn agent_url(&self, name: &str) -> anyhow::Result<String> {
        Ok(format!("http://127.0.0.1:{}", self.find(name)?.0.listen))
    }

    /// Where a cluster's agent serves its status page.
    pub fn page(&self, name: &str) -> anyhow::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], self.find(name)?.0.page).into())
    }

    /// The value of a metric of a cluster's agent: the sum over its labels.
    pub async fn metric(&self, name: &str, metric: &str) -> anyhow::Result<f64> {
        Ok(sum(&self.http_get(name, "/metrics").await?, metric))
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
        self.trust_domain_until(cluster, &trust_domain(peer), what, satisfies)
            .await
    }

    /// Waits until a cluster's `TrustPeer` of any trust domain has a status that satisfies.
    pub async fn trust_domain_until(
        &self,
        cluster: &str,
        peer: &str,
        what: &str,
        satisfies: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let satisfies = &satisfies;
        self.until(&format!("{what}, in {cluster} about {peer}"), async || {
            let status = self.status(cluster, "trustpeer", peer).await?;
            anyhow::ensure!(satisfies(&status), "its status is {status:#}");
            Ok(Some(status))
        })
        .await
    }

    /// Waits until every cluster is federated with all clusters that it should trust.
    pub async fn federated(&self) -> anyhow::Result<()> {
        for (cluster, peer) in self.cluster_directions() {
            self.peer_until(&cluster, &peer, "the peer to be Federated", |status| {
                status["phase"] == "Federated"
            })
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

/// The sum of a metric over its labels.
pub(crate) fn sum(exposition: &str, metric: &str) -> f64 {
    exposition
        .lines()
        .filter_map(|line| line.strip_prefix(metric))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// `kubectl apply -k`, again until definitions that it just made are served.
async fn apply_directory(cluster: &Cluster, directory: &Path) -> anyhow::Result<()> {
    let directory = directory.to_str().context("a path that is not UTF-8")?;
    cluster
        .kubectl(&["apply", "--server-side", "--kustomize", directory])
        .await?;
    Ok(())
}
