use std::sync::Mutex;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::model::bundle::sample;

const ID: &str = "spiffe://a.test/spire/server";

/// Long enough for a busy machine; no test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Short, and waited for.
const SHORT: Duration = Duration::from_millis(200);

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn svid(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    params
}

/// A server on loopback that answers connection after connection as it was told, the last way for
/// ever. `None` is an answer that never comes.
struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(
        params: &CertificateParams,
        authority: &Authority,
        answers: Vec<Option<Vec<u8>>>,
    ) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, authority).unwrap();
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let mut tasks = JoinSet::new();
        let log = requests.clone();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            let mut answers = answers.into_iter();
            let mut answer = None;
            while let Ok((stream, _)) = listener.accept().await {
                answer = answers.next().unwrap_or(answer);
                let (acceptor, answer, log) = (acceptor.clone(), answer.clone(), log.clone());
                open.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut request = vec![0; 4096];
                    let length = stream.read(&mut request).await.unwrap();
                    let request = String::from_utf8_lossy(&request[..length]).into_owned();
                    log.lock().unwrap().push(request);
                    if let Some(answer) = answer {
                        // The client may have had enough before the end.
                        stream.write_all(&answer).await.ok();
                    }
                    std::future::pending::<()>().await;
                });
            }
        });
        Self {
            port,
            requests,
            _tasks: tasks,
        }
    }

    fn spiffe(&self, authority: &Authority) -> Endpoint {
        Endpoint {
            url: format!("https://localhost:{}/#1.2.3", self.port),
            identity: Identity::Spiffe {
                id: SpiffeId::parse(ID).unwrap(),
                roots: vec![authority.der().to_vec()],
            },
        }
    }
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn ok(body: &[u8]) -> Vec<u8> {
    answer("200 OK", "Content-Type: application/json\r\n", body)
}

/// What the client makes of a server with this certificate, when it expects [`ID`].
async fn met(params: &CertificateParams) -> Result<Bundle, Error> {
    let authority = authority();
    let document = sample("a.test").canonical();
    let server = Server::start(params, &authority, vec![Some(ok(&document))]).await;
    fetch_within(&server.spiffe(&authority), PATIENCE).await
}

/// What the client makes of these answers by the right server.
async fn answered(answers: Vec<Vec<u8>>) -> Result<Bundle, Error> {
    let authority = authority();
    let answers = answers.into_iter().map(Some).collect();
    let server = Server::start(&svid(&[ID]), &authority, answers).await;
    fetch_within(&server.spiffe(&authority), PATIENCE).await
}

#[tokio::test]
async fn the_bundle_is_what_the_right_server_serves() {
    let (authority, bundle) = (authority(), sample("a.test"));
    let answers = vec![Some(ok(&bundle.canonical()))];
    let server = Server::start(&svid(&[ID]), &authority, answers).await;
    let found = fetch_within(&server.spiffe(&authority), PATIENCE).await;
    assert_eq!(found.unwrap(), bundle);
    let requests = server.requests.lock().unwrap().join("\n");
    assert!(requests.starts_with("GET / HTTP/1.1\r\n"), "{requests}");
    assert!(!requests.contains("1.2.3"), "the fragment: {requests}");
    assert!(
        requests.contains(&format!("localhost:{}\r\n", server.port)),
        "{requests}"
    );
}

#[tokio::test]
async fn only_the_declared_id_is_taken() {
    let refused = async |params: &CertificateParams, why: &str| match met(params).await {
        Err(error @ Error::Identity { .. }) => {
            assert!(error.to_string().contains(why), "{error}");
            assert!(!error.is_retryable());
        }
        other => panic!("{other:?}, not refused because of `{why}`"),
    };
    refused(&svid(&["spiffe://a.test/another"]), "a.test/another").await;
    refused(&svid(&["spiffe://a.test/spire/server/x"]), "server/x").await;
    refused(&svid(&[ID, "spiffe://a.test/another"]), "2 URIs").await;
    refused(&svid(&[]), "0 URIs").await;
    let mut signs = svid(&[ID]);
    signs.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    refused(&signs, "may sign others").await;
    let mut expired = svid(&[ID]);
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    refused(&expired, "expired").await;
}

#[tokio::test]
async fn only_the_declared_roots_are_taken() {
    let real = authority();
    let reply = ok(&sample("a.test").canonical());
    let server = Server::start(&svid(&[ID]), &real, vec![Some(reply)]).await;
    let mut endpoint = server.spiffe(&authority());
    let other = fetch_within(&endpoint, PATIENCE).await;
    assert!(matches!(other, Err(Error::Identity { .. })), "{other:?}");
    let Identity::Spiffe { roots, .. } = &mut endpoint.identity else {
        panic!("{endpoint:?}")
    };
    roots.push(real.der().to_vec());
    fetch_within(&endpoint, PATIENCE).await.unwrap();
    // The public web has not signed it either.
    endpoint.identity = Identity::Web;
    let web = fetch_within(&endpoint, PATIENCE).await;
    assert!(
        matches!(web, Err(Error::Identity { .. } | Error::Roots(_))),
        "{web:?}"
    );
    endpoint.identity = Identity::Spiffe {
        id: SpiffeId::parse(ID).unwrap(),
        roots: vec![b"not a certificate".to_vec()],
    };
    let none = fetch_within(&endpoint, PATIENCE).await;
    assert!(matches!(none, Err(Error::Roots(_))), "{none:?}");
}

