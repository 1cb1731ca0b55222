//! SPIRE as it runs in a cluster: server, spire-controller-manager, and an agent when a test needs one.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;

use crate::access::field_manager;
use crate::authority::Identity;
use crate::cluster::ClusterSpec;
use crate::port;
use crate::process::{Process, Program, run, wait_until};
use crate::reaper::Reaper;
use crate::server_commands::{ServerCommands, parse};
use crate::spire_configuration;
use crate::workload::{self, WorkloadView};

pub use crate::spire_configuration::{BUNDLE_CONFIG_MAP, BUNDLE_KEY};

const START: Duration = Duration::from_mins(1);

/// The key in [`BUNDLE_CONFIG_MAP`] that holds the X.509 roots as PEM, where the server publishes nothing else.
pub const ROOTS_KEY: &str = "bundle.crt";

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
    pub(crate) reaper: Arc<Reaper>,
}

/// The SPIRE of one trust domain.
pub struct Spire {
    installation: Installation,
    ports: Ports,
    commands: ServerCommands,
    server: Program,
    controller_manager: Program,
    running_server: Mutex<Option<Process>>,
    running_controller_manager: Mutex<Option<Process>>,
    running_agent: Mutex<Option<Process>>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    server: u16,
    bundle_endpoint: u16,
    health: u16,
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
        match spire.start_server().await {
            Err(error) if port::was_taken(&error) => {
                spire = Self::new(spire.installation)?;
                spire.start_server().await?;
            }
            started => started?,
        }
        spire.start_controller_manager().await?;
        spire.until_bundle_is_published().await?;
        Ok(spire)
    }

    fn new(installation: Installation) -> anyhow::Result<Self> {
        let ports = Ports {
            server: port::free()?,
            bundle_endpoint: port::free()?,
            health: port::free()?,
        };
        let directory = &installation.directory;
        let logs = directory.with_file_name("log");
        let configuration = directory.join("server.conf");
        let server = Program {
            name: "spire-server".to_owned(),
            path: installation.server_program(),
            arguments: vec!["run".into(), "-config".into(), configuration.clone().into()],
            environment: vec![(
                "SSL_CERT_FILE".into(),
                installation.web_authority.clone().into(),
            )],
            directory: directory.clone(),
            log: logs.join("spire-server.log"),
        };
        write_json(&configuration, &installation.server_configuration(ports))?;
        let configuration = directory.join("controller-manager.yaml");
        write_json(
            &configuration,
            &installation.controller_manager_configuration(ports),
        )?;
        let controller_manager = Program {
            name: "spire-controller-manager".to_owned(),
            path: installation.controller_manager.clone(),
            arguments: vec!["-config".into(), configuration.into()],
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
            ports,
            commands,
            server,
            controller_manager,
            running_server: Mutex::new(None),
            running_controller_manager: Mutex::new(None),
            running_agent: Mutex::new(None),
        })
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
        format!("https://127.0.0.1:{}", self.ports.bundle_endpoint)
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
        let path = self.installation.directory.join("server.conf");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        parse(&text)
    }

    /// Replaces the server's configuration; it takes effect with the next start.
    pub fn set_configuration(&self, configuration: &Value) -> anyhow::Result<()> {
        write_json(
            &self.installation.directory.join("server.conf"),
            configuration,
        )
    }

    /// Kills the server.
    pub async fn stop_server(&self) -> anyhow::Result<()> {
        stop(&self.running_server).await
    }

    /// Starts the server with the keys and data it had, and waits until it is healthy.
    pub async fn start_server(&self) -> anyhow::Result<()> {
        let mut running = self.running_server.lock().await;
        if running.is_none() {
            let process = Process::start(&self.installation.reaper, &self.server)?;
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

    /// Kills spire-controller-manager.
    pub async fn stop_controller_manager(&self) -> anyhow::Result<()> {
        stop(&self.running_controller_manager).await
    }

    /// Starts spire-controller-manager and waits until it is ready.
    pub async fn start_controller_manager(&self) -> anyhow::Result<()> {
        let mut running = self.running_controller_manager.lock().await;
        if running.is_none() {
            let process = Process::start(&self.installation.reaper, &self.controller_manager)?;
            process
                .until_ready(START, async || {
                    let answer = http_get(self.ports.health, "/readyz").await?;
                    let status = answer.lines().next().unwrap_or_default();
                    anyhow::ensure!(status.contains(" 200 "), "/readyz says {status}");
                    Ok(Some(()))
                })
                .await?;
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
                    "server_port": self.ports.server.to_string(),
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

    /// What makes the server's bundle known in the cluster, as type and configuration of a plugin.
    fn publication(&self) -> (&str, Value) {
        let namespace = &self.spec.spire_namespace;
        if self.spec.roots_only {
            let notifier = json!([{"k8sbundle": {"plugin_data": {
                "namespace": namespace,
                "config_map": BUNDLE_CONFIG_MAP,
                "config_map_key": ROOTS_KEY,
                "kube_config_file_path": self.kubeconfig,
            }}}]);
            return ("Notifier", notifier);
        }
        let publisher = json!([{"k8s_configmap": {"plugin_data": {"clusters": {
            &self.spec.name: {
                "format": "spiffe",
                "namespace": namespace,
                "configmap_name": BUNDLE_CONFIG_MAP,
                "configmap_key": BUNDLE_KEY,
                "kubeconfig_path": self.kubeconfig,
            },
        }}}}]);
        ("BundlePublisher", publisher)
    }

    /// JSON, as every distribution writes it.
    fn server_configuration(&self, ports: Ports) -> Value {
        let (publication, plugin) = self.publication();
        let mut server = spire_configuration::server(&self.spec);
        server["bind_address"] = json!("127.0.0.1");
        server["bind_port"] = json!(ports.server.to_string());
        server["socket_path"] = json!(self.server_socket());
        server["data_dir"] = json!(self.directory);
        server["federation"] = spire_configuration::federation("127.0.0.1", ports.bundle_endpoint);
        json!({
            "server": server,
            "plugins": {
                "DataStore": [{"sql": {"plugin_data": {
                    "database_type": "sqlite3",
                    "connection_string": self.directory.join("datastore.sqlite3"),
                }}}],
                "NodeAttestor": [{"join_token": {"plugin_data": {}}}],
                "KeyManager": [{"disk": {"plugin_data": {"keys_path": self.directory.join("keys.json")}}}],
                publication: plugin,
            },
        })
    }

    fn controller_manager_configuration(&self, ports: Ports) -> Value {
        let mut configuration = spire_configuration::controller_manager(&self.spec);
        configuration["health"] =
            json!({"healthProbeBindAddress": format!("127.0.0.1:{}", ports.health)});
        configuration["ignoreNamespaces"] = json!(["kube-system"]);
        configuration["spireServerSocketPath"] = json!(self.server_socket());
        configuration
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

/// Enough of HTTP for a health endpoint.
async fn http_get(port: u16, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
