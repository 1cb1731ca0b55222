//! A pinned Go module, and building the programs that it names.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use crate::settings;

/// Where the Go modules lie.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/go");

/// A module of `go/`, and those of its programs that are built together.
pub(super) struct Wrapper {
    pub(super) name: &'static str,
    pub(super) programs: &'static [Source],
    /// Files of a module that are kept next to its programs: (module, directory in it).
    pub(super) files: Option<(&'static str, &'static str)>,
}

/// A program of a module.
pub(super) struct Source {
    pub(super) name: &'static str,
    /// The module whose version progress lines show.
    pub(super) module: &'static str,
    pub(super) package: &'static str,
    pub(super) build: Build,
}

/// How a program is built.
#[derive(Clone, Copy)]
pub(super) struct Build {
    pub(super) cgo: bool,
    /// Flags for the linker on top of those that leave out what debuggers need.
    pub(super) linker: &'static str,
    pub(super) tags: &'static str,
}

/// Pure Go, with nothing special.
pub(super) const PLAIN: Build = Build {
    cgo: false,
    linker: "",
    tags: "",
};

/// The name that a module's kept files have in the cache.
pub(super) const FILES: &str = "files";

impl Wrapper {
    /// The directory that holds all programs of this module, built if need be.
    pub(super) fn ensure(&self, progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<PathBuf> {
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

        require_tools(self.programs.iter().any(|program| program.build.cgo))?;
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
        // Whoever held the lock may have kept them.
        if let Some((source, directory)) = self.files
            && !output.join(FILES).is_dir()
        {
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
        let Build { cgo, linker, tags } = self.build;
        let output = go(module)
            .env("CGO_ENABLED", if cgo { "1" } else { "0" })
            .args([
                "build",
                "-mod=readonly",
                "-buildvcs=false",
                "-tags",
                tags,
                "-ldflags",
                &format!("-s -w {linker}"),
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
