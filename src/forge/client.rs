//! A forge by its REST API.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request as HttpRequest, StatusCode,
    body::Bytes,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use rustls::ClientConfig;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::{
    Address, Branches, Error, Forge, Kind, Opened, Proxy, Request, State, Words,
    connection::{self, Host, Way},
    dialect::{Call, Dialect, dialect, refusal},
};

/// How many pages of requests are looked at.
const PAGES: usize = 4;

/// How much of what a forge says is kept, in characters.
const MAX_WORDS: usize = 300;

/// Where a forge is, and who asks it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose API it has.
    pub kind: Kind,
    /// Where the API is, and which project is meant.
    pub address: Address,
    /// The file that holds the token; surrounding white space is ignored.
    pub token_file: PathBuf,
    /// Certificate authorities (PEM) that are trusted on top of the system's.
    pub authorities: Option<PathBuf>,
    /// The proxy on the way. The environment's proxies are not looked at.
    pub proxy: Option<Proxy>,
    /// How long a call may take, from the first packet to the last.
    pub deadline: Duration,
}

impl Settings {
    /// For a forge that the system's certificate authorities vouch for.
    pub fn new(kind: Kind, address: Address, token_file: PathBuf) -> Self {
        Self {
            kind,
            address,
            token_file,
            authorities: None,
            proxy: None,
            deadline: Duration::from_secs(20),
        }
    }
}

/// A forge by its REST API.
pub struct Client {
    settings: Settings,
    dialect: &'static dyn Dialect,
    /// By which authorities, and what came of them: reading all of the system's for each call would
    /// be most of its work.
    trust: Mutex<Option<(Vec<u8>, Arc<ClientConfig>)>>,
}

impl Client {
    /// Nothing is asked or read yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            dialect: dialect(settings.kind),
            settings,
            trust: Mutex::new(None),
        }
    }

    /// Whom to trust, by the file as it is now.
    fn trust(&self) -> Result<Arc<ClientConfig>, Error> {
        let pem = match &self.settings.authorities {
            Some(file) => read(file)?.into_bytes(),
            None => Vec::new(),
        };
        let mut known = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((by, trust)) = known.as_ref()
            && *by == pem
        {
            return Ok(Arc::clone(trust));
        }
        let trust = Arc::new(connection::trusting(&pem)?);
        *known = Some((pem, Arc::clone(&trust)));
        Ok(trust)
    }

    /// The value of a header that shows a secret.
    fn secret(value: &str, file: &Path) -> Result<HeaderValue, Error> {
        let unusable = |_| Error::Token(file.display().to_string());
        let mut value = HeaderValue::from_str(value).map_err(unusable)?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn request(&self, url: &Url, call: &Call) -> Result<HttpRequest<Full<Bytes>>, Error> {
        let file = &self.settings.token_file;
        let token = Zeroizing::new(read(file)?);
        let token = token.trim();
        if token.is_empty() {
            return Err(Error::Token(file.display().to_string()));
        }
        let shown = Zeroizing::new(format!("{} {token}", self.dialect.scheme()));
        let mut request = HttpRequest::builder()
            .method(call.method.clone())
            .uri(&url[url::Position::BeforePath..url::Position::AfterQuery])
            .header(AUTHORIZATION, Self::secret(&shown, file)?);
        for (name, value) in self.dialect.headers() {
            request = request.header(*name, *value);
        }
        let body = match &call.body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        request
            .body(Full::new(body))
            .map_err(|error| Error::Answer {
                host: Host::of(url).to_string(),
                reason: error.to_string(),
            })
    }

    /// What the forge answers: the status, and JSON or nothing.
    async fn ask(&self, call: &Call) -> Result<(StatusCode, Value), Error> {
        let url = locate(&self.settings.address.api, call);
        let request = self.request(&url, call)?;
        let way = Way {
            trust: self.trust()?,
            proxy: self.settings.proxy.as_ref().map(proxy).transpose()?,
        };
        let limit = self.settings.deadline;
        let asked = connection::ask(&way, &url, request);
        let (status, body) = tokio::time::timeout(limit, asked)
            .await
            .unwrap_or_else(|_| {
                Err(Error::Timeout {
                    host: Host::of(&url).to_string(),
                    limit,
                })
            })?;
        match serde_json::from_slice(&body) {
            Ok(answer) => Ok((status, answer)),
            // What refuses may be a proxy, or a page for people.
            Err(_) if !status.is_success() => Ok((status, Value::Null)),
            Err(error) => Err(Error::Answer {
                host: Host::of(&url).to_string(),
                reason: format!("it is no JSON: {error}"),
            }),
        }
    }

    /// The answer to a call that succeeds.
    async fn call(&self, call: &Call) -> Result<Value, Error> {
        match self.ask(call).await? {
            (status, answer) if status.is_success() => Ok(answer),
            (status, answer) => Err(self.refused(call, status, &answer)),
        }
    }

    fn refused(&self, call: &Call, status: StatusCode, answer: &Value) -> Error {
        let url = locate(&self.settings.address.api, call);
        Error::Status {
            host: Host::of(&url).to_string(),
            status: status.as_u16(),
            asked: format!("{} {}", call.method, url.path()),
            words: self.tame(&refusal(answer)),
        }
    }

    /// What a forge said, fit for a status: short, in one line, and without the token, should the
    /// forge have said it.
    fn tame(&self, words: &str) -> String {
        if words.is_empty() {
            return "no reason given".to_owned();
        }
        let token = read(&self.settings.token_file).map(Zeroizing::new);
        let words = match &token {
            Ok(token) if !token.trim().is_empty() => words.replace(token.trim(), "…"),
            _ => words.to_owned(),
        };
        let tame = |c: char| if c.is_control() { ' ' } else { c };
        words.chars().take(MAX_WORDS).map(tame).collect()
    }
}

