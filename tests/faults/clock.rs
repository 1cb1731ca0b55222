//! The wall clock that the agent sees jumps, while it runs. Only this one: the kernel's clocks for durations
//! do not jump, and standing still is what a suspended process sees.

use std::time::Duration;

use trustweave_testbed::shifted_clock::ShiftedClock;

use super::{matrix::Matrix, subject::Subject};

const WHERE: &str = "clock";

/// Further than SPIRE's own roots last: 24 hours.
const FAR: Duration = Duration::from_hours(30 * 24);

/// What may happen to the clock.
pub(crate) async fn faults(subject: &mut Subject, matrix: &mut Matrix) {
    let clock = ShiftedClock::build(&subject.federation.testbed).await;
    let clock = clock.unwrap();
    let environment = subject.federation.environment.clone();
    subject.federation.environment.extend(clock.environment());
    subject.restart();
    subject.settle().await;

    // All roots of the own bundle are over then.
    let not_published = "the own bundle is not published";
    let fault = (WHERE, "30 days ahead, and back");
    let row = subject.struck(fault, 2, async |subject| {
        let before = subject.logged(not_published);
        clock.ahead(FAR).unwrap();
        subject.change_all().await;
        applied(subject).await;
        subject.until_logged(not_published, before).await;
        clock.right().unwrap();
        1
    });
    matrix.add(row.await);

    let fault = (WHERE, "30 days behind, and back");
    let row = subject.struck(fault, 2, async |subject| {
        clock.behind(FAR).unwrap();
        subject.change_all().await;
        applied(subject).await;
        clock.right().unwrap();
        1
    });
    matrix.add(row.await);

    subject.federation.environment = environment;
    subject.restart();
}

/// Waits until what is declared is in force, whatever the clock says.
async fn applied(subject: &Subject) {
    let applied = async || subject.is_applied().await.map(Some);
    subject.until("the overlay to be applied", applied).await;
}
