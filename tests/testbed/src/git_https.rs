//! The repository by https, as a forge serves it: who reads and who pushes shows a token.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use base64::Engine as _;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::authority::Identity;
use crate::https;

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Fetch.
    Read,
    /// Fetch and push.
    Write,
}

/// What a client asked for, and with which password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whether it wanted to push.
    pub push: bool,
    /// The password of its basic authentication, if it showed one.
    pub password: Option<String>,
}

/// `git http-backend` behind TLS and basic authentication, until it is dropped.
pub struct HttpsGit {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    server: JoinHandle<()>,
}

struct Service {
    root: PathBuf,
    rights: Vec<(String, Right)>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl HttpsGit {
    /// Serves a bare repository with a server's certificate, to whoever shows one of the passwords.
    pub async fn start(
        repository: &Path,
        identity: &Identity,
        rights: &[(&str, Right)],
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("listen on loopback")?;
        let root = repository.parent().context("the repository's directory")?;
        let name = repository.file_name().context("the repository's name")?;
        let url = format!(
            "https://{}/{}",
            listener.local_addr()?,
            name.to_string_lossy()
        );
        let asked = Arc::default();
        let rights = rights.iter();
        let service = Arc::new(Service {
            root: root.to_owned(),
            rights: rights
                .map(|(password, right)| ((*password).to_owned(), *right))
                .collect(),
            asked: Arc::clone(&asked),
        });
        let server = https::serve(listener, identity, move |request| {
            let service = Arc::clone(&service);
            async move { service.answer(request).await }
        })?;
        Ok(Self { url, asked, server })
    }

    /// `https://127.0.0.1:<port>/<name>.git`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What was asked for until now.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for HttpsGit {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let query = request.uri().query().unwrap_or_default();
        let push = request.uri().path().ends_with("/git-receive-pack")
            || query == "service=git-receive-pack";
        let password = password(request.headers());
        let mut rights = self.rights.iter();
        let right = rights
            .find(|(known, _)| Some(known) == password.as_ref())
            .map(|(_, right)| *right);
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Asked { push, password });
        match right {
            None => {
                let mut answer = plain(StatusCode::UNAUTHORIZED, "who are you?");
                let basic = header::HeaderValue::from_static("Basic realm=\"git\"");
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
                answer
            }
            Some(Right::Read) if push => plain(StatusCode::FORBIDDEN, "read only"),
            Some(_) => self.backend(request).await.unwrap_or_else(|error| {
                plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}"))
            }),
        }
    }

    /// One run of `git http-backend`, by the rules of CGI.
    async fn backend(&self, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let text = |name| {
            let value = head.headers.get(name);
            value.and_then(|it| it.to_str().ok()).unwrap_or_default()
        };
        let mut child = tokio::process::Command::new("git")
            .arg("http-backend")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_PROTOCOL", text("git-protocol"))
            .env("REQUEST_METHOD", head.method.as_str())
            .env("PATH_INFO", head.uri.path())
            .env("QUERY_STRING", head.uri.query().unwrap_or_default())
            .env("CONTENT_TYPE", text("content-type"))
            .env("CONTENT_LENGTH", body.len().to_string())
            // Whoever is somebody may push: who that is was decided before.
            .env("REMOTE_USER", "agent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run git http-backend")?;
        let mut stdin = child.stdin.take().context("no way to send the body")?;
        let send = async move {
            // It may end before it has read everything.
            drop(stdin.write_all(&body).await);
        };
        let ((), output) = tokio::join!(send, child.wait_with_output());
        let output = output
            .context("cannot read git http-backend's answer")?
            .stdout;
        let end = output
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .context("git http-backend gave no headers")?;
        let mut answer = Response::new(Full::new(Bytes::copy_from_slice(&output[end + 4..])));
        for line in String::from_utf8_lossy(&output[..end]).lines() {
            let (name, value) = line.split_once(':').context("a header without a colon")?;
            if name == "Status" {
                let code = value.trim().get(..3).context("a status without a code")?;
                *answer.status_mut() = code.parse()?;
            } else {
                let name: header::HeaderName = name.parse()?;
                answer.headers_mut().insert(name, value.trim().parse()?);
            }
        }
        Ok(answer)
    }
}

fn password(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let encoded = value.strip_prefix("Basic ")?;
    let engine = base64::engine::general_purpose::STANDARD;
    let decoded = String::from_utf8(engine.decode(encoded).ok()?).ok()?;
    Some(decoded.split_once(':')?.1.to_owned())
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *answer.status_mut() = status;
    answer
}
