//! The pipelines of the example repository: what they run is accepted by this program, and by a shell.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use serde_yaml::Value;
use tempfile::TempDir;

use super::Repository;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/repo-layout");

const GITHUB: &str = ".github/workflows/trustweave.yaml";
const GITEA: &str = ".gitea/workflows/trustweave.yaml";
const GITLAB: &str = ".gitlab-ci.yml";

/// Stands for `curl`: writes down what it is asked, and answers with the comments that there are.
const CURL: &str = r#"#!/bin/sh
echo "curl $*" >>"$RECORD"
case "$*" in
  */user) echo '{"username": "bot"}' ;;
  *--request*) ;;
  *) cat "$COMMENTS" ;;
esac
"#;

/// Stands for GitHub's `gh`.
const GH: &str = r#"#!/bin/sh
echo "gh $*" >>"$RECORD"
while [ $# -gt 1 ]; do
  if [ "$1" = --jq ]; then jq --raw-output "$2" "$COMMENTS"; fi
  shift
done
"#;

fn yaml(path: &str) -> Value {
    let text = fs::read_to_string(Path::new(EXAMPLE).join(path)).unwrap();
    serde_yaml::from_str(&text).unwrap()
}

/// The steps of all jobs of a workflow.
fn steps(workflow: &Value) -> Vec<&Value> {
    let jobs = workflow["jobs"].as_mapping().unwrap();
    jobs.values()
        .flat_map(|job| job["steps"].as_sequence().unwrap())
        .collect()
}

/// The script of the step with this name.
fn script(workflow: &str, name: &str) -> String {
    let workflow = yaml(workflow);
    let steps = steps(&workflow);
    let step = steps.iter().find(|step| step["name"] == name).unwrap();
    step["run"].as_str().unwrap().to_owned()
}

/// The lines of a job of GitLab, as one script.
fn job(name: &str) -> String {
    let pipeline = yaml(GITLAB);
    let lines = pipeline[name]["script"].as_sequence().unwrap();
    let lines: Vec<_> = lines.iter().map(|line| line.as_str().unwrap()).collect();
    lines.join("\n")
}

/// A place where the scripts of a pipeline run.
struct Runner {
    repository: Repository,
    directory: TempDir,
}

impl Runner {
    /// On a change that turns an edge, on top of `main`.
    fn new() -> Self {
        let repository = Repository::new();
        repository.git(&["update-ref", "refs/remotes/origin/main", "HEAD"]);
        repository.git(&["remote", "add", "origin", "."]);
        repository.turn_the_edge();
        repository.commit();
        let directory = TempDir::new().unwrap();
        let bin = directory.path().join("bin");
        fs::create_dir(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_trustweave"), bin.join("trustweave")).unwrap();
        for (name, program) in [("curl", CURL), ("gh", GH)] {
            fs::write(bin.join(name), program).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self {
            repository,
            directory,
        }
    }

    fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// Runs a script as a runner does, and returns whether it succeeded and what was asked of a forge.
    fn run(&self, script: &str, comments: &str, more: &[(&str, &str)]) -> (bool, String) {
        fs::write(self.path("comments.json"), comments).unwrap();
        fs::write(self.path("record"), "").unwrap();
        let script = format!("PATH=\"$BIN:$PATH\"\n{script}");
        let output = Command::new("bash")
            .args(["-e", "-o", "pipefail", "-c", &script])
            .current_dir(self.repository.0.path())
            .env("BIN", self.path("bin"))
            .env("RECORD", self.path("record"))
            .env("COMMENTS", self.path("comments.json"))
            .env("RUNNER_TEMP", self.directory.path())
            .env("GITHUB_OUTPUT", self.path("output"))
            .env("GITHUB_STEP_SUMMARY", self.path("summary"))
            .env("GITHUB_REPOSITORY", "org/repository")
            .env("GITHUB_API_URL", "https://forge.test/api/v1")
            .env("GITHUB_BASE_REF", "main")
            .env("PULL_REQUEST", "5")
            .env("CI_API_V4_URL", "https://forge.test/api/v4")
            .env("CI_PROJECT_ID", "9")
            .env("CI_MERGE_REQUEST_IID", "5")
            .env("CI_MERGE_REQUEST_DIFF_BASE_SHA", "HEAD~1")
            .envs(more.iter().copied())
            .output()
            .unwrap();
        let record = fs::read_to_string(self.path("record")).unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        (output.status.success(), format!("{record}{told}"))
    }
}

#[test]
fn workflows_have_few_rights_and_run_only_what_is_pinned() {
    for path in [GITHUB, GITEA] {
        let workflow = yaml(path);
        let triggers = workflow["on"].as_mapping().unwrap();
        let triggers: Vec<_> = triggers.keys().map(|it| it.as_str().unwrap()).collect();
        assert_eq!(triggers, ["pull_request"], "{path}");
        assert!(workflow["permissions"].as_mapping().unwrap().is_empty());
        for (name, job) in workflow["jobs"].as_mapping().unwrap() {
            let rights: BTreeMap<String, String> =
                serde_yaml::from_value(job["permissions"].clone()).unwrap();
            let mut expected = BTreeMap::from([("contents".to_owned(), "read".to_owned())]);
            if name == "diff" {
                expected.insert("pull-requests".to_owned(), "write".to_owned());
            }
            assert_eq!(rights, expected, "{path}");
        }
        for step in steps(&workflow) {
            if let Some(action) = step["uses"].as_str() {
                let (_, commit) = action.split_once('@').unwrap();
                let pinned = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
                assert!(pinned, "{path}: {action}");
                assert_eq!(step["with"]["persist-credentials"], false, "{path}");
            }
            // What others may have written reaches a script by its environment only.
            let script = step["run"].as_str().unwrap_or_default();
            assert!(!script.contains("${{"), "{path}: {script}");
        }
    }
}

#[test]
fn pipelines_check_and_comment_once() {
    let runner = Runner::new();
    let marker = "<!-- trustweave-diff -->";
    let workflow = |path: &str| {
        let scripts = ["Check", "Compare", "Comment"].map(|name| script(path, name));
        (scripts[0].clone(), scripts[1..].join("\nSTATUS=$status\n"))
    };
    let own = |user: &str| {
        format!(
            r#"[{{"id": 6, "body": "x", "user": {{"login": "{user}"}}}},
        {{"id": 7, "body": "{marker}", "user": {{"login": "stranger"}}}},
        {{"id": 8, "body": "{marker} old", "user": {{"login": "{user}"}}}}]"#
        )
    };
    let token = [("TRUSTWEAVE_COMMENT_TOKEN", "secret"), ("TOKEN", "secret")];
    for (name, (check, diff), existing, created, updated) in [
        (
            GITHUB,
            workflow(GITHUB),
            own("github-actions[bot]"),
            "--method POST repos/org/repository/issues/5/comments --field body=@",
            "--method PATCH repos/org/repository/issues/comments/8 --field body=@",
        ),
        (
            GITEA,
            workflow(GITEA),
            own("forgejo-actions"),
            "--output /dev/null https://forge.test/api/v1/repos/org/repository/issues/5/comments\n",
            "--output /dev/null https://forge.test/api/v1/repos/org/repository/issues/comments/8\n",
        ),
        (
            GITLAB,
            (job("check"), job("diff")),
            own("bot").replace("\"user\": {\"login\"", "\"author\": {\"username\""),
            "--output /dev/null https://forge.test/api/v4/projects/9/merge_requests/5/notes\n",
            "--output /dev/null https://forge.test/api/v4/projects/9/merge_requests/5/notes/8\n",
        ),
    ] {
        let (checked, told) = runner.run(&check, "[]", &[]);
        assert!(checked, "{name}: {told}");
        for (comments, expected) in [("[]", created), (existing.as_str(), updated)] {
            let (compared, asked) = runner.run(&diff, comments, &token);
            assert!(compared, "{name}: {asked}");
            assert!(asked.contains(expected), "{name}: {asked}");
            assert!(!asked.contains("secret"), "{name}: {asked}");
        }
    }
    let comment = fs::read_to_string(runner.path("comment.md")).unwrap();
    assert!(comment.starts_with(marker), "{comment}");
}

#[test]
fn pipelines_fail_where_the_answer_is_incomplete_and_are_silent_where_nothing_changes() {
    let runner = Runner::new();
    let token = [("TRUSTWEAVE_COMMENT_TOKEN", "secret")];
    let nothing = [token[0], ("CI_MERGE_REQUEST_DIFF_BASE_SHA", "HEAD")];
    let (compared, asked) = runner.run(&job("diff"), "[]", &nothing);
    assert!(compared && !asked.contains("--request POST"), "{asked}");

    let compare = script(GITHUB, "Compare");
    runner
        .repository
        .replace(super::DECLARATION, "bundleEndpoint:", "bundleEndpiont:");
    runner.repository.commit();
    let (compared, told) = runner.run(&compare, "[]", &[]);
    assert!(!compared, "{told}");
    let output = fs::read_to_string(runner.path("output")).unwrap();
    assert!(output.ends_with("status=2\n"), "{output}");
    let (compared, asked) = runner.run(&job("diff"), "[]", &token);
    assert!(!compared && asked.contains("--request POST"), "{asked}");
    let (checked, _) = runner.run(&job("check"), "[]", &[]);
    assert!(!checked);
}
