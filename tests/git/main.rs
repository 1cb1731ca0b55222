//! The git port against real servers: OpenSSH, `git http-backend` behind TLS, `git daemon`, and servers
//! that fail in every way.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

mod hangs;
mod proposals;
mod reviewed;
mod setup;
mod transports;

use std::path::PathBuf;

use trustweave::{
    git::{Mirror, Repository},
    model::repository::RepoPath,
};
use trustweave_testbed::Testbed;

use setup::{key, mirror, put, request, settings, testbed};

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
