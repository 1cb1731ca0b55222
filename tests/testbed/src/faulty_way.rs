//! A way to a server that can fail: silent, slow, half open, cut, or garbled.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// How long a slow server takes for each [`PART`].
const SLOWLY: Duration = Duration::from_millis(20);

/// How many bytes of a slow server arrive at once.
const PART: usize = 4096;

/// What a pack of git begins with.
const PACK: &[u8] = b"PACK";

/// What is wrong with the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Connections are taken, and nothing is ever answered.
    Silent,
    /// The server's answer arrives at 200 KiB a second.
    Slow,
    /// After so many bytes of the server's answer, nothing more arrives; the connection stays open.
    HalfOpen(usize),
    /// After so many bytes of the server's answer, the connection is cut.
    Cut(usize),
    /// Once the client has sent so many bytes, it hears nothing more, and is cut off when the server is
    /// done: what it asked for is done, and it does not know.
    AnswerLost(usize),
    /// A byte of each pack that the server sends is another one.
    BrokenPack,
}

/// A forwarder to a port of this machine, until it is dropped.
pub struct FaultyWay {
    port: u16,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    fault: Fault,
    /// How often it struck.
    struck: usize,
}

impl FaultyWay {
    /// Leads to a port of this machine.
    pub async fn to(target: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("listen on loopback")?;
        let port = listener.local_addr()?.port();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            // Ends all connections when the task is aborted.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                connections.spawn(async move {
                    // Whoever goes away goes away.
                    drop(forward(stream, target, &state).await);
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            port,
            state,
            server,
        })
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What is wrong with connections from now on; how often the former fault struck.
    pub fn set(&self, fault: Fault) -> usize {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let former = std::mem::replace(&mut *state, State { fault, struck: 0 });
        former.struck
    }

    /// How often the fault struck that is set.
    pub fn struck(&self) -> usize {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .struck
    }
}

impl Drop for FaultyWay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn strike(state: &Mutex<State>, fault: Fault) {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if state.fault == fault {
        state.struck += 1;
    }
}

async fn forward(near: TcpStream, target: u16, state: &Mutex<State>) -> anyhow::Result<()> {
    let fault = state.lock().unwrap_or_else(PoisonError::into_inner).fault;
    if fault == Fault::Silent {
        strike(state, fault);
        return std::future::pending().await;
    }
    let far = TcpStream::connect(("127.0.0.1", target)).await?;
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let sent = Arc::new(Mutex::new(0));
    let asks = ask(near_read, far_write, Arc::clone(&sent));
    let answers = answer(far_read, near_write, fault, &sent, state);
    // The answer's end is the connection's.
    tokio::select! {
        result = answers => result,
        () = asks => Ok(()),
    }
}

/// What the client says, counted; completes only if the server is gone.
async fn ask(mut near: OwnedReadHalf, mut far: OwnedWriteHalf, sent: Arc<Mutex<usize>>) {
    let mut buffer = [0; 4096];
    loop {
        match near.read(&mut buffer).await {
            Ok(0) | Err(_) => {
                drop(far.shutdown().await);
                return std::future::pending().await;
            }
            Ok(count) => {
                *sent.lock().unwrap_or_else(PoisonError::into_inner) += count;
                if far.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What the server says, as far as the fault lets it through.
async fn answer(
    mut far: OwnedReadHalf,
    mut near: OwnedWriteHalf,
    fault: Fault,
    sent: &Mutex<usize>,
    state: &Mutex<State>,
) -> anyhow::Result<()> {
    let mut buffer = [0; 4096];
    let mut passed = 0;
    let mut lost = false;
    loop {
        let count = far.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let part = &buffer[..count];
        match fault {
            Fault::None | Fault::Silent => near.write_all(part).await?,
            Fault::Slow => {
                strike(state, fault);
                for part in part.chunks(PART) {
                    tokio::time::sleep(SLOWLY).await;
                    near.write_all(part).await?;
                }
            }
            Fault::HalfOpen(limit) | Fault::Cut(limit) => {
                let room = limit.saturating_sub(passed).min(count);
                near.write_all(&part[..room]).await?;
                passed += room;
                if passed >= limit {
                    strike(state, fault);
                    if matches!(fault, Fault::Cut(_)) {
                        return Ok(());
                    }
                    return std::future::pending().await;
                }
            }
            Fault::BrokenPack => {
                let pack = part.windows(PACK.len()).position(|it| it == PACK);
                // Behind the pack's header: in the first object, or in what checks them all.
                let broken = pack.map(|start| start + 16).filter(|at| *at < count);
                if let Some(at) = broken {
                    strike(state, fault);
                    buffer[at] ^= 0xff;
                }
                near.write_all(&buffer[..count]).await?;
            }
            Fault::AnswerLost(limit) => {
                let asked = *sent.lock().unwrap_or_else(PoisonError::into_inner);
                if asked < limit {
                    near.write_all(part).await?;
                } else if !std::mem::replace(&mut lost, true) {
                    strike(state, fault);
                }
            }
        }
    }
}
