//! A peer that is wanted: what it publishes, without the keys that are revoked.

use jiff::SignedDuration;

use super::{
    Action, CONTROLLER_PASS, Judgement, LiveCftd, POLL_IN_FLIGHT, Peer, Stand, Step, View,
    repair_at,
};
use crate::{
    federation::{
        guard::{self, MAX_TOTAL_BYTES, Refusal, Verdict, Watermark},
        objects,
        record::Again,
        revocation::is_revoked,
    },
    model::{
        attestation::Publication,
        bundle::{Bundle, x509_key},
        declaration::{BundleEndpoint, TrustDomainSpec},
    },
};

impl Peer<'_> {
    /// What should stand in the relationship of a wanted peer.
    pub(super) fn deliver(&self, total: usize) -> Step {
        match self.judge(total) {
            Ok((declaration, publication, verdict)) => {
                self.accept(declaration, publication, verdict)
            }
            // Whatever is wrong with what is published: what is revoked is taken away.
            Err(judgement) => self.retract(judgement),
        }
    }

    fn judge(&self, total: usize) -> Result<(&TrustDomainSpec, &Publication, Verdict), Judgement> {
        let facts = self.facts;
        let declaration = facts
            .declaration
            .as_ref()
            .filter(|_| self.is_active())
            .ok_or(Judgement::NotLookedAt)?;
        let publication = match &facts.published {
            Ok(publication) => publication,
            Err(rejection) => return Err(Judgement::Rejected(rejection.clone())),
        };
        let verdict = guard::judge(publication, self.held.as_ref()).map_err(Judgement::Refused)?;
        if let (Verdict::FirstUse, Some(path)) = (&verdict, &facts.distrust_unknown) {
            return Err(Judgement::Refused(Refusal::DistrustUnknown(path.clone())));
        }
        let size = publication.bundle.canonical().len();
        if total + size > MAX_TOTAL_BYTES {
            return Err(Judgement::Refused(Refusal::TooMuch(total + size)));
        }
        Ok((declaration, publication, verdict))
    }

    fn accept(
        &self,
        declaration: &TrustDomainSpec,
        publication: &Publication,
        verdict: Verdict,
    ) -> Step {
        let revoked = &self.facts.revoked;
        let bundle = publication
            .bundle
            .clone()
            .without(|key| is_revoked(revoked, key))
            .with_refresh_hint(declaration.bundle_endpoint.refresh_hint());
        let changed = *revoked != self.recorded();
        let cut = self.cuts(declaration);
        let (action, watermark) = match (verdict, self.held.clone()) {
            (Verdict::Same, Some(held)) if changed => (Action::Revoke, held.revoking()),
            (Verdict::Same, Some(held)) => self.repair(&held, &bundle, cut),
            (verdict, held) => {
                let before = held.map_or(0, |held| held.revocations);
                let action = match verdict {
                    Verdict::FirstUse => Action::FirstUse,
                    _ => Action::Push,
                };
                let watermark = Watermark::of(publication, before + u64::from(changed));
                (action, watermark)
            }
        };
        let again = self.repetition(action, changed, cut);
        let record = self.record(watermark, Some(&bundle), again);
        let endpoint = Some(&declaration.bundle_endpoint).filter(|_| !cut);
        let url = objects::endpoint_url(&self.facts.peer, endpoint, &record.watermark);
        // The address differs: SPIRE would take the bundle that comes with a changed URL, which its
        // own polling may have overtaken.
        let (action, bundle) = match self.live {
            Some(live) if action == Action::Keep && live.url != url => {
                if live.is_cut() && !cut && !self.recorded().is_empty() {
                    (Action::Reconnect, Some(bundle))
                } else {
                    (Action::Relocate, None)
                }
            }
            _ => (action, Some(bundle)),
        };
        Step {
            action,
            judgement: Judgement::Accepted,
            stand: Some(Stand {
                record,
                bundle,
                cut,
            }),
        }
    }

    /// What is done about a bundle that was delivered already.
    fn repair(&self, held: &Watermark, bundle: &Bundle, cut: bool) -> (Action, Watermark) {
        let Some(live) = self.live else {
            return (Action::Repair, held.again());
        };
        let touched = live.bundle.is_some()
            && !live
                .parsed()
                .is_some_and(|standing| standing.same_keys(bundle));
        let failing = self.is_failing() && {
            let memory = &self.facts.memory;
            let since = memory.failing_since;
            since.is_some_and(|since| repair_at(since, memory.repairs) <= self.now)
        };
        let cutting = cut && !live.is_cut();
        if touched || failing || cutting || self.is_due() || self.holds_revoked() {
            (Action::Repair, held.again())
        } else {
            (Action::Keep, held.clone())
        }
    }

    /// Whether a workload holds a revoked key although no repetition is announced.
    fn holds_revoked(&self) -> bool {
        let View::Roots(roots) = &self.facts.view else {
            return false;
        };
        let mut keys = roots.iter().filter_map(|root| x509_key(root));
        self.record.is_some_and(|record| record.again.is_none())
            && keys.any(|key| is_revoked(&self.facts.revoked, &key))
    }

    /// Whether SPIRE must not poll the endpoint: from a revocation on, until the agent itself has
    /// seen the endpoint without the revoked keys, and a poll that was under way is over.
    fn cuts(&self, declaration: &TrustDomainSpec) -> bool {
        let revoked = &self.facts.revoked;
        if revoked.is_empty() || declaration.bundle_endpoint == BundleEndpoint::None {
            return false;
        }
        let is_cut = self.live.is_some_and(LiveCftd::is_cut);
        let waits = self
            .record
            .and_then(|record| record.again)
            .is_some_and(|again| again.count == 0 && again.at > self.now);
        if self.live.is_none() || self.revokes_more() || (is_cut && waits) {
            return true;
        }
        match &self.facts.endpoint {
            Some(seen) => seen.keys().any(|key| is_revoked(revoked, &key)),
            None => is_cut,
        }
    }

    /// The same, when nothing can be delivered: an endpoint that is not looked at is not trusted.
    fn cuts_unseen(&self) -> bool {
        let declaration = self.facts.declaration.as_ref();
        match declaration.filter(|_| self.is_wanted()) {
            Some(declaration) => self.cuts(declaration),
            None => !self.facts.revoked.is_empty(),
        }
    }

    /// When the same is pushed once more.
    fn repetition(&self, action: Action, changed: bool, cut: bool) -> Option<Again> {
        let standing = self.record.and_then(|record| record.again);
        let revokes = changed && !self.facts.revoked.is_empty();
        match (action, standing) {
            _ if revokes => Some(Again::first(self.now, POLL_IN_FLIGHT)),
            (Action::Repair, Some(again)) if again.at <= self.now => {
                cut.then(|| again.next(self.now, POLL_IN_FLIGHT))
            }
            (Action::Repair, None) if self.holds_revoked() => {
                Some(Again::first(self.now, CONTROLLER_PASS))
            }
            (_, Some(again)) if cut || again.at > self.now => Some(again),
            (_, None) if cut => Some(Again::first(self.now, POLL_IN_FLIGHT)),
            _ => None,
        }
    }

    /// Takes a relationship up again that somebody deleted, or made invalid: SPIRE still holds what
    /// it was given. A relationship without a bundle and without an endpoint leaves it that.
    pub(super) fn resume(&self, judgement: Judgement) -> Step {
        let given = self.trusted_until(None).is_some_and(|end| end > self.now);
        let deleted = self.live.is_none_or(|live| self.is_broken(live));
        let Some(held) = self.held.as_ref().filter(|_| given && deleted) else {
            return Step::keep(judgement);
        };
        // What it holds is not known well enough to take single keys from it.
        let revokes = !self.facts.revoked.is_empty();
        let (action, watermark) = if revokes {
            (Action::Revoke, held.revoking())
        } else {
            (Action::Relocate, held.again())
        };
        // What can be delivered again is pushed at once.
        let wait = if revokes {
            POLL_IN_FLIGHT
        } else {
            SignedDuration::ZERO
        };
        let again = Some(Again::first(self.now, wait));
        Step {
            action,
            judgement,
            stand: Some(Stand {
                record: self.record(watermark, None, again),
                bundle: revokes.then(|| Bundle::empty().with_refresh_hint(None)),
                cut: true,
            }),
        }
    }

    /// Whether somebody made a relationship of ours invalid.
    fn is_broken(&self, live: &LiveCftd) -> bool {
        self.record.is_some() && live.bundle.is_some() && live.parsed().is_none()
    }

    /// Takes revoked keys from what was delivered, when nothing better can be delivered.
    pub(super) fn retract(&self, judgement: Judgement) -> Step {
        let (Some(live), Some(record), Some(held)) = (self.live, self.record, &self.held) else {
            return self.resume(judgement);
        };
        if self.is_broken(live) {
            return self.resume(judgement);
        }
        let revoked = &self.facts.revoked;
        let standing = live.parsed();
        if standing.is_none() && revoked.is_empty() {
            return Step::keep(judgement);
        }
        let mut keys = standing.iter().flat_map(Bundle::keys);
        let (action, watermark) = if self.revokes_more() {
            (Action::Revoke, held.revoking())
        } else if keys.any(|key| is_revoked(revoked, &key))
            || self.is_due()
            || self.holds_revoked()
            || !live.is_cut() && self.cuts_unseen()
        {
            (Action::Repair, held.again())
        } else {
            return Step::keep(judgement);
        };
        // What SPIRE holds is unknown if the object has no bundle: then nothing of it is trusted.
        let bundle = standing.clone().unwrap_or_else(Bundle::empty);
        let bundle = bundle.without(|key| is_revoked(revoked, key));
        let again = match record.again {
            Some(again) if action == Action::Repair => again.next(self.now, POLL_IN_FLIGHT),
            _ => Again::first(self.now, POLL_IN_FLIGHT),
        };
        Step {
            action,
            judgement,
            stand: Some(Stand {
                record: self.record(watermark, Some(&bundle), Some(again)),
                bundle: Some(bundle.with_refresh_hint(None)),
                cut: true,
            }),
        }
    }
}
