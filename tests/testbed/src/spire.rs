//! SPIRE as it runs in a cluster: server, spire-controller-manager, and an agent when a test needs one.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use crate::access::field_manager;
use crate::authority::Identity;
use crate::cluster::ClusterSpec;
use crate::configuration;
use crate::kubelet::{Container, Kubelet, Machine};
use crate::loopback::Loopback;
use crate::operator::Operator;
use crate::port;
use crate::process::{Process, Program, http_get, run, wait_until};
use crate::reaper::Reaper;
use crate::router::Behind;
use crate::server_commands::{ServerCommands, parse};
use crate::server_objects::{
    self, CONFIGURATION_KEY, CONTROLLER_MANAGER_KEY, Installed, SPIRE_SERVER,
};
use crate::workload::{self, WorkloadView};

pub use crate::spire_configuration::{BUNDLE_CONFIG_MAP, BUNDLE_KEY, ROOTS_KEY};

const START: Duration = Duration::from_mins(1);

/// Where a SPIRE is installed and with what.
pub(crate) struct Installation {
    pub(crate) spec: ClusterSpec,
    pub(crate) directory: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) client: Client,
    /// Where the server and the agent lie.
    pub(crate) programs: PathBuf,
    pub(crate) controller_manager: PathBuf,
    /// The root that the server takes for those of the public web.
    pub(crate) web_authority: PathBuf,
    /// What the server's HTTP clients ask about names.
    pub(crate) proxy: String,
    pub(crate) reaper: Arc<Reaper>,
}

/// The SPIRE of one trust domain.
pub struct Spire {
    installation: Installation,
    loopback: Loopback,
    commands: ServerCommands,
    server: Arc<Container>,
    controller_manager: Arc<Container>,
    running_agent: Mutex<Option<Process>>,
    /// There is one if objects stand for the server.
    kubelet: Option<Kubelet>,
    operator: Option<Operator>,
}

impl Spire {
    pub(crate) async fn start(installation: Installation) -> anyhow::Result<Self> {
        let directory = &installation.directory;
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        // The kernel's limit for the path of a socket is 108 bytes.
        let socket = directory.join("agent.sock");
        anyhow::ensure!(
            socket.as_os_str().len() < 100,
            "{} is too long for a socket: set TMPDIR to a shorter path",
            socket.display()
        );
        if installation.spec.roots_only {
            installation.make_config_map().await?;
        }
        let mut spire = Self::new(installation)?;
        let installed = spire.installation.spec.installed.clone();
        match installed {
            Installed::Process => {
                match spire.start_server().await {
                    Err(error) if port::was_taken(&error) => {
                        spire = Self::new(spire.installation)?;
                        spire.start_server().await?;
                    }
                    started => started?,
                }
                spire.start_controller_manager().await?;
            }
            Installed::Objects(objects) => {
                let Installation { client, spec, .. } = &spire.installation;
                server_objects::bind_data_volume(client, &spec.spire_namespace).await?;
                server_objects::install(client, spec, &objects).await?;
                spire.run_pod().await?;
            }
            Installed::Operator(version) => {
                let Installation { client, spec, .. } = &spire.installation;
                server_objects::bind_data_volume(client, &spec.spire_namespace).await?;
                spire.operator = Some(Operator::start(client, spec, version).await?);
                spire.run_pod().await?;
            }
        }
        spire.until_bundle_is_published().await?;
        Ok(spire)
    }

    fn new(installation: Installation) -> anyhow::Result<Self> {
        let directory = &installation.directory;
        let data = directory.join("data");
        let mounted = directory.join("config");
        for made in [&data, &mounted] {
            std::fs::create_dir_all(made)
                .with_context(|| format!("cannot make {}", made.display()))?;
        }
        let loopback = Loopback {
            data,
            socket: installation.server_socket(),
            kubeconfig: installation.kubeconfig.clone(),
            server_port: port::free()?,
            bundle_endpoint_port: port::free()?,
            hidden_port: port::free()?,
            server_health_port: port::free()?,
            controller_manager_health_port: port::free()?,
            publication: configuration::publication(&installation.spec),
        };
        let logs = directory.with_file_name("log");
        let server = mounted.join(CONFIGURATION_KEY);
        let controller_manager = mounted.join(CONTROLLER_MANAGER_KEY);
        let spec = &installation.spec;
        write_json(&server, &loopback.server(configuration::server(spec, true)))?;
        write_json(
            &controller_manager,
            &loopback.controller_manager(configuration::controller_manager(spec)),
        )?;
        let server = Program {
            name: "spire-server".to_owned(),
            path: installation.server_program(),
            arguments: vec!["run".into(), "-config".into(), server.into()],
            environment: vec![
                (
                    "SSL_CERT_FILE".into(),
                    installation.web_authority.clone().into(),
                ),
                ("HTTPS_PROXY".into(), installation.proxy.clone().into()),
            ],
            directory: directory.clone(),
            log: logs.join("spire-server.log"),
        };
        let controller_manager = Program {
            name: "spire-controller-manager".to_owned(),
            path: installation.controller_manager.clone(),
            arguments: vec!["-config".into(), controller_manager.into()],
            environment: vec![
                ("KUBECONFIG".into(), installation.kubeconfig.clone().into()),
                // The API server could not call a webhook without a Service that leads to it.
                ("ENABLE_WEBHOOKS".into(), "false".into()),
            ],
            directory: directory.clone(),
            log: logs.join("spire-controller-manager.log"),
        };
        let commands = ServerCommands::new(
            &installation.reaper,
            installation.server_program(),
            Vec::new(),
            vec!["-socketPath".into(), installation.server_socket().into()],
        );
        Ok(Self {
            installation,
            loopback,
            commands,
            server: Arc::new(Container::new(server)),
            controller_manager: Arc::new(Container::new(controller_manager)),
            running_agent: Mutex::new(None),
            kubelet: None,
            operator: None,
        })
    }

