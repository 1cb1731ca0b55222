//! The files that docs/getting-started.md shows are ones that work.

use std::{fs, path::Path, process::Command};

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use tempfile::TempDir;
use trustweave::{
    agent::config,
    git::worktree,
    model::{diagnostic::Diagnostic, repository::RepoPath},
    render::render,
};

use super::{documents, files, read};

/// The YAML blocks of a page whose first line is a comment with their path, in order.
fn shown(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for event in Parser::new(page) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                block = (&*language == "yaml").then(String::new);
            }
            Event::Text(text) => {
                if let Some(block) = &mut block {
                    block.push_str(&text);
                }
            }
            Event::End(TagEnd::CodeBlock) => {
                let text = block.take().unwrap_or_default();
                let path = text.lines().next().and_then(|line| line.strip_prefix("# "));
                let path = path.and_then(|line| line.split_whitespace().next());
                found.extend(path.map(|path| (path.to_owned(), text.clone())));
            }
            _ => {}
        }
    }
    found
}

fn write(directory: &Path, path: &str, text: &str) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn check(directory: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_trustweave"))
        .arg("check")
        .current_dir(directory)
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && error.is_empty(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_repository_of_the_tutorial_is_one_before_and_after_the_pull_request() {
    let repository = TempDir::new().unwrap();
    let mut changed = Vec::new();
    for (path, text) in shown(&read("docs/getting-started.md")) {
        if path.starts_with("one/") {
            continue;
        }
        if repository.path().join(&path).exists() {
            changed.push((path, text));
        } else {
            write(repository.path(), &path, &text);
        }
    }
    let before = check(repository.path());
    let told = "2 trust domains, 2 clusters, 0 directions of trust: ";
    assert!(before.starts_with(told), "{before}");
    assert_eq!(changed.len(), 1, "the page shows one change");
    for (path, text) in &changed {
        write(repository.path(), path, text);
    }
    let after = check(repository.path());
    assert!(after.contains("2 directions of trust"), "{after}");
}

#[test]
fn the_installation_of_the_tutorial_renders_with_a_configuration_that_is_one() {
    let site = TempDir::new().unwrap();
    for (path, text) in shown(&read("docs/getting-started.md")) {
        if let Some(path) = path.strip_prefix("one/") {
            write(site.path(), path, &text);
        }
    }
    for path in files("deploy", ".yaml") {
        let path = path.to_str().unwrap();
        write(site.path(), &format!("trustweave/{path}"), &read(path));
    }
    let tree = worktree::read(site.path()).unwrap();
    let rendered = render(&tree, &RepoPath::parse("").unwrap());
    let found: Vec<String> = rendered
        .diagnostics
        .iter()
        .map(Diagnostic::to_string)
        .collect();
    assert!(found.is_empty(), "{found:?}");
    let objects = || rendered.manifests.iter().map(|manifest| &manifest.object);
    let image = objects().find(|it| it["kind"] == "Deployment").unwrap();
    let image = &image["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "registry.example.org/trustweave:0.1.0");
    let granted = objects()
        .find(|it| it["kind"] == "RoleBinding" && it["metadata"]["namespace"] == "spire-server");
    let subject = &granted.unwrap()["subjects"][0];
    assert_eq!(subject["namespace"], "trustweave-system");

    let map = documents(&fs::read_to_string(site.path().join("config.yaml")).unwrap()).remove(0);
    let configuration = config::parse("config.yaml", map["data"]["config.yaml"].as_str().unwrap());
    let configuration = configuration.unwrap();
    assert_eq!(configuration.cluster.as_str(), "one");
}
