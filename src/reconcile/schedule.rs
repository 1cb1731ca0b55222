//! When passes are made: what triggers one, and how long to wait after a failure.

use std::{fmt, time::Duration};

/// What asks for a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// The agent started.
    Start,
    /// The remote's references changed.
    Git,
    /// Something watched in the cluster changed.
    Cluster,
    /// SPIRE's own bundle may have changed.
    Bundle,
    /// A workload's view of the bundles changed.
    Workload,
    /// A peer's endpoint serves something else than before.
    Endpoint,
    /// The other loop has news.
    OtherLoop,
    /// The last pass failed.
    Retry,
    /// A moment has come that a pass named.
    Due,
    /// Nothing happened for long: look at everything again.
    Interval,
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Git => "git",
            Self::Cluster => "cluster",
            Self::Bundle => "bundle",
            Self::Workload => "workload",
            Self::Endpoint => "endpoint",
            Self::OtherLoop => "other-loop",
            Self::Retry => "retry",
            Self::Due => "due",
            Self::Interval => "interval",
        })
    }
}

/// How long triggers are gathered before a pass begins: one change often comes as many.
pub const GATHER: Duration = Duration::from_millis(50);

/// Everything is looked at again after this long, plus a jitter of up to a tenth.
pub const INTERVAL: Duration = Duration::from_mins(10);

/// Waiting longer after each failure in a row.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_mins(1);

    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after a further failure: doubled each time, between half and all of it.
    /// `random` is any number.
    pub fn after_failure(&mut self, random: u64) -> Duration {
        let ceiling = Self::FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        jittered(ceiling / 2, ceiling / 2, random)
    }
}

/// `base` plus up to `spread`. `random` is any number.
pub fn jittered(base: Duration, spread: Duration, random: u64) -> Duration {
    let spread = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
    base + Duration::from_millis(random % spread.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..10)
            .map(|_| backoff.after_failure(0).as_millis())
            .collect();
        assert_eq!(
            waits,
            [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
        );
        backoff.reset();
        assert_eq!(backoff.after_failure(250), Duration::from_millis(500));
    }
}
