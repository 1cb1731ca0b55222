//! What the testbed itself serves by https: each request is answered by a function.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::authority::Identity;
use crate::endpoint::configuration;

/// Serves with a server's certificate. When the task is aborted, all connections end with it.
pub(crate) fn serve<A, F>(
    listener: TcpListener,
    identity: &Identity,
    answer: A,
) -> anyhow::Result<JoinHandle<()>>
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::new(configuration(identity)?));
    Ok(tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            connections.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(|request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let stream = TokioIo::new(stream);
                drop(
                    http1::Builder::new()
                        .serve_connection(stream, service)
                        .await,
                );
            });
            while connections.try_join_next().is_some() {}
        }
    }))
}
