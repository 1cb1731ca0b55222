//! A bundle endpoint of our own, for what SPIRE's does not do: another profile, another's certificate, a late answer,
//! no answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::authority::Identity;

/// Serves a document to every request, over TLS on a loopback port, until it is dropped.
pub struct BundleEndpoint {
    url: String,
    answer: watch::Sender<Answer>,
    requests: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

/// What a request gets.
#[derive(Clone, Debug)]
enum Answer {
    Document(Bytes),
    /// Nothing, with the connection open, until there is another answer.
    Silence,
}

impl BundleEndpoint {
    /// Serves a bundle document with a server's certificate.
    pub async fn start(identity: &Identity, document: &Value) -> anyhow::Result<Self> {
        let acceptor = TlsAcceptor::from(Arc::new(configuration(identity)?));
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("listen on loopback")?;
        let url = format!("https://{}", listener.local_addr()?);
        let (answer, answers) = watch::channel(Answer::Document(bytes(document)));
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let server = tokio::spawn(async move {
            // Ends all connections when the task is aborted.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answers) = (acceptor.clone(), answers.clone());
                let counted = Arc::clone(&counted);
                connections.spawn(connection(stream, acceptor, answers, counted));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            url,
            answer,
            requests,
            server,
        })
    }

    /// `https://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Serves another document from now on, also to requests that wait for an answer.
    pub fn serve(&self, document: &Value) {
        self.answer.send_replace(Answer::Document(bytes(document)));
    }

    /// Answers nothing from now on: requests hang until a document is served again.
    pub fn hang(&self) {
        self.answer.send_replace(Answer::Silence);
    }

    /// How many requests have come, answered or not.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for BundleEndpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn bytes(document: &Value) -> Bytes {
    Bytes::from(document.to_string())
}

pub(crate) fn configuration(identity: &Identity) -> anyhow::Result<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("read the endpoint's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())
        .context("read the endpoint's key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("use the endpoint's certificate")
}

/// A client that gives up or can't authenticate the endpoint is not the endpoint's concern.
async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    answers: watch::Receiver<Answer>,
    requests: Arc<AtomicUsize>,
) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let service = service_fn(move |_| {
        requests.fetch_add(1, Ordering::SeqCst);
        let mut answers = answers.clone();
        async move {
            let answer = answers
                .wait_for(|answer| matches!(answer, Answer::Document(_)))
                .await;
            let body = match answer.as_deref() {
                Ok(Answer::Document(body)) => body.clone(),
                _ => Bytes::new(),
            };
            Ok::<_, Infallible>(http::Response::new(Full::new(body)))
        }
    });
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}