    async fn run_pod(&mut self) -> anyhow::Result<()> {
        self.kubelet = Some(Kubelet::start(Machine {
            client: self.installation.client.clone(),
            namespace: self.namespace().to_owned(),
            reaper: Arc::clone(&self.installation.reaper),
            configuration: self.installation.directory.join("config"),
            loopback: self.loopback.clone(),
            server: Arc::clone(&self.server),
            controller_manager: Arc::clone(&self.controller_manager),
        }));
        self.until_rolled_out().await
    }

    /// The operator that keeps the server's objects, if one is installed.
    pub fn operator(&self) -> Option<&Operator> {
        self.operator.as_ref()
    }

    /// How often the server was started by its pod: once, and once more for each new pod and for each crash. Nothing
    /// if no object stands for the server.
    pub fn server_starts(&self) -> u64 {
        self.kubelet.as_ref().map_or(0, Kubelet::starts)
    }

    /// Waits until the server's pod is of the `StatefulSet`'s current template, and ready.
    pub async fn until_rolled_out(&self) -> anyhow::Result<()> {
        let client = &self.installation.client;
        let sets: Api<StatefulSet> = Api::namespaced(client.clone(), self.namespace());
        let log = &self.server.program.log;
        wait_until("the SPIRE server to be rolled out", START, async || {
            let set = sets.get(SPIRE_SERVER).await?;
            let status = set.status.unwrap_or_default();
            let rolled_out = status.observed_generation == set.metadata.generation
                && status.update_revision == status.current_revision
                && status.ready_replicas == Some(1);
            Ok(rolled_out.then_some(()))
        })
        .await
        .with_context(|| format!("the server logs to {}", log.display()))
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        &self.installation.spec.trust_domain
    }

    /// The patch version that the server says it is.
    pub async fn version(&self) -> anyhow::Result<String> {
        let answer = tokio::process::Command::new(self.installation.server_program())
            .arg("--version")
            .output()
            .await
            .context("cannot run spire-server")?;
        let version = [answer.stdout, answer.stderr].concat();
        Ok(String::from_utf8_lossy(&version).trim().to_owned())
    }

    /// The class that spire-controller-manager reconciles.
    pub fn class_name(&self) -> &str {
        &self.installation.spec.class_name
    }

    /// The namespace of SPIRE's `ConfigMap`.
    pub fn namespace(&self) -> &str {
        &self.installation.spec.spire_namespace
    }

