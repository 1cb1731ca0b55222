//! What a kubelet does for one pod, that of the SPIRE server.
//!
//! The `StatefulSet` controller and the scheduler are real, so a changed pod template replaces the pod as it would in
//! any cluster. Here the pod's containers become processes of this machine: with the content that the mounted
//! `ConfigMap`s have when a container starts, adapted to the machine ([`crate::loopback`]). A container that ends is
//! started again, and the pod's status says so; a `ConfigMap` that changes restarts nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::clock::now;
use crate::cluster::NODE;
use crate::loopback::{CONFIGURATION_MOUNT, Loopback};
use crate::process::{Process, Program, http_get, run};
use crate::reaper::Reaper;
use crate::server_objects::{
    CONTROLLER_MANAGER, CONTROLLER_MANAGER_KEY, DATA_VOLUME, POD, SPIRE_SERVER,
};

/// How often the pod is looked at.
const LOOK: Duration = Duration::from_millis(150);

/// The longest pause before a container is started again; a kubelet's is five minutes.
const BACK_OFF: Duration = Duration::from_secs(4);

/// A program that runs as long as its pod has it run.
pub(crate) struct Container {
    pub(crate) program: Program,
    pub(crate) running: Mutex<Option<Process>>,
    /// A test keeps it from running.
    held: AtomicBool,
}

impl Container {
    pub(crate) fn new(program: Program) -> Self {
        Self {
            program,
            running: Mutex::new(None),
            held: AtomicBool::new(false),
        }
    }

    /// Kills it, and keeps it from being started by its pod.
    pub(crate) async fn hold(&self) -> anyhow::Result<()> {
        self.held.store(true, Ordering::SeqCst);
        self.kill().await
    }

    pub(crate) fn release(&self) {
        self.held.store(false, Ordering::SeqCst);
    }

    async fn kill(&self) -> anyhow::Result<()> {
        match self.running.lock().await.take() {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    async fn is_running(&self) -> bool {
        let running = self.running.lock().await;
        running.as_ref().is_some_and(Process::is_running)
    }
}

/// What the kubelet is told about the machine.
pub(crate) struct Machine {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) reaper: Arc<Reaper>,
    /// Where configurations are mounted.
    pub(crate) configuration: PathBuf,
    pub(crate) loopback: Loopback,
    pub(crate) server: Arc<Container>,
    pub(crate) controller_manager: Arc<Container>,
}

/// A kubelet at work; it ends with this value.
pub(crate) struct Kubelet {
    task: JoinHandle<()>,
    starts: Arc<AtomicU64>,
}

impl Kubelet {
    pub(crate) fn start(machine: Machine) -> Self {
        let starts = Arc::new(AtomicU64::new(0));
        let mut work = Work {
            pods: Api::namespaced(machine.client.clone(), &machine.namespace),
            config_maps: Api::namespaced(machine.client.clone(), &machine.namespace),
            machine,
            starts: Arc::clone(&starts),
            pod: None,
        };
        let task = tokio::spawn(async move {
            loop {
                // What fails, as with an API server that is away, is tried again.
                drop(work.look().await);
                tokio::time::sleep(LOOK).await;
            }
        });
        Self { task, starts }
    }

