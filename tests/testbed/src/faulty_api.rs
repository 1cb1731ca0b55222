//! A way to an API server that can answer as an overloaded, a compacted or a contended one does.
//!
//! What no fault is set for goes to the real API server, and its answer back, as they are.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::authority::Identity;
use crate::cluster::Cluster;
use crate::endpoint::configuration;

/// How long a slow API server takes before it looks at a request.
const SLOWLY: Duration = Duration::from_millis(100);

/// What is wrong with the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiFault {
    /// Nothing.
    #[default]
    None,
    /// It takes its time for each request.
    Slow,
    /// It has too much to do: 429, and to come again in a second.
    TooManyRequests,
    /// Whatever is patched was written by somebody else meanwhile: 409.
    Conflict,
    /// The events that a watch goes on from are forgotten: 410. Watches under way are cut off.
    Expired,
    /// What is asked to be patched is patched, and the answer is lost with the connection.
    AnswerLost,
}

/// A server in front of a cluster's API server, until it is dropped.
pub struct FaultyApi {
    url: String,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    fault: Mutex<(ApiFault, usize)>,
    /// Told when connections are to be cut.
    cut: watch::Sender<()>,
}

/// What every connection needs.
struct Way {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    /// Where the API server listens.
    target: String,
    state: Arc<State>,
}

/// An answer of the API server, or one of ours.
type Answer = Response<Either<Incoming, Full<Bytes>>>;

/// The connection to the API server.
type Upstream = tokio::sync::Mutex<SendRequest<Incoming>>;

impl FaultyApi {
    /// Leads to a cluster's API server; shows a server's certificate.
    pub async fn to(cluster: &Cluster, identity: &Identity) -> anyhow::Result<Self> {
        let target = cluster.url().strip_prefix("https://");
        let state = Arc::new(State {
            fault: Mutex::default(),
            cut: watch::Sender::new(()),
        });
        let way = Arc::new(Way {
            acceptor: TlsAcceptor::from(Arc::new(configuration(identity)?)),
            connector: TlsConnector::from(Arc::new(trusting(cluster.authority())?)),
            target: target.context("an API server without TLS")?.to_owned(),
            state: Arc::clone(&state),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("listen on loopback")?;
        let url = format!("https://{}", listener.local_addr()?);
        let server = tokio::spawn(async move {
            // Ends all connections when the task is aborted.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let way = Arc::clone(&way);
                connections.spawn(async move {
                    let mut cut = way.state.cut.subscribe();
                    tokio::select! {
                        // Whoever goes away goes away.
                        ended = way.serve(stream) => drop(ended),
                        _ = cut.changed() => {}
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { url, state, server })
    }

    /// `https://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What is wrong from now on; how often the former fault struck.
    pub fn set(&self, fault: ApiFault) -> usize {
        let (_, struck) = std::mem::replace(&mut *self.state.lock(), (fault, 0));
        if fault == ApiFault::Expired {
            self.state.cut.send_replace(());
        }
        struck
    }

    /// How often the fault struck that is set.
    pub fn struck(&self) -> usize {
        self.state.lock().1
    }
}

impl Drop for FaultyApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Way {
    /// Serves one connection by a connection of its own to the API server; without one, it is closed.
    async fn serve(&self, near: TcpStream) -> anyhow::Result<()> {
        let far = TcpStream::connect(&self.target).await?;
        let name = ServerName::try_from("127.0.0.1")?;
        let far = TokioIo::new(self.connector.connect(name, far).await?);
        let near = TokioIo::new(self.acceptor.accept(near).await?);
        let (sender, connection) = hyper::client::conn::http1::handshake(far).await?;
        let upstream = Upstream::new(sender);
        let service = service_fn(|request| self.state.answer(&upstream, request));
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(near, service);
        // That the API server went away is noticed by the next request, or by an answer under way.
        let pump = async {
            drop(connection.await);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = serving => Ok(served?),
            () = pump => Ok(()),
        }
    }
}

impl State {
    fn lock(&self) -> std::sync::MutexGuard<'_, (ApiFault, usize)> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault that strikes a request, if one does.
    fn strikes(&self, request: &Request<Incoming>) -> ApiFault {
        let query = request.uri().query().unwrap_or_default();
        let watches = query.split('&').any(|it| it == "watch=true");
        let patches = *request.method() == Method::PATCH && !query.contains("dryRun");
        let mut state = self.lock();
        let strikes = match state.0 {
            ApiFault::None => false,
            ApiFault::Slow | ApiFault::TooManyRequests => true,
            ApiFault::Conflict | ApiFault::AnswerLost => patches,
            ApiFault::Expired => watches,
        };
        if !strikes {
            return ApiFault::None;
        }
        state.1 += 1;
        state.0
    }

    async fn answer(
        &self,
        upstream: &Upstream,
        request: Request<Incoming>,
    ) -> Result<Answer, Box<dyn Error + Send + Sync>> {
        let fault = self.strikes(&request);
        match fault {
            ApiFault::None | ApiFault::AnswerLost => {}
            ApiFault::Slow => tokio::time::sleep(SLOWLY).await,
            ApiFault::TooManyRequests => {
                let code = StatusCode::TOO_MANY_REQUESTS;
                let mut answer = status(code, "TooManyRequests", "too many requests", false);
                let second = header::HeaderValue::from_static("1");
                answer.headers_mut().insert(header::RETRY_AFTER, second);
                return Ok(answer);
            }
            ApiFault::Conflict => {
                let message =
                    "the object has been modified; please apply your changes to the latest version";
                return Ok(status(StatusCode::CONFLICT, "Conflict", message, false));
            }
            ApiFault::Expired => {
                let message = "too old resource version";
                return Ok(status(StatusCode::GONE, "Expired", message, true));
            }
        }
        let mut upstream = upstream.lock().await;
        upstream.ready().await?;
        let answer = upstream.send_request(request).await?;
        if fault == ApiFault::AnswerLost {
            return Err("the answer is lost".into());
        }
        Ok(answer.map(Either::Left))
    }
}

/// A failure as an API server tells it; in a watch, as an event in an answer that begins well.
fn status(code: StatusCode, reason: &str, message: &str, in_watch: bool) -> Answer {
    let mut body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    let mut answer = Response::default();
    if in_watch {
        body = json!({"type": "ERROR", "object": body});
    } else {
        *answer.status_mut() = code;
        body["details"] = json!({"retryAfterSeconds": 1});
    }
    let json = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer.map(|()| Either::Right(Full::new(Bytes::from(format!("{body}\n")))))
}

/// A client's side that trusts one authority.
fn trusting(authority: &str) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    Ok(builder
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
