//! Connections between the host's network namespace and another one.
//!
//! A socket belongs to the namespace of the thread that made it, whoever uses it later. So one thread lives in each
//! of the two namespaces and makes the sockets there.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A thread in a network namespace; it ends, and all of its connections with it, when this is dropped.
#[derive(Debug)]
pub(super) struct Side {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

impl Side {
    /// A thread in the namespace of an open `/proc/<pid>/ns/net`, or in this process's own.
    pub(super) fn start(namespace: Option<File>) -> anyhow::Result<Self> {
        let (end, ended) = oneshot::channel::<()>();
        let (started, start) = std::sync::mpsc::channel();
        let run = move || -> io::Result<()> {
            if let Some(namespace) = namespace {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind)?;
            }
            let runtime = Builder::new_current_thread().enable_all().build()?;
            // Nobody listens if starting was given up.
            drop(started.send(runtime.handle().clone()));
            // An error is the end, too.
            drop(runtime.block_on(ended));
            Ok(())
        };
        let thread = thread::Builder::new()
            .name("forward".to_owned())
            .spawn(run)
            .context("cannot start a thread")?;
        match start.recv() {
            Ok(handle) => Ok(Self { handle, _end: end }),
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error).context("cannot enter a network namespace"),
                _ => anyhow::bail!("a thread for a network namespace ended"),
            },
        }
    }

    /// Listens on this side, at a free port if the port is 0.
    pub(super) async fn listen(&self, address: Ipv4Addr, port: u16) -> anyhow::Result<TcpListener> {
        let listening = self.handle.spawn(async move {
            let listener = TcpListener::bind((address, port))?;
            listener.set_nonblocking(true)?;
            io::Result::Ok(listener)
        });
        listening
            .await?
            .with_context(|| format!("cannot listen at {address}:{port}"))
    }

    /// Passes every connection that the listener of the other side gets on to an address on this side.
    pub(super) fn serve(&self, listener: TcpListener, target: SocketAddr) {
        // It ends with its runtime.
        drop(self.handle.spawn(serve(listener, target)));
    }

    /// Connects on this side and drops the connection.
    pub(super) async fn connect(&self, target: SocketAddr) -> anyhow::Result<()> {
        self.handle
            .spawn(TcpStream::connect(target))
            .await?
            .with_context(|| format!("cannot connect to {target}"))?;
        Ok(())
    }
}

async fn serve(listener: TcpListener, target: SocketAddr) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(pass(stream, target))),
            // The process has too many open files: some will be closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Either end's failure is seen by the other as the end of the connection.
async fn pass(mut near: TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}
