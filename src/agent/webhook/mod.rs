//! The receiver of webhooks: whoever knows the secret may ask that the repository be looked at now.
//!
//! **Invariants:** nothing of a call is heard before its signature was verified; nothing in it decides
//! anything; however many come, they lead to one look at a time, as the agent's polls are spaced.

mod relay;
pub mod signature;

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use futures::StreamExt;
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
};

use self::signature::{Provider, Refusal, Secrets, Verification};
use super::{
    config::Webhook,
    telemetry::{Metrics, WebhookLabels},
};

/// What a body may have, in bytes: the most that GitHub sends.
const MAX_BODY: usize = 25 << 20;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many calls are heard at once; others are told to come again.
const AT_ONCE: usize = 16;

/// What the receiver needs.
pub struct Receiver {
    settings: Webhook,
    look_now: Arc<Notify>,
    metrics: Metrics,
    room: Semaphore,
}

/// Why a call is not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unheard {
    Refused(Refusal),
    TooLarge,
    TooSlow,
    Busy,
}

impl Receiver {
    /// As configured; `look_now` is told of every call that is heard.
    pub fn new(settings: Webhook, look_now: Arc<Notify>, metrics: Metrics) -> Self {
        Self {
            settings,
            look_now,
            metrics,
            room: Semaphore::new(AT_ONCE),
        }
    }

    /// Verifies a call, and passes it on.
    async fn hear(&self, request: Request) -> Result<Provider, Unheard> {
        let _room = self.room.try_acquire().map_err(|_| Unheard::Busy)?;
        // Read for every call, so that a replaced secret is used at once.
        let text = std::fs::read_to_string(&self.settings.secret_file);
        let text = text.unwrap_or_else(|error| {
            let path = self.settings.secret_file.display();
            tracing::warn!(%path, %error, "the webhook's secret can't be read");
            String::new()
        });
        let secrets = Secrets::parse(&text).map_err(Unheard::Refused)?;
        let (head, body) = request.into_parts();
        let header = |name: &str| {
            head.headers
                .get(name)
                .map(axum::http::HeaderValue::as_bytes)
        };
        let verification = Verification::begin(header, &secrets).map_err(Unheard::Refused)?;
        let provider = tokio::time::timeout(PATIENCE, verify(verification, body))
            .await
            .map_err(|_| Unheard::TooSlow)??;
        self.look_now.notify_one();
        if let Some(replicas) = &self.settings.relay_to
            && header(relay::RELAYED).is_none()
        {
            relay::pass_on(replicas, secrets.first()).await;
        }
        Ok(provider)
    }
}

/// Hashes a body as it arrives.
async fn verify(mut verification: Verification, body: Body) -> Result<Provider, Unheard> {
    let mut size = 0;
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        // A body that ends early is not the one that was signed.
        let part = part.map_err(|_| Unheard::Refused(Refusal::Wrong))?;
        size += part.len();
        if size > MAX_BODY {
            return Err(Unheard::TooLarge);
        }
        verification.update(&part);
    }
    verification.finish().map_err(Unheard::Refused)
}

impl Unheard {
    fn result(self) -> &'static str {
        match self {
            Self::Refused(Refusal::NoSecret) => "no-secret",
            Self::Refused(Refusal::Unsigned | Refusal::Malformed) => "unsigned",
            Self::Refused(Refusal::Wrong) => "wrong",
            Self::TooLarge => "too-large",
            Self::TooSlow => "too-slow",
            Self::Busy => "busy",
        }
    }
}

impl IntoResponse for Unheard {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Refused(refusal @ Refusal::NoSecret) => {
                (StatusCode::SERVICE_UNAVAILABLE, refusal.to_string())
            }
            Self::Refused(refusal) => (StatusCode::UNAUTHORIZED, refusal.to_string()),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too large".to_owned()),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too slow".to_owned()),
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, "come again".to_owned()),
        };
        (status, format!("{text}\n")).into_response()
    }
}

async fn receive(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let heard = receiver.hear(request).await;
    let (provider, result) = match &heard {
        Ok(provider) => (provider.as_str(), "heard"),
        Err(unheard) => ("unknown", unheard.result()),
    };
    let labels = WebhookLabels { provider, result };
    receiver.metrics.webhooks.get_or_create(&labels).inc();
    match heard {
        Ok(provider) => {
            tracing::debug!(provider = provider.as_str(), "a webhook asks to look now");
            (StatusCode::ACCEPTED, "looking\n").into_response()
        }
        Err(unheard) => {
            tracing::debug!(result, "a webhook is not heard");
            unheard.into_response()
        }
    }
}

/// Receives webhooks at `/webhook` until `shutdown` completes.
pub async fn serve(
    listener: TcpListener,
    receiver: Receiver,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/webhook", post(receive))
        .with_state(Arc::new(receiver));
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
        .context("receive webhooks")
}

#[cfg(test)]
mod tests;
