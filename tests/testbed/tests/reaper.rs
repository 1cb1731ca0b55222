//! Nothing outlives a testbed, whatever ends it.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use trustweave_testbed::{Process, Testbed, wait_until};

/// Set for the process that is to be killed.
const VICTIM: &str = "TRUSTWEAVE_TESTBED_TEST_VICTIM";

fn runs(process: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else {
        return false;
    };
    // Nobody may be there to wait for an orphan: a zombie is gone as well.
    !stat
        .rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
}

/// A program that starts another one, and does not end when asked to.
fn stubborn(testbed: &Testbed) -> Process {
    let log = testbed.directory().join("stubborn.log");
    let script = "trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000";
    testbed
        .spawn(
            "stubborn",
            Path::new("/bin/sh"),
            ["-c", script],
            [("A", "b")],
            &log,
        )
        .unwrap()
}

async fn child_of(process: &Process) -> u32 {
    wait_until("the program's child", Duration::from_secs(20), async || {
        Ok(process.last_lines().trim().parse().ok())
    })
    .await
    .unwrap()
}

/// Not a test of its own: the process that the next one kills.
#[tokio::test]
async fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let testbed = Testbed::start(&[], &|_| ()).await.unwrap();
    let stubborn = stubborn(&testbed);
    let child = child_of(&stubborn).await;
    let line = format!(
        "\nVICTIM {} {child} {}\n",
        stubborn.id(),
        testbed.directory().display()
    );
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_process_leaves_nothing() {
    // INT and HUP may be ignored from birth: shells start background jobs so.
    for signal in [Signal::KILL, Signal::TERM] {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let line = BufReader::new(victim.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap)
            .find(|line| line.starts_with("VICTIM "))
            .unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let (parent, child) = (words[1].parse().unwrap(), words[2].parse().unwrap());
        let directory = PathBuf::from(words[3]);
        assert!(runs(parent) && runs(child) && directory.is_dir());

        kill_process(Pid::from_child(&victim), signal).unwrap();
        assert_eq!(victim.wait().unwrap().signal(), Some(signal.as_raw()));

        wait_until(
            "everything to be gone",
            Duration::from_secs(20),
            async || Ok((!runs(parent) && !runs(child) && !directory.exists()).then_some(())),
        )
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_panic_leaves_nothing() {
    let ended = tokio::spawn(async {
        let testbed = Testbed::start(&[], &|_| ()).await.unwrap();
        let stubborn = stubborn(&testbed);
        let child = child_of(&stubborn).await;
        std::panic::panic_any((stubborn.id(), child, testbed.directory().to_owned()));
    })
    .await;
    let ended = ended.unwrap_err().into_panic();
    let (parent, child, directory) = ended.downcast_ref::<(u32, u32, PathBuf)>().unwrap();
    assert!(!runs(*parent) && !runs(*child) && !directory.exists());
}

#[tokio::test]
async fn a_process_kept_longer_than_its_testbed_is_killed() {
    let testbed = Testbed::start(&[], &|_| ()).await.unwrap();
    let directory = testbed.directory().to_owned();
    let stubborn = stubborn(&testbed);
    let child = child_of(&stubborn).await;
    drop(testbed);
    assert!(!stubborn.is_running() && !runs(child) && !directory.exists());
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed_at_the_deadline() {
    let testbed = Testbed::start(&[], &|_| ()).await.unwrap();
    let stubborn = stubborn(&testbed);
    let child = child_of(&stubborn).await;
    let error = stubborn
        .terminate(Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("stubborn to end"),
        "{error:#}"
    );
    assert!(!stubborn.is_running());
    wait_until(
        "the child to be gone",
        Duration::from_secs(20),
        async || Ok((!runs(child)).then_some(())),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn an_early_end_is_reported_with_the_log() {
    let testbed = Testbed::start(&[], &|_| ()).await.unwrap();
    let log = testbed.directory().join("short.log");
    let script = "echo 'no such flag' >&2; exit 3";
    let short = testbed
        .spawn(
            "short",
            Path::new("/bin/sh"),
            ["-c", script],
            [("A", "b")],
            &log,
        )
        .unwrap();
    let error = short
        .until_ready(Duration::from_secs(20), async || Ok(None::<()>))
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("no such flag"), "{error:#}");
    assert_eq!(
        short.wait(Duration::from_secs(20)).await.unwrap().code(),
        Some(3)
    );
}
