//! The real programs, built once from pinned Go modules.
//!
//! `go/` holds one small module per project and version: `go.mod` and `go.sum` pin every version, `tools.go` names
//! the main packages. What is built is kept in a cache whose directories are named after those two files' digest
//! (and that of the module's own sources, if it has any), so a changed version is built anew and everything else
//! starts at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use crate::settings;
use crate::spire_version::SpireVersion;

/// Where the Go modules lie.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/go");

/// Without a stamped version an API server calls itself v0.0.0, which clients refuse.
const KUBERNETES_VERSION: &str = "-X k8s.io/component-base/version.gitVersion=v1.36.3 \
     -X k8s.io/component-base/version.gitMajor=1 \
     -X k8s.io/component-base/version.gitMinor=36 \
     -X k8s.io/component-base/version.gitTreeState=clean";

struct Wrapper {
    name: &'static str,
    programs: &'static [Source],
    /// Files of a module that are kept next to its programs: (module, directory in it).
    files: Option<(&'static str, &'static str)>,
}

struct Source {
    name: &'static str,
    /// The module whose version progress lines show.
    module: &'static str,
    package: &'static str,
    stamped: bool,
    cgo: bool,
}

const KUBERNETES: Wrapper = Wrapper {
    name: "kubernetes",
    programs: &[
        Source {
            name: "etcd",
            module: "go.etcd.io/etcd/server/v3",
            package: "go.etcd.io/etcd/server/v3",
            stamped: false,
            cgo: false,
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
        stamped: false,
        cgo: false,
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
            stamped: false,
            cgo: false,
        },
        Source {
            name: "sds-client",
            module: "github.com/envoyproxy/go-control-plane/envoy",
            package: "./sds-client",
            stamped: false,
            cgo: false,
        },
    ],
    files: None,
};

/// Apart from the others, since it pins another go-spiffe.
const SPIFFE_HELPER: Wrapper = Wrapper {
    name: "spiffe-helper",
    programs: &[Source {
        name: "spiffe-helper",
        module: "github.com/spiffe/spiffe-helper",
        package: "github.com/spiffe/spiffe-helper/cmd/spiffe-helper",
        stamped: false,
        cgo: false,
    }],
    files: None,
};

const fn kubernetes(name: &'static str, package: &'static str) -> Source {
    Source {
        name,
        module: "k8s.io/kubernetes",
        package,
        stamped: true,
        cgo: false,
    }
}