impl Forge for Client {
    async fn requests(&self, branches: &Branches) -> Result<Vec<Request>, Error> {
        let project = &self.settings.address.project;
        let mut found = Vec::new();
        for page in 1..=PAGES {
            let call = self.dialect.list(project, branches, page);
            let answer = self.call(&call).await?;
            let Value::Array(told) = answer else {
                return Err(Error::Answer {
                    host: Host::of(&self.settings.address.api).to_string(),
                    reason: "it is no list of requests".to_owned(),
                });
            };
            let all = told.iter();
            found.extend(all.filter_map(|it| self.dialect.read(project, branches, it)));
            let open = found.iter().any(|it: &Request| it.state == State::Open);
            if open || told.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    async fn open(&self, branches: &Branches, words: &Words) -> Result<Opened, Error> {
        let project = &self.settings.address.project;
        let call = self.dialect.open(project, branches, words);
        let (status, answer) = self.ask(&call).await?;
        if status.is_success() {
            let read = self.dialect.read(project, branches, &answer);
            return read.map(Opened::New).ok_or_else(|| Error::Answer {
                host: Host::of(&self.settings.address.api).to_string(),
                reason: "it tells of another request than was asked for".to_owned(),
            });
        }
        if self
            .dialect
            .is_open_already(status.as_u16(), &refusal(&answer))
        {
            return Ok(Opened::AlreadyThere);
        }
        Err(self.refused(&call, status, &answer))
    }

    async fn rewrite(&self, number: u64, words: &Words) -> Result<(), Error> {
        let project = &self.settings.address.project;
        let call = self.dialect.rewrite(project, number, words);
        self.call(&call).await.map(drop)
    }

    async fn close(&self, number: u64) -> Result<(), Error> {
        let call = self.dialect.close(&self.settings.address.project, number);
        self.call(&call).await.map(drop)
    }
}

/// The URL of a call below the API's root.
pub(super) fn locate(api: &Url, call: &Call) -> Url {
    let mut url = api.clone();
    // An `https` URL has parts.
    if let Ok(mut parts) = url.path_segments_mut() {
        parts.pop_if_empty().extend(&call.path);
    }
    if !call.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&call.query);
    }
    url
}

/// The proxy, with what it is shown.
fn proxy(proxy: &Proxy) -> Result<connection::Proxy, Error> {
    let unusable = |reason: String| Error::Connect {
        host: "the proxy".to_owned(),
        reason,
    };
    let url = Url::parse(&proxy.url).map_err(|error| unusable(error.to_string()))?;
    let authorization = match &proxy.auth {
        None => None,
        Some((username, file)) => {
            let password = Zeroizing::new(read(file)?);
            let shown = connection::basic(username, password.trim());
            Some(Client::secret(&shown, file)?)
        }
    };
    Ok(connection::Proxy { url, authorization })
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::File {
        path: path.display().to_string(),
        source,
    })
}
