//! The least privileged source that works.
//!
//! The sources are tried in order, and the first that gives a whole bundle is kept: another one is
//! taken only once the chosen one has failed for a while, was seen to lag behind, or a less privileged
//! one has come to say the same. **Invariant:** a change of source alone never goes back: what holds
//! less than was read last is not taken, whatever else fails.
//!
//! A `ConfigMap` of the `BundlePublisher` may stand still without anybody noticing: SPIRE does not
//! bring back one that was deleted, and gives up on one that somebody edited. So the sources that are
//! not chosen are looked at now and then; the last resort is not.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{BundleSource, Error};
use crate::model::{bundle::Bundle, diagnostic::with_causes, trust_domain::TrustDomain};

/// How fast another source is taken.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// How long the chosen source may fail until another one is looked for.
    patience: Duration,
    /// How often the others are looked at.
    look: Duration,
}

impl Pace {
    /// A restart of SPIRE's server takes less than its patience.
    const USUAL: Self = Self {
        patience: Duration::from_secs(30),
        look: Duration::from_mins(1),
    };
}

/// The least privileged of several sources.
pub struct Auto<S> {
    trust_domain: TrustDomain,
    pace: Pace,
    /// The least privileged first, the last resort last.
    sources: Vec<S>,
    state: Mutex<State>,
}

/// What is known of the sources.
#[derive(Debug)]
struct State {
    chosen: Option<usize>,
    /// Why each of the others was not taken when it was looked at last.
    refusals: Vec<Option<String>>,
    /// What was read last.
    last: Option<Bundle>,
    failing_since: Option<Instant>,
    /// The source that was seen to be ahead of the chosen one, in the last look.
    ahead: Option<usize>,
    next_look: Instant,
}

impl<S: BundleSource> Auto<S> {
    /// Tries `sources` in order, and `last_resort` when none of them works.
    pub fn new(trust_domain: TrustDomain, sources: Vec<S>, last_resort: S) -> Self {
        Self::at_pace(trust_domain, sources, last_resort, Pace::USUAL)
    }

