//! A stand-in for a forge: the part of its REST API that is about pull requests, over a bare repository.
//!
//! No forge can be run here. What it answers is in the form of the forges' public documentation; what becomes of a
//! request is read from the repository, and a merge is a merge commit there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, bail};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::authority::Identity;
use crate::https;

/// The path of the only project.
pub const PROJECT: &str = "team/federation";

/// Whose API is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// GitHub's.
    GitHub,
    /// GitLab's.
    GitLab,
    /// Gitea's, and Forgejo's.
    Gitea,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody decided yet.
    Open,
    /// Merged.
    Merged,
    /// Closed without a merge.
    Closed,
}

/// A pull or merge request.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// Its number.
    pub number: u64,
    /// What became of it.
    pub state: State,
    /// Its one line.
    pub title: String,
    /// Its text.
    pub body: String,
    head: String,
    base: String,
}

/// A forge's API by https, until it is dropped.
pub struct Forge {
    url: String,
    service: Arc<Service>,
    server: JoinHandle<()>,
}

struct Service {
    dialect: Dialect,
    repository: PathBuf,
    token: String,
    project: Mutex<Project>,
    /// One call at a time, as a database would see to.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Project {
    requests: Vec<PullRequest>,
    is_down: bool,
    /// The methods of the calls that wrote.
    written: Vec<String>,
}

impl Forge {
    /// Serves the API of a bare repository to whoever shows the token.
    pub async fn start(
        dialect: Dialect,
        repository: &Path,
        identity: &Identity,
        token: &str,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("listen on loopback")?;
        let root = match dialect {
            Dialect::GitHub => "/api/v3",
            Dialect::GitLab => "/api/v4",
            Dialect::Gitea => "/api/v1",
        };
        let url = format!("https://{}{root}", listener.local_addr()?);
        let service = Arc::new(Service {
            dialect,
            repository: repository.to_owned(),
            token: token.to_owned(),
            project: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        });
        let serving = Arc::clone(&service);
        let server = https::serve(listener, identity, move |request| {
            let service = Arc::clone(&serving);
            async move { service.answer(request).await }
        })?;
        Ok(Self {
            url,
            service,
            server,
        })
    }

    /// The root of the API, `https://127.0.0.1:<port>/api/v…`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All requests, as they are now.
    pub async fn requests(&self) -> anyhow::Result<Vec<PullRequest>> {
        let _turn = self.service.turn.lock().await;
        self.service.follow().await?;
        Ok(self.service.project().requests.clone())
    }

    /// The methods of the calls that wrote something, until now.
    pub fn written(&self) -> Vec<String> {
        self.service.project().written.clone()
    }

    /// Whether every call fails from now on.
    pub fn set_down(&self, is_down: bool) {
        self.service.project().is_down = is_down;
    }

    /// Merges an open request, as people do; conflicts are an error.
    pub async fn merge(&self, number: u64) -> anyhow::Result<()> {
        let _turn = self.service.turn.lock().await;
        let request = self.service.open_request(number)?;
        let [base, head] = [&request.base, &request.head].map(|it| format!("refs/heads/{it}"));
        let git = async |arguments: &[&str]| self.service.git(arguments).await;
        let tree = git(&["merge-tree", "--write-tree", &base, &head]).await?;
        let message = format!("Merge request {number}");
        let parents = ["-p", base.as_str(), "-p", head.as_str(), "-m", &message];
        let merge = git(&[&["commit-tree", tree.as_str()][..], &parents[..]].concat()).await?;
        git(&["update-ref", &base, &merge]).await?;
        self.service.set(number, State::Merged);
        Ok(())
    }

    /// Closes an open request without merging it.
    pub fn decline(&self, number: u64) -> anyhow::Result<()> {
        self.service.open_request(number)?;
        self.service.set(number, State::Closed);
        Ok(())
    }

    /// Opens a closed request again.
    pub fn reopen(&self, number: u64) {
        self.service.set(number, State::Open);
    }

