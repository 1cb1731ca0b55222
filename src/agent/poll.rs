//! The poll of the remote: its references, again and again.

use std::{sync::Arc, time::Duration};

use super::{Shared, random};
use crate::{
    git::Repository,
    model::diagnostic::with_causes,
    reconcile::schedule::{Backoff, jittered},
};

/// The least time between two looks, however often somebody asks for one.
const SPACING: Duration = Duration::from_secs(1);

/// Lists the remote's references again and again, and fetches what changed.
pub(super) async fn poll(shared: Arc<Shared>) -> anyhow::Result<()> {
    let period = Duration::from_millis(shared.config.git.poll_milliseconds.max(100));
    let mut backoff = Backoff::default();
    loop {
        let fetched = shared.mirror.fetch().await;
        let readable = i64::from(fetched.is_ok());
        shared.metrics.repository_readable.set(readable);
        let wait = match fetched {
            Ok(heads) => {
                if shared
                    .fetch_failure
                    .send_if_modified(|failure| failure.take().is_some())
                {
                    tracing::info!("the remote can be read again");
                }
                backoff.reset();
                shared.heads.send_if_modified(|last| {
                    let changed = last.as_ref() != Some(&heads);
                    if changed {
                        tracing::debug!(
                            main = heads.main.as_ref().map(tracing::field::display),
                            publications = heads.publications.len(),
                            "references changed"
                        );
                        *last = Some(heads);
                    }
                    changed
                });
                jittered(period, period / 10, random())
            }
            Err(error) => {
                let text = with_causes(&error);
                // The first failure is told; the ones after it are the same story.
                let news = shared.fetch_failure.send_if_modified(|failure| {
                    failure.is_none() && failure.replace(text.clone()).is_none()
                });
                if news {
                    tracing::warn!(
                        error = text,
                        "the remote can't be read; the last state stays in force"
                    );
                }
                if shared.heads.borrow().is_none() {
                    shared.not_ready.send_replace(Some(text));
                }
                backoff.after_failure(random()).max(period)
            }
        };
        let next = async {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = async {
                    tokio::time::sleep(SPACING.min(wait)).await;
                    // Many that ask meanwhile are one.
                    shared.look_now.notified().await;
                } => {}
            }
        };
        if shared.stop.run_until_cancelled(next).await.is_none() {
            return Ok(());
        }
    }
}
