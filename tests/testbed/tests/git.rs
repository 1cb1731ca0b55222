//! The git server, as people and agents use it.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use std::path::Path;
use std::process::{Command, Output};

use trustweave_testbed::git::Change;
use trustweave_testbed::{Testbed, ssh_key};

fn git(directory: &Path, arguments: &[&str]) -> Output {
    Command::new("git")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-C"])
        .arg(directory)
        .args(arguments)
        .output()
        .unwrap()
}

#[tokio::test]
async fn commits_hooks_pushes_and_outages() {
    let testbed = Testbed::start(&[], &|_| ()).await.unwrap();
    let remote = &testbed.git;
    assert!(remote.log("main").await.unwrap().is_empty());
    let first = remote
        .commit(
            "main",
            &[("a.yaml", "a\n"), ("deep/b \"c\".yaml", "b")],
            "first",
        )
        .await
        .unwrap();
    let second = remote
        .change(
            "main",
            &[Change::Delete("a.yaml"), Change::Write("c", b"c")],
            "second",
        )
        .await
        .unwrap();
    assert_eq!(remote.log("main").await.unwrap(), ["second", "first"]);
    assert_eq!(remote.show("main", "deep/b \"c\".yaml").await.unwrap(), "b");
    assert_eq!(remote.show(&first, "a.yaml").await.unwrap(), "a\n");
    assert!(remote.show("main", "a.yaml").await.is_err());

    let source = testbed.directory().join("source");
    std::fs::create_dir_all(source.join("x/y")).unwrap();
    std::fs::write(source.join("x/y/z"), "z").unwrap();
    std::os::unix::fs::symlink("y/z", source.join("x/link")).unwrap();
    remote
        .commit_directory("main", &source, "third")
        .await
        .unwrap();
    let listed = remote
        .git(&["ls-tree", "-r", "--format=%(objectmode) %(path)", "main"])
        .await;
    assert_eq!(listed.unwrap(), "120000 x/link\n100644 x/y/z\n");

    let clone = testbed.directory().join("clone");
    let cloned = git(
        testbed.directory(),
        &["clone", "--depth=1", remote.url(), clone.to_str().unwrap()],
    );
    assert!(cloned.status.success(), "{cloned:?}");
    git(&clone, &["commit", "--allow-empty", "-m", "pushed"]);
    remote
        .pre_receive_hook("echo not today >&2; exit 1")
        .unwrap();
    let refused = git(&clone, &["push", "origin", "HEAD:refs/heads/other"]);
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("not today"),
        "{refused:?}"
    );
    remote.remove_hook().unwrap();
    assert!(
        git(&clone, &["push", "origin", "HEAD:refs/heads/other"])
            .status
            .success()
    );
    assert_eq!(remote.log("other").await.unwrap()[0], "pushed");

    remote.stop().await.unwrap();
    assert!(!git(&clone, &["fetch"]).status.success());
    remote.start().await.unwrap();
    assert!(git(&clone, &["fetch"]).status.success());
    assert_ne!(first, second);
}

#[tokio::test]
async fn ssh_keys_are_what_ssh_keygen_reads() {
    let testbed = Testbed::start(&[], &|_| ()).await.unwrap();
    let key = ssh_key(testbed.directory(), "agent").unwrap();
    let derived = Command::new("ssh-keygen")
        .args(["-y", "-f"])
        .arg(&key.private)
        .output()
        .unwrap();
    assert!(derived.status.success(), "{derived:?}");
    assert_eq!(String::from_utf8_lossy(&derived.stdout).trim(), key.public);
}
