//! A Kubernetes cluster without nodes that run anything: a real control plane and one `Node` object.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::sync::Mutex;

use crate::access::{Access, START, field_manager, write};
use crate::binaries::Binaries;
use crate::control_plane::{self, ADMIN_TOKEN};
use crate::crds;
use crate::credentials::{ApiServerCredentials, ClusterAuthority};
use crate::port;
use crate::process::{Process, Program, Signal, arguments, flag};
use crate::reaper::Reaper;
use crate::router::Router;
use crate::server_objects::Installed;
use crate::spire::{Installation, Spire};
use crate::spire_version::SpireVersion;

/// The node that the scheduler binds pods to.
pub const NODE: &str = "node-1";

/// What a user's cluster needs to run workloads as objects. The rest (node health, volumes, certificates,
/// autoscaling, …) has nothing to look at here and would only poll.
const CONTROLLERS: &str = "--controllers=clusterrole-aggregation-controller,daemonset-controller,\
     deployment-controller,endpointslice-controller,garbage-collector-controller,job-controller,\
     namespace-controller,replicaset-controller,root-ca-certificate-publisher-controller,\
     serviceaccount-controller,statefulset-controller";

/// What a cluster and the SPIRE in it are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpec {
    /// The cluster's name.
    pub name: String,
    /// Its trust domain.
    pub trust_domain: String,
    /// The class that its spire-controller-manager reconciles.
    pub class_name: String,
    /// Where SPIRE keeps its `ConfigMap`.
    pub spire_namespace: String,
    /// Which SPIRE runs; without one the run's ([`SpireVersion::of_this_run`]).
    pub spire_version: Option<SpireVersion>,
    /// How long SPIRE's authorities live; without one 24 hours, as SPIRE itself has it.
    pub ca_ttl: Option<Duration>,
    /// How the SPIRE server is present in the cluster.
    pub installed: Installed,
    /// Whether the server publishes its X.509 roots only, by the notifier `k8sbundle`, as the zero trust workload
    /// identity manager sets it up; else its whole bundle, by the `BundlePublisher`.
    pub roots_only: bool,
}

impl ClusterSpec {
    /// Which SPIRE runs.
    pub fn spire_version(&self) -> anyhow::Result<SpireVersion> {
        self.spire_version
            .map_or_else(SpireVersion::of_this_run, Ok)
    }
}

/// A running control plane and its SPIRE.
pub struct Cluster {
    /// The trust domain's SPIRE.
    pub spire: Spire,
    name: String,
    plane: ControlPlane,
}

struct ControlPlane {
    directory: PathBuf,
    access: Access,
    reaper: Arc<Reaper>,
    api_server: Program,
    running_api_server: Mutex<Option<Process>>,
    // Held for their end only.
    _others: Vec<Process>,
}

impl Cluster {
    /// Starts everything and returns when SPIRE publishes its bundle and its entries are being reconciled.
    pub(crate) async fn start(
        reaper: &Arc<Reaper>,
        binaries: &Arc<Binaries>,
        web_authority: &Path,
        router: &Router,
        directory: &Path,
        spec: &ClusterSpec,
    ) -> anyhow::Result<Self> {
        let plane = match ControlPlane::start(reaper, binaries, directory).await {
            // A port that was free when it was chosen can be lost before it is listened on.
            Err(error) if port::was_taken(&error) => {
                std::fs::remove_dir_all(directory)
                    .with_context(|| format!("cannot remove {}", directory.display()))?;
                ControlPlane::start(reaper, binaries, directory).await
            }
            started => started,
        }
        .with_context(|| format!("cannot start the control plane of {}", spec.name))?;
        plane
            .prepare(spec, &binaries.spire_crds())
            .await
            .with_context(|| format!("cannot prepare {}", spec.name))?;
        let installation = Installation {
            spec: spec.clone(),
            directory: directory.join("spire"),
            kubeconfig: plane.access.kubeconfig.clone(),
            client: plane.access.client.clone(),
            programs: binaries.spire(spec.spire_version()?)?.to_owned(),
            controller_manager: binaries.spire_controller_manager(),
            web_authority: web_authority.to_owned(),
            proxy: router.url().to_owned(),
            reaper: Arc::clone(reaper),
        };
        let spire = Spire::start(installation)
            .await
            .with_context(|| format!("cannot start SPIRE in {}", spec.name))?;
        router.add(spire.behind_router());
        Ok(Self {
            spire,
            name: spec.name.clone(),
            plane,
        })
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A kubeconfig with all rights.
    pub fn kubeconfig(&self) -> &Path {
        &self.plane.access.kubeconfig
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.plane.access.client.clone()
    }

    /// The API server's URL.
    pub fn url(&self) -> &str {
        &self.plane.access.url
    }

    /// The authority behind the API server's certificate, PEM.
    pub(crate) fn authority(&self) -> &str {
        &self.plane.access.authority
    }

    /// The directory with this cluster's data and logs.
    pub fn directory(&self) -> &Path {
        &self.plane.directory
    }

    /// Runs kubectl with all rights and returns its stdout.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.plane.access.kubectl(arguments).await
    }

