//! What is asked of each forge, and what its answers mean.

use serde_json::{Value, json};
use url::Url;

use super::{
    client::locate,
    dialect::{Call, Dialect, dialect, refusal},
    *,
};

const KINDS: [Kind; 3] = [Kind::GitHub, Kind::GitLab, Kind::Gitea];

fn branches() -> Branches {
    Branches {
        head: "trustweave-proposals/a.test".to_owned(),
        base: "main".to_owned(),
    }
}

fn words() -> Words {
    Words {
        title: "one line".to_owned(),
        body: "a text".to_owned(),
    }
}

/// A call as it is sent.
fn sent(call: &Call) -> String {
    let url = locate(&Url::parse("https://h/api").unwrap(), call);
    let body = call.body.as_ref().map(Value::to_string);
    format!("{} {url} {}", call.method, body.unwrap_or_default())
        .trim()
        .to_owned()
}

fn calls(dialect: &dyn Dialect, project: &str) -> Vec<String> {
    [
        dialect.list(project, &branches(), 2),
        dialect.open(project, &branches(), &words()),
        dialect.rewrite(project, 7, &words()),
        dialect.close(project, 7),
    ]
    .iter()
    .map(sent)
    .collect()
}

#[test]
fn each_forge_is_asked_in_its_own_words() {
    let open = r#"{"head":"trustweave-proposals/a.test","base":"main","title":"one line","body":"a text"}"#;
    assert_eq!(
        calls(dialect(Kind::GitHub), "o/r"),
        [
            "GET https://h/api/repos/o/r/pulls?state=all&head=o%3Atrustweave-proposals%2Fa.test\
             &base=main&sort=created&direction=desc&per_page=50&page=2",
            &format!("POST https://h/api/repos/o/r/pulls {open}"),
            r#"PATCH https://h/api/repos/o/r/pulls/7 {"title":"one line","body":"a text"}"#,
            r#"PATCH https://h/api/repos/o/r/pulls/7 {"state":"closed"}"#,
        ]
    );
    assert_eq!(
        calls(dialect(Kind::GitLab), "g/s/r"),
        [
            "GET https://h/api/projects/g%2Fs%2Fr/merge_requests?state=all\
             &source_branch=trustweave-proposals%2Fa.test&target_branch=main&order_by=created_at\
             &sort=desc&per_page=50&page=2",
            r#"POST https://h/api/projects/g%2Fs%2Fr/merge_requests {"source_branch":"trustweave-proposals/a.test","target_branch":"main","title":"one line","description":"a text"}"#,
            r#"PUT https://h/api/projects/g%2Fs%2Fr/merge_requests/7 {"title":"one line","description":"a text"}"#,
            r#"PUT https://h/api/projects/g%2Fs%2Fr/merge_requests/7 {"state_event":"close"}"#,
        ]
    );
    assert_eq!(
        calls(dialect(Kind::Gitea), "o/r"),
        [
            "GET https://h/api/repos/o/r/pulls?state=all&sort=recentupdate&limit=50&page=2",
            &format!("POST https://h/api/repos/o/r/pulls {open}"),
            r#"PATCH https://h/api/repos/o/r/pulls/7 {"title":"one line","body":"a text"}"#,
            r#"PATCH https://h/api/repos/o/r/pulls/7 {"state":"closed"}"#,
        ]
    );
}

/// A request of a project as a forge tells it, with what its dialect has for a state.
fn told(kind: Kind, state: &Value) -> Value {
    let mut told = match kind {
        Kind::GitLab => json!({
            "id": 1007, "iid": 7, "web_url": "https://h/7", "title": "one line", "description": "a text",
            "source_branch": "trustweave-proposals/a.test", "target_branch": "main",
            "source_project_id": 3, "target_project_id": 3,
        }),
        Kind::GitHub | Kind::Gitea => json!({
            "id": 1007, "number": 7, "html_url": "https://h/7", "title": "one line", "body": "a text",
            "head": {"ref": "trustweave-proposals/a.test", "repo": {"full_name": "O/r"}},
            "base": {"ref": "main", "repo": {"full_name": "O/r"}},
        }),
    };
    for (field, value) in state.as_object().unwrap() {
        told[field] = value.clone();
    }
    told
}

