//! The client: it calls a server whose SPIFFE ID it knows, and prints a line for each call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use spiffe::{SpiffeId, X509Source};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::peer;
use crate::refusal::explain;

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of an answer is read.
const ANSWER: usize = 64 * 1024;

/// A client of one server.
pub(crate) struct Client {
    connector: TlsConnector,
    host: String,
    port: u16,
    path: String,
}

impl Client {
    pub(crate) fn new(source: X509Source, url: &Url, server: SpiffeId) -> anyhow::Result<Self> {
        anyhow::ensure!(
            url.scheme() == "https",
            "{url} does not begin with https://"
        );
        let host = url
            .host_str()
            .with_context(|| format!("{url} names no host"))?;
        let configuration = spiffe_rustls::mtls_client(source)
            .authorize(move |peer: &SpiffeId| *peer == server)
            .build()
            .context("configure TLS")?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(configuration)),
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default().unwrap_or(443),
            path: url.path().to_owned(),
        })
    }

    /// Calls over a connection of its own, so that each call shows the trust of its moment. Returns whether it was
    /// answered.
    pub(crate) async fn call(&self) -> bool {
        let begun = Instant::now();
        let result = tokio::time::timeout(PATIENCE, self.answer())
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs())));
        match &result {
            Ok((server, answer)) => println!(
                "ok      {server} answered in {} ms: {}",
                begun.elapsed().as_millis(),
                answer.trim_end()
            ),
            Err(error) => println!("failed  {error:#}"),
        }
        result.is_ok()
    }

    async fn answer(&self) -> anyhow::Result<(SpiffeId, String)> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .with_context(|| format!("{}:{} can't be reached", self.host, self.port))?;
        // For the server's router alone: who the server is, its SPIFFE ID says.
        let name = ServerName::try_from(self.host.clone())
            .with_context(|| format!("`{}` is no name of a server", self.host))?;
        let stream = self.connector.connect(name, stream).await.map_err(told)?;
        let server = peer::id_of(stream.get_ref().1.peer_certificates())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(told)?;
        let request = Request::get(&self.path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .body(Empty::<Bytes>::new())?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(told)?;
            let status = answer.status();
            anyhow::ensure!(status.is_success(), "the server said {status}");
            let body = Limited::new(answer.into_body(), ANSWER).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
            Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
        };
        tokio::pin!(answer);
        let text = tokio::select! {
            // In TLS 1.3 a server refuses a client after the client has finished its part, and the connection knows why.
            biased;
            ended = connection => {
                ended.map_err(told)?;
                answer.await?
            }
            answer = &mut answer => answer?,
        };
        Ok((server, text))
    }
}

fn told(error: impl std::error::Error + 'static) -> anyhow::Error {
    anyhow::anyhow!(explain(&error))
}
