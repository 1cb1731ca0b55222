//! Real Kubernetes control planes, SPIRE and git servers on loopback, for Trustweave's tests and demo.
//!
//! Nothing here is simulated: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, spire-server,
//! spire-agent, spire-controller-manager and `git daemon` run as ordinary processes, built from pinned sources
//! ([`binaries`]). `OpenShift`'s operator and the REST APIs of forges alone have stand-ins ([`operator`],
//! [`forge`]). There are two levels:
//!
//! 1. A [`Testbed`] needs no root and starts in seconds. What is missing is a kubelet: pods are scheduled onto a
//!    [`Node`](cluster::NODE) that never runs them, and SPIRE runs beside the cluster;
//!    where a cluster asks for the objects of a real installation ([`Installed`]), its server follows them as its pod would.
//! 2. [`nodes::Nodes`] has a kubelet, containerd and runc for each cluster, in namespaces of the kernel: pods run,
//!    SPIRE's among them. It needs root, and more of the machine ([`nodes`]).
//!
//! * Everything that either starts and writes is gone when it is dropped, and also when the test process
//!   panics, is interrupted or is killed: see [`reaper`].
//! * Nothing sleeps for a fixed time; waiting is [`process::wait_until`], which says what it waited for.
//! * Ports are free loopback ports, so any number of testbeds run at once.
//!
//! `TRUSTWEAVE_TESTBED_CACHE` moves the cache of built programs; `TRUSTWEAVE_TESTBED_SPIRE=1.14` runs that SPIRE in
//! every cluster that asks for no version ([`SpireVersion`]); with `TRUSTWEAVE_TESTBED_KEEP=1` the testbed's directory
//! (logs in `<cluster number>/log`) is not removed.

mod access;
pub mod authority;
pub mod binaries;
pub mod chromium;
mod clock;
pub mod cluster;
mod configuration;
mod control_plane;
pub mod crds;
pub mod credentials;
pub mod endpoint;
pub mod faulty_api;
pub mod faulty_way;
pub mod federation;
pub mod forge;
pub mod git;
pub mod git_https;
pub mod git_ssh;
mod https;
pub mod image;
mod kubelet;
mod loopback;
pub mod measure;
pub mod nodes;
pub mod operator;
mod port;
pub mod process;
pub mod proxy;
pub mod reaper;
mod repository;
pub mod router;
mod server_commands;
pub mod server_objects;
mod settings;
pub mod shifted_clock;
pub mod spire;
mod spire_configuration;
mod spire_version;
pub mod topology;
pub mod workload;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;

pub use crate::cluster::{Cluster, ClusterSpec};
pub use crate::credentials::{SshKey, ssh_key};
pub use crate::git::GitRemote;
pub use crate::process::{Process, Program, Signal, wait_until};
pub use crate::server_objects::{DataVolume, Distribution, Installed, ServerObjects};
pub use crate::spire::Spire;
pub use crate::spire_version::SpireVersion;

use crate::authority::{Identity, WebAuthority};
use crate::binaries::Binaries;
use crate::reaper::Reaper;
use crate::router::Router;

/// Clusters, a git server, and a directory; all of it ends with this value.
pub struct Testbed {
    clusters: Vec<Cluster>,
    /// The git server.
    pub git: GitRemote,
    /// What leads from names to bundle endpoints.
    pub router: Router,
    web: WebAuthority,
    reaper: Arc<Reaper>,
}

impl Testbed {
    /// Starts all clusters at once and a git server; without clusters it is the git server alone, which needs no Go.
    pub async fn start(
        specs: &[ClusterSpec],
        progress: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<Self> {
        let binaries = if specs.is_empty() {
            None
        } else {
            Some(Arc::new(binaries_for(specs.iter(), progress)?))
        };
        let begin = Instant::now();
        let reaper = Arc::new(Reaper::start()?);
        let git = GitRemote::create(&reaper, &reaper.directory().join("git"), "federation").await?;
        let web = WebAuthority::write(&reaper.directory().join("web-authority.pem"))?;
        let router = Router::start().await?;
        let mut starts = Vec::new();
        if let Some(binaries) = &binaries {
            for (number, spec) in specs.iter().enumerate() {
                // A number, since paths of sockets must be short and names may be long.
                let directory = reaper.directory().join(number.to_string());
                let (reaper, web, router) = (&reaper, web.path(), &router);
                starts.push(async move {
                    let cluster =
                        Cluster::start(reaper, binaries, web, router, &directory, spec).await?;
                    tell_start(spec, begin, progress);
                    anyhow::Ok(cluster)
                });
            }
        }
        let clusters = futures::future::try_join_all(starts).await?;
        Ok(Self {
            clusters,
            git,
            router,
            web,
            reaper,
        })
    }

    /// All clusters, in the order they were asked for.
    pub fn clusters(&self) -> &[Cluster] {
        &self.clusters
    }

    /// A cluster by its name.
    pub fn cluster(&self, name: &str) -> anyhow::Result<&Cluster> {
        self.clusters
            .iter()
            .find(|cluster| cluster.name() == name)
            .with_context(|| format!("no cluster is named {name}"))
    }

    /// A certificate for a web server on loopback, which the SPIRE servers take for one of the public web.
    pub fn web_identity(&self) -> anyhow::Result<Identity> {
        self.web.server()
    }

    /// The certificate of the authority behind [`web_identity`](Self::web_identity), PEM.
    pub fn web_authority(&self) -> &Path {
        self.web.path()
    }

    /// A directory for the test's own files.
    pub fn directory(&self) -> &Path {
        self.reaper.directory()
    }

    /// Runs any program to its end and returns its stdout; a failure shows its stderr.
    pub async fn run<A: Into<OsString>>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments.into_iter().map(Into::into))
            .current_dir(self.directory());
        process::run(&self.reaper, command).await
    }

    /// Runs any program until it is dropped, or until the testbed ends. Its output is appended to `log`.
    pub fn spawn<A, E>(
        &self,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        environment: impl IntoIterator<Item = (E, E)>,
        log: &Path,
    ) -> anyhow::Result<Process>
    where
        A: Into<OsString>,
        E: Into<OsString>,
    {
        Process::start(
            &self.reaper,
            &Program {
                name: name.to_owned(),
                path: PathBuf::from(program),
                arguments: arguments.into_iter().map(Into::into).collect(),
                environment: environment
                    .into_iter()
                    .map(|(name, value)| (name.into(), value.into()))
                    .collect(),
                directory: self.directory().to_owned(),
                log: log.to_owned(),
            },
        )
    }
}

/// The programs that clusters need, at either level.
pub(crate) fn binaries_for<'a>(
    specs: impl Iterator<Item = &'a ClusterSpec>,
    progress: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<Binaries> {
    let versions = specs.map(ClusterSpec::spire_version);
    Binaries::ensure(&versions.collect::<anyhow::Result<_>>()?, progress)
}

/// Tells that a cluster of either level is up.
pub(crate) fn tell_start(spec: &ClusterSpec, begin: Instant, progress: &(dyn Fn(&str) + Sync)) {
    progress(&format!(
        "{} with {} is up after {:.1} s",
        spec.name,
        spec.trust_domain,
        begin.elapsed().as_secs_f32()
    ));
}

impl Drop for Testbed {
    fn drop(&mut self) {
        // Processes that outlive the testbed in somebody's hands hold the reaper too, so it is told to finish.
        drop(self.reaper.finish());
    }
}
