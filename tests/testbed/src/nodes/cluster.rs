//! A cluster of one real node.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::{Api, Client};

use super::NodeSpec;
use super::component::Components;
use super::dns::{self, Peer};
use super::fabric::Fabric;
use super::images::Images;
use super::load_balancer::LoadBalancer;
use super::node::Node;
use super::plan::{Addresses, ZONE};
use super::programs::{API_PORT, CONTAINERD, Programs};
use super::spire::Spire;
use crate::access::{Access, START};
use crate::binaries::{Binaries, NodeBinaries};
use crate::control_plane::ADMIN_TOKEN;
use crate::process::{arguments, wait_until};
use crate::reaper::Reaper;

/// A running cluster: its pods run, and its SPIRE is one of them.
pub struct NodeCluster {
    /// The trust domain's SPIRE.
    pub spire: Spire,
    name: String,
    bare: BareCluster,
    // Held for its end only.
    _load_balancer: LoadBalancer,
}

/// What all clusters of a testbed are made of.
pub(super) struct Parts<'a> {
    pub(super) reaper: &'a Arc<Reaper>,
    pub(super) fabric: &'a Fabric,
    pub(super) binaries: &'a Binaries,
    pub(super) node_binaries: &'a NodeBinaries,
    pub(super) images: &'a Images<'a>,
    pub(super) peers: &'a [Peer],
}

/// A cluster in which no pod runs yet.
struct BareCluster {
    node: Node,
    access: Access,
    components: Components,
    ctr: PathBuf,
}

impl NodeCluster {
    /// Starts everything and returns when SPIRE and the cluster's DNS are ready.
    pub(super) async fn start(
        parts: &Parts<'_>,
        directory: &Path,
        addresses: Addresses,
        spec: &NodeSpec,
    ) -> anyhow::Result<Self> {
        let name = &spec.cluster.name;
        let bare = BareCluster::start(parts, directory, addresses, spec)
            .await
            .with_context(|| format!("cannot start the node of {name}"))?;
        let spire = bare
            .install(parts, spec)
            .await
            .with_context(|| format!("cannot install SPIRE in {name}"))?;
        let client = bare.access.client.clone();
        Ok(Self {
            spire,
            name: name.clone(),
            bare,
            _load_balancer: LoadBalancer::start(client, addresses.node()),
        })
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.bare.node.name
    }

    /// The address of the node, under which the other clusters reach its `NodePort`s, and its Services of type
    /// `LoadBalancer` at their own ports.
    pub fn address(&self) -> Ipv4Addr {
        self.bare.node.addresses.node()
    }

    /// The name that all clusters know the node's address by.
    pub fn host_name(&self) -> String {
        format!("{}.{ZONE}", self.name)
    }

    /// A kubeconfig with all rights, for this process and those it starts.
    pub fn kubeconfig(&self) -> &Path {
        &self.bare.access.kubeconfig
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.bare.access.client.clone()
    }

    /// The directory with this cluster's data and logs.
    pub fn directory(&self) -> &Path {
        &self.bare.node.directory
    }

    /// Runs kubectl with all rights and returns its stdout.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.bare.access.kubectl(arguments).await
    }

    /// Applies manifests as `kubectl apply -f -` does.
    pub async fn kubectl_apply(&self, yaml: &str) -> anyhow::Result<String> {
        self.bare.access.kubectl_apply(yaml).await
    }

    /// Runs a command in the first container of a pod (`my-pod`, `deployment/app`) and returns its stdout.
    pub async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        command: &[&str],
    ) -> anyhow::Result<String> {
        let namespace = format!("--namespace={namespace}");
        let mut arguments = vec!["exec", namespace.as_str(), pod, "--"];
        arguments.extend(command);
        self.kubectl(&arguments).await
    }

    /// Waits until all pods of a workload (`deployment/app`) are of its current template, and ready. The error shows
    /// the namespace's pods and events.
    pub async fn until_rolled_out(&self, namespace: &str, workload: &str) -> anyhow::Result<()> {
        self.bare.access.until_rolled_out(namespace, workload).await
    }

    /// A kubeconfig with the rights of one `ServiceAccount`, which must exist, and no others.
    pub async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<PathBuf> {
        let access = &self.bare.access;
        access.service_account_kubeconfig(namespace, name).await
    }

    /// Gives the node an image, from the archive that it is in.
    pub async fn import(&self, archive: &Path) -> anyhow::Result<()> {
        self.bare.import(archive).await
    }

    /// Runs a program of this machine on the node and returns its stdout.
    pub async fn run_on_node(&self, program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
        let arguments = arguments.iter().map(Into::into).collect();
        self.bare.node.run(program, arguments).await
    }

    /// Kills a program of the node: `kube-apiserver`, `kubelet`, …; they are called as their logs are.
    pub async fn stop(&self, program: &str) -> anyhow::Result<()> {
        self.bare.components.stop(program).await
    }

    /// Starts a program of the node again, without waiting for it.
    pub async fn start_again(&self, program: &str) -> anyhow::Result<()> {
        self.bare.components.start(program).await
    }

    pub(super) fn addresses(&self) -> Addresses {
        self.bare.node.addresses
    }
}

