//! Sources that nobody tells of a change: what they say is compared with what they said last.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::Error;
use crate::model::bundle::{Bundle, Digest};

/// What was read last: the digest of the bundle, or `None` if it could not be read.
#[derive(Debug, Default)]
pub(super) struct Last(Mutex<Option<Digest>>);

impl Last {
    /// Remembers what a reading led to, and hands it on.
    pub(super) fn noted(&self, outcome: Result<Bundle, Error>) -> Result<Bundle, Error> {
        *self.lock() = outcome.as_ref().ok().map(Bundle::digest);
        outcome
    }

    /// Reads every `interval` until it leads to something else than the reading that was noted.
    /// That it can't be read any more is something else, too.
    pub(super) async fn until_other<F>(&self, interval: Duration, read: impl Fn() -> F)
    where
        F: Future<Output = Result<Bundle, Error>>,
    {
        loop {
            tokio::time::sleep(interval).await;
            let found = read().await.ok().as_ref().map(Bundle::digest);
            if found != *self.lock() {
                return;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
