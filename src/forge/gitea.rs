//! The REST API of Gitea and Forgejo: pull requests.

use hyper::Method;
use serde_json::{Value, json};

use super::{
    Branches, Request, State, Words,
    dialect::{Call, Dialect, PAGE},
    github::{pulls, read},
};

/// Gitea, and Forgejo.
pub(super) struct Gitea;

impl Dialect for Gitea {
    fn scheme(&self) -> &'static str {
        "token"
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("accept", "application/json")]
    }

    fn list(&self, project: &str, _branches: &Branches, page: usize) -> Call {
        // Which branch is meant can't be said.
        Call::get(
            pulls(project, None),
            vec![
                ("state", "all".to_owned()),
                ("sort", "recentupdate".to_owned()),
                ("limit", PAGE.to_string()),
                ("page", page.to_string()),
            ],
        )
    }

    fn open(&self, project: &str, branches: &Branches, words: &Words) -> Call {
        let body = json!({
            "head": branches.head, "base": branches.base,
            "title": words.title, "body": words.body,
        });
        Call::send(Method::POST, pulls(project, None), body)
    }

    fn rewrite(&self, project: &str, number: u64, words: &Words) -> Call {
        let body = json!({"title": words.title, "body": words.body});
        Call::send(Method::PATCH, pulls(project, Some(number)), body)
    }

    fn close(&self, project: &str, number: u64) -> Call {
        let body = json!({"state": "closed"});
        Call::send(Method::PATCH, pulls(project, Some(number)), body)
    }

    fn read(&self, project: &str, branches: &Branches, told: &Value) -> Option<Request> {
        let state = match (told["state"].as_str()?, told["merged"].as_bool()) {
            ("open", _) => State::Open,
            (_, Some(true)) => State::Merged,
            _ => State::Closed,
        };
        read(project, branches, told, state)
    }

    fn is_open_already(&self, status: u16, _words: &str) -> bool {
        status == 409
    }
}
