//! A call reaches one replica, and the one that writes may be another: it is passed on to all.

use std::{net::SocketAddr, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    task::JoinSet,
};

/// Marks what was passed on, which is not passed on again.
pub(super) const RELAYED: &str = "x-trustweave-relayed";

/// How long a replica may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tells whoever listens at the addresses of a name (`host:port`) to look now. Who can't be told looks
/// at its next poll.
pub(super) async fn pass_on(replicas: &str, secret: &[u8]) {
    let found = match lookup_host(replicas).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(replicas, %error, "the other replicas are not found");
            return;
        }
    };
    let request = request(secret);
    let mut calls: JoinSet<()> = found
        .map(|address| {
            let request = request.clone();
            async move {
                let call = tokio::time::timeout(PATIENCE, call(address, &request));
                if !matches!(call.await, Ok(Ok(()))) {
                    tracing::debug!(%address, "a replica can't be told to look");
                }
            }
        })
        .collect();
    while calls.join_next().await.is_some() {}
}

/// A call without content, signed as any other one.
fn request(secret: &[u8]) -> String {
    let signature = Hmac::<Sha256>::new_from_slice(secret)
        .map(|mac| base16ct::lower::encode_string(&mac.finalize().into_bytes()))
        .unwrap_or_default();
    format!(
        "POST /webhook HTTP/1.1\r\nhost: replica\r\nconnection: close\r\ncontent-length: 0\r\n\
         {RELAYED}: yes\r\nx-signature: sha256={signature}\r\n\r\n"
    )
}

async fn call(address: SocketAddr, request: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    // Until it was heard: who closes earlier may take it back.
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.map(drop)
}
