//! An HTTP proxy that only lets through who shows a password.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use base64::Engine as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A proxy for `CONNECT`, until it is dropped.
pub struct HttpProxy {
    url: String,
    connected: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
}

impl HttpProxy {
    /// Lets through who shows this user name and password.
    pub async fn start(username: &str, password: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("listen on loopback")?;
        let url = format!("http://{}", listener.local_addr()?);
        let engine = base64::engine::general_purpose::STANDARD;
        let expected = format!("Basic {}", engine.encode(format!("{username}:{password}")));
        let connected = Arc::<Mutex<Vec<String>>>::default();
        let told = Arc::clone(&connected);
        let server = tokio::spawn(async move {
            // Ends all connections when the task is aborted.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (expected, told) = (expected.clone(), Arc::clone(&told));
                connections.spawn(async move {
                    // Whoever goes away goes away.
                    drop(tunnel(stream, &expected, &told).await);
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            url,
            connected,
            server,
        })
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it led to until now, as `host:port`.
    pub fn connected(&self) -> Vec<String> {
        self.connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Serves one connection: refusals until somebody is let through.
async fn tunnel(
    stream: TcpStream,
    expected: &str,
    told: &Mutex<Vec<String>>,
) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if stream.read_line(&mut request).await? == 0 {
            return Ok(());
        }
        let mut shown = None;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("proxy-authorization") {
                shown = Some(value.trim().to_owned());
            }
        }
        if shown.as_deref() != Some(expected) {
            stream
                .write_all(
                    b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=\"proxy\"\r\n\
                      Content-Length: 0\r\n\r\n",
                )
                .await?;
            continue;
        }
        let target = request
            .split(' ')
            .nth(1)
            .context("a request without target")?;
        told.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(target.to_owned());
        let mut far = TcpStream::connect(target).await?;
        stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
        tokio::io::copy_bidirectional(&mut stream, &mut far).await?;
        return Ok(());
    }
}