#[tokio::test]
async fn the_web_is_known_by_its_name() {
    let (authority, bundle) = (authority(), sample("a.test"));
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let answers = vec![Some(ok(&bundle.canonical()))];
    let server = Server::start(&params, &authority, answers).await;
    let get = async |host: &str| {
        let tls = proof::web(vec![authority.der().clone()]).unwrap();
        read(&format!("https://{host}:{}", server.port), tls, PATIENCE).await
    };
    assert_eq!(get("localhost").await.unwrap(), bundle);
    let other = get("127.0.0.1").await;
    assert!(matches!(other, Err(Error::Identity { .. })), "{other:?}");
}

#[tokio::test]
async fn a_root_that_has_ended_vouches_for_nobody() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let ended = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let reply = ok(&sample("a.test").canonical());
    let server = Server::start(&svid(&[ID]), &ended, vec![Some(reply)]).await;
    let found = fetch_within(&server.spiffe(&ended), PATIENCE).await;
    assert!(matches!(found, Err(Error::Identity { .. })), "{found:?}");
}

#[tokio::test]
async fn what_is_no_bundle_is_an_error() {
    for body in [
        "",
        "{}",
        "[]",
        r#"{"keys":null}"#,
        r#"{"error":"maintenance"}"#,
        "<html></html>",
    ] {
        let found = answered(vec![ok(body.as_bytes())]).await;
        assert!(matches!(found, Err(Error::Bundle(_))), "{body}: {found:?}");
    }
    // Everything revoked: whether that may be, the caller says.
    let empty = answered(vec![ok(br#"{"keys":[]}"#)]).await.unwrap();
    assert_eq!(empty.keys().count(), 0);
    let large = answered(vec![ok(&vec![b' '; MAX_BUNDLE_BYTES + 1])]).await;
    assert!(matches!(large, Err(Error::TooLarge)), "{large:?}");
    let endless = [
        b"HTTP/1.1 200 OK\r\nX: ",
        vec![b'x'; HEAD_BYTES * 2].as_slice(),
    ]
    .concat();
    let endless = answered(vec![endless]).await;
    assert!(matches!(endless, Err(Error::Answer { .. })), "{endless:?}");
}

#[tokio::test]
async fn only_200_counts() {
    for (status, retryable) in [
        ("404 Not Found", false),
        ("204 No Content", false),
        ("503 Service Unavailable", true),
    ] {
        let body = sample("a.test").canonical();
        let error = answered(vec![answer(status, "", &body)]).await.unwrap_err();
        assert!(error.to_string().contains(&status[..3]), "{error}");
        assert_eq!(error.is_retryable(), retryable, "{error}");
    }
}

#[tokio::test]
async fn redirects_are_followed_a_few_times_and_to_https_only() {
    let redirect = |to: &str| answer("302 Found", &format!("Location: {to}\r\n"), b"");
    let bundle = sample("a.test");
    let last = ok(&bundle.canonical());
    let found = answered(vec![redirect("/here"), redirect("/"), last]).await;
    assert_eq!(found.unwrap(), bundle);
    let turning = answered(vec![redirect("/")]).await;
    assert!(matches!(turning, Err(Error::Redirects)), "{turning:?}");
    for to in ["http://localhost/", "https://user@localhost/", "file:///x"] {
        let refused = answered(vec![redirect(to)]).await;
        assert!(matches!(refused, Err(Error::Url { .. })), "{refused:?}");
    }
    // The other place has to be the same endpoint: here another authority signed it.
    let elsewhere = Server::start(&svid(&[ID]), &authority(), vec![None]).await;
    let to = format!("https://localhost:{}/", elsewhere.port);
    let refused = answered(vec![redirect(&to)]).await;
    assert!(
        matches!(refused, Err(Error::Identity { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn whoever_hangs_is_left_at_the_deadline() {
    let authority = authority();
    // Nothing at all; and a head that promises a body which never ends.
    let begun = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec();
    for answer in [None, Some(begun)] {
        let server = Server::start(&svid(&[ID]), &authority, vec![answer]).await;
        let error = fetch_within(&server.spiffe(&authority), SHORT).await;
        assert!(matches!(error, Err(Error::Timeout(_))), "{error:?}");
    }
    // A port that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut endpoint = Server::start(&svid(&[ID]), &authority, vec![None])
        .await
        .spiffe(&authority);
    endpoint.url = format!("https://{}", silent.local_addr().unwrap());
    let error = fetch_within(&endpoint, SHORT).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn what_is_no_url_of_an_endpoint_is_refused() {
    for url in ["http://a.test", "https://a:b@a.test", "a.test", "https://"] {
        let endpoint = Endpoint {
            url: url.to_owned(),
            identity: Identity::Spiffe {
                id: SpiffeId::parse(ID).unwrap(),
                roots: vec![authority().der().to_vec()],
            },
        };
        let refused = fetch(&endpoint).await;
        assert!(matches!(refused, Err(Error::Url { .. })), "{refused:?}");
    }
}
