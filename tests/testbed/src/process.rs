//! Programs that run until they are told to stop, and waiting for what they do.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::Pid;
pub use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::reaper::Reaper;

/// How many lines of a program's log an error shows.
const LOG_LINES: usize = 20;

/// A list of arguments of different string types.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { vec![$(std::ffi::OsString::from($argument)),*] };
}

pub(crate) use arguments;

/// What to run: kept, so that a stopped program can be started again with the same arguments.
#[derive(Clone, Debug)]
pub struct Program {
    /// The name that errors use.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Environment variables on top of the inherited ones (`KUBECONFIG` is never inherited).
    pub environment: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub directory: PathBuf,
    /// The file that its stdout and stderr are appended to.
    pub log: PathBuf,
}

/// A flag whose value is a path.
pub(crate) fn flag(name: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(name);
    argument.push(path);
    argument
}

/// A running program in a process group of its own; dropping it kills the whole group.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    id: u32,
    state: Mutex<State>,
    reaper: Arc<Reaper>,
}

#[derive(Debug)]
struct State {
    child: Child,
    /// Set once the group is gone: from then on its number may be somebody else's.
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a program.
    ///
    /// A shell stands in for it until the watchdog knows its process group: if we die in between, the shell reads
    /// the end of its input and goes away too.
    pub fn start(reaper: &Arc<Reaper>, program: &Program) -> anyhow::Result<Self> {
        anyhow::ensure!(
            program.path.is_file(),
            "{} does not exist",
            program.path.display()
        );
        if let Some(parent) = program.log.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot make {}", parent.display()))?;
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&program.log)
            .with_context(|| format!("cannot open {}", program.log.display()))?;
        let (gate, mut opener) = std::io::pipe().context("cannot make a pipe")?;
        let child = Command::new("sh")
            .args(["-c", r#"read -r go || exit 1; exec "$0" "$@" </dev/null"#])
            .arg(&program.path)
            .args(&program.arguments)
            .env_remove("KUBECONFIG")
            .envs(
                program
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .current_dir(&program.directory)
            .process_group(0)
            .stdin(gate)
            .stdout(log.try_clone().context("cannot share the log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.name))?;
        let process = Self {
            name: program.name.clone(),
            log: program.log.clone(),
            id: child.id(),
            state: Mutex::new(State { child, ended: None }),
            reaper: Arc::clone(reaper),
        };
        reaper.watch(process.id)?;
        opener
            .write_all(b"go\n")
            .with_context(|| format!("{} ended before it started", process.name))?;
        Ok(process)
    }

    /// The process id, which is the id of its group too.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The file with everything it wrote to stdout and stderr.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self) -> bool {
        matches!(self.status(), Ok(None))
    }

    /// How it ended, if it has; what it left running ends with it.
    pub fn status(&self) -> anyhow::Result<Option<ExitStatus>> {
        let mut state = self.lock();
        if state.ended.is_none() {
            let status = state
                .child
                .try_wait()
                .with_context(|| format!("cannot ask for the state of {}", self.name))?;
            if let Some(status) = status {
                self.kill_group()?;
                self.end(&mut state, status);
            }
        }
        Ok(state.ended)
    }

    /// Waits until it ends by itself.
    pub async fn wait(&self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        wait_until(&format!("{} to end", self.name), deadline, async || {
            self.status()
        })
        .await
    }

    /// Sends a signal to the program alone, not to its group.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let state = self.lock();
        anyhow::ensure!(state.ended.is_none(), "{} has ended", self.name);
        rustix::process::kill_process(self.pid()?, signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Kills it and everything it started, and returns when the program is gone.
    pub fn kill(&self) -> anyhow::Result<()> {
        let mut state = self.lock();
        if state.ended.is_some() {
            return Ok(());
        }
        self.kill_group()?;
        let status = state
            .child
            .wait()
            .with_context(|| format!("cannot wait for {}", self.name))?;
        self.end(&mut state, status);
        Ok(())
    }

    /// Asks it to end (SIGTERM) and says how it did; kills what is left of its group then, and all of it at the deadline.
    pub async fn terminate(&self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        if self.is_running() {
            self.signal(Signal::TERM)?;
        }
        let ended = self.wait(deadline).await;
        self.kill()?;
        ended
    }

    /// Waits until the program does its work; its early end, and the deadline, are errors that show the end of its log.
    pub async fn until_ready<T, F>(
        &self,
        deadline: Duration,
        probe: impl FnMut() -> F,
    ) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<Option<T>>>,
    {
        let what = format!("{} to be ready", self.name);
        let ended = async {
            while self.is_running() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            ready = wait_until(&what, deadline, probe) => ready,
            () = ended => Err(anyhow::anyhow!("{} ended before it was ready", self.name)),
        }
        .with_context(|| {
            format!(
                "{} failed; the end of {}:\n{}",
                self.name,
                self.log.display(),
                self.last_lines()
            )
        })
    }

    /// The end of its log.
    pub fn last_lines(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let start = lines.len().saturating_sub(LOG_LINES);
        lines.get(start..).unwrap_or_default().join("\n")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, state: &mut State, status: ExitStatus) {
        state.ended = Some(status);
        // After the end of the testbed the watchdog has no need to be told.
        drop(self.reaper.forget(self.id));
    }

    fn kill_group(&self) -> anyhow::Result<()> {
        match rustix::process::kill_process_group(self.pid()?, Signal::KILL) {
            // An empty group is what we want.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot kill {}", self.name)),
        }
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        i32::try_from(self.id)
            .ok()
            .and_then(Pid::from_raw)
            .with_context(|| format!("{} is no process id", self.id))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A destructor has nobody to report to; the watchdog tries again.
        drop(self.kill());
    }
}

/// Polls until the probe returns a value.
///
/// An error of the probe means "not yet" too: what is being waited for is often not reachable at first. At the
/// deadline the error says what was awaited and why the probe failed last.
pub async fn wait_until<T, F>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(50);
    let mut last = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, probe()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => last = None,
            Ok(Err(error)) => last = Some(error),
            Err(_elapsed) => {}
        }
        if Instant::now() + pause >= end {
            let message = format!("waited {} s for {what}", deadline.as_secs_f32());
            return Err(match last {
                Some(error) => error.context(message),
                None => anyhow::anyhow!(message),
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(200));
    }
}

/// Runs a short command to its end and returns its stdout; a failure shows its stderr.
pub(crate) async fn run(
    reaper: &Reaper,
    command: tokio::process::Command,
) -> anyhow::Result<String> {
    run_with_input(reaper, command, Vec::new()).await
}

/// Runs a short command that reads `input`, and returns its stdout.
///
/// It is watched as well: a command that lives longer than we do could write into the directory that is being
/// removed.
pub(crate) async fn run_with_input(
    reaper: &Reaper,
    mut command: tokio::process::Command,
    input: Vec<u8>,
) -> anyhow::Result<String> {
    let line = format!("{:?}", command.as_std());
    let mut child = command
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {line}"))?;
    let group = child
        .id()
        .context("the command ended before it was waited for")?;
    reaper.watch(group)?;
    let _forget = Forget { reaper, group };
    let mut stdin = child.stdin.take().context("the command has no stdin")?;
    // Reading while writing: either side may fill its pipe.
    let write = async move {
        // A command that ends early says why on stderr.
        drop(stdin.write_all(&input).await);
        drop(stdin);
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    let output = output.with_context(|| format!("cannot run {line}"))?;
    if !output.status.success() {
        bail!(
            "{line} failed ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{line} wrote no UTF-8"))
}

/// Ends the watch over a command that was waited for, or given up.
struct Forget<'a> {
    reaper: &'a Reaper,
    group: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        // After the end of the testbed the watchdog has no need to be told.
        drop(self.reaper.forget(self.group));
    }
}

/// The body of an answer over HTTP, whatever its status is.
pub(crate) async fn http_body(port: u16, path: &str) -> anyhow::Result<String> {
    let answer = http_get(port, path).await?;
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .context("an HTTP answer without headers")?;
    Ok(body.to_owned())
}

/// A whole answer over HTTP, from its status on: enough for a health endpoint.
pub(crate) async fn http_get(port: u16, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