    /// Applies manifests as `kubectl apply -f -` does.
    pub async fn kubectl_apply(&self, yaml: &str) -> anyhow::Result<String> {
        self.plane.access.kubectl_apply(yaml).await
    }

    /// A kubeconfig with the rights of one `ServiceAccount`, which must exist, and no others.
    pub async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<PathBuf> {
        self.plane
            .access
            .service_account_kubeconfig(namespace, name)
            .await
    }

    /// Kills the API server, as a failed control plane node would. etcd and the controllers go on.
    pub async fn stop_api_server(&self) -> anyhow::Result<()> {
        match self.plane.running_api_server.lock().await.take() {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Sends the running API server a signal: `STOP` lets it hang, with all connections open, until `CONT`.
    pub async fn signal_api_server(&self, signal: Signal) -> anyhow::Result<()> {
        let running = self.plane.running_api_server.lock().await;
        let process = running.as_ref().context("the API server is stopped")?;
        process.signal(signal)
    }

    /// Starts the API server again, at the same URL, and waits until it is ready.
    pub async fn start_api_server(&self) -> anyhow::Result<()> {
        let mut running = self.plane.running_api_server.lock().await;
        if running.is_none() {
            let process = Process::start(&self.plane.reaper, &self.plane.api_server)?;
            self.plane.access.until_ready(&process).await?;
            *running = Some(process);
        }
        Ok(())
    }
}

impl ControlPlane {
    async fn start(
        reaper: &Arc<Reaper>,
        binaries: &Arc<Binaries>,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let pki = directory.join("pki");
        let names = ["127.0.0.1", "localhost"].map(str::to_owned);
        let credentials = ClusterAuthority::new(&pki)?.api_server(&names)?;
        let tokens = pki.join("tokens.csv");
        write(
            &tokens,
            &format!("{ADMIN_TOKEN},admin,admin,system:masters\n"),
        )?;
        let authority = std::fs::read_to_string(&credentials.authority)?;

        let api_port = port::free()?;
        let url = format!("https://127.0.0.1:{api_port}");
        let kubectl = binaries.kubectl();
        let access = Access::new(reaper, directory, kubectl, url, authority, ADMIN_TOKEN).await?;

        let programs = Layout {
            directory,
            credentials: &credentials,
            tokens: &tokens,
            kubeconfig: &access.kubeconfig,
            etcd_url: format!("http://127.0.0.1:{}", port::free()?),
            peer_url: format!("http://127.0.0.1:{}", port::free()?),
            api_port,
        };
        let api_server = programs.api_server(binaries);
        let etcd = Process::start(reaper, &programs.etcd(binaries))?;
        let running_api_server = Process::start(reaper, &api_server)?;
        tokio::select! {
            ready = access.until_ready(&running_api_server) => ready,
            ended = etcd.wait(START) => {
                ended.and_then(|_| Err(anyhow::anyhow!("etcd ended before it was ready")))
            }
        }
        .with_context(|| format!("the end of etcd's log:\n{}", etcd.last_lines()))?;
        // Earlier they would only take turns at being refused.
        let controllers = Process::start(reaper, &programs.controllers(binaries))?;
        let scheduler = Process::start(reaper, &programs.scheduler(binaries))?;
        Ok(Self {
            directory: directory.to_owned(),
            access,
            reaper: Arc::clone(reaper),
            api_server,
            running_api_server: Mutex::new(Some(running_api_server)),
            _others: vec![controllers, scheduler, etcd],
        })
    }

    /// What must be there before SPIRE is: its kinds, its namespace, and a node for pods to be bound to.
    async fn prepare(&self, spec: &ClusterSpec, crds: &Path) -> anyhow::Result<()> {
        let (crds, namespace, node) = futures::future::join3(
            self.install_kinds(&spec.installed, crds),
            self.access.create_namespace(&spec.spire_namespace),
            self.create_node(),
        )
        .await;
        crds.and(namespace).and(node)
    }

    async fn install_kinds(&self, installed: &Installed, spire: &Path) -> anyhow::Result<()> {
        let mut definitions = crds::read(spire)?;
        if *installed != Installed::Process {
            definitions.push(crds::parse(crds::ROUTES)?);
            definitions.push(crds::parse(crds::TLS_ROUTES)?);
        }
        crds::install(&self.access.client, &definitions).await
    }

    async fn create_node(&self) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.access.client.clone());
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": NODE,
                "labels": {
                    "kubernetes.io/hostname": NODE,
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                },
            },
        });
        nodes
            .patch(NODE, &field_manager(), &Patch::Apply(&node))
            .await
            .context("cannot create the node")?;
        let resources =
            json!({"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "1000"});
        let status = json!({"status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Testbed"}],
        }});
        nodes
            .patch_status(NODE, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .context("cannot make the node ready")?;
        Ok(())
    }
}

