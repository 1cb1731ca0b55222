//! A client of SPIFFE bundle endpoints, with the limits that SPIRE's own poller lacks: that one has
//! no deadline and no limit of size, and takes `{}` for an empty bundle.
//!
//! Both profiles of SPIFFE Federation, section 5.2. A redirect is followed, as the specification
//! asks, a few times, to `https` only and under the same authentication: another place, never
//! another identity. It is not remembered. No proxy is used.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::{Host, Url};

use crate::model::{
    bundle::{Bundle, InvalidBundle, MAX_BUNDLE_BYTES},
    trust_domain::SpiffeId,
};

mod proof;
#[cfg(test)]
mod tests;

/// How long one answer may take, from the first packet to the last, redirects included.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How many redirects are followed.
const REDIRECTS: usize = 3;

/// How many bytes the head of an answer may have.
const HEAD_BYTES: usize = 32 << 10;

/// A bundle endpoint, and how it proves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https://<host>[:port]`; a fragment is never sent.
    pub url: String,
    /// How it proves itself.
    pub identity: Identity,
}

/// How an endpoint proves itself (SPIFFE Federation, section 5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// `https_web`: by a certificate of the public web for the URL's host. The roots are the
    /// operating system's, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name; they are read once.
    Web,
    /// `https_spiffe`: by an X.509-SVID. The host's name does not matter.
    Spiffe {
        /// The SPIFFE ID, exactly.
        id: SpiffeId,
        /// The X.509 authorities (DER) of the ID's trust domain.
        roots: Vec<Vec<u8>>,
    },
}

/// Why an endpoint gave no bundle.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Not the URL of an endpoint.
    #[error("`{url}` is not the URL of a bundle endpoint: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing to verify the endpoint's certificate with.
    #[error("no roots to verify the endpoint's certificate with: {0}")]
    Roots(String),
    /// No connection.
    #[error("connect to {host}: {reason}")]
    Connect {
        /// Host and port.
        host: String,
        /// The cause.
        reason: String,
    },
    /// The endpoint did not prove to be the declared one.
    #[error("{host} does not prove to be the declared endpoint: {reason}")]
    Identity {
        /// Host and port.
        host: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// The answer broke off, or is not HTTP.
    #[error("the answer of {host} can't be read: {reason}")]
    Answer {
        /// Host and port.
        host: String,
        /// The cause.
        reason: String,
    },
    /// Another answer than 200.
    #[error("{host} answered with status {status}")]
    Status {
        /// Host and port.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// More redirects than are followed.
    #[error("more than {REDIRECTS} redirects")]
    Redirects,
    /// More than [`MAX_BUNDLE_BYTES`].
    #[error("the answer has more than the {MAX_BUNDLE_BYTES} bytes that are accepted")]
    TooLarge,
    /// No whole answer in time.
    #[error("no whole answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// An answer, but no bundle.
    #[error(transparent)]
    Bundle(#[from] InvalidBundle),
}

impl Error {
    /// Whether the same request may succeed later, without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Answer { .. } | Self::Timeout(_) => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            Self::Url { .. }
            | Self::Roots(_)
            | Self::Identity { .. }
            | Self::Redirects
            | Self::TooLarge
            | Self::Bundle(_) => false,
        }
    }
}

/// What the endpoint serves now. An empty list of keys is a bundle too: whether it may be used is
/// the caller's to judge ([`Bundle::check`]).
pub async fn fetch(endpoint: &Endpoint) -> Result<Bundle, Error> {
    fetch_within(endpoint, DEADLINE).await
}

/// As [`fetch`], with a deadline of one's own. Half of it is for the connection.
pub async fn fetch_within(endpoint: &Endpoint, deadline: Duration) -> Result<Bundle, Error> {
    let tls = proof::configuration(&endpoint.identity)?;
    read(&endpoint.url, tls, deadline).await
}

async fn read(url: &str, tls: ClientConfig, deadline: Duration) -> Result<Bundle, Error> {
    let document = tokio::time::timeout(deadline, follow(url, tls, deadline / 2))
        .await
        .unwrap_or(Err(Error::Timeout(deadline)))?;
    Ok(Bundle::parse(&document)?)
}