    /// How often the server was started.
    pub(crate) fn starts(&self) -> u64 {
        self.starts.load(Ordering::SeqCst)
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Work {
    pods: Api<Pod>,
    config_maps: Api<ConfigMap>,
    machine: Machine,
    starts: Arc<AtomicU64>,
    pod: Option<Admitted>,
}

/// The pod that has the containers.
struct Admitted {
    uid: String,
    restarts: u32,
    state: State,
    exit_code: Option<i32>,
    /// When the server was started last.
    started: String,
    /// The status that was written last.
    said: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The server starts then.
    Waiting(Instant),
    Starting,
    Ready,
}

impl Work {
    async fn look(&mut self) -> anyhow::Result<()> {
        match self.pods.get_opt(POD).await? {
            Some(pod) if pod.metadata.deletion_timestamp.is_some() => {
                self.stop().await?;
                self.forget(&pod).await
            }
            Some(pod) if node(&pod) == Some(NODE) => self.keep(&pod).await,
            _ => self.stop().await,
        }
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        self.pod = None;
        self.machine.controller_manager.kill().await?;
        self.machine.server.kill().await
    }

    /// A deleted pod is gone once its kubelet says that its containers are.
    async fn forget(&self, pod: &Pod) -> anyhow::Result<()> {
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        self.pods.delete(POD, &parameters).await?;
        Ok(())
    }

    async fn keep(&mut self, pod: &Pod) -> anyhow::Result<()> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if self.pod.as_ref().is_none_or(|admitted| admitted.uid != uid) {
            self.stop().await?;
            self.mount_data(pod)?;
            self.pod = Some(Admitted {
                uid,
                restarts: 0,
                state: State::Waiting(Instant::now()),
                exit_code: None,
                started: String::new(),
                said: Value::Null,
            });
        }
        let stepped = self.step(pod).await;
        self.report(pod).await?;
        stepped
    }

    async fn step(&mut self, pod: &Pod) -> anyhow::Result<()> {
        let Some(state) = self.pod.as_ref().map(|admitted| admitted.state) else {
            return Ok(());
        };
        let next = match state {
            State::Waiting(then) if then <= Instant::now() && self.start_server(pod).await? => {
                State::Starting
            }
            State::Starting | State::Ready if !self.machine.server.is_running().await => {
                self.ended().await?
            }
            State::Starting if self.healthy().await => State::Ready,
            State::Ready => {
                self.start_controller_manager(pod).await?;
                State::Ready
            }
            unchanged => unchanged,
        };
        if let Some(admitted) = &mut self.pod {
            if next == State::Starting && state != next {
                admitted.started = now();
            }
            admitted.state = next;
        }
        Ok(())
    }

    /// The server ended: it is started again after a while that grows each time.
    async fn ended(&mut self) -> anyhow::Result<State> {
        let process = self.machine.server.running.lock().await.take();
        let status = process.and_then(|process| process.status().ok().flatten());
        self.machine.controller_manager.kill().await?;
        let mut pause = BACK_OFF;
        if let Some(admitted) = &mut self.pod {
            admitted.exit_code = Some(status.and_then(|status| status.code()).unwrap_or(137));
            pause = BACK_OFF.min(Duration::from_millis(500) * 2_u32.pow(admitted.restarts.min(3)));
            admitted.restarts += 1;
        }
        Ok(State::Waiting(Instant::now() + pause))
    }

    async fn start_server(&self, pod: &Pod) -> anyhow::Result<bool> {
        let server = &self.machine.server;
        let mut running = server.running.lock().await;
        if server.held.load(Ordering::SeqCst) {
            return Ok(false);
        }
        for (key, text) in self
            .config_map(pod, SPIRE_SERVER, CONFIGURATION_MOUNT)
            .await?
        {
            // What is no JSON is for SPIRE to judge.
            let text = match serde_json::from_str(&text) {
                Ok(configuration) => format!("{:#}", self.machine.loopback.server(configuration)),
                Err(_) => text,
            };
            self.mount(&key, &text)?;
        }
        let mounted = self.machine.configuration.to_str();
        let mounted = mounted.context("a path that is not UTF-8")?;
        let arguments = arguments(pod, SPIRE_SERVER).into_iter();
        let arguments = arguments.map(|it| it.replace(CONFIGURATION_MOUNT, mounted).into());
        let mut program = server.program.clone();
        program.arguments = std::iter::once("run".into()).chain(arguments).collect();
        *running = Some(Process::start(&self.machine.reaper, &program)?);
        self.starts.fetch_add(1, Ordering::SeqCst);
        Ok(true)
    }

    async fn healthy(&self) -> bool {
        let mut command = tokio::process::Command::new(&self.machine.server.program.path);
        command
            .args(["healthcheck", "-socketPath"])
            .arg(&self.machine.loopback.socket);
        run(&self.machine.reaper, command).await.is_ok()
    }

    async fn start_controller_manager(&self, pod: &Pod) -> anyhow::Result<()> {
        let container = &self.machine.controller_manager;
        let mut running = container.running.lock().await;
        if running.as_ref().is_some_and(Process::is_running)
            || container.held.load(Ordering::SeqCst)
        {
            return Ok(());
        }
        let mount = format!("/{CONTROLLER_MANAGER_KEY}");
        for (key, text) in self.config_map(pod, CONTROLLER_MANAGER, &mount).await? {
            let configuration = serde_saphyr::from_str(&text)?;
            let configuration = self.machine.loopback.controller_manager(configuration);
            self.mount(&key, &format!("{configuration:#}"))?;
        }
        *running = Some(Process::start(&self.machine.reaper, &container.program)?);
        Ok(())
    }

    fn mount(&self, key: &str, text: &str) -> anyhow::Result<()> {
        let path = self.machine.configuration.join(key);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// An `emptyDir` is as new as its pod.
    fn mount_data(&self, pod: &Pod) -> anyhow::Result<()> {
        let data = &self.machine.loopback.data;
        let volumes = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten());
        let mut volumes = volumes.filter(|volume| volume.name == DATA_VOLUME);
        if volumes.any(|volume| volume.empty_dir.is_some()) && data.exists() {
            std::fs::remove_dir_all(data)
                .with_context(|| format!("cannot empty {}", data.display()))?;
        }
        std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))
    }

