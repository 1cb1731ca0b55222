//! The promise that a testbed leaves nothing behind.
//!
//! Destructors do not run when a test process is killed, so cleaning up cannot be the test process's own job. Each
//! testbed has a watchdog instead: a small `sh` process (`watchdog.sh`) in a process group of its own that ignores
//! the signals a terminal sends. It makes the testbed's directory, is told of every process group before the
//! program in it starts ([`Process`](crate::process::Process) sees to that), and reads from a pipe whose only
//! writing end the testbed's owner holds. When the pipe ends (the testbed was dropped, its owner returned,
//! panicked, was interrupted or was killed: the kernel closes it in every case), the watchdog kills all groups it
//! knows, waits until none of their processes runs, removes the directory (and control groups, if nodes had any) and
//! ends.

use std::io::{BufRead as _, BufReader, PipeWriter, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

use crate::settings;

/// A directory and a set of process groups that are gone once this value is, in whatever way that happens.
#[derive(Debug)]
pub struct Reaper {
    directory: PathBuf,
    watchdog: Mutex<Option<Watchdog>>,
}

#[derive(Debug)]
struct Watchdog {
    orders: PipeWriter,
    process: Child,
}

impl Reaper {
    /// Starts the watchdog, which makes the directory.
    pub fn start() -> anyhow::Result<Self> {
        let (stdin, orders) = std::io::pipe().context("cannot make the watchdog's pipe")?;
        let mut process = Command::new("sh")
            .arg("-c")
            .arg(include_str!("watchdog.sh"))
            .arg("trustweave-testbed-watchdog")
            .arg(std::env::temp_dir())
            .arg(if settings::keep_directories() {
                "keep"
            } else {
                ""
            })
            .current_dir("/")
            .process_group(0)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the watchdog")?;
        let stdout = process
            .stdout
            .take()
            .context("the watchdog has no stdout")?;
        let mut directory = String::new();
        BufReader::new(stdout)
            .read_line(&mut directory)
            .context("cannot read from the watchdog")?;
        let directory = PathBuf::from(directory.trim_end());
        anyhow::ensure!(
            directory.is_dir(),
            "cannot make a directory in {}",
            std::env::temp_dir().display()
        );
        Ok(Self {
            directory,
            watchdog: Mutex::new(Some(Watchdog { orders, process })),
        })
    }

    /// The directory that goes away with this value.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Has a process group killed at the end.
    pub(crate) fn watch(&self, group: u32) -> anyhow::Result<()> {
        self.order("watch", group)
    }

    /// Says that a process group is gone, so that its number is not killed when somebody else has it.
    pub(crate) fn forget(&self, group: u32) -> anyhow::Result<()> {
        self.order("forget", group)
    }

    /// Has a control group removed at the end, with those below it, when its processes are gone.
    pub(crate) fn remove_cgroup(&self, directory: &Path) -> anyhow::Result<()> {
        self.order("cgroup", directory.display())
    }

    /// Cleans up now and returns when nothing is left. Later calls do nothing.
    pub fn finish(&self) -> anyhow::Result<()> {
        let watchdog = self
            .watchdog
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(Watchdog {
            orders,
            mut process,
        }) = watchdog
        else {
            return Ok(());
        };
        drop(orders);
        process.wait().context("cannot wait for the watchdog")?;
        Ok(())
    }

    fn order(&self, verb: &str, what: impl std::fmt::Display) -> anyhow::Result<()> {
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        let watchdog = watchdog.as_mut().context("the testbed has ended")?;
        watchdog
            .orders
            .write_all(format!("{verb} {what}\n").as_bytes())
            .context("cannot write to the watchdog")
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // A destructor has nobody to report to, and the watchdog goes on without us.
        drop(self.finish());
    }
}
