//! The git port against real servers: OpenSSH, `git http-backend` behind TLS, `git daemon`, and servers
//! that fail in every way.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

mod fire;
mod hangs;
mod proposals;
mod reviewed;
mod transports;

use std::{collections::BTreeMap, path::PathBuf};

use trustweave::{
    git::{Author, Draft, Mirror, Publish, Repository, Settings, SigningKey, Tip},
    model::repository::RepoPath,
};
use trustweave_testbed::Testbed;

/// A git server without any cluster.
async fn testbed() -> Testbed {
    Testbed::start(&[], &|_| ()).await.unwrap()
}

/// A git server whose main branch has one commit.
async fn with_main(text: &str) -> Testbed {
    let testbed = testbed().await;
    change(&testbed, text).await;
    testbed
}

/// Has the file `x` of main say something else.
async fn change(testbed: &Testbed, text: &str) {
    let files = [("x", text)];
    testbed.git.commit("main", &files, text).await.unwrap();
}

/// Settings for a mirror of its own.
fn settings(testbed: &Testbed, url: &str, name: &str) -> Settings {
    Settings::new(url, "main", testbed.directory().join(name))
}

fn mirror(settings: Settings) -> Mirror {
    Mirror::new(settings).unwrap()
}

/// A file of the test's own.
fn file(testbed: &Testbed, name: &str, content: &str) -> PathBuf {
    let path = testbed.directory().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// What a file of the reviewed commit says, as the mirror has it.
async fn reviewed_text(mirror: &Mirror, path: &str) -> String {
    let main = mirror.fetch().await.unwrap().main.unwrap();
    let tree = mirror.tree(&main).await.unwrap();
    tree.text(&RepoPath::parse(path).unwrap())
        .unwrap()
        .to_owned()
}

/// A publication on a branch.
fn request(branch: &str, directory: &str, key: &SigningKey) -> Publish {
    Publish {
        branch: branch.to_owned(),
        directory: RepoPath::parse(directory).unwrap(),
        author: Author {
            name: "agent".to_owned(),
            email: "agent@example.com".to_owned(),
            seconds: 1_700_000_000,
        },
        key: key.clone(),
    }
}

/// Writes the content, unless it stands there already.
fn put(content: &str) -> impl FnMut(&Tip) -> Option<Draft> + Send {
    move |tip| {
        let standing = tip.files.get("bundle.json").map(Vec::as_slice);
        (standing != Some(content.as_bytes())).then(|| Draft {
            files: BTreeMap::from([("bundle.json".to_owned(), content.as_bytes().to_vec())]),
            message: format!("publish {content}\n"),
        })
    }
}

fn key() -> SigningKey {
    SigningKey::generate("agent").unwrap()
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
