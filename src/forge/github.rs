//! GitHub's REST API: pull requests.

use serde_json::Value;

use super::{
    Branches, Request, State, Words,
    dialect::{Call, Dialect, PAGE, text},
};

/// GitHub, and GitHub Enterprise Server.
pub(super) struct GitHub;

impl Dialect for GitHub {
    fn scheme(&self) -> &'static str {
        "Bearer"
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("accept", "application/vnd.github+json"),
            ("x-github-api-version", "2022-11-28"),
        ]
    }

    fn list(&self, project: &str, branches: &Branches, page: usize) -> Call {
        let owner = project.split('/').next().unwrap_or_default();
        Call::get(
            pulls(project, None),
            vec![
                ("state", "all".to_owned()),
                ("head", format!("{owner}:{}", branches.head)),
                ("base", branches.base.clone()),
                ("sort", "created".to_owned()),
                ("direction", "desc".to_owned()),
                ("per_page", PAGE.to_string()),
                ("page", page.to_string()),
            ],
        )
    }

    fn read(&self, project: &str, branches: &Branches, told: &Value) -> Option<Request> {
        let state = match (told["state"].as_str()?, &told["merged_at"]) {
            ("open", _) => State::Open,
            (_, Value::String(_)) => State::Merged,
            _ => State::Closed,
        };
        read(project, branches, told, state)
    }

    fn is_open_already(&self, status: u16, words: &str) -> bool {
        status == 422 && words.contains("already exists")
    }
}

/// A pull request in the form that Gitea took over from GitHub.
pub(super) fn read(
    project: &str,
    branches: &Branches,
    told: &Value,
    state: State,
) -> Option<Request> {
    // Of a fork, the name of a branch says nothing.
    let ours = text(told, "/head/repo/full_name").eq_ignore_ascii_case(project)
        && text(told, "/head/ref") == branches.head
        && text(told, "/base/ref") == branches.base;
    ours.then_some(Request {
        number: told["number"].as_u64()?,
        url: text(told, "/html_url"),
        state,
        words: Words {
            title: text(told, "/title"),
            body: text(told, "/body"),
        },
    })
}

/// The path of a project's pull requests, or of one.
pub(super) fn pulls(project: &str, number: Option<u64>) -> Vec<String> {
    let parts = ["repos"].into_iter().chain(project.split('/'));
    let number = number.map(|number| number.to_string());
    parts
        .chain(["pulls"])
        .map(str::to_owned)
        .chain(number)
        .collect()
}
