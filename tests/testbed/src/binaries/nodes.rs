//! The programs of real nodes, on top of those of a control plane.

use std::path::{Path, PathBuf};

use super::kubernetes;
use super::module::{Build, PLAIN, Source, Wrapper};

/// The same module as the control plane's, so these lie next to it.
const KUBELET: Wrapper = Wrapper {
    name: "kubernetes",
    programs: &[
        kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    ],
    files: None,
};

/// A program of our own, by the versions of the kubelet that it talks to.
const CSI_DRIVER: Wrapper = Wrapper {
    name: "kubernetes",
    programs: &[Source {
        name: "csi-driver",
        module: "k8s.io/kubernetes",
        package: "./csi-driver",
        build: PLAIN,
    }],
    files: None,
};

const CONTAINERD: Wrapper = Wrapper {
    name: "containerd",
    programs: &[
        containerd(
            "containerd",
            "github.com/containerd/containerd/v2/cmd/containerd",
        ),
        containerd(
            "containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        ),
        containerd("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    ],
    files: None,
};

/// The loopback interface of a pod is containerd's own work.
const NETWORK_PLUGINS: Wrapper = Wrapper {
    name: "cni",
    programs: &[
        network_plugin(
            "bridge",
            "github.com/containernetworking/plugins/plugins/main/bridge",
        ),
        network_plugin(
            "host-local",
            "github.com/containernetworking/plugins/plugins/ipam/host-local",
        ),
    ],
    files: None,
};

/// Programs of our own: what runs in the pods that every cluster has.
const PODS: Wrapper = Wrapper {
    name: "pods",
    programs: &[
        Source {
            name: "coredns",
            module: "github.com/coredns/coredns",
            package: "./coredns",
            build: PLAIN,
        },
        Source {
            name: "pause",
            module: "go",
            package: "./pause",
            build: PLAIN,
        },
    ],
    files: None,
};

const fn containerd(name: &'static str, package: &'static str) -> Source {
    Source {
        name,
        module: "github.com/containerd/containerd/v2",
        package,
        build: Build {
            tags: "no_aufs no_btrfs no_devmapper no_zfs",
            ..PLAIN
        },
    }
}

const fn network_plugin(name: &'static str, package: &'static str) -> Source {
    Source {
        name,
        module: "github.com/containernetworking/plugins",
        package,
        build: PLAIN,
    }
}

/// Paths of the built programs.
#[derive(Clone, Debug)]
pub struct NodeBinaries {
    kubernetes: PathBuf,
    csi_driver: PathBuf,
    containerd: PathBuf,
    network_plugins: PathBuf,
    pods: PathBuf,
}

impl NodeBinaries {
    /// Builds what the cache lacks: after the control plane's programs, three more minutes on two cores.
    pub fn ensure(progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        Ok(Self {
            kubernetes: KUBELET.ensure(progress)?,
            csi_driver: CSI_DRIVER.ensure(progress)?,
            containerd: CONTAINERD.ensure(progress)?,
            network_plugins: NETWORK_PLUGINS.ensure(progress)?,
            pods: PODS.ensure(progress)?,
        })
    }

    /// The kubelet.
    pub fn kubelet(&self) -> PathBuf {
        self.kubernetes.join("kubelet")
    }

    /// kube-proxy.
    pub fn kube_proxy(&self) -> PathBuf {
        self.kubernetes.join("kube-proxy")
    }

    /// What gives pods the Workload API as a volume.
    pub fn csi_driver(&self) -> PathBuf {
        self.csi_driver.join("csi-driver")
    }

    /// The directory with containerd and the shim that it looks for on its search path.
    pub fn containerd(&self) -> &Path {
        &self.containerd
    }

    /// containerd's own client, which imports images.
    pub fn ctr(&self) -> PathBuf {
        self.containerd.join("ctr")
    }

    /// The directory with what gives pods their network.
    pub fn network_plugins(&self) -> &Path {
        &self.network_plugins
    }

    /// The DNS server of a cluster.
    pub fn coredns(&self) -> PathBuf {
        self.pods.join("coredns")
    }

    /// The first process of a node and of each pod.
    pub fn pause(&self) -> PathBuf {
        self.pods.join("pause")
    }
}
