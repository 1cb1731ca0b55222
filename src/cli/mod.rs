//! The command line: one file per verb. Data goes to standard output, everything else to standard
//! error.
//!
//! Exit codes: 0 success (`diff`: no change), 1 the answer is no (`check`: errors, `diff`: changes),
//! 2 the question could not be answered.

mod agent;
mod bundle;
mod check;
mod clusters;
mod completions;
mod diff;
mod doctor;
mod facts;
mod init;
mod installation;
mod manual;
mod output;
mod render;
mod repository;
mod resume;
mod schema;
mod status;
mod suspend;
mod sync;
mod verify;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::cluster::{self, KubeCluster};

/// Federate SPIFFE trust domains through a git repository
///
/// Trustweave makes a git repository the one place where the federation of SPIFFE trust domains is
/// declared, reviewed and remembered. An agent in each cluster applies the cluster's overlay,
/// publishes its own trust bundle, signed, and delivers its peers' bundles to its SPIRE server in a
/// safe order.
#[derive(Debug, Parser)]
#[command(
    name = "trustweave",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Arguments),
    Check(check::Arguments),
    Render(render::Arguments),
    Diff(diff::Arguments),
    Status(status::Arguments),
    Doctor(doctor::Arguments),
    Verify(verify::Arguments),
    Sync(sync::Arguments),
    Suspend(suspend::Arguments),
    Resume(resume::Arguments),
    Bundle(bundle::Arguments),
    Agent(agent::Arguments),
    Completions(completions::Arguments),
    Manual(manual::Arguments),
    Schema(schema::Arguments),
}

/// How a verb reaches a cluster.
#[derive(Debug, Args)]
struct Connection {
    /// The kubeconfig file, if not the default one or that of `KUBECONFIG`
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The context in the kubeconfig file, if not the current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl Connection {
    async fn connect(&self) -> Result<KubeCluster, cluster::Error> {
        KubeCluster::connect(self.kubeconfig.clone(), self.context.clone()).await
    }
}

/// The answer of a verb.
enum Answer {
    /// Yes, or done.
    Yes,
    /// No: errors found, or changes.
    No,
}

/// Parses the arguments, runs the verb, and turns its answer into an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let answer = match cli.verb {
        Verb::Init(arguments) => arguments.run(),
        Verb::Check(arguments) => arguments.run(),
        Verb::Render(arguments) => arguments.run(),
        Verb::Diff(arguments) => arguments.run(),
        Verb::Status(arguments) => arguments.run(),
        Verb::Doctor(arguments) => arguments.run(),
        Verb::Verify(arguments) => arguments.run(),
        Verb::Sync(arguments) => arguments.run(),
        Verb::Suspend(arguments) => arguments.run(),
        Verb::Resume(arguments) => arguments.run(),
        Verb::Bundle(arguments) => arguments.run(),
        Verb::Agent(arguments) => arguments.run(),
        Verb::Completions(arguments) => arguments.run(),
        Verb::Manual(arguments) => arguments.run(),
        Verb::Schema(arguments) => arguments.run(),
    };
    match answer {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::from(2)
        }
    }
}

/// Runs a future on a runtime of two threads: enough for every verb, and small.
fn block_on<F: Future>(future: F) -> anyhow::Result<F::Output> {
    use anyhow::Context as _;
    // Two crates bring rustls; which cryptography it uses is said once, here.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("the cryptography provider was installed before");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    Ok(runtime.block_on(future))
}
