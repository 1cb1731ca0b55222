//! A look at peers' bundle endpoints, for whoever needs to know what they serve.
//!
//! The task keeps nothing but what it saw last; what that means is the sync loop's to judge.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt,
    future::{AbortHandle, Abortable},
    stream::FuturesUnordered,
};
use tokio::sync::{Semaphore, watch};

use super::{Shared, random};
use crate::{
    model::{bundle::Bundle, trust_domain::TrustDomain},
    reconcile::schedule::jittered,
    spire::endpoint::{self, Endpoint},
};

/// The endpoints that are to be looked at, by peer.
pub(super) type Wanted = BTreeMap<TrustDomain, Endpoint>;

/// What was seen there last, by peer, since this very endpoint was asked for.
pub(super) type Seen = BTreeMap<TrustDomain, Bundle>;

/// How often each is looked at: as often as SPIRE polls at its fastest.
const INTERVAL: Duration = Duration::from_secs(15);

/// How many are looked at at once. A look has a deadline, so that even this many that hang hold up
/// the others only so long.
const AT_ONCE: usize = 16;

/// After so many failures in a row what was seen is forgotten: it no longer tells what is served.
const FORGOTTEN_AFTER: u32 = 4;

/// Looks at the endpoints that the sync loop asks for.
pub(super) async fn look(shared: Arc<Shared>) -> anyhow::Result<()> {
    let wanted = shared.endpoints_wanted.subscribe();
    let fetch = |endpoint: Endpoint| async move { endpoint::fetch(&endpoint).await };
    let looking = follow(wanted, &shared.endpoints_seen, INTERVAL, fetch);
    shared.stop.run_until_cancelled(looking).await;
    Ok(())
}

/// A peer's endpoint that is looked at again and again.
struct Looked {
    endpoint: Endpoint,
    /// The last failure that was told.
    failure: Option<String>,
    /// How many looks have failed since the last that did not.
    failures: u32,
    /// Ends the look under way, or the wait for the next.
    next: AbortHandle,
}

impl Drop for Looked {
    fn drop(&mut self) {
        self.next.abort();
    }
}

/// Looks at once at what is newly wanted, and every `interval` at all; ends when nobody can ask any
/// more.
async fn follow<F: Future<Output = Result<Bundle, endpoint::Error>>>(
    mut wanted: watch::Receiver<Wanted>,
    seen: &watch::Sender<Seen>,
    interval: Duration,
    fetch: impl Fn(Endpoint) -> F,
) {
    let permits = Semaphore::new(AT_ONCE);
    let mut peers: BTreeMap<TrustDomain, Looked> = BTreeMap::new();
    let mut looks = FuturesUnordered::new();
    let look = |peer: TrustDomain, endpoint: Endpoint, wait: Option<Duration>| {
        let (next, registration) = AbortHandle::new_pair();
        let (permits, fetch) = (&permits, &fetch);
        let look = async move {
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
            }
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            let found = fetch(endpoint).await;
            (peer, found)
        };
        (next, Abortable::new(look, registration))
    };
    wanted.mark_changed();
    loop {
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let asked = wanted.borrow_and_update().clone();
                peers.retain(|peer, looked| asked.get(peer) == Some(&looked.endpoint));
                seen.send_if_modified(|seen| {
                    let before = seen.len();
                    seen.retain(|peer, _| peers.contains_key(peer));
                    seen.len() != before
                });
                for (peer, endpoint) in asked {
                    if let Entry::Vacant(vacant) = peers.entry(peer) {
                        let (next, future) = look(vacant.key().clone(), endpoint.clone(), None);
                        looks.push(future);
                        vacant.insert(Looked { endpoint, failure: None, failures: 0, next });
                    }
                }
            }
            Some(done) = looks.next(), if !looks.is_empty() => {
                // One that was aborted is of a peer that is no longer wanted there.
                let Ok((peer, found)) = done else { continue };
                let Some(looked) = peers.get_mut(&peer) else { continue };
                record(&peer, looked, found, seen);
                let wait = jittered(interval, interval / 10, random());
                let (next, future) = look(peer, looked.endpoint.clone(), Some(wait));
                looks.push(future);
                looked.next = next;
            }
        }
    }
}