    /// Opens another request like one that is open, as a forge may that does not look well.
    pub fn double(&self, number: u64) -> anyhow::Result<()> {
        let mut double = self.service.open_request(number)?;
        let mut project = self.service.project();
        double.number = project.requests.len() as u64 + 1;
        project.requests.push(double);
        Ok(())
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What a call leads to: a status, and JSON.
type Answer = (StatusCode, Value);

impl Service {
    fn project(&self) -> MutexGuard<'_, Project> {
        self.project.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_request(&self, number: u64) -> anyhow::Result<PullRequest> {
        let project = self.project();
        let mut open = project.requests.iter();
        open.find(|it| it.number == number && it.state == State::Open)
            .cloned()
            .with_context(|| format!("no request {number} is open"))
    }

    fn set(&self, number: u64, state: State) {
        for request in &mut self.project().requests {
            if request.number == number {
                request.state = state;
            }
        }
    }

    async fn git(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = tokio::process::Command::new("git")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .arg("--git-dir")
            .arg(&self.repository)
            .args([
                "-c",
                "user.name=Forge",
                "-c",
                "user.email=forge@trustweave.dev",
            ])
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot run git")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("git {}: {said}", arguments.join(" "));
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// The commit of a branch.
    async fn tip(&self, branch: &str) -> Option<String> {
        let name = format!("refs/heads/{branch}");
        self.git(&["rev-parse", "--verify", "--quiet", &name])
            .await
            .ok()
    }

    /// Finds out what became of open requests by what was pushed.
    async fn follow(&self) -> anyhow::Result<()> {
        let requests = self.project().requests.clone();
        for request in requests.iter().filter(|it| it.state == State::Open) {
            let Some(head) = self.tip(&request.head).await else {
                // GitLab's stays open, without a source.
                if self.dialect != Dialect::GitLab {
                    self.set(request.number, State::Closed);
                }
                continue;
            };
            let base = self.tip(&request.base).await.context("no base")?;
            let merged = ["merge-base", "--is-ancestor", &head, &base];
            if self.git(&merged).await.is_ok() {
                self.set(request.number, State::Merged);
            }
        }
        Ok(())
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, body) = match self.call(request).await {
            Ok(answer) => answer,
            Err(error) => {
                let message = json!({"message": format!("{error:#}")});
                (StatusCode::INTERNAL_SERVER_ERROR, message)
            }
        };
        let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
        *answer.status_mut() = status;
        answer
    }

    async fn call(&self, request: Request<Incoming>) -> anyhow::Result<Answer> {
        let _turn = self.turn.lock().await;
        if self.project().is_down {
            return Ok((StatusCode::BAD_GATEWAY, json!("down for maintenance")));
        }
        let (head, body) = request.into_parts();
        let shown = head.headers.get(header::AUTHORIZATION);
        let scheme = match self.dialect {
            Dialect::GitHub | Dialect::GitLab => "Bearer",
            Dialect::Gitea => "token",
        };
        if shown.is_none_or(|it| *it != format!("{scheme} {}", self.token)) {
            return Ok(refusal(StatusCode::UNAUTHORIZED, "Bad credentials"));
        }
        let root = match self.dialect {
            Dialect::GitHub => "/api/v3/repos/team/federation/pulls",
            Dialect::GitLab => "/api/v4/projects/team%2Ffederation/merge_requests",
            Dialect::Gitea => "/api/v1/repos/team/federation/pulls",
        };
        let Some(rest) = head.uri.path().strip_prefix(root) else {
            return Ok(refusal(StatusCode::NOT_FOUND, "Not Found"));
        };
        let body = body.collect().await?.to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if head.method != Method::GET {
            self.project().written.push(head.method.to_string());
        }
        self.follow().await?;
        let edit = match self.dialect {
            Dialect::GitLab => Method::PUT,
            Dialect::GitHub | Dialect::Gitea => Method::PATCH,
        };
        match (rest.strip_prefix('/'), &head.method) {
            (None, &Method::GET) => self.list(head.uri.query().unwrap_or_default()).await,
            (None, &Method::POST) => self.open(&body).await,
            (Some(number), method) if *method == edit => self.edit(number.parse()?, &body).await,
            _ => Ok(refusal(StatusCode::METHOD_NOT_ALLOWED, "what?")),
        }
    }

    async fn list(&self, query: &str) -> anyhow::Result<Answer> {
        let asked = |name: &str| {
            let mut all = query.split('&').filter_map(|it| it.split_once('='));
            let value = all.find(|(it, _)| *it == name)?.1;
            Some(value.replace("%2F", "/").replace("%3A", ":"))
        };
        let (head, base) = match self.dialect {
            Dialect::GitHub => (
                asked("head").and_then(|it| Some(it.strip_prefix("team:")?.to_owned())),
                asked("base"),
            ),
            Dialect::GitLab => (asked("source_branch"), asked("target_branch")),
            // It can't be asked.
            Dialect::Gitea => (None, None),
        };
        if asked("state").as_deref() != Some("all") {
            bail!("only open requests were asked for");
        }
        let mut told = Vec::new();
        if asked("page").as_deref() == Some("1") {
            let mut requests = self.project().requests.clone();
            requests.retain(|it| head.as_ref().is_none_or(|head| *head == it.head));
            requests.retain(|it| base.as_ref().is_none_or(|base| *base == it.base));
            for request in requests.iter().rev() {
                told.push(self.show(request).await);
            }
        }
        Ok((StatusCode::OK, Value::Array(told)))
    }

    async fn open(&self, body: &Value) -> anyhow::Result<Answer> {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let (head, base, body) = match self.dialect {
            Dialect::GitLab => (
                text("source_branch"),
                text("target_branch"),
                text("description"),
            ),
            Dialect::GitHub | Dialect::Gitea => (text("head"), text("base"), text("body")),
        };
        let (Some(tip), Some(_)) = (self.tip(&head).await, self.tip(&base).await) else {
            return Ok(refusal(StatusCode::UNPROCESSABLE_ENTITY, "no such branch"));
        };
        let merged = ["merge-base", "--is-ancestor", &tip, &base];
        if self.git(&merged).await.is_ok() {
            let message = "No commits between them";
            return Ok(refusal(StatusCode::UNPROCESSABLE_ENTITY, message));
        }
        let known = self.project().requests.clone();
        let is_open = known
            .iter()
            .any(|it| it.state == State::Open && it.head == head && it.base == base);
        if is_open {
            let message = "a request already exists for these branches";
            return Ok(match self.dialect {
                Dialect::GitHub => (
                    StatusCode::UNPROCESSABLE_ENTITY,
                    json!({"message": "Validation Failed", "errors": [{"message": message}]}),
                ),
                Dialect::GitLab => (StatusCode::CONFLICT, json!({"message": [message]})),
                Dialect::Gitea => refusal(StatusCode::CONFLICT, message),
            });
        }
        let request = PullRequest {
            number: known.len() as u64 + 1,
            state: State::Open,
            title: text("title"),
            body,
            head,
            base,
        };
        let shown = self.show(&request).await;
        self.project().requests.push(request);
        Ok((StatusCode::CREATED, shown))
    }

    async fn edit(&self, number: u64, body: &Value) -> anyhow::Result<Answer> {
        let closes = body["state"] == "closed" || body["state_event"] == "close";
        if closes {
            self.set(number, State::Closed);
        }
        let edited = {
            let mut project = self.project();
            let mut all = project.requests.iter_mut();
            let found = all.find(|it| it.number == number);
            let request = found.with_context(|| format!("no request {number}"))?;
            if let Some(title) = body["title"].as_str() {
                title.clone_into(&mut request.title);
            }
            let text = body.get("body").or_else(|| body.get("description"));
            if let Some(text) = text.and_then(Value::as_str) {
                text.clone_into(&mut request.body);
            }
            request.clone()
        };
        Ok((StatusCode::OK, self.show(&edited).await))
    }

    /// A request in the form of the forge.
    async fn show(&self, request: &PullRequest) -> Value {
        let PullRequest {
            number,
            state,
            title,
            body,
            head,
            base,
        } = request;
        let sha = self.tip(head).await;
        let url = format!("https://forge.test/{PROJECT}/{number}");
        let closed = if *state == State::Open {
            "open"
        } else {
            "closed"
        };
        let merged = *state == State::Merged;
        let branch = |name: &str, sha: Option<&str>| json!({"ref": name, "sha": sha, "repo": {"full_name": PROJECT}});
        match self.dialect {
            Dialect::GitHub => json!({
                "number": number, "state": closed, "html_url": url, "title": title, "body": body,
                "merged_at": merged.then_some("2026-01-01T00:00:00Z"),
                "head": branch(head, sha.as_deref()), "base": branch(base, None),
            }),
            Dialect::Gitea => json!({
                "number": number, "state": closed, "html_url": url, "title": title, "body": body,
                "merged": merged,
                "head": branch(head, sha.as_deref()), "base": branch(base, None),
            }),
            Dialect::GitLab => json!({
                "id": 1000 + number, "iid": number, "web_url": url, "title": title, "description": body,
                "state": match state {
                    State::Open => "opened",
                    State::Merged => "merged",
                    State::Closed => "closed",
                },
                "sha": sha, "source_branch": head, "target_branch": base,
                "source_project_id": 7, "target_project_id": 7,
            }),
        }
    }
}

fn refusal(status: StatusCode, message: &str) -> Answer {
    (status, json!({"message": message}))
}
