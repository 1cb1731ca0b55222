//! One request by TLS, directly or through a proxy.

use std::{fmt, net::IpAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::Url;
use zeroize::Zeroizing;

use super::Error;

/// How many bytes the head of an answer may have.
const HEAD_BYTES: usize = 64 << 10;

/// How many bytes the body of an answer may have: requests are told with all about their projects.
const BODY_BYTES: usize = 4 << 20;

/// How a forge is reached.
pub(super) struct Way {
    pub(super) trust: Arc<ClientConfig>,
    pub(super) proxy: Option<Proxy>,
}

/// A proxy on the way.
pub(super) struct Proxy {
    pub(super) url: Url,
    /// What it is shown.
    pub(super) authorization: Option<HeaderValue>,
}

/// The value of a header that shows a user name and a password.
pub(super) fn basic(username: &str, password: &str) -> Zeroizing<String> {
    let both = Zeroizing::new(format!("{username}:{password}"));
    let encoded = Zeroizing::new(STANDARD.encode(both.as_bytes()));
    Zeroizing::new(format!("Basic {}", *encoded))
}

/// Trusts the system's certificate authorities, read now, and those in a text (PEM).
pub(super) fn trusting(pem: &[u8]) -> Result<ClientConfig, Error> {
    let unusable = |error: rustls::Error| Error::Authorities(error.to_string());
    let more: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Authorities(error.to_string()))?;
    if more.is_empty() && !pem.is_empty() {
        let reason = "the file holds none in PEM";
        return Err(Error::Authorities(reason.to_owned()));
    }
    let provider = Arc::new(ring::default_provider());
    let verifier =
        rustls_platform_verifier::Verifier::new_with_extra_roots(more, Arc::clone(&provider))
            .map_err(unusable)?;
    let mut configuration = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(configuration)
}

/// Who is connected to.
#[derive(Clone, Debug)]
pub(super) struct Host {
    name: String,
    port: u16,
}

impl Host {
    pub(super) fn of(url: &Url) -> Self {
        Self {
            name: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default().unwrap_or(443),
        }
    }

    /// Without the brackets that a URL has around IPv6 addresses.
    fn plain(&self) -> &str {
        self.name.trim_start_matches('[').trim_end_matches(']')
    }

    fn unreachable(&self, error: impl fmt::Display) -> Error {
        Error::Connect {
            host: self.to_string(),
            reason: error.to_string(),
        }
    }

    fn broken(&self, error: impl fmt::Display) -> Error {
        Error::Answer {
            host: self.to_string(),
            reason: error.to_string(),
        }
    }

    async fn connect(&self) -> Result<Stream, Error> {
        let stream = TcpStream::connect((self.plain(), self.port)).await;
        Ok(Box::new(stream.map_err(|error| self.unreachable(error))?))
    }

    async fn secure(
        &self,
        trust: &Arc<ClientConfig>,
        stream: Stream,
    ) -> Result<TlsStream<Stream>, Error> {
        let name = match self.plain().parse::<IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => {
                ServerName::try_from(self.name.clone()).map_err(|error| self.unreachable(error))?
            }
        };
        let connector = TlsConnector::from(Arc::clone(trust));
        let connected = connector.connect(name, stream).await;
        connected.map_err(|error| self.unreachable(error))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

/// What bytes go through.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

type Stream = Box<dyn Duplex>;

/// Sends a request to a URL's host, and reads the whole answer.
pub(super) async fn ask(
    way: &Way,
    url: &Url,
    mut request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Error> {
    let host = Host::of(url);
    let stream = match &way.proxy {
        None => host.connect().await?,
        Some(proxy) => tunnel(&way.trust, proxy, &host).await?,
    };
    let stream = host.secure(&way.trust, stream).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| host.broken(error))?;
    // Ends with this function, whatever happens.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let authority = HeaderValue::from_str(authority).map_err(|error| host.broken(error))?;
    let headers = request.headers_mut();
    headers.insert(HOST, authority);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let agent = concat!("trustweave/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| host.broken(error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), BODY_BYTES).collect().await;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            host.broken(format_args!("it has more than {BODY_BYTES} bytes"))
        } else {
            host.broken(error)
        }
    })?;
    Ok((status, body.to_bytes()))
}

/// Has a proxy lead to a host.
async fn tunnel(trust: &Arc<ClientConfig>, proxy: &Proxy, to: &Host) -> Result<Stream, Error> {
    let via = Host::of(&proxy.url);
    let stream = via.connect().await?;
    let stream: Stream = if proxy.url.scheme() == "https" {
        Box::new(via.secure(trust, stream).await?)
    } else {
        stream
    };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| via.broken(error))?;
    let mut driver = JoinSet::new();
    driver.spawn(connection.with_upgrades());
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(to.to_string())
        .header(HOST, to.to_string());
    if let Some(authorization) = &proxy.authorization {
        request = request.header(PROXY_AUTHORIZATION, authorization);
    }
    let request = request.body(Empty::<Bytes>::new());
    let request = request.map_err(|error| via.broken(error))?;
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| via.broken(error))?;
    if !answer.status().is_success() {
        let status = answer.status().as_u16();
        return Err(via.unreachable(format_args!("the proxy answered {status}")));
    }
    let upgraded = hyper::upgrade::on(answer).await;
    Ok(Box::new(TokioIo::new(
        upgraded.map_err(|error| via.broken(error))?,
    )))
}
