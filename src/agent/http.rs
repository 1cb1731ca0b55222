//! Health, readiness and metrics over HTTP.

use std::{future::Future, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};

use super::telemetry::Metrics;
use crate::{cluster::lease::Leadership, git::Heads};

/// What the endpoints tell.
#[derive(Clone)]
pub struct Served {
    /// Why the agent that leads is not ready; `None` once it is.
    pub not_ready: watch::Receiver<Option<String>>,
    /// Whether it leads.
    pub leadership: watch::Receiver<Leadership>,
    /// What was seen of the repository.
    pub heads: watch::Receiver<Option<Heads>>,
    /// The metrics.
    pub metrics: Metrics,
}

/// Serves until `shutdown` completes.
pub async fn serve(
    listener: TcpListener,
    served: Served,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(served));
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
        .context("serve HTTP")
}

async fn readyz(State(served): State<Arc<Served>>) -> impl IntoResponse {
    match served.readiness() {
        Ok(word) => (StatusCode::OK, format!("{word}\n")),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

impl Served {
    /// Why the agent is not ready, or as what it is: who stands by is ready once it could take over.
    fn readiness(&self) -> Result<String, String> {
        let not_ready = self.not_ready.borrow().clone();
        match &*self.leadership.borrow() {
            Leadership::Leader => not_ready.map_or_else(|| Ok("ok".to_owned()), Err),
            Leadership::Unknown { reason } => Err(reason.clone()),
            Leadership::Standby { holder } => match (&*self.heads.borrow(), not_ready) {
                (None, Some(reason)) => Err(reason),
                _ => Ok(format!("standby: {holder} holds the Lease")),
            },
        }
    }
}

async fn metrics(State(served): State<Arc<Served>>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        served.metrics.encode(),
    )
}