    fn at_pace(trust_domain: TrustDomain, mut sources: Vec<S>, last_resort: S, pace: Pace) -> Self {
        sources.push(last_resort);
        let state = State {
            chosen: None,
            refusals: vec![None; sources.len()],
            last: None,
            failing_since: None,
            ahead: None,
            next_look: Instant::now() + pace.look,
        };
        Self {
            trust_domain,
            pace,
            sources,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one source; a bundle that is of another trust domain, or has no roots, is a failure of it.
    async fn read(&self, index: usize) -> Result<Bundle, Error> {
        let source = &self.sources[index];
        let bundle = source.current().await?;
        // Whether it has expired is the same for every source, and judged by who publishes.
        let checked = bundle.check(&self.trust_domain, Timestamp::UNIX_EPOCH);
        checked.map_err(|error| Error::NotABundle {
            place: source.describe(),
            source: error,
        })?;
        Ok(bundle)
    }

    /// Takes the first source that works and holds all that was read last.
    async fn choose(&self) -> Result<Bundle, Error> {
        let last = self.state().last.clone();
        for index in 0..self.sources.len() {
            let refusal = match self.read(index).await {
                Ok(bundle) => match lack(&bundle, last.as_ref()) {
                    None => {
                        self.take(index, bundle.clone());
                        return Ok(bundle);
                    }
                    Some(lack) => format!("{}: {lack}", self.sources[index].describe()),
                },
                Err(error) => with_causes(&error),
            };
            self.state().refusals[index] = Some(refusal);
        }
        let state = self.state();
        let refusals: Vec<_> = state.refusals.iter().flatten().cloned().collect();
        Err(Error::NoSource(refusals.join("; ")))
    }

    fn take(&self, index: usize, bundle: Bundle) {
        let before = {
            let mut state = self.state();
            state.refusals[index] = None;
            state.last = Some(bundle);
            state.failing_since = None;
            state.ahead = None;
            state.next_look = Instant::now() + self.pace.look;
            state.chosen.replace(index)
        };
        if before != Some(index) {
            let source = self.describe();
            tracing::info!(source, "where the own bundle is read from now on");
        }
    }

    /// Looks at the sources that are not chosen; whether another one is taken now.
    async fn look(&self, chosen: usize) -> bool {
        let last_resort = self.sources.len() - 1;
        let (mut ahead, mut better) = (None, None);
        for index in (0..last_resort).filter(|index| *index != chosen) {
            let found = self.read(index).await;
            let mut state = self.state();
            let last = state.last.as_ref();
            match found {
                Ok(bundle) => {
                    let lack = lack(&bundle, last);
                    if last.is_some_and(|last| bundle.sequence > last.sequence) {
                        ahead = ahead.or(Some(index));
                    } else if index < chosen && lack.is_none() {
                        better = better.or(Some((index, bundle)));
                    }
                    let told = |lack| format!("{}: {lack}", self.sources[index].describe());
                    state.refusals[index] = lack.map(told);
                }
                Err(error) => state.refusals[index] = Some(with_causes(&error)),
            }
        }
        let before = std::mem::replace(&mut self.state().ahead, ahead);
        // Both times: the chosen one is not merely a moment late.
        if let Some(index) = ahead.filter(|_| ahead == before) {
            let found = self.read(index).await;
            let (Ok(bundle), last) = (found, self.state().last.clone()) else {
                return false;
            };
            if lack(&bundle, last.as_ref()).is_some() {
                return false;
            }
            let stale = format!(
                "{} stands still at {}, where {} has {}",
                self.sources[chosen].describe(),
                sequence(last.as_ref()),
                self.sources[index].describe(),
                sequence(Some(&bundle))
            );
            tracing::warn!(stale, "the source of the own bundle is left");
            self.state().refusals[chosen] = Some(stale);
            self.take(index, bundle);
            return true;
        }
        if let Some((index, bundle)) = better {
            self.take(index, bundle);
            return true;
        }
        false
    }
}

impl<S: BundleSource> BundleSource for Auto<S> {
    async fn current(&self) -> Result<Bundle, Error> {
        let chosen = self.state().chosen;
        let Some(chosen) = chosen else {
            return self.choose().await;
        };
        let error = match self.read(chosen).await {
            Ok(bundle) => {
                let mut state = self.state();
                let Some(edited) = edited(&bundle, state.last.as_ref()) else {
                    state.last = Some(bundle.clone());
                    state.failing_since = None;
                    return Ok(bundle);
                };
                Error::NoSource(format!("{}: {edited}", self.sources[chosen].describe()))
            }
            Err(error) => error,
        };
        let now = Instant::now();
        let since = *self.state().failing_since.get_or_insert(now);
        if now.duration_since(since) < self.pace.patience {
            return Err(error);
        }
        self.choose().await
    }

    async fn changed(&self) {
        let chosen = self.state().chosen;
        let Some(chosen) = chosen else {
            // Who asks again after a failure chooses anew.
            return std::future::pending().await;
        };
        let looks = async {
            loop {
                let next = self.state().next_look;
                tokio::time::sleep_until(next).await;
                self.state().next_look = Instant::now() + self.pace.look;
                // Nothing tells that a right was granted, or that a server is back.
                let failing = self.state().failing_since.is_some();
                if failing || self.look(chosen).await {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.sources[chosen].changed() => {}
            () = looks => {}
        }
    }

    fn describe(&self) -> String {
        let state = self.state();
        let refusals = state.refusals.iter().enumerate();
        let refusals: Vec<_> = refusals
            .filter(|(index, _)| Some(*index) != state.chosen)
            .filter_map(|(_, refusal)| refusal.clone())
            .collect();
        let chosen = match state.chosen {
            Some(index) => self.sources[index].describe(),
            None => "none".to_owned(),
        };
        if refusals.is_empty() {
            format!("auto: {chosen}")
        } else {
            format!("auto: {chosen}; not taken: {}", refusals.join("; "))
        }
    }
}

/// What a bundle lacks of what was read last; `None` if it may follow.
fn lack(bundle: &Bundle, last: Option<&Bundle>) -> Option<String> {
    let last = last?;
    if bundle.sequence > last.sequence {
        return None;
    }
    if bundle.sequence < last.sequence {
        return Some(format!(
            "it has {} after {} was read",
            sequence(Some(bundle)),
            sequence(Some(last))
        ));
    }
    edited(bundle, Some(last))
}

/// What shows that a bundle was not written by SPIRE: a key less under the same counter. That the counter
/// of one source went back does not: SPIRE's datastore was lost.
fn edited(bundle: &Bundle, last: Option<&Bundle>) -> Option<String> {
    let last = last.filter(|last| last.sequence == bundle.sequence)?;
    let missing = last.keys().find(|key| bundle.keys().all(|it| it != *key))?;
    Some(format!("it lacks key {missing}, which was read before"))
}

fn sequence(bundle: Option<&Bundle>) -> String {
    match bundle.and_then(|bundle| bundle.sequence) {
        Some(sequence) => format!("sequence {sequence}"),
        None => "no sequence".to_owned(),
    }
}

#[cfg(test)]
mod tests;
