//! The server: it lets workloads in by their SPIFFE IDs, and tells each who it is.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use spiffe::{SpiffeId, X509Source};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::peer::{self, Allowed};
use crate::refusal::explain;

/// How long a client may take to say who it is, and to send a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves until the end.
pub(crate) async fn serve(
    source: X509Source,
    listen: SocketAddr,
    allowed: Vec<Allowed>,
) -> anyhow::Result<ExitCode> {
    let own = source.clone();
    let configuration = spiffe_rustls::mtls_server(source)
        .authorize(move |peer: &SpiffeId| {
            allowed.is_empty() || allowed.iter().any(|allowed| allowed.is(peer))
        })
        .build()
        .context("configure TLS")?;
    let acceptor = TlsAcceptor::from(Arc::new(configuration));
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listen on {listen}"))?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, address) = listener.accept().await.context("accept a connection")?;
        let (acceptor, own) = (acceptor.clone(), own.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => answer(stream, &own).await,
                // A probe of whether anybody listens.
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
                Ok(Err(error)) => println!("refused {}: {}", address.ip(), explain(&error)),
                Err(_) => println!("refused {}: it did not say who it is", address.ip()),
            }
        });
    }
}

async fn answer(stream: tokio_rustls::server::TlsStream<TcpStream>, own: &X509Source) {
    let Ok(client) = peer::id_of(stream.get_ref().1.peer_certificates()) else {
        return;
    };
    let (client, own) = (&client, own);
    let service = service_fn(async |_: Request<hyper::body::Incoming>| {
        println!("answered {client}");
        let text = match own.svid() {
            Ok(svid) => format!("hello {client}, this is {}\n", svid.spiffe_id()),
            Err(_) => format!("hello {client}\n"),
        };
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        println!("the connection with {client} broke: {}", explain(&error));
    }
}