    /// The content of the `ConfigMap` that a container has mounted at a path.
    async fn config_map(
        &self,
        pod: &Pod,
        container: &str,
        path: &str,
    ) -> anyhow::Result<Vec<(String, String)>> {
        let name = mounted_config_map(pod, container, path)
            .with_context(|| format!("{container} has no ConfigMap at {path}"))?;
        let config_map = self.config_maps.get(&name).await?;
        Ok(config_map.data.into_iter().flatten().collect())
    }

    async fn controller_manager_ready(&self, admitted: &Admitted) -> bool {
        let before = &admitted.said["containerStatuses"][1]["ready"] == true;
        self.machine.controller_manager.is_running().await
            && (before || http_ready(self.machine.loopback.controller_manager_health_port).await)
    }

    async fn report(&mut self, pod: &Pod) -> anyhow::Result<()> {
        let Some(admitted) = &self.pod else {
            return Ok(());
        };
        let ready = admitted.state == State::Ready;
        let manager = ready && self.controller_manager_ready(admitted).await;
        let status = admitted.status(pod, ready, manager);
        if status != admitted.said {
            let patch = Patch::Merge(json!({"status": status}));
            self.pods
                .patch_status(POD, &PatchParams::default(), &patch)
                .await?;
            if let Some(admitted) = &mut self.pod {
                admitted.said = status;
            }
        }
        Ok(())
    }
}

impl Admitted {
    fn status(&self, pod: &Pod, server_ready: bool, manager_ready: bool) -> Value {
        let condition = |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }});
        let ready = server_ready && manager_ready;
        let server = match self.state {
            State::Waiting(_) if self.restarts > 0 => {
                json!({"waiting": {"reason": "CrashLoopBackOff"}})
            }
            State::Waiting(_) => json!({"waiting": {"reason": "ContainerCreating"}}),
            State::Starting | State::Ready => json!({"running": {"startedAt": self.started}}),
        };
        let last = self.exit_code.map_or_else(
            || json!({}),
            |code| json!({"terminated": {"exitCode": code, "reason": "Error"}}),
        );
        let manager = if server_ready {
            json!({"running": {}})
        } else {
            json!({"waiting": {"reason": "ContainerCreating"}})
        };
        let image = |name: &str| {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut containers = containers.filter(|container| container.name == name);
            containers.find_map(|it| it.image.clone())
        };
        json!({
            "phase": if self.exit_code.is_none() && !server_ready { "Pending" } else { "Running" },
            // An address of nobody: what runs in the pod listens on this machine's loopback.
            "podIP": "192.0.2.1",
            "podIPs": [{"ip": "192.0.2.1"}],
            "conditions": [
                condition("PodScheduled", true),
                condition("Initialized", true),
                condition("ContainersReady", ready),
                condition("Ready", ready),
            ],
            "containerStatuses": [
                {
                    "name": SPIRE_SERVER,
                    "image": image(SPIRE_SERVER),
                    "imageID": "",
                    "ready": server_ready,
                    "started": server_ready,
                    "restartCount": self.restarts,
                    "state": server,
                    "lastState": last,
                },
                {
                    "name": CONTROLLER_MANAGER,
                    "image": image(CONTROLLER_MANAGER),
                    "imageID": "",
                    "ready": manager_ready,
                    "started": manager_ready,
                    "restartCount": 0,
                    "state": manager,
                    "lastState": {},
                },
            ],
        })
    }
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn arguments(pod: &Pod, name: &str) -> Vec<String> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut containers = containers.filter(|container| container.name == name);
    let found = containers.next().and_then(|it| it.args.clone());
    found.unwrap_or_default()
}

fn mounted_config_map(pod: &Pod, container: &str, path: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let container = spec.containers.iter().find(|it| it.name == container)?;
    let mut mounts = container.volume_mounts.iter().flatten();
    let mount = mounts.find(|mount| mount.mount_path == path)?;
    let mut volumes = spec.volumes.iter().flatten();
    let volume = volumes.find(|volume| volume.name == mount.name)?;
    volume.config_map.as_ref().map(|it| it.name.clone())
}

async fn http_ready(port: u16) -> bool {
    let answer = http_get(port, "/readyz").await.unwrap_or_default();
    let status = answer.lines().next().unwrap_or_default();
    status.contains(" 200 ")
}
