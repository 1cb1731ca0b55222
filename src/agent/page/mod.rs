//! The status page: what the agent reports, as one read-only page for people.
//!
//! **Invariants:** it changes nothing, and shows nothing that `kubectl get gitsyncs,trustpeers` does not;
//! it loads nothing from anywhere else; texts of peers never become markup. On a loopback address it
//! answers only to loopback's names, so that no page of another site can read it (DNS rebinding).

use std::{
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::Mutex};

use super::now;
use crate::{cluster::KubeCluster, model::diagnostic::with_causes, reconcile::reported::Reported};

/// How long an answer is given again: however many look, the API server is asked once.
const FRESH: Duration = Duration::from_secs(1);

/// Nothing from anywhere else, no frames, no forms.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct Page {
    cluster: Arc<KubeCluster>,
    last: Mutex<Option<(Instant, String)>>,
}

/// Serves the page until `shutdown` completes.
pub async fn serve(
    listener: TcpListener,
    cluster: Arc<KubeCluster>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let address = listener.local_addr().context("the page's address")?;
    let page = Page {
        cluster,
        last: Mutex::default(),
    };
    let file = |kind: &'static str, content: &'static str| {
        get(async move || ([(header::CONTENT_TYPE, kind)], content))
    };
    let router = Router::new()
        .route(
            "/",
            file("text/html; charset=utf-8", include_str!("page.html")),
        )
        .route(
            "/page.css",
            file("text/css; charset=utf-8", include_str!("page.css")),
        )
        .route(
            "/page.js",
            file("text/javascript; charset=utf-8", include_str!("page.js")),
        )
        .route("/status.json", get(status))
        .layer(middleware::from_fn_with_state(address, guard))
        .with_state(Arc::new(page));
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
        .context("serve the status page")
}

/// Refuses other names than loopback's on loopback, and says to browsers what the page may do.
async fn guard(State(address): State<SocketAddr>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|it| it.to_str().ok()).unwrap_or_default();
    let mut response = if address.ip().is_loopback() && !is_loopback(host) {
        (StatusCode::MISDIRECTED_REQUEST, "ask for localhost\n").into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn is_loopback(host: &str) -> bool {
    let name = host.strip_prefix('[').and_then(|it| it.split_once(']'));
    let name = name.map_or_else(
        || host.split(':').next().unwrap_or_default(),
        |(name, _)| name,
    );
    let is_address = |it: std::net::IpAddr| it.is_loopback();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_address)
}

async fn status(State(page): State<Arc<Page>>) -> Response {
    // Whoever comes meanwhile waits for the same answer.
    let mut last = page.last.lock().await;
    if let Some((at, text)) = last.as_ref()
        && at.elapsed() < FRESH
    {
        return json(text.clone());
    }
    match Reported::read(&*page.cluster).await {
        Ok(reported) => {
            let mut told = reported.json();
            told["now"] = now().to_string().into();
            told["version"] = env!("CARGO_PKG_VERSION").into();
            let text = told.to_string();
            *last = Some((Instant::now(), text.clone()));
            json(text)
        }
        Err(error) => (StatusCode::BAD_GATEWAY, with_causes(&error)).into_response(),
    }
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopbacks_names_are_loopback() {
        for (host, expected) in [
            ("localhost:8082", true),
            ("LOCALHOST", true),
            ("127.0.0.1:8082", true),
            ("127.9.9.9", true),
            ("[::1]:8082", true),
            ("localhost.example.org:8082", false),
            ("10.0.0.1:8082", false),
            ("", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
