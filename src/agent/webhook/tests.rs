//! The receiver on a real connection.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use super::*;

struct Running {
    directory: tempfile::TempDir,
    address: std::net::SocketAddr,
    look_now: Arc<Notify>,
    metrics: Metrics,
    _stop: tokio_util::sync::DropGuard,
}

impl Running {
    async fn start() -> Self {
        Self::start_at("127.0.0.1:0", None).await
    }

    async fn start_at(listen: &str, relay_to: Option<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (look_now, metrics) = (Arc::new(Notify::new()), Metrics::default());
        let settings = Webhook {
            listen: listen.parse().unwrap(),
            secret_file: directory.path().join("secret"),
            relay_to,
        };
        let receiver = Receiver::new(settings, look_now.clone(), metrics.clone());
        let listener = TcpListener::bind(listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, receiver, stop.clone().cancelled_owned()));
        Self {
            directory,
            address,
            look_now,
            metrics,
            _stop: stop.drop_guard(),
        }
    }

    fn secret(&self, secret: &str) {
        std::fs::write(self.directory.path().join("secret"), secret).unwrap();
    }

    /// The status of an answer.
    async fn call(&self, method: &str, header: &str, length: usize, body: &[u8]) -> u16 {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{method} /webhook HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\
             content-length: {length}\r\n{header}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // It may answer before it has read everything.
        drop(stream.write_all(body).await);
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
    }

    /// Whether somebody was told to look since this was asked last.
    async fn told(&self) -> bool {
        tokio::select! {
            biased;
            () = self.look_now.notified() => true,
            () = std::future::ready(()) => false,
        }
    }
}

#[tokio::test]
async fn only_who_knows_the_secret_is_heard() {
    let running = Running::start().await;
    let token = |token: &str| format!("x-gitlab-token: {token}");
    // Not without a file, and not with an empty one.
    assert_eq!(running.call("POST", &token("one"), 2, b"{}").await, 503);
    running.secret("\n");
    assert_eq!(running.call("POST", &token(""), 2, b"{}").await, 503);
    running.secret("one\n");
    assert_eq!(running.call("POST", "accept: */*", 2, b"{}").await, 401);
    assert_eq!(running.call("POST", &token("two"), 2, b"{}").await, 401);
    assert_eq!(running.call("GET", &token("one"), 0, b"").await, 405);
    assert!(!running.told().await);

    assert_eq!(running.call("POST", &token("one"), 2, b"{}").await, 202);
    assert_eq!(running.call("POST", &token("one"), 2, b"{}").await, 202);
    // Many calls, one look.
    assert!(running.told().await);
    assert!(!running.told().await);

    // A secret that was replaced, without a restart.
    running.secret("two\n");
    assert_eq!(running.call("POST", &token("one"), 2, b"{}").await, 401);
    assert_eq!(running.call("POST", &token("two"), 2, b"{}").await, 202);
    let metrics = running.metrics.encode();
    for line in [
        r#"trustweave_webhooks_total{provider="gitlab",result="heard"} 3"#,
        r#"trustweave_webhooks_total{provider="unknown",result="wrong"} 2"#,
        r#"trustweave_webhooks_total{provider="unknown",result="no-secret"} 2"#,
    ] {
        assert!(metrics.contains(line), "{line} not in {metrics}");
    }
}

#[tokio::test]
async fn a_body_without_end_is_not_awaited() {
    let running = Running::start().await;
    running.secret("one\n");
    let body = vec![b' '; MAX_BODY + 1];
    let status = running.call("POST", "x-gitlab-token: one", body.len(), &body);
    assert_eq!(status.await, 413);
    assert!(!running.told().await);
}

#[tokio::test]
async fn every_replica_is_told_once() {
    let other = Running::start_at("127.0.0.2:0", None).await;
    other.secret("one");
    // If it were passed on again, it would come back for ever.
    let first = Running::start_at("127.0.0.1:0", Some(other.address.to_string())).await;
    first.secret("one");
    assert_eq!(
        first.call("POST", "x-gitlab-token: one", 2, b"{}").await,
        202
    );
    assert!(first.told().await && other.told().await);
    let heard = r#"trustweave_webhooks_total{provider="generic",result="heard"} 1"#;
    assert!(other.metrics.encode().contains(heard));

    // Whoever is not there, or has another secret, holds nobody up.
    other.secret("another");
    assert_eq!(
        first.call("POST", "x-gitlab-token: one", 2, b"{}").await,
        202
    );
    assert!(first.told().await && !other.told().await);
    let nowhere = Running::start_at("127.0.0.1:0", Some("127.0.0.3:9".to_owned())).await;
    nowhere.secret("one");
    assert_eq!(
        nowhere.call("POST", "x-gitlab-token: one", 2, b"{}").await,
        202
    );
    assert!(nowhere.told().await);
    let relayed = "x-gitlab-token: one\r\nx-trustweave-relayed: yes";
    assert_eq!(nowhere.call("POST", relayed, 2, b"{}").await, 202);
}
