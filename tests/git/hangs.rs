//! Servers that give no answer: whatever they do, somebody gets an error in time, and the next try
//! finds a worker.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use trustweave::{
    git::{Error, Mirror, Repository, Settings},
    model::repository::RepoPath,
};
use trustweave_testbed::{
    Testbed,
    faulty_way::{Fault, FaultyWay},
    wait_until,
};

use super::{change, mirror, settings, testbed, with_main};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long a mirror of these tests waits for git.
const DEADLINE: Duration = Duration::from_secs(2);

async fn behind(testbed: &Testbed) -> (FaultyWay, Settings) {
    let way = FaultyWay::to(testbed.git.port()).await.unwrap();
    let url = format!("git://127.0.0.1:{}/federation.git", way.port());
    let mut settings = settings(testbed, &url, "m");
    settings.deadline = DEADLINE;
    (way, settings)
}

/// Waits until the mirror reads what stands there; on a busy machine, one try may take too long.
async fn reads(mirror: &Mirror, text: &str) {
    let path = RepoPath::parse("x").unwrap();
    wait_until("the mirror to read again", PATIENCE, async || {
        let main = mirror.fetch().await?.main.context("no branch")?;
        let tree = mirror.tree(&main).await?;
        Ok(tree
            .text(&path)
            .is_ok_and(|found| found == text)
            .then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_left_behind() {
    let testbed = with_main("one").await;
    let (way, settings) = behind(&testbed).await;
    let directory = settings.directory.clone();
    let hanging = mirror(settings);
    // Each thread has a mirror of its own.
    let threads = || mirrors(directory.parent().unwrap());

    // However many ask, few threads wait, and every caller hears in time.
    way.set(Fault::Silent);
    for _ in 0..6 {
        let begun = Instant::now();
        let error = hanging.fetch().await.unwrap_err();
        assert!(
            matches!(error, Error::Timeout(limit) if limit == DEADLINE),
            "{error}"
        );
        assert!(error.is_retryable());
        assert!(begun.elapsed() < DEADLINE * 5);
        assert!(threads() <= 4, "{}", threads());
    }
    assert_eq!(threads(), 4);
    // libgit2's own time limit ends them in the end, and all goes on.
    way.set(Fault::None);
    reads(&hanging, "one").await;
    // Nothing of theirs stays.
    let others = "the threads that were left behind to end";
    wait_until(
        others,
        PATIENCE,
        async || Ok((threads() == 1).then_some(())),
    )
    .await
    .unwrap();

    // Half of an answer, in the middle of a listing, and in the middle of a pack.
    for bytes in [10, 120, 400] {
        way.set(Fault::HalfOpen(bytes));
        let text = format!("after {bytes}");
        change(&testbed, &text).await;
        let error = hanging.fetch().await.unwrap_err();
        assert!(matches!(error, Error::Timeout(_)), "{error}");
        assert!(way.set(Fault::None) > 0);
        reads(&hanging, &text).await;
    }
}

fn mirrors(parent: &Path) -> usize {
    let entries = std::fs::read_dir(parent).unwrap().flatten();
    let named = entries.filter(|it| it.file_name().to_string_lossy().starts_with('m'));
    named.count()
}

/// A transfer that goes on and on, without ever being silent for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_without_end_is_broken_off() {
    let testbed = testbed().await;
    let (way, mut settings) = behind(&testbed).await;
    // Broken off after three quarters of it, and far from done.
    settings.deadline = DEADLINE * 8;
    let mut number = 1_u64;
    let noise = std::iter::repeat_with(|| {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        format!("{number:016x}")
    });
    let noise: String = noise.take(400_000).collect();
    let files = [("large", noise.as_str()), ("x", "one")];
    testbed.git.commit("main", &files, "large").await.unwrap();
    let slow = mirror(settings);
    way.set(Fault::Slow);
    let error = slow.fetch().await.unwrap_err();
    assert!(matches!(error, Error::Fetch { .. }), "{error}");
    assert!(error.is_retryable());
    way.set(Fault::None);
    reads(&slow, "one").await;
}
