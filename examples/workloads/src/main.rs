//! A server and a client that know each other by their SPIFFE IDs alone: the workloads of `examples/repo-layout`.
//!
//! Both get certificate, key and the bundles of the trust domains that their registration federates with from the
//! SPIFFE Workload API, and follow every change of them without a restart.

#![expect(
    clippy::print_stdout,
    reason = "a container's output is what people read of it"
)]

mod client;
mod identity;
mod peer;
mod refusal;
mod server;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use spiffe::SpiffeId;
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use crate::peer::Allowed;

#[derive(Debug, Parser)]
#[command(
    version,
    about = "A server and a client that know each other by their SPIFFE IDs alone"
)]
struct Arguments {
    /// The SPIFFE Workload API
    #[arg(long, env = "SPIFFE_ENDPOINT_SOCKET", value_name = "unix:///PATH")]
    socket: String,
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Answer clients by mutual TLS, and tell each who it is
    BackendServer {
        /// Where to listen
        #[arg(long, default_value = "0.0.0.0:8443")]
        listen: SocketAddr,
        /// A client, or a trust domain whose clients are let in; may be repeated [default: everybody whose trust
        /// domain the registration federates with]
        #[arg(
            long = "allow",
            env = "ALLOWED_CLIENTS",
            value_delimiter = ',',
            value_name = "SPIFFE ID|TRUST DOMAIN"
        )]
        allowed: Vec<Allowed>,
    },
    /// Call a server by mutual TLS, and print a line for each call
    FrontendClient {
        /// The server
        #[arg(long, env = "BACKEND_URL", value_name = "https://HOST[:PORT]/")]
        url: Url,
        /// Who the server must be, whatever its host is called
        #[arg(long, env = "BACKEND_SPIFFE_ID", value_name = "SPIFFE ID")]
        server: SpiffeId,
        /// Seconds between calls
        #[arg(long, default_value_t = 5, value_name = "SECONDS")]
        every: u64,
        /// Call once, and fail if that failed
        #[arg(long)]
        once: bool,
    },
}

// One thread is enough for an example, and as little memory as can be.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tokio::select! {
        result = run(arguments) => match result {
            Ok(code) => code,
            Err(error) => {
                println!("{error:#}");
                ExitCode::FAILURE
            }
        },
        // The first process of a container gets no signal that it does not ask for.
        result = asked_to_end() => match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let source = identity::source(&arguments.socket).await?;
    tokio::spawn(identity::tell(source.clone()));
    match arguments.role {
        Role::BackendServer { listen, allowed } => server::serve(source, listen, allowed).await,
        Role::FrontendClient {
            url,
            server,
            every,
            once,
        } => {
            let client = client::Client::new(source, &url, server)?;
            if once {
                return Ok(if client.call().await {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                });
            }
            loop {
                client.call().await;
                tokio::time::sleep(Duration::from_secs(every)).await;
            }
        }
    }
}

async fn asked_to_end() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        result = tokio::signal::ctrl_c() => result.context("listen to SIGINT"),
    }
}
