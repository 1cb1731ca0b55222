//! The demonstration: two real clusters federate through git before your eyes, and you may try things afterwards.

#![expect(
    clippy::print_stdout,
    reason = "what the demonstration prints is what it is for"
)]

mod figures;
mod pods;
mod processes;
mod trust;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

const USAGE: &str = "usage: demo --trustweave FILE [--workloads FILE] [--project DIR] [--once]

Starts two Kubernetes clusters with SPIRE, and a git server; federates them by commits alone, rotates a key, and
shows what happened when. Stays up until Ctrl-C, unless --once.

With --workloads, the example's, the clusters have nodes, and everything runs in pods; this needs root. Without, they
are control planes only, and the agents are processes.";

#[derive(Debug)]
struct Arguments {
    trustweave: Option<PathBuf>,
    workloads: Option<PathBuf>,
    project: PathBuf,
    once: bool,
}

impl Arguments {
    fn parse() -> anyhow::Result<Self> {
        let mut arguments = Self {
            trustweave: None,
            workloads: None,
            project: PathBuf::from("."),
            once: false,
        };
        let mut given = std::env::args_os().skip(1);
        while let Some(argument) = given.next() {
            let mut path = || given.next().map(PathBuf::from).context(USAGE);
            match argument.to_str() {
                Some("--once") => arguments.once = true,
                Some("--trustweave") => arguments.trustweave = Some(absolute(&path()?)?),
                Some("--workloads") => arguments.workloads = Some(absolute(&path()?)?),
                Some("--project") => arguments.project = path()?,
                _ => bail!(USAGE),
            }
        }
        arguments.project = absolute(&arguments.project)?;
        Ok(arguments)
    }

    fn trustweave(&self) -> anyhow::Result<&Path> {
        self.trustweave.as_deref().context(USAGE)
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("find `{}`", path.display()))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let result = tokio::select! {
        result = run() => result,
        result = tokio::signal::ctrl_c() => result.context("listen to Ctrl-C").map(|()| {
            println!("\nstopped; everything that was started is gone");
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nthe demonstration failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse()?;
    match &arguments.workloads {
        Some(workloads) => pods::run(&arguments, workloads).await,
        None => processes::run(&arguments).await,
    }
}
