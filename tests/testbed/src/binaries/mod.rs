//! The real programs, built once from pinned Go modules.
//!
//! `go/` holds one small module per project and version: `go.mod` and `go.sum` pin every version, `tools.go` names
//! the main packages. What is built is kept in a cache whose directories are named after those two files' digest
//! (and that of the module's own sources, if it has any), so a changed version is built anew and everything else
//! starts at once.

mod module;
mod nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::spire_version::SpireVersion;

pub use self::nodes::NodeBinaries;

use self::module::{Build, FILES, PLAIN, Source, Wrapper};

/// Without a stamped version an API server calls itself v0.0.0, which clients refuse.
const KUBERNETES_VERSION: &str = "-X k8s.io/component-base/version.gitVersion=v1.36.3 \
     -X k8s.io/component-base/version.gitMajor=1 \
     -X k8s.io/component-base/version.gitMinor=36 \
     -X k8s.io/component-base/version.gitTreeState=clean";

const KUBERNETES: Wrapper = Wrapper {
    name: "kubernetes",
    programs: &[
        Source {
            name: "etcd",
            module: "go.etcd.io/etcd/server/v3",
            package: "go.etcd.io/etcd/server/v3",
            build: PLAIN,
        },
        kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        kubernetes(
            "kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
        ),
        kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ],
    files: None,
};

const SPIRE: &[Source] = &[
    spire("spire-server", "github.com/spiffe/spire/cmd/spire-server"),
    spire("spire-agent", "github.com/spiffe/spire/cmd/spire-agent"),
];

const SPIRE_CONTROLLER_MANAGER: Wrapper = Wrapper {
    name: "spire-controller-manager",
    programs: &[Source {
        name: "spire-controller-manager",
        module: "github.com/spiffe/spire-controller-manager",
        package: "github.com/spiffe/spire-controller-manager/cmd",
        build: PLAIN,
    }],
    files: Some((
        "github.com/spiffe/spire-controller-manager",
        "config/crd/bases",
    )),
};

/// Programs of our own: what clients of SPIRE see.
const WORKLOAD_CLIENTS: Wrapper = Wrapper {
    name: "workload-clients",
    programs: &[
        Source {
            name: "x509-client",
            module: "github.com/spiffe/go-spiffe/v2",
            package: "./x509-client",
            build: PLAIN,
        },
        Source {
            name: "sds-client",
            module: "github.com/envoyproxy/go-control-plane/envoy",
            package: "./sds-client",
            build: PLAIN,
        },
    ],
    files: None,
};

/// Kustomize of the pinned kubectl's version, as a program that renders one directory after the other.
const KUSTOMIZE: Wrapper = Wrapper {
    name: "kustomize",
    programs: &[Source {
        name: "render",
        module: "sigs.k8s.io/kustomize/api",
        package: "./render",
        build: PLAIN,
    }],
    files: None,
};

/// Apart from the others, since it pins another go-spiffe.
const SPIFFE_HELPER: Wrapper = Wrapper {
    name: "spiffe-helper",
    programs: &[Source {
        name: "spiffe-helper",
        module: "github.com/spiffe/spiffe-helper",
        package: "github.com/spiffe/spiffe-helper/cmd/spiffe-helper",
        build: PLAIN,
    }],
    files: None,
};

const fn kubernetes(name: &'static str, package: &'static str) -> Source {
    Source {
        name,
        module: "k8s.io/kubernetes",
        package,
        build: Build {
            linker: KUBERNETES_VERSION,
            ..PLAIN
        },
    }
}

/// SPIRE's datastore is `SQLite`, which is C.
const fn spire(name: &'static str, package: &'static str) -> Source {
    Source {
        name,
        module: "github.com/spiffe/spire",
        package,
        build: Build { cgo: true, ..PLAIN },
    }
}

/// Paths of the built programs.
#[derive(Clone, Debug)]
pub struct Binaries {
    kubernetes: PathBuf,
    spire: BTreeMap<SpireVersion, PathBuf>,
    spire_controller_manager: PathBuf,
}

impl Binaries {
    /// Builds what the cache lacks; a cold cache takes some twenty minutes on two cores and seven more for each
    /// further version of SPIRE, a warm one nothing.
    pub fn ensure(
        spire: &BTreeSet<SpireVersion>,
        progress: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<Self> {
        let spire = spire.iter().map(|version| {
            let wrapper = Wrapper {
                name: version.module(),
                programs: SPIRE,
                files: None,
            };
            anyhow::Ok((*version, wrapper.ensure(progress)?))
        });
        Ok(Self {
            kubernetes: KUBERNETES.ensure(progress)?,
            spire: spire.collect::<anyhow::Result<_>>()?,
            spire_controller_manager: SPIRE_CONTROLLER_MANAGER.ensure(progress)?,
        })
    }

    /// etcd.
    pub fn etcd(&self) -> PathBuf {
        self.kubernetes.join("etcd")
    }

    /// kube-apiserver.
    pub fn kube_apiserver(&self) -> PathBuf {
        self.kubernetes.join("kube-apiserver")
    }

    /// kube-controller-manager.
    pub fn kube_controller_manager(&self) -> PathBuf {
        self.kubernetes.join("kube-controller-manager")
    }

    /// kube-scheduler.
    pub fn kube_scheduler(&self) -> PathBuf {
        self.kubernetes.join("kube-scheduler")
    }

    /// kubectl, of the API server's version.
    pub fn kubectl(&self) -> PathBuf {
        self.kubernetes.join("kubectl")
    }

    /// The directory with spire-server and spire-agent of one of the versions that were asked for.
    pub fn spire(&self, version: SpireVersion) -> anyhow::Result<&Path> {
        let directory = self.spire.get(&version).map(PathBuf::as_path);
        directory.with_context(|| format!("SPIRE {version} was not asked for"))
    }

    /// spire-controller-manager.
    pub fn spire_controller_manager(&self) -> PathBuf {
        self.spire_controller_manager
            .join("spire-controller-manager")
    }

    /// The directory with spire-controller-manager's `CustomResourceDefinition`s.
    pub fn spire_crds(&self) -> PathBuf {
        self.spire_controller_manager.join(FILES)
    }
}

/// Paths of the programs that ask SPIRE's agent as workloads do.
#[derive(Clone, Debug)]
pub struct WorkloadClients {
    /// Fetches with go-spiffe: `-socket S [-verify CERTIFICATE.pem]` prints what it sees as JSON.
    pub x509: PathBuf,
    /// Asks as Envoy does: `-socket S [-plain] NAME…` prints the answers as JSON.
    pub sds: PathBuf,
    /// The real spiffe-helper.
    pub spiffe_helper: PathBuf,
}

impl WorkloadClients {
    /// Builds what the cache lacks, which takes a minute or two.
    pub fn ensure(progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let clients = WORKLOAD_CLIENTS.ensure(progress)?;
        Ok(Self {
            x509: clients.join("x509-client"),
            sds: clients.join("sds-client"),
            spiffe_helper: SPIFFE_HELPER.ensure(progress)?.join("spiffe-helper"),
        })
    }
}

/// The program that renders with kustomize the directories that it reads, a line each; built if need be.
pub fn kustomize(progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<PathBuf> {
    Ok(KUSTOMIZE.ensure(progress)?.join("render"))
}