impl BareCluster {
    /// Returns when the node is ready for pods.
    async fn start(
        parts: &Parts<'_>,
        directory: &Path,
        addresses: Addresses,
        spec: &NodeSpec,
    ) -> anyhow::Result<Self> {
        let Parts {
            reaper,
            fabric,
            binaries,
            node_binaries,
            ..
        } = *parts;
        // A node's name is a host's, a cluster's may have capitals.
        let name = spec.cluster.name.to_lowercase();
        let pause = node_binaries.pause();
        let node = Node::start(reaper, fabric, &pause, directory, &name, addresses).await?;
        let programs = Programs::prepare(&node, binaries, node_binaries)?;
        let components = Components::new(reaper);
        components.add(programs.containerd()?).await?;
        components.add(programs.etcd()).await?;
        components.add(programs.api_server()).await?;
        let access = Access::new(
            reaper,
            directory,
            binaries.kubectl(),
            format!(
                "https://127.0.0.1:{}",
                fabric.reach(addresses.node(), API_PORT).await?
            ),
            programs.authority.clone(),
            ADMIN_TOKEN,
        )
        .await?;
        let rest = [
            programs.controllers(),
            programs.scheduler(),
            programs.csi_driver(),
            programs.kubelet()?,
            programs.proxy()?,
        ];
        let bare = Self {
            node,
            access,
            components,
            ctr: node_binaries.ctr(),
        };
        // No pod waits for an image that is there before the kubelet is.
        bare.import_all(parts.images, spec).await?;
        bare.components
            .until("kube-apiserver", START, || bare.access.is_ready())
            .await?;
        for program in rest {
            bare.components.add(program).await?;
        }
        bare.until_node_is_ready().await?;
        Ok(bare)
    }

    async fn import_all(&self, images: &Images<'_>, spec: &NodeSpec) -> anyhow::Result<()> {
        let ctr = &self.ctr;
        self.components
            .until("containerd", START, async || {
                let version = arguments!["--address", CONTAINERD, "version"];
                self.node.run(ctr, version).await.map(Some)
            })
            .await?;
        let own = images.of_node(spec.cluster.spire_version()?)?;
        for archive in own.iter().chain(&spec.images) {
            self.import(archive).await?;
        }
        Ok(())
    }

    async fn import(&self, archive: &Path) -> anyhow::Result<()> {
        let arguments = arguments![
            "--address",
            CONTAINERD,
            "--namespace=k8s.io",
            "images",
            "import",
            archive,
        ];
        self.node
            .run(&self.ctr, arguments)
            .await
            .with_context(|| format!("cannot import {}", archive.display()))?;
        Ok(())
    }

    async fn until_node_is_ready(&self) -> anyhow::Result<()> {
        let nodes: Api<NodeObject> = Api::all(self.access.client.clone());
        self.components
            .until("kubelet", START, async || {
                let node = nodes.get(&self.node.name).await?;
                let conditions = node.status.and_then(|status| status.conditions);
                let ready = conditions
                    .unwrap_or_default()
                    .into_iter()
                    .any(|condition| condition.type_ == "Ready" && condition.status == "True");
                Ok(ready.then_some(()))
            })
            .await
            .context("the node is not ready")
    }

    async fn install(&self, parts: &Parts<'_>, spec: &NodeSpec) -> anyhow::Result<Spire> {
        let dns = dns::objects(self.node.addresses, parts.peers);
        self.access.kubectl_apply(&dns.to_string()).await?;
        self.access
            .install_crds(&parts.binaries.spire_crds())
            .await?;
        let spire = Spire::install(&self.access, spec).await?;
        self.access
            .until_rolled_out("kube-system", "deployment/coredns")
            .await?;
        self.until_default_service_account().await?;
        Ok(spire)
    }

    /// Without one, pods that name none are refused.
    async fn until_default_service_account(&self) -> anyhow::Result<()> {
        let what = "the ServiceAccount of pods that name none";
        wait_until(what, Duration::from_secs(20), async || {
            let arguments = ["get", "serviceaccount", "default", "--namespace=default"];
            self.access.kubectl(&arguments).await.map(Some)
        })
        .await?;
        Ok(())
    }
}
