//! A peer that is no longer wanted: out of registrations, then without keys, then gone.
//!
//! SPIRE keeps a bundle after its relationship was deleted, and a workload whose federated bundle is
//! empty may fail, so the order matters.

use super::{Action, CONTROLLER_PASS, Judgement, POLL_IN_FLIGHT, Peer, Stand, Step, View};
use crate::{
    federation::record::{Again, Record},
    model::bundle::Bundle,
};

impl Peer<'_> {
    /// What becomes of the relationship of a peer that nobody wants.
    pub(super) fn leave(&self) -> Step {
        // Somebody else's relationship is none of our business; ours may have been deleted.
        let (Some(live), Some(record)) = (self.live, self.record) else {
            return self.resume(Judgement::NotLookedAt);
        };
        if live.is_tombstone() {
            return self.bury(record);
        }
        let unnamed = self.is_unnamed();
        match self.facts.memory.unnamed_since.filter(|_| unnamed) {
            Some(since) if since + CONTROLLER_PASS <= self.now => {
                let first = Again::first(self.now, CONTROLLER_PASS);
                self.tombstone(record, Action::Distrust, first)
            }
            _ => self.retract(Judgement::NotLookedAt),
        }
    }

    /// Waits until the peer's keys are gone, and deletes the relationship.
    fn bury(&self, record: &Record) -> Step {
        let empty = matches!(&self.facts.view, View::Roots(roots) if roots.is_empty());
        // Not before a poll that was under way has ended: nobody would take back what it writes.
        let settled = |again: Again| again.count > 0 && again.at <= self.now;
        let settled = record.again.is_some_and(settled);
        let ended = self.trusted_until(None).is_some_and(|end| end <= self.now);
        if (ended || empty && settled) && !self.facts.is_static {
            return Step {
                action: Action::Delete,
                judgement: Judgement::NotLookedAt,
                stand: None,
            };
        }
        match record.again {
            Some(again) if again.at <= self.now => {
                let next = again.next(self.now, POLL_IN_FLIGHT);
                self.tombstone(record, Action::Repair, next)
            }
            Some(_) => Step::keep(Judgement::NotLookedAt),
            None => {
                let first = Again::first(self.now, CONTROLLER_PASS);
                self.tombstone(record, Action::Repair, first)
            }
        }
    }

    fn tombstone(&self, record: &Record, action: Action, again: Again) -> Step {
        let held = self.held.as_ref().unwrap_or(&record.watermark);
        Step {
            action,
            judgement: Judgement::NotLookedAt,
            stand: Some(Stand {
                record: self.record(held.again(), None, Some(again)),
                bundle: Some(Bundle::empty().with_refresh_hint(None)),
                cut: true,
            }),
        }
    }
}
