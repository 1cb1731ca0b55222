//! The agents in their pods: which of a cluster's agents leads, what each answers, and what it needs.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use super::federation::{Federation, NAMESPACE};
use crate::access::START;
use crate::federation::{PATIENCE, sum};
use crate::measure::resident;
use crate::process::wait_until;

/// What the agents' pods are labelled with.
const LABEL: &str = "app.kubernetes.io/name=trustweave";

/// Where they serve health and metrics.
const PORT: u16 = 8080;

/// How many there are in each cluster, as the Deployment has it.
const REPLICAS: usize = 2;

impl Federation {
    /// The pods of a cluster's agents, but for those that are about to end.
    pub async fn pods(&self, cluster: &str) -> anyhow::Result<Vec<String>> {
        let client = self.nodes.cluster(cluster)?.client();
        let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
        let pods = pods.list(&ListParams::default().labels(LABEL)).await?;
        let staying = pods.items.into_iter().map(|pod| pod.metadata);
        let staying = staying.filter(|metadata| metadata.deletion_timestamp.is_none());
        Ok(staying.filter_map(|metadata| metadata.name).collect())
    }

    /// The pod whose agent writes: the one that holds the Lease.
    pub async fn leader(&self, cluster: &str) -> anyhow::Result<String> {
        let client = self.nodes.cluster(cluster)?.client();
        let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
        let lease = leases.get("trustweave").await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity);
        let holder = holder.filter(|holder| !holder.is_empty());
        holder.with_context(|| format!("no agent of {cluster} holds the Lease"))
    }

    /// What an agent answers to GET on a path, asked through the API server.
    pub async fn http_get(&self, cluster: &str, pod: &str, path: &str) -> anyhow::Result<String> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{PORT}/proxy{path}");
        let request = http::Request::get(path).body(Vec::new())?;
        let client = self.nodes.cluster(cluster)?.client();
        Ok(client.request_text(request).await?)
    }

    /// Waits until one agent of a cluster leads, and the others stand by; what each says of itself, the leader first.
    pub async fn one_leads(&self, cluster: &str) -> anyhow::Result<Vec<(String, String)>> {
        let what = format!("one agent of {cluster} to lead, and the others to stand by");
        wait_until(&what, PATIENCE, async || {
            let leader = self.leader(cluster).await?;
            let mut told = Vec::new();
            for pod in self.pods(cluster).await? {
                let ready = self.http_get(cluster, &pod, "/readyz").await?;
                let metrics = self.http_get(cluster, &pod, "/metrics").await?;
                let leads = sum(&metrics, "trustweave_leader") > 0.0;
                let right = if pod == leader {
                    leads && ready == "ok\n"
                } else {
                    !leads && ready == format!("standby: {leader} holds the Lease\n")
                };
                anyhow::ensure!(right, "{pod} says {ready}");
                told.push((pod, ready.trim_end().to_owned()));
            }
            anyhow::ensure!(told.len() == REPLICAS, "the pods are {told:?}");
            told.sort_by_key(|(pod, _)| *pod != leader);
            Ok(Some(told))
        })
        .await
    }

    /// The end of the log of the agent that leads in a cluster; of all, if none does.
    pub async fn log(&self, cluster: &str) -> anyhow::Result<String> {
        let namespace = format!("--namespace={NAMESPACE}");
        let selector = format!("--selector={LABEL}");
        let leader = self.leader(cluster).await.ok();
        let whose = leader.as_deref().unwrap_or(&selector);
        let logs = ["logs", whose, &namespace, "--tail=20"];
        self.nodes.cluster(cluster)?.kubectl(&logs).await
    }

    /// The resident memory of each agent of a cluster in KiB, by pod, the leader first.
    pub async fn resident(&self, cluster: &str) -> anyhow::Result<Vec<(String, u32)>> {
        let told = self.one_leads(cluster).await?.into_iter();
        told.map(|(pod, _)| {
            let memory = resident(process_of(&pod)?)?;
            Ok((pod, memory))
        })
        .collect()
    }

    /// Waits until all agents of a cluster are ready for the first time; how long each took from the start of its
    /// process, by pod.
    pub(super) async fn start_up(&self, cluster: &str) -> anyhow::Result<Vec<(String, Duration)>> {
        let ready = Mutex::new(BTreeMap::new());
        let seen = || ready.lock().unwrap_or_else(PoisonError::into_inner);
        let what = format!("the agents of {cluster} to be ready");
        wait_until(&what, START, async || {
            let mut failure = None;
            for pod in self.pods(cluster).await? {
                if seen().contains_key(&pod) {
                    continue;
                }
                match self.http_get(cluster, &pod, "/readyz").await {
                    Ok(_) => {
                        let now = since_boot()?;
                        seen().insert(pod, now);
                    }
                    Err(error) => failure = Some(error.context(pod)),
                }
            }
            if seen().len() == REPLICAS {
                return Ok(Some(()));
            }
            failure.map_or(Ok(None), Err)
        })
        .await?;
        let ready = ready.into_inner().unwrap_or_else(PoisonError::into_inner);
        let took = ready.into_iter().map(|(pod, ready)| {
            let took = ready.saturating_sub(started(process_of(&pod)?)?);
            Ok((pod, took))
        });
        took.collect()
    }
}

/// The process of the agent in a pod, as this machine numbers it: its environment has the pod's name.
fn process_of(pod: &str) -> anyhow::Result<u32> {
    let name = format!("TRUSTWEAVE_NAME={pod}");
    for entry in std::fs::read_dir("/proc").context("list processes")? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|id| id.parse().ok()) else {
            continue;
        };
        // Others' processes come and go.
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        if variables.any(|variable| variable == name.as_bytes()) {
            return Ok(id);
        }
    }
    bail!("no process is the agent of the pod {pod}")
}

/// How long after the machine a process was started, in steps of 10 ms (`starttime` in proc(5)).
fn started(process: u32) -> anyhow::Result<Duration> {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat"))
        .context("read when the agent was started")?;
    // The program's name, in parentheses, may have spaces; the field behind it is the third one.
    let (_, fields) = status
        .rsplit_once(')')
        .context("a process without a name")?;
    let ticks = fields
        .split_whitespace()
        .nth(22 - 3)
        .context("no start time")?;
    let ticks: f64 = ticks.parse().context("the start time is no number")?;
    #[expect(clippy::cast_precision_loss, reason = "it is 100")]
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok(Duration::try_from_secs_f64(ticks / per_second)?)
}

/// How long ago the machine was started.
fn since_boot() -> anyhow::Result<Duration> {
    let uptime = std::fs::read_to_string("/proc/uptime").context("read the uptime")?;
    let seconds = uptime.split_whitespace().next().context("no uptime")?;
    let seconds: f64 = seconds.parse().context("the uptime is no number")?;
    Ok(Duration::try_from_secs_f64(seconds)?)
}