    /// Where the server serves its bundle (profile `https_spiffe`).
    pub fn bundle_endpoint_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.loopback.bundle_endpoint_port)
    }

    /// What names below the trust domain lead to.
    pub(crate) fn behind_router(&self) -> Behind {
        Behind {
            client: self.installation.client.clone(),
            trust_domain: self.trust_domain().to_owned(),
            namespace: self.namespace().to_owned(),
            bundle_endpoint_port: self.loopback.bundle_endpoint_port,
        }
    }

    /// The SPIFFE ID that the bundle endpoint proves.
    pub fn bundle_endpoint_spiffe_id(&self) -> String {
        format!("spiffe://{}/spire/server", self.trust_domain())
    }

    /// Has the server sign an X.509 SVID with a path in its trust domain.
    pub async fn mint(&self, path: &str) -> anyhow::Result<Identity> {
        let directory = self.installation.directory.join("minted");
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let id = format!("spiffe://{}{path}", self.trust_domain());
        let write = directory.to_str().context("a path that is not UTF-8")?;
        self.server(&["x509", "mint", "-spiffeID", &id, "-write", write])
            .await?;
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Identity {
            certificate: read("svid.pem")?,
            key: read("key.pem")?,
        })
    }

    /// The server's configuration as the running server read it, or will read it at its next start.
    pub fn configuration(&self) -> anyhow::Result<Value> {
        let path = self.installation.directory.join("config");
        let path = path.join(CONFIGURATION_KEY);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        parse(&text)
    }

    /// Writes what the server reads at its next start, where no object of the cluster says that.
    pub fn set_configuration(&self, configuration: &Value) -> anyhow::Result<()> {
        anyhow::ensure!(self.kubelet.is_none(), "the server's pod reads a ConfigMap");
        let directory = self.installation.directory.join("config");
        write_json(&directory.join(CONFIGURATION_KEY), configuration)
    }

    /// Kills the server. If it has a pod, it is not started there again before [`start_server`](Self::start_server).
    pub async fn stop_server(&self) -> anyhow::Result<()> {
        self.server.hold().await
    }

    /// Starts the server with the keys and data it had, and waits until it is healthy.
    pub async fn start_server(&self) -> anyhow::Result<()> {
        self.server.release();
        if self.kubelet.is_some() {
            return wait_until("the server in its pod to be healthy", START, async || {
                self.server(&["healthcheck"]).await.map(Some)
            })
            .await
            .map(drop);
        }
        let mut running = self.server.running.lock().await;
        if running.is_none() {
            let process = Process::start(&self.installation.reaper, &self.server.program)?;
            process
                .until_ready(START, async || {
                    self.server(&["healthcheck"]).await?;
                    Ok(Some(()))
                })
                .await?;
            *running = Some(process);
        }
        Ok(())
    }

    /// Kills spire-controller-manager. If it has a pod, it is not started there again before
    /// [`start_controller_manager`](Self::start_controller_manager).
    pub async fn stop_controller_manager(&self) -> anyhow::Result<()> {
        self.controller_manager.hold().await
    }

    /// Starts spire-controller-manager and waits until it is ready.
    pub async fn start_controller_manager(&self) -> anyhow::Result<()> {
        self.controller_manager.release();
        let ready = async || {
            let port = self.loopback.controller_manager_health_port;
            let answer = http_get(port, "/readyz").await?;
            let status = answer.lines().next().unwrap_or_default();
            anyhow::ensure!(status.contains(" 200 "), "/readyz says {status}");
            Ok(Some(()))
        };
        if self.kubelet.is_some() {
            let what = "spire-controller-manager in its pod to be ready";
            return wait_until(what, START, ready).await;
        }
        let mut running = self.controller_manager.running.lock().await;
        if running.is_none() {
            let program = &self.controller_manager.program;
            let process = Process::start(&self.installation.reaper, program)?;
            process.until_ready(START, ready).await?;
            *running = Some(process);
        }
        Ok(())
    }

    /// Starts an agent that attests workloads by their Unix user, and returns its Workload API socket.
    ///
    /// Its sync interval is one second, so that bundles and entries reach workloads as fast as tests ask for them.
    pub async fn start_agent(&self) -> anyhow::Result<PathBuf> {
        let socket = self.workload_socket();
        let mut running = self.running_agent.lock().await;
        if running.as_ref().is_some_and(Process::is_running) {
            return Ok(socket);
        }
        let generated = self
            .server(&[
                "token",
                "generate",
                "-output",
                "json",
                "-spiffeID",
                &self.agent_id(),
            ])
            .await?;
        let generated = parse(&generated)?;
        let token = generated["value"]
            .as_str()
            .context("spire-server gave no join token")?;
        let directory = self.installation.directory.join("agent");
        // An agent that joined before has used up its token.
        drop(std::fs::remove_dir_all(&directory));
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let bundle = directory.join("bootstrap.json");
        write_json(&bundle, &self.own_bundle().await?)?;
        let configuration = directory.join("agent.conf");
        write_json(
            &configuration,
            &json!({
                "agent": {
                    "data_dir": directory,
                    "server_address": "127.0.0.1",
                    "server_port": self.loopback.server_port.to_string(),
                    "socket_path": socket,
                    "trust_domain": self.trust_domain(),
                    "trust_bundle_path": bundle,
                    "trust_bundle_format": "spiffe",
                    "join_token": token,
                    "log_level": "DEBUG",
                    "experimental": {"sync_interval": "1s"},
                },
                "plugins": {
                    "NodeAttestor": [{"join_token": {"plugin_data": {}}}],
                    "KeyManager": [{"memory": {"plugin_data": {}}}],
                    "WorkloadAttestor": [{"unix": {"plugin_data": {}}}],
                },
            }),
        )?;
        let program = Program {
            name: "spire-agent".to_owned(),
            path: self.installation.agent_program(),
            arguments: vec!["run".into(), "-config".into(), configuration.into()],
            environment: Vec::new(),
            log: self
                .installation
                .directory
                .with_file_name("log")
                .join("spire-agent.log"),
            directory,
        };
        let process = Process::start(&self.installation.reaper, &program)?;
        process
            .until_ready(START, async || {
                UnixStream::connect(&socket).await?;
                Ok(Some(()))
            })
            .await?;
        *running = Some(process);
        Ok(socket)
    }

    /// What a process of the current user sees through the running agent's Workload API.
    pub async fn workload_view(&self) -> anyhow::Result<WorkloadView> {
        workload::view(&self.workload_socket()).await
    }

    /// Kills the agent.
    pub async fn stop_agent(&self) -> anyhow::Result<()> {
        stop(&self.running_agent).await
    }

    /// The Workload API's socket, once an agent runs.
    pub fn workload_socket(&self) -> PathBuf {
        self.installation.directory.join("agent.sock")
    }

    /// Runs a subcommand of spire-agent against the running agent, e.g. `api fetch x509 -write DIRECTORY`.
    pub async fn agent(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(self.installation.agent_program());
        command
            .args(arguments)
            .arg("-socketPath")
            .arg(self.workload_socket());
        run(&self.installation.reaper, command).await
    }

    /// The agent's SPIFFE ID: the parent of its workloads.
    pub fn agent_id(&self) -> String {
        format!("spiffe://{}/testbed/agent", self.trust_domain())
    }

    /// The SPIFFE ID that [`workload_entry`](Self::workload_entry) gives to processes of the current user.
    pub fn workload_id(&self) -> String {
        format!("spiffe://{}/testbed/workload", self.trust_domain())
    }

    /// Gives processes of the current user an identity that federates with other trust domains.
    pub async fn workload_entry(&self, federates_with: &[&str]) -> anyhow::Result<()> {
        let kind = GroupVersionKind::gvk("spire.spiffe.io", "v1alpha1", "ClusterStaticEntry");
        let entries: Api<DynamicObject> = Api::all_with(
            self.installation.client.clone(),
            &ApiResource::from_gvk(&kind),
        );
        let name = "testbed-workload";
        let entry = json!({
            "apiVersion": "spire.spiffe.io/v1alpha1",
            "kind": "ClusterStaticEntry",
            "metadata": {"name": name},
            "spec": {
                "className": self.class_name(),
                "parentID": self.agent_id(),
                "spiffeID": self.workload_id(),
                "selectors": [format!("unix:uid:{}", rustix::process::getuid().as_raw())],
                "federatesWith": federates_with,
            },
        });
        entries
            .patch(name, &field_manager(), &Patch::Apply(&entry))
            .await
            .context("cannot apply the workload's ClusterStaticEntry")?;
        Ok(())
    }

    async fn until_bundle_is_published(&self) -> anyhow::Result<()> {
        let config_maps: Api<ConfigMap> =
            Api::namespaced(self.installation.client.clone(), self.namespace());
        let key = if self.installation.spec.roots_only {
            ROOTS_KEY
        } else {
            BUNDLE_KEY
        };
        wait_until("spire-server to publish its bundle", START, async || {
            let published = config_maps.get(BUNDLE_CONFIG_MAP).await?;
            let data = published.data.unwrap_or_default();
            Ok(data.contains_key(key).then_some(()))
        })
        .await
    }
}

