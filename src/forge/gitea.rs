//! The REST API of Gitea and Forgejo: pull requests.

use serde_json::Value;

use super::{
    Branches, Request, State,
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
