//! SPIRE as it runs in a cluster: server, spire-controller-manager, and an agent when a test needs one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;

use crate::authority::Identity;
use crate::cluster::{ClusterSpec, field_manager};
use crate::port;
use crate::process::{Process, Program, run, wait_until};
use crate::reaper::Reaper;
use crate::workload::{self, WorkloadView};

const START: Duration = Duration::from_mins(1);

/// The `ConfigMap` that the server publishes its bundle to.
pub const BUNDLE_CONFIG_MAP: &str = "spire-bundle";

/// The key in it that holds the bundle in SPIFFE's format.
pub const BUNDLE_KEY: &str = "bundle.spiffe";

/// The key in it that holds the X.509 roots as PEM, where the server publishes nothing else.
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
        Ok(Self {
            installation,
            ports,
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

    /// Runs a subcommand of spire-server and returns its stdout. Flags come last, so the socket is added at the end.
    pub async fn server(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(self.installation.server_program());
        command
            .args(arguments)
            .arg("-socketPath")
            .arg(self.socket());
        run(&self.installation.reaper, command).await
    }

    /// The server's current bundle in SPIFFE's format.
    pub async fn own_bundle(&self) -> anyhow::Result<Value> {
        parse(
            &self
                .server(&["bundle", "show", "-format", "spiffe"])
                .await?,
        )
    }

    /// The bundle that the server has of another trust domain.
    pub async fn federated_bundle(&self, trust_domain: &str) -> anyhow::Result<Option<Value>> {
        let id = format!("spiffe://{trust_domain}");
        match self
            .server(&["bundle", "list", "-format", "spiffe", "-id", &id])
            .await
        {
            Ok(bundle) => parse(&bundle).map(Some),
            Err(error) if format!("{error:#}").to_lowercase().contains("not found") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The federation relationships that the server has.
    pub async fn federation(&self) -> anyhow::Result<Vec<Value>> {
        let mut list = parse(
            &self
                .server(&["federation", "list", "-output", "json"])
                .await?,
        )?;
        Ok(array(&mut list, "federation_relationships"))
    }

    /// The registration entries that the server has.
    pub async fn entries(&self) -> anyhow::Result<Vec<Value>> {
        let mut list = parse(&self.server(&["entry", "show", "-output", "json"]).await?)?;
        Ok(array(&mut list, "entries"))
    }

    /// The registration entries that federate with a trust domain.
    pub async fn entries_federating_with(&self, trust_domain: &str) -> anyhow::Result<Vec<Value>> {
        let id = format!("spiffe://{trust_domain}");
        let arguments = ["entry", "show", "-federatesWith", &id, "-output", "json"];
        let mut list = parse(&self.server(&arguments).await?)?;
        Ok(array(&mut list, "entries"))
    }

    /// The trust domains that the server has bundles of, its own not among them.
    pub async fn federated_trust_domains(&self) -> anyhow::Result<Vec<String>> {
        let list = parse(&self.server(&["bundle", "list", "-output", "json"]).await?)?;
        let bundles = list["bundles"].as_array().into_iter().flatten();
        Ok(bundles
            .filter_map(|bundle| bundle["trust_domain"].as_str())
            .map(str::to_owned)
            .collect())
    }

    /// Sets the server's bundle of another trust domain by hand, whatever it is.
    pub async fn set_federated_bundle(
        &self,
        trust_domain: &str,
        bundle: &Value,
    ) -> anyhow::Result<()> {
        let path = self.installation.directory.join("set-bundle.json");
        write_json(&path, bundle)?;
        let id = format!("spiffe://{trust_domain}");
        let path = path.to_str().context("a path that is not UTF-8")?;
        let arguments = [
            "bundle", "set", "-format", "spiffe", "-id", &id, "-path", path,
        ];
        self.server(&arguments).await?;
        Ok(())
    }

    /// Prepares a new X.509 authority: the bundle has two from now on. Returns its id.
    pub async fn rotate_x509(&self) -> anyhow::Result<String> {
        let prepared = parse(
            &self
                .server(&["localauthority", "x509", "prepare", "-output", "json"])
                .await?,
        )?;
        authority_id(&prepared, "prepared_authority")
    }

    /// Has the prepared authority sign from now on; the old one stays in the bundle. Returns the new one's id.
    ///
    /// An agent that has not yet synchronized the prepared authority no longer trusts the server then, and ends.
    pub async fn activate_prepared_x509(&self) -> anyhow::Result<String> {
        let shown = parse(
            &self
                .server(&["localauthority", "x509", "show", "-output", "json"])
                .await?,
        )?;
        let id = authority_id(&shown, "prepared")?;
        self.server(&["localauthority", "x509", "activate", "-authorityID", &id])
            .await?;
        Ok(id)
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

    fn socket(&self) -> PathBuf {
        self.installation.server_socket()
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
        let ca_ttl = self.spec.ca_ttl.unwrap_or(Duration::from_hours(24));
        json!({
            "server": {
                "bind_address": "127.0.0.1",
                "bind_port": ports.server.to_string(),
                "socket_path": self.server_socket(),
                "trust_domain": self.spec.trust_domain,
                "data_dir": self.directory,
                "log_level": "DEBUG",
                "ca_ttl": format!("{}s", ca_ttl.as_secs()),
                "default_x509_svid_ttl": "1h",
                "ca_subject": [{
                    "common_name": self.spec.name,
                    "country": ["US"],
                    "organization": ["Trustweave testbed"],
                }],
                "federation": {
                    "bundle_endpoint": {
                        "address": "127.0.0.1",
                        "port": ports.bundle_endpoint,
                        "refresh_hint": "60s",
                        "profile": [{"https_spiffe": {}}],
                    },
                },
            },
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
        json!({
            "apiVersion": "spire.spiffe.io/v1alpha1",
            "kind": "ControllerManagerConfig",
            "metadata": {"name": "spire-controller-manager"},
            "metrics": {"bindAddress": "0"},
            "health": {"healthProbeBindAddress": format!("127.0.0.1:{}", ports.health)},
            "clusterName": self.spec.name,
            // Else it asks the machine's DNS, and waits as long as that one takes.
            "clusterDomain": "cluster.local",
            "trustDomain": self.spec.trust_domain,
            "className": self.spec.class_name,
            "watchClassless": false,
            "ignoreNamespaces": ["kube-system"],
            "spireServerSocketPath": self.server_socket(),
        })
    }
}

async fn stop(running: &Mutex<Option<Process>>) -> anyhow::Result<()> {
    match running.lock().await.take() {
        Some(process) => process.kill(),
        None => Ok(()),
    }
}

fn parse(text: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text).with_context(|| format!("not JSON: {text}"))
}

fn array(list: &mut Value, key: &str) -> Vec<Value> {
    match list.get_mut(key).map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn authority_id(answer: &Value, authority: &str) -> anyhow::Result<String> {
    match answer[authority]["authority_id"].as_str() {
        Some(id) if !id.is_empty() => Ok(id.to_owned()),
        _ => bail!("spire-server names no {authority}: {answer}"),
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
