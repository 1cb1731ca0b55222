//! A server that says that it has too much to do (429, API Priority and Fairness) is left in peace as
//! long as it asks, by all requests alike. Apart from that, only how many requests are under way at
//! once is limited, by who makes them: a fixed rate would slow down where nothing is wrong.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The longest pause that is heeded.
const LONGEST: Duration = Duration::from_secs(30);

/// Until when no request is made.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Option<Instant>>);

impl Throttle {
    /// Asks for a pause, from now on.
    pub(super) fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause.min(LONGEST);
        let mut paused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *paused = Some(paused.map_or(until, |before| before.max(until)));
    }

    /// Waits until a request may be made.
    pub(super) async fn wait(&self) {
        if let Some(until) = self.paused_until() {
            tokio::time::sleep_until(until).await;
        }
    }

    fn paused_until(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_asked_for_counts_within_reason() {
        let throttle = Throttle::default();
        assert_eq!(throttle.paused_until(), None);
        let begun = Instant::now();
        let left = || throttle.paused_until().unwrap() - begun;
        throttle.pause(Duration::from_secs(10));
        throttle.pause(Duration::from_secs(1));
        assert!(left() >= Duration::from_secs(10));
        throttle.pause(Duration::from_hours(1));
        assert!(left() <= LONGEST + begun.elapsed());
    }
}
