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

/// What the endpoints tell.
#[derive(Clone)]
pub struct Served {
    /// Why the agent is not ready; `None` once it is.
    pub not_ready: watch::Receiver<Option<String>>,
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
    match &*served.not_ready.borrow() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics(State(served): State<Arc<Served>>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        served.metrics.encode(),
    )
}