/// The body of the first answer that is no redirect.
async fn follow(url: &str, tls: ClientConfig, connect: Duration) -> Result<Bytes, Error> {
    let tls = TlsConnector::from(Arc::new(tls));
    let mut target = Target::parse(url)?;
    for _ in 0..=REDIRECTS {
        let stream = tokio::time::timeout(connect, target.connect(&tls))
            .await
            .unwrap_or_else(|_| {
                Err(Error::Connect {
                    host: target.host.clone(),
                    reason: format!("not done within {} s", connect.as_secs_f64()),
                })
            })?;
        match target.get(stream).await? {
            Got::Body(body) => return Ok(body),
            Got::Redirect(location) => target = target.join(&location)?,
        }
    }
    Err(Error::Redirects)
}

/// Where a request goes.
struct Target {
    url: Url,
    name: ServerName<'static>,
    /// Host and port, for the connection and for people.
    host: String,
    port: u16,
}

/// What a request led to.
enum Got {
    Body(Bytes),
    Redirect(String),
}

impl Target {
    fn parse(text: &str) -> Result<Self, Error> {
        let url = Url::parse(text).map_err(|error| unusable(text, error.to_string()))?;
        Self::new(url)
    }

    fn new(url: Url) -> Result<Self, Error> {
        if url.scheme() != "https" {
            return Err(unusable(&url, "its scheme is not https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(unusable(&url, "it has a user name or a password"));
        }
        let name = match url.host() {
            None => return Err(unusable(&url, "it has no host")),
            Some(Host::Ipv4(address)) => ServerName::from(std::net::IpAddr::from(address)),
            Some(Host::Ipv6(address)) => ServerName::from(std::net::IpAddr::from(address)),
            Some(Host::Domain(name)) => ServerName::try_from(name.to_owned())
                .map_err(|error| unusable(&url, error.to_string()))?,
        };
        let port = url.port_or_known_default().unwrap_or(443);
        let host = format!("{}:{port}", url.host_str().unwrap_or_default());
        Ok(Self {
            url,
            name,
            host,
            port,
        })
    }

    /// Where a `Location` leads to from here.
    fn join(&self, location: &str) -> Result<Self, Error> {
        let url = self.url.join(location);
        Self::new(url.map_err(|error| unusable(location, error.to_string()))?)
    }

    async fn connect(&self, tls: &TlsConnector) -> Result<TlsStream<TcpStream>, Error> {
        let failed = |error: &std::io::Error| Error::Connect {
            host: self.host.clone(),
            reason: error.to_string(),
        };
        let name = self.name.to_str();
        let stream = TcpStream::connect((&*name, self.port))
            .await
            .map_err(|error| failed(&error))?;
        tls.connect(self.name.clone(), stream)
            .await
            .map_err(|error| {
                let cause = error.get_ref().and_then(|inner| inner.downcast_ref());
                match cause {
                    Some(rustls::Error::InvalidCertificate(reason)) => Error::Identity {
                        host: self.host.clone(),
                        reason: proof::words(reason),
                    },
                    _ => failed(&error),
                }
            })
    }

    async fn get(&self, stream: TlsStream<TcpStream>) -> Result<Got, Error> {
        let broken = |reason: String| Error::Answer {
            host: self.host.clone(),
            reason,
        };
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(error.to_string()))?;
        // Ends with this function, whatever happens.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let path = &self.url[url::Position::BeforePath..url::Position::AfterQuery];
        let authority = &self.url[url::Position::BeforeHost..url::Position::AfterPort];
        let request = Request::get(path)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close")
            .header(
                header::USER_AGENT,
                concat!("trustweave/", env!("CARGO_PKG_VERSION")),
            )
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(error.to_string()))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| broken(error.to_string()))?;
        match answer.status() {
            StatusCode::OK => body(answer).await.map(Got::Body).map_err(|reason| {
                reason.map_or(Error::TooLarge, |error| broken(error.to_string()))
            }),
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => {
                let location = answer.headers().get(header::LOCATION);
                location
                    .and_then(|location| location.to_str().ok())
                    .map(|location| Got::Redirect(location.to_owned()))
                    .ok_or_else(|| broken("a redirect to nowhere".to_owned()))
            }
            status => Err(Error::Status {
                host: self.host.clone(),
                status: status.as_u16(),
            }),
        }
    }
}

/// The whole body; `None` as the error if it is too large.
async fn body(
    answer: Response<Incoming>,
) -> Result<Bytes, Option<Box<dyn std::error::Error + Send + Sync>>> {
    let limited = Limited::new(answer.into_body(), MAX_BUNDLE_BYTES);
    match limited.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(None),
        Err(error) => Err(Some(error)),
    }
}

fn unusable(url: &(impl ToString + ?Sized), reason: impl Into<String>) -> Error {
    Error::Url {
        url: url.to_string(),
        reason: reason.into(),
    }
}