/// Where the parts of one control plane lie and listen.
struct Layout<'a> {
    directory: &'a Path,
    credentials: &'a ApiServerCredentials,
    tokens: &'a Path,
    kubeconfig: &'a Path,
    etcd_url: String,
    peer_url: String,
    api_port: u16,
}

impl Layout<'_> {
    fn etcd(&self, binaries: &Binaries) -> Program {
        let data = self.directory.join("etcd");
        let arguments = control_plane::etcd(&data, &self.etcd_url, &self.peer_url);
        self.program("etcd", binaries.etcd(), arguments)
    }

    fn api_server(&self, binaries: &Binaries) -> Program {
        let mut arguments =
            control_plane::api_server(self.credentials, self.tokens, &self.etcd_url, self.api_port);
        arguments.extend(arguments![
            "--bind-address=127.0.0.1",
            flag("--cert-dir=", &self.directory.join("pki")),
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.91.0.0/16",
            // Without a kubelet nobody would ever remove the taint of a new node, and no pod needs a token.
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
        ]);
        self.program("kube-apiserver", binaries.kube_apiserver(), arguments)
    }

    fn controllers(&self, binaries: &Binaries) -> Program {
        let mut arguments = control_plane::controllers(self.kubeconfig, self.credentials);
        arguments.push(CONTROLLERS.into());
        self.program(
            "kube-controller-manager",
            binaries.kube_controller_manager(),
            arguments,
        )
    }

    fn scheduler(&self, binaries: &Binaries) -> Program {
        let arguments = control_plane::scheduler(self.kubeconfig);
        self.program("kube-scheduler", binaries.kube_scheduler(), arguments)
    }

    fn program(&self, name: &str, path: PathBuf, arguments: Vec<OsString>) -> Program {
        Program {
            name: name.to_owned(),
            path,
            arguments,
            environment: Vec::new(),
            directory: self.directory.to_owned(),
            log: self.directory.join("log").join(format!("{name}.log")),
        }
    }
}
