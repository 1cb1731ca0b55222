//! GitLab's REST API: merge requests.

use hyper::Method;
use serde_json::{Value, json};

use super::{
    Branches, Request, State, Words,
    dialect::{Call, Dialect, PAGE, text},
};

/// GitLab.
pub(super) struct GitLab;

impl Dialect for GitLab {
    fn scheme(&self) -> &'static str {
        "Bearer"
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("accept", "application/json")]
    }

    fn list(&self, project: &str, branches: &Branches, page: usize) -> Call {
        Call::get(
            merge_requests(project, None),
            vec![
                ("state", "all".to_owned()),
                ("source_branch", branches.head.clone()),
                ("target_branch", branches.base.clone()),
                ("order_by", "created_at".to_owned()),
                ("sort", "desc".to_owned()),
                ("per_page", PAGE.to_string()),
                ("page", page.to_string()),
            ],
        )
    }

    fn open(&self, project: &str, branches: &Branches, words: &Words) -> Call {
        let body = json!({
            "source_branch": branches.head, "target_branch": branches.base,
            "title": words.title, "description": words.body,
        });
        Call::send(Method::POST, merge_requests(project, None), body)
    }

    fn rewrite(&self, project: &str, number: u64, words: &Words) -> Call {
        let body = json!({"title": words.title, "description": words.body});
        Call::send(Method::PUT, merge_requests(project, Some(number)), body)
    }

    fn close(&self, project: &str, number: u64) -> Call {
        let body = json!({"state_event": "close"});
        Call::send(Method::PUT, merge_requests(project, Some(number)), body)
    }

    fn read(&self, _project: &str, branches: &Branches, told: &Value) -> Option<Request> {
        let state = match told["state"].as_str()? {
            // Locked: it is being merged.
            "opened" | "locked" => State::Open,
            "merged" => State::Merged,
            _ => State::Closed,
        };
        // Of a fork, the name of a branch says nothing.
        let ours = told["source_project_id"].is_u64()
            && told["source_project_id"] == told["target_project_id"]
            && text(told, "/source_branch") == branches.head
            && text(told, "/target_branch") == branches.base;
        ours.then_some(Request {
            number: told["iid"].as_u64()?,
            url: text(told, "/web_url"),
            state,
            words: Words {
                title: text(told, "/title"),
                body: text(told, "/description"),
            },
        })
    }

    fn is_open_already(&self, status: u16, _words: &str) -> bool {
        status == 409
    }
}

/// The path of a project's merge requests, or of one. The project's path is one part of it.
fn merge_requests(project: &str, number: Option<u64>) -> Vec<String> {
    let parts = ["projects", project, "merge_requests"].map(str::to_owned);
    let number = number.map(|number| number.to_string());
    parts.into_iter().chain(number).collect()
}