/// SPIRE's datastore is `SQLite`, which is C.
const fn spire(name: &'static str, package: &'static str) -> Source {
    Source {
        name,
        module: "github.com/spiffe/spire",
        package,
        stamped: false,
        cgo: true,
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

/// The name that a module's kept files have in the cache.
const FILES: &str = "files";

impl Wrapper {
    /// The directory that holds all programs of this module, built if need be.
    fn ensure(&self, progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<PathBuf> {
        let module = Path::new(MODULES).join(self.name);
        let requirements = read(&module.join("go.mod"))?;
        let mut digest = Sha256::new();
        digest.update(&requirements);
        digest.update(read(&module.join("go.sum"))?);
        for program in self.programs {
            // A package of the module itself: its sources are not pinned by the two files.
            if let Some(directory) = program.package.strip_prefix("./") {
                digest.update(read(&module.join(directory).join("main.go"))?);
            }
        }
        let mut key = base16ct::lower::encode_string(&digest.finalize());
        key.truncate(16);
        let cache = settings::cache_directory()?;
        let output = cache.join(format!("{}-{key}", self.name));
        if self.is_complete(&output) {
            return Ok(output);
        }

        require_tools(self.programs.iter().any(|program| program.cgo))?;
        std::fs::create_dir_all(&output)
            .with_context(|| format!("cannot make {}", output.display()))?;
        let lock = cache.join("lock");
        let lock =
            File::create(&lock).with_context(|| format!("cannot open {}", lock.display()))?;
        if lock.try_lock().is_err() {
            progress("another process is building the testbed's programs; waiting for it …");
            lock.lock()
                .context("cannot lock the cache of built programs")?;
        }
        for program in self.programs {
            let path = output.join(program.name);
            if path.is_file() {
                continue;
            }
            let version = version(&String::from_utf8_lossy(&requirements), program.module);
            progress(&format!(
                "building {} {version} (first time only, minutes) …",
                program.name
            ));
            let start = Instant::now();
            program.build(&module, &path)?;
            progress(&format!(
                "built {} in {} s",
                program.name,
                start.elapsed().as_secs()
            ));
        }
        if let Some((source, directory)) = self.files {
            keep_files(&module, source, directory, &output.join(FILES))?;
        }
        Ok(output)
    }

    fn is_complete(&self, output: &Path) -> bool {
        self.programs
            .iter()
            .all(|program| output.join(program.name).is_file())
            && (self.files.is_none() || output.join(FILES).is_dir())
    }
}

impl Source {
    /// Builds beside the final name and renames, so that an interrupted build leaves nothing that looks built.
    fn build(&self, module: &Path, path: &Path) -> anyhow::Result<()> {
        let unfinished = path.with_extension("unfinished");
        let flags = if self.stamped {
            format!("-s -w {KUBERNETES_VERSION}")
        } else {
            "-s -w".to_owned()
        };
        let output = go(module)
            .env("CGO_ENABLED", if self.cgo { "1" } else { "0" })
            .args([
                "build",
                "-mod=readonly",
                "-buildvcs=false",
                "-ldflags",
                &flags,
                "-o",
            ])
            .arg(&unfinished)
            .arg(self.package)
            .output()
            .context("cannot run go")?;
        if !output.status.success() {
            bail!(
                "cannot build {}:\n{}",
                self.package,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        std::fs::rename(&unfinished, path)
            .with_context(|| format!("cannot rename {}", unfinished.display()))
    }
}

/// Copies a directory of a module into the cache, so that later starts need no Go.
fn keep_files(module: &Path, source: &str, directory: &str, output: &Path) -> anyhow::Result<()> {
    let listed = go(module)
        .args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", source])
        .output()
        .context("cannot run go")?;
    let root = String::from_utf8_lossy(&listed.stdout);
    let root = root.trim();
    if !listed.status.success() || root.is_empty() {
        bail!(
            "cannot find the source of {source}:\n{}",
            String::from_utf8_lossy(&listed.stderr)
        );
    }
    let from = Path::new(root).join(directory);
    let unfinished = output.with_extension("unfinished");
    std::fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot make {}", unfinished.display()))?;
    for entry in
        std::fs::read_dir(&from).with_context(|| format!("cannot list {}", from.display()))?
    {
        let entry = entry?;
        // Written anew instead of copied: files in Go's module cache are read-only.
        std::fs::write(unfinished.join(entry.file_name()), read(&entry.path())?)?;
    }
    std::fs::rename(&unfinished, output)
        .with_context(|| format!("cannot rename {}", unfinished.display()))
}

/// `go` with the installed toolchain and none of the user's flags, reading its progress from nobody.
fn go(module: &Path) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(module)
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "")
        .env("GOWORK", "off")
        .stdin(Stdio::null());
    command
}

/// The version that a `go.mod` requires of a module.
fn version(requirements: &str, module: &str) -> String {
    requirements
        .lines()
        .find_map(|line| {
            let line = line.trim();
            let line = line.strip_prefix("require ").unwrap_or(line);
            line.strip_prefix(module)?
                .strip_prefix(' ')?
                .split_whitespace()
                .next()
        })
        .unwrap_or_default()
        .to_owned()
}

fn require_tools(cgo: bool) -> anyhow::Result<()> {
    if !settings::on_search_path("go") {
        bail!(
            "the testbed builds Kubernetes and SPIRE from source and needs Go 1.26 or newer: \
             `apt-get install golang`, or https://go.dev/dl"
        );
    }
    if cgo && !settings::on_search_path("gcc") && !settings::on_search_path("cc") {
        bail!("the testbed builds SPIRE from source and needs a C compiler: `apt-get install gcc`");
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