#[test]
fn what_became_of_a_request_is_read_from_each_forge() {
    let time = "2026-01-01T00:00:00Z";
    for (kind, state, expected) in [
        (
            Kind::GitHub,
            json!({"state": "open", "merged_at": null}),
            State::Open,
        ),
        (
            Kind::GitHub,
            json!({"state": "closed", "merged_at": null}),
            State::Closed,
        ),
        (
            Kind::GitHub,
            json!({"state": "closed", "merged_at": time}),
            State::Merged,
        ),
        (Kind::GitLab, json!({"state": "opened"}), State::Open),
        (Kind::GitLab, json!({"state": "locked"}), State::Open),
        (Kind::GitLab, json!({"state": "closed"}), State::Closed),
        (Kind::GitLab, json!({"state": "merged"}), State::Merged),
        (
            Kind::Gitea,
            json!({"state": "open", "merged": false}),
            State::Open,
        ),
        (
            Kind::Gitea,
            json!({"state": "closed", "merged": false}),
            State::Closed,
        ),
        (
            Kind::Gitea,
            json!({"state": "closed", "merged": true}),
            State::Merged,
        ),
    ] {
        let read = dialect(kind).read("o/r", &branches(), &told(kind, &state));
        let expected = Request {
            number: 7,
            url: "https://h/7".to_owned(),
            state: expected,
            words: words(),
        };
        assert_eq!(read, Some(expected), "{kind:?} {state}");
    }
}

#[test]
fn what_is_not_the_projects_own_request_is_not_looked_at() {
    let fork = json!({"ref": "trustweave-proposals/a.test", "repo": {"full_name": "x/r"}});
    let gone = json!({"ref": "trustweave-proposals/a.test", "repo": null});
    let other = json!({"ref": "trustweave-proposals/b.test", "repo": {"full_name": "o/r"}});
    for kind in KINDS {
        let foreign = match kind {
            Kind::GitLab => vec![
                json!({"source_project_id": 4}),
                json!({"source_project_id": null, "target_project_id": null}),
                json!({"source_branch": "trustweave-proposals/b.test"}),
                json!({"target_branch": "release"}),
                json!({"iid": null}),
            ],
            Kind::GitHub | Kind::Gitea => vec![
                json!({"head": fork}),
                json!({"head": gone}),
                json!({"head": other}),
                json!({"base": {"ref": "release"}}),
                json!({"number": "7"}),
            ],
        };
        for mut change in foreign {
            change["state"] = if kind == Kind::GitLab {
                "opened"
            } else {
                "open"
            }
            .into();
            let read = dialect(kind).read("o/r", &branches(), &told(kind, &change));
            assert_eq!(read, None, "{kind:?} {change}");
        }
    }
}

#[test]
fn refusals_are_told_and_understood() {
    let github = json!({"message": "Validation Failed", "errors": [
        {"resource": "PullRequest", "message": "A pull request already exists for o:b."},
    ]});
    let gitlab = json!({"message": ["Another open merge request already exists: !5"]});
    let gitea = json!({"message": "pull request already exists", "url": "https://h/api/swagger"});
    for (kind, status, answer, words) in [
        (
            Kind::GitHub,
            422,
            &github,
            "Validation Failed; A pull request already exists for o:b.",
        ),
        (
            Kind::GitLab,
            409,
            &gitlab,
            "Another open merge request already exists: !5",
        ),
        (Kind::Gitea, 409, &gitea, "pull request already exists"),
    ] {
        assert_eq!(refusal(answer), words);
        assert!(dialect(kind).is_open_already(status, words), "{kind:?}");
    }
    let nothing = json!({"message": "Validation Failed", "errors": [{"message": "No commits"}]});
    assert!(!dialect(Kind::GitHub).is_open_already(422, &refusal(&nothing)));
    let fields = json!({"message": {"source_branch": ["is invalid"]}, "error": "x"});
    assert_eq!(refusal(&fields), "is invalid; x");
    for kind in KINDS {
        assert!(
            !dialect(kind).is_open_already(403, "already exists"),
            "{kind:?}"
        );
    }
}
