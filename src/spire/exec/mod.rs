//! The own bundle by `spire-server bundle show` in the server's container.
//!
//! Whoever may execute in that container controls the trust domain, so this is the last resort. The
//! command is executed as it is, without a shell, and has a deadline: the program has none.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{AttachParams, AttachedProcess},
    client::UpgradeConnectionError,
};
use tokio::io::AsyncReadExt;

use super::{BundleSource, Error, polled::Last};
use crate::model::{
    bundle::{Bundle, MAX_BUNDLE_BYTES},
    declaration::{ExecSource, Spire},
};

mod outcome;

pub use self::outcome::Failure;
use self::outcome::{Ended, Target};

/// How long the command may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often the bundle is read: nothing tells that it changed.
const INTERVAL: Duration = Duration::from_secs(10);

/// The command in the server's container.
pub struct Exec {
    api: Api<Pod>,
    target: Target,
    /// The program and its arguments, in the order in which they are tried.
    commands: Vec<Vec<String>>,
    /// Which of them was found last.
    found: AtomicUsize,
    last: Last,
}

impl Exec {
    /// Runs in the pod and the container that the source names, or else those of the installation.
    pub fn new(client: Client, spire: &Spire, source: &ExecSource) -> Self {
        Self {
            api: Api::namespaced(client, &spire.namespace),
            target: Target::of(spire, source),
            commands: outcome::commands(source),
            found: AtomicUsize::new(0),
            last: Last::default(),
        }
    }

    /// Tries the programs in order, from the one that was found last.
    async fn read(&self) -> Result<Bundle, Error> {
        let first = self.found.load(Ordering::Relaxed);
        let mut missing = Vec::new();
        for offset in 0..self.commands.len() {
            let index = (first + offset) % self.commands.len();
            let command = &self.commands[index];
            let run = tokio::time::timeout(DEADLINE, self.run(command)).await;
            let ended = run.unwrap_or_else(|_| {
                Err(Error::Timeout {
                    place: format!("`{}` in {}", command.join(" "), self.target),
                    seconds: DEADLINE.as_secs(),
                })
            })?;
            match self.target.judge(command, ended) {
                Ok(document) => {
                    self.found.store(index, Ordering::Relaxed);
                    return Bundle::parse(&document).map_err(|source| Error::NotABundle {
                        place: format!("the answer of `{}` in {}", command.join(" "), self.target),
                        source,
                    });
                }
                Err(Failure::NoProgram { programs, .. }) => missing.extend(programs),
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(Failure::NoProgram {
            target: self.target.clone(),
            programs: missing,
        }
        .into())
    }

    async fn run(&self, command: &[String]) -> Result<Ended, Error> {
        let parameters = AttachParams::default()
            .container(&self.target.container)
            .stdout(true)
            .stderr(true);
        let executing = self.api.exec(&self.target.pod, command, &parameters).await;
        let process = executing.map_err(|error| match error {
            // The answer's body, with the reason, is lost on the way.
            kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => {
                self.target.refused(status.as_u16())
            }
            kube::Error::Api(status) => self.target.refused(status.code),
            error => self.target.broken(error.into()),
        })?;
        let ended = finish(process).await;
        Ok(ended.map_err(|error| self.target.broken(error.into()))?)
    }
}

/// Reads what the command says, to its end.
async fn finish(mut process: AttachedProcess) -> std::io::Result<Ended> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    // One more than allowed, so that a bundle that is too large is seen to be.
    let limit = MAX_BUNDLE_BYTES as u64 + 1;
    let (out, err) = (process.stdout(), process.stderr());
    let read_out = async {
        match out {
            Some(out) => out.take(limit).read_to_end(&mut stdout).await.map(drop),
            None => Ok(()),
        }
    };
    let read_err = async {
        match err {
            Some(err) => err.take(4096).read_to_end(&mut stderr).await.map(drop),
            None => Ok(()),
        }
    };
    tokio::try_join!(read_out, read_err)?;
    let status = match process.take_status() {
        Some(status) => status.await,
        None => None,
    };
    let status = status.unwrap_or_default();
    Ok(Ended {
        success: status.status.as_deref() == Some("Success"),
        message: status.message.unwrap_or_default(),
        stdout,
        stderr: String::from_utf8_lossy(&stderr).trim().to_owned(),
    })
}

impl BundleSource for Exec {
    async fn current(&self) -> Result<Bundle, Error> {
        self.last.noted(self.read().await)
    }

    async fn changed(&self) {
        self.last.until_other(INTERVAL, || self.read()).await;
    }

    fn describe(&self) -> String {
        let found = self.found.load(Ordering::Relaxed);
        let program = self.commands.get(found).and_then(|command| command.first());
        format!(
            "exec of {} in {}",
            program.map_or("", String::as_str),
            self.target
        )
    }
}
