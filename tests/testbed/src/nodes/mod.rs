//! Level 2: clusters whose pods run.
//!
//! A [`Testbed`](crate::Testbed) has real control planes and nothing that runs a pod. Here each cluster has a real
//! node: kubelet, containerd and runc, with a network for pods, DNS, and SPIRE installed as distributions install it.
//! All of it are ordinary processes in namespaces of the kernel: the host's network is not touched and not reachable
//! from inside, and what a node writes is below the testbed's directory.
//!
//! * [`fabric`]: the network between the nodes. It has no way out. This process is outside of it, and reaches
//!   addresses inside through ports on 127.0.0.1 ([`Fabric::reach`]); pods reach the git server at
//!   [`Nodes::git_url`].
//! * [`cluster`]: a node and what runs on it. Pods reach other clusters at the address of a node, and by name.
//! * [`spire`]: SPIRE in pods.
//! * [`federation`]: clusters whose agents are installed as users install them.
//!
//! This needs root and Linux with control groups of version 1; what else is missing is named at once. It ends as
//! level 1 does ([`reaper`](crate::reaper)): a node is the first process of a PID namespace, whose death ends the
//! others and drops the node's mounts; the network namespaces have no names, so they go with their processes; the
//! watchdog removes the control groups.

pub mod agents;
mod cgroups;
pub mod cluster;
mod component;
mod dns;
pub mod fabric;
pub mod federation;
mod forward;
mod images;
pub mod installation;
mod load_balancer;
mod node;
mod plan;
mod programs;
mod registrations;
mod requirements;
pub mod spire;
pub mod workloads;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;

pub use self::cluster::NodeCluster;
pub use self::fabric::Fabric;
pub use self::spire::Spire as PodSpire;

use self::cluster::Parts;
use self::dns::Peer;
use self::images::Images;
use self::plan::{Addresses, OUTSIDE, ZONE};
use crate::binaries::NodeBinaries;
use crate::cluster::ClusterSpec;
use crate::git::GitRemote;
use crate::reaper::Reaper;
use crate::tell_start;

/// The port of `git://` URLs without one.
const GIT_PORT: u16 = 9418;

/// What a cluster with a node is called and has.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// The cluster and its SPIRE, whose roots are published in PEM in any case.
    pub cluster: ClusterSpec,
    /// Archives of images that the node has besides the testbed's own.
    pub images: Vec<PathBuf>,
}

impl NodeSpec {
    /// SPIRE publishes its bundle inside the cluster only.
    pub fn new(cluster: ClusterSpec) -> Self {
        Self {
            cluster,
            images: Vec::new(),
        }
    }
}

/// Clusters with nodes, a git server, and the network between them; all of it ends with this value.
pub struct Nodes {
    clusters: Vec<NodeCluster>,
    /// The git server; pods know it by [`Nodes::git_url`].
    pub git: GitRemote,
    /// The network between the nodes.
    pub fabric: Fabric,
    reaper: Arc<Reaper>,
}

impl Nodes {
    /// Starts all clusters at once, and a git server.
    pub async fn start(
        specs: &[NodeSpec],
        progress: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<Self> {
        requirements::check()?;
        let binaries = crate::binaries_for(specs.iter().map(|spec| &spec.cluster), progress)?;
        let node_binaries = NodeBinaries::ensure(progress)?;
        let begin = Instant::now();
        let reaper = Arc::new(Reaper::start()?);
        let directory = reaper.directory();
        anyhow::ensure!(
            !["/etc", "/run", "/var"]
                .iter()
                .any(|own| directory.starts_with(own)),
            "a node has its own /etc, /run and /var: set TMPDIR to another directory than {}",
            directory.display()
        );
        let fabric = Fabric::start(&reaper, &node_binaries.pause(), specs.len()).await?;
        let git = GitRemote::create(&reaper, &directory.join("git"), "federation").await?;
        fabric.offer(GIT_PORT, git.port()).await?;
        let images = Images::new(&binaries, &node_binaries, &directory.join("images"))?;
        let addresses = (0..specs.len()).map(Addresses::new);
        let addresses = addresses.collect::<anyhow::Result<Vec<_>>>()?;
        let peers = specs.iter().zip(&addresses).map(|(spec, addresses)| Peer {
            name: spec.cluster.name.clone(),
            trust_domain: spec.cluster.trust_domain.clone(),
            node: addresses.node(),
        });
        let peers: Vec<Peer> = peers.collect();
        let parts = Parts {
            reaper: &reaper,
            fabric: &fabric,
            binaries: &binaries,
            node_binaries: &node_binaries,
            images: &images,
            peers: &peers,
        };
        let starts = specs.iter().zip(&addresses).map(async |(spec, addresses)| {
            let directory = directory.join(addresses.cable());
            let cluster = NodeCluster::start(&parts, &directory, *addresses, spec).await?;
            tell_start(&spec.cluster, begin, progress);
            anyhow::Ok(cluster)
        });
        let clusters = futures::future::try_join_all(starts).await?;
        Ok(Self {
            clusters,
            git,
            fabric,
            reaper,
        })
    }

    /// All clusters, in the order they were asked for.
    pub fn clusters(&self) -> &[NodeCluster] {
        &self.clusters
    }

    /// A cluster by its name.
    pub fn cluster(&self, name: &str) -> anyhow::Result<&NodeCluster> {
        let mut clusters = self.clusters.iter();
        clusters
            .find(|cluster| cluster.name() == name)
            .with_context(|| format!("no cluster is named {name}"))
    }

    /// The git server's URL for pods.
    pub fn git_url(&self) -> String {
        format!("git://git.{ZONE}/federation.git")
    }

    /// Cuts a cluster off from the others and from the git server. Its API server is not reachable for this process
    /// either.
    pub async fn cut_off(&self, cluster: &str) -> anyhow::Result<()> {
        let cluster = self.cluster(cluster)?;
        self.fabric.connect(cluster.addresses(), false).await
    }

    /// Ends what [`cut_off`](Self::cut_off) began.
    pub async fn reconnect(&self, cluster: &str) -> anyhow::Result<()> {
        let cluster = self.cluster(cluster)?;
        self.fabric.connect(cluster.addresses(), true).await
    }

    /// A directory for the test's own files.
    pub fn directory(&self) -> &Path {
        self.reaper.directory()
    }

    /// The address that stands outside of all clusters.
    pub fn outside(&self) -> std::net::Ipv4Addr {
        OUTSIDE
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // Processes that outlive the testbed in somebody's hands hold the reaper too, so it is told to finish.
        drop(self.reaper.finish());
    }
}
