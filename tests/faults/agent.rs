//! The agent's process: killed at any moment, and suspended.

use std::time::{Duration, Instant};

use trustweave_testbed::Signal;

use super::{ONE, matrix::Matrix, random::Random, subject::Subject};

const WHERE: &str = "agent";

/// What the agent logs when it has published.
const PUBLISHED: &str = "published the own bundle";

/// How often it is killed.
const KILLS: usize = 200;

/// After how many kills everything must settle.
const SETTLING: usize = 40;

/// How long it is suspended: longer than a poll, and than some deadlines of others.
const SUSPENDED: Duration = Duration::from_secs(2);

/// What may happen to the agent itself.
pub(crate) async fn faults(subject: &mut Subject, random: &mut Random, matrix: &mut Matrix) {
    let mut settled = Vec::new();
    let mut longest = from_start_to_publication(subject).await;
    subject.kill();
    let before = (subject.logged(" writes="), subject.logged(PUBLISHED));
    for number in 0..KILLS {
        subject.federation.start_agent(ONE).unwrap();
        match random.below(3) {
            0 => subject.declare().await,
            1 => subject.rotate_peer().await,
            _ => subject.rotate().await,
        }
        // The fault itself: no condition is waited for.
        tokio::time::sleep(moment(longest, random)).await;
        subject.kill();
        if (number + 1) % SETTLING == 0 {
            let published = from_start_to_publication(subject).await;
            settled.push(published + subject.settle().await);
            // The machine may be less busy than before.
            longest = longest.min(published);
            subject.kill();
        }
    }
    subject.federation.start_agent(ONE).unwrap();
    let fault = (
        WHERE,
        "killed at a random moment after a change (`kill -9`)",
    );
    matrix.add(subject.row(fault, KILLS, settled).await);
    super::progress(&format!(
        "kills within {longest:?} of a start; what was told between them: {} passes with writes, {} publications",
        subject.logged(" writes=") - before.0,
        subject.logged(PUBLISHED) - before.1,
    ));

    let fault = (WHERE, "suspended for 2 s (`SIGSTOP`)");
    let row = subject.struck(fault, 2, async |subject| {
        subject.signal(Signal::STOP);
        subject.change_all().await;
        tokio::time::sleep(SUSPENDED).await;
        subject.signal(Signal::CONT);
        1
    });
    matrix.add(row.await);
}

/// How long it takes here from the agent's start until it has published, which comes last: kills within
/// this time strike both loops.
async fn from_start_to_publication(subject: &mut Subject) -> Duration {
    subject.kill();
    subject.rotate().await;
    let before = subject.logged(PUBLISHED);
    let begun = Instant::now();
    subject.federation.start_agent(ONE).unwrap();
    subject.until_logged(PUBLISHED, before).await;
    begun.elapsed()
}

/// A moment until `longest`; the earlier, the likelier: early kills take less time.
fn moment(longest: Duration, random: &mut Random) -> Duration {
    let part = random.below(1_000);
    longest * u32::try_from(part * part).unwrap() / 1_000_000
}