/// Hands on what was seen, and tells of a failure when it is news.
fn record(
    peer: &TrustDomain,
    looked: &mut Looked,
    found: Result<Bundle, endpoint::Error>,
    seen: &watch::Sender<Seen>,
) {
    let url = &looked.endpoint.url;
    match found {
        Ok(bundle) => {
            looked.failures = 0;
            if looked.failure.take().is_some() {
                tracing::info!(%peer, url, "the peer's bundle endpoint can be read again");
            }
            seen.send_if_modified(|seen| {
                let changed = seen.get(peer) != Some(&bundle);
                if changed {
                    seen.insert(peer.clone(), bundle);
                }
                changed
            });
        }
        Err(error) => {
            looked.failures = looked.failures.saturating_add(1);
            if looked.failures == FORGOTTEN_AFTER {
                seen.send_if_modified(|seen| seen.remove(peer).is_some());
            }
            let text = error.to_string();
            if looked.failure.as_ref() == Some(&text) {
                tracing::debug!(%peer, url, error = text, "the peer's bundle endpoint still can't be read");
            } else {
                tracing::warn!(%peer, url, error = text, "the peer's bundle endpoint can't be read");
                looked.failure = Some(text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

    use super::*;
    use crate::{model::bundle::sample, spire::endpoint::Identity};

    fn peer(name: &str) -> TrustDomain {
        TrustDomain::parse(name).unwrap()
    }

    fn endpoint(url: &str) -> Endpoint {
        Endpoint {
            url: url.to_owned(),
            identity: Identity::Web,
        }
    }

    /// Runs `test` beside the task. What it is told of each look is what `serve` answers by URL;
    /// `None` hangs.
    async fn beside(
        interval: Duration,
        serve: impl Fn(&str) -> Option<Result<Bundle, endpoint::Error>>,
        test: impl AsyncFnOnce(&watch::Sender<Wanted>, watch::Receiver<Seen>),
    ) {
        let (ask, wanted) = watch::channel(Wanted::new());
        let (seen, see) = watch::channel(Seen::new());
        let fetch = |endpoint: Endpoint| {
            let answer = serve(&endpoint.url);
            async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = follow(wanted, &seen, interval, fetch) => panic!("the task ended"),
            () = test(&ask, see) => {}
        }
    }

    /// Never reached in a test.
    const NEVER: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn who_hangs_delays_nobody_and_what_is_not_wanted_is_forgotten() {
        let bundle = sample("a.test");
        let serve = |url: &str| (url != "hangs").then(|| Ok(bundle.clone()));
        beside(NEVER, serve, async |ask, mut seen| {
            ask.send_replace(Wanted::from([
                (peer("a.test"), endpoint("good")),
                (peer("b.test"), endpoint("hangs")),
            ]));
            let only_a = |seen: &Seen| seen.keys().eq([&peer("a.test")]);
            seen.wait_for(only_a).await.unwrap();
            // Another endpoint of the same peer: what was seen at the former says nothing of it.
            ask.send_replace(Wanted::from([(peer("a.test"), endpoint("hangs"))]));
            seen.wait_for(Seen::is_empty).await.unwrap();
            ask.send_replace(Wanted::from([(peer("a.test"), endpoint("good"))]));
            seen.wait_for(only_a).await.unwrap();
            ask.send_replace(Wanted::new());
            seen.wait_for(Seen::is_empty).await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn a_failure_keeps_what_was_seen_and_a_later_look_replaces_it() {
        let (first, second) = (sample("a.test"), sample("a.test"));
        let answers = RefCell::new(vec![
            Ok(second.clone()),
            Err(endpoint::Error::TooLarge),
            Err(endpoint::Error::TooLarge),
            Ok(first.clone()),
        ]);
        let states = Rc::new(RefCell::new(Vec::new()));
        let serve = |_: &str| answers.borrow_mut().pop();
        beside(Duration::from_millis(1), serve, async |ask, mut seen| {
            ask.send_replace(Wanted::from([(peer("a.test"), endpoint("flaky"))]));
            while states.borrow().last() != Some(&second) {
                seen.changed().await.unwrap();
                let here = seen.borrow_and_update().get(&peer("a.test")).cloned();
                states.borrow_mut().push(here.unwrap());
            }
        })
        .await;
        assert_eq!(*states.borrow(), [first, second]);
    }

    #[tokio::test]
    async fn what_was_seen_long_ago_is_forgotten() {
        let looks = RefCell::new(0);
        let serve = |_: &str| {
            *looks.borrow_mut() += 1;
            Some(match *looks.borrow() {
                1 => Ok(sample("a.test")),
                _ => Err(endpoint::Error::TooLarge),
            })
        };
        beside(Duration::from_millis(1), serve, async |ask, mut seen| {
            ask.send_replace(Wanted::from([(peer("a.test"), endpoint("gone"))]));
            seen.wait_for(|seen| !seen.is_empty()).await.unwrap();
            seen.wait_for(Seen::is_empty).await.unwrap();
        })
        .await;
        assert!(*looks.borrow() > FORGOTTEN_AFTER);
    }

    #[tokio::test]
    async fn no_more_than_the_bound_are_looked_at_at_once() {
        let under_way = RefCell::new(BTreeSet::new());
        let serve = |url: &str| {
            under_way.borrow_mut().insert(url.to_owned());
            None
        };
        beside(NEVER, serve, async |ask, _| {
            let many =
                (0..2 * AT_ONCE).map(|n| (peer(&format!("p{n}.test")), endpoint(&n.to_string())));
            ask.send_replace(many.collect());
            while under_way.borrow().len() < AT_ONCE {
                tokio::task::yield_now().await;
            }
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(under_way.borrow().len(), AT_ONCE);
    }
}
