//! What differs between forges, as values: the calls of an API, and what its answers mean.

use hyper::Method;
use serde_json::{Value, json};

use super::{
    Branches, Kind, Request, Words,
    gitea::Gitea,
    github::{GitHub, pulls},
    gitlab::GitLab,
};

/// How many requests are asked for at once; a forge may give fewer.
pub(super) const PAGE: usize = 50;

/// A call of an API.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Below the API's root; each may have any character.
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(&'static str, String)>,
    /// JSON.
    pub(super) body: Option<Value>,
}

impl Call {
    pub(super) fn get(path: Vec<String>, query: Vec<(&'static str, String)>) -> Self {
        Self {
            method: Method::GET,
            path,
            query,
            body: None,
        }
    }

    pub(super) fn send(method: Method, path: Vec<String>, body: Value) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            body: Some(body),
        }
    }
}

/// The API of a forge.
pub(super) trait Dialect: Sync {
    /// What precedes the token in the header `Authorization`.
    fn scheme(&self) -> &'static str;

    /// Headers that the API wants besides.
    fn headers(&self) -> &'static [(&'static str, &'static str)];

    /// Lists a page of requests, from 1, the newest first; others than those for the branches may be
    /// among them.
    fn list(&self, project: &str, branches: &Branches, page: usize) -> Call;

    /// Opens a request; as GitHub has it, and Gitea after it, unless a dialect says otherwise.
    fn open(&self, project: &str, branches: &Branches, words: &Words) -> Call {
        let body = json!({
            "head": branches.head, "base": branches.base,
            "title": words.title, "body": words.body,
        });
        Call::send(Method::POST, pulls(project, None), body)
    }

    /// Has a request say something else; the same holds.
    fn rewrite(&self, project: &str, number: u64, words: &Words) -> Call {
        let body = json!({"title": words.title, "body": words.body});
        Call::send(Method::PATCH, pulls(project, Some(number)), body)
    }

    /// Closes a request; the same holds.
    fn close(&self, project: &str, number: u64) -> Call {
        let body = json!({"state": "closed"});
        Call::send(Method::PATCH, pulls(project, Some(number)), body)
    }

    /// A request that an answer tells of; `None` if it is not for these branches of the project
    /// itself, or can't be read.
    fn read(&self, project: &str, branches: &Branches, told: &Value) -> Option<Request>;

    /// Whether a refusal to open a request means that one is open.
    fn is_open_already(&self, status: u16, words: &str) -> bool;
}

/// The API that a kind of forge has.
pub(super) fn dialect(kind: Kind) -> &'static dyn Dialect {
    match kind {
        Kind::GitHub => &GitHub,
        Kind::GitLab => &GitLab,
        Kind::Gitea => &Gitea,
    }
}

/// A field's text; empty if it has none.
pub(super) fn text(told: &Value, pointer: &str) -> String {
    let found = told.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}

/// What a refusal says: in one text, a list of them, or those of single errors.
pub(super) fn refusal(told: &Value) -> String {
    let mut said = Vec::new();
    for field in ["message", "error", "errors"] {
        collect(&told[field], &mut said);
    }
    said.join("; ")
}

fn collect(value: &Value, said: &mut Vec<String>) {
    match value {
        Value::String(text) => said.push(text.clone()),
        Value::Array(all) => all.iter().for_each(|it| collect(it, said)),
        Value::Object(fields) => match fields.get("message") {
            Some(message) => collect(message, said),
            None => fields.values().for_each(|it| collect(it, said)),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