/// What can be asked of its server.
impl Deref for Spire {
    type Target = ServerCommands;

    fn deref(&self) -> &ServerCommands {
        &self.commands
    }
}

impl Installation {
    fn server_program(&self) -> PathBuf {
        self.programs.join("spire-server")
    }

    fn agent_program(&self) -> PathBuf {
        self.programs.join("spire-agent")
    }

    fn server_socket(&self) -> PathBuf {
        self.directory.join("server.sock")
    }

    /// The notifier writes a `ConfigMap` only if it is there.
    async fn make_config_map(&self) -> anyhow::Result<()> {
        let config_maps: Api<ConfigMap> =
            Api::namespaced(self.client.clone(), &self.spec.spire_namespace);
        let empty = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": BUNDLE_CONFIG_MAP},
        });
        config_maps
            .patch(BUNDLE_CONFIG_MAP, &field_manager(), &Patch::Apply(&empty))
            .await
            .context("cannot make the ConfigMap of the notifier")?;
        Ok(())
    }
}

async fn stop(running: &Mutex<Option<Process>>) -> anyhow::Result<()> {
    match running.lock().await.take() {
        Some(process) => process.kill(),
        None => Ok(()),
    }
}

fn write_json(path: &Path, content: &Value) -> anyhow::Result<()> {
    std::fs::write(path, serde_json::to_string_pretty(content)?)
        .with_context(|| format!("cannot write {}", path.display()))
}
