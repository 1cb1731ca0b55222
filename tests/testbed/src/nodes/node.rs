//! A node: what a machine is to Kubernetes, made of namespaces.
//!
//! Its first process does nothing but hold them and wait for orphans. With it dies everything on the node, and every
//! mount with its namespace.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::cgroups::ControlGroups;
use super::fabric::Fabric;
use super::plan::Addresses;
use super::requirements::SEARCH_PATH;
use crate::access::write;
use crate::process::{Process, Program, arguments, run};
use crate::reaper::Reaper;

/// Goes into the control groups before `--`, and becomes what is behind it.
const ENTER_GROUPS: &str =
    r#"while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit; shift; done; shift; exec "$@""#;

const START: Duration = Duration::from_secs(30);

/// A running node, with nothing on it yet.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) addresses: Addresses,
    /// Everything that the node writes is here, and everybody sees it under this path.
    pub(super) directory: PathBuf,
    groups: ControlGroups,
    /// The first process, as the machine numbers it.
    first: u32,
    // Held for its end only.
    _init: Process,
    reaper: Arc<Reaper>,
}

impl Node {
    /// Makes the node and connects it.
    pub(super) async fn start(
        reaper: &Arc<Reaper>,
        fabric: &Fabric,
        pause: &Path,
        directory: &Path,
        name: &str,
        addresses: Addresses,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        write(
            &directory.join("hosts"),
            &format!("127.0.0.1 localhost\n{} {name}\n", addresses.node()),
        )?;
        let servers = format!("nameserver {}\n", addresses.dns_service());
        write(&directory.join("resolv.conf"), &servers)?;
        // Nobody else's directory is called as ours.
        let unique = reaper.directory().file_name().unwrap_or_default();
        let groups = format!("{}-{}", unique.display(), addresses.cable());
        let groups = ControlGroups::create(reaper, &groups)?;

        let mut arguments = enter_groups(&groups);
        arguments.extend(arguments![
            "unshare",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--net",
            "--cgroup",
            "--fork",
            "--kill-child",
            "--",
            "sh",
            "-c",
            include_str!("node.sh"),
            "trustweave-testbed-node",
            directory,
            name,
            pause,
        ]);
        arguments.extend(groups.hierarchies().map(OsString::from));
        let init = Process::start(
            reaper,
            &shell(&format!("node {name}"), arguments, directory, "node"),
        )?;
        let first = init
            .until_ready(START, async || {
                let first = std::fs::read_to_string(directory.join("pid"))?;
                Ok(Some(first.trim().parse()?))
            })
            .await?;
        let node = Self {
            name: name.to_owned(),
            addresses,
            directory: directory.to_owned(),
            groups,
            first,
            _init: init,
            reaper: Arc::clone(reaper),
        };
        fabric.attach(addresses, first).await?;
        Ok(node)
    }

    /// A program that runs on the node and logs to `log/<name>.log`. Other programs are looked for in `path` first.
    pub(super) fn program(
        &self,
        name: &str,
        program: &Path,
        arguments: Vec<OsString>,
        path: &[&Path],
    ) -> Program {
        let mut all = self.enter(path);
        all.push(program.into());
        all.extend(arguments);
        shell(name, all, &self.directory, name)
    }

    /// Runs a program on the node to its end and returns its stdout.
    pub(super) async fn run(
        &self,
        program: &Path,
        arguments: Vec<OsString>,
    ) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new("/bin/sh");
        command
            .env("PATH", SEARCH_PATH)
            .args(self.enter(&[]))
            .arg(program)
            .args(arguments);
        run(&self.reaper, command).await
    }

    /// What becomes a program on the node, with a fresh environment.
    fn enter(&self, path: &[&Path]) -> Vec<OsString> {
        let mut search = OsString::from("PATH=");
        for directory in path {
            search.push(directory);
            search.push(":");
        }
        search.push(SEARCH_PATH);
        let mut arguments = enter_groups(&self.groups);
        arguments.extend(arguments![
            "nsenter",
            format!("--target={}", self.first),
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--net",
            "--cgroup",
            "--",
            "env",
            "-i",
            search,
            "HOME=/root",
            "TMPDIR=/var/tmp",
        ]);
        arguments
    }
}

/// Arguments of a shell that goes into the groups, up to the `--` behind which the program follows.
fn enter_groups(groups: &ControlGroups) -> Vec<OsString> {
    let mut arguments = arguments!["-c", ENTER_GROUPS, "trustweave-testbed-enter"];
    arguments.extend(groups.directories().map(OsString::from));
    arguments.push("--".into());
    arguments
}

fn shell(name: &str, arguments: Vec<OsString>, directory: &Path, log: &str) -> Program {
    Program {
        name: name.to_owned(),
        path: "/bin/sh".into(),
        arguments,
        environment: vec![("PATH".into(), SEARCH_PATH.into())],
        directory: directory.to_owned(),
        log: directory.join("log").join(format!("{log}.log")),
    }
}
