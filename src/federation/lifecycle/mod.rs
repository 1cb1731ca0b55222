//! The state machine of a peer: facts in; phase, objects, conditions and memory out.

mod deliver;
mod facts;
mod leave;

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

pub use self::facts::{Facts, LiveCftd, Memory, Named, Probe, View};
use super::{
    conditions::{self, Condition},
    consent::Consent,
    guard::{Refusal, Watermark},
    objects::{self, Context},
    record::{Again, Record},
    resolve::Standing,
    revocation::Revoked,
};
use crate::model::{
    attestation::Rejection,
    bundle::{Bundle, X509Authority},
    distrust::KeyId,
    trust_domain::TrustDomain,
};

/// How long SPIRE's controller manager may take for a pass: its `gcInterval` is 10 s, and a trigger
/// that comes while a pass runs is dropped.
pub const CONTROLLER_PASS: SignedDuration = SignedDuration::from_secs(15);

/// How long a poll of SPIRE that was under way may take to write its answer.
pub const POLL_IN_FLIGHT: SignedDuration = SignedDuration::from_secs(60);

/// How long SPIRE may refuse a peer's entries, while it accepts others, until the peer leaves
/// registrations: three passes of its controller manager.
pub const LOST_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// Where a peer is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// An edge is declared; consent, a bundle or its signature is missing.
    Pending,
    /// A bundle is delivered; SPIRE has not yet shown that it holds it.
    Seeding,
    /// SPIRE holds the peer's bundle, and registrations may name the peer.
    Federated,
    /// The edge or a consent is gone, or every key is revoked: registrations lose the peer.
    Draining,
    /// No registration names the peer: its keys are taken away.
    Distrusted,
    /// Nothing of the peer is left but the memory of it.
    Gone,
}

impl Phase {
    /// Every phase, in the order of a life.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Seeding,
        Self::Federated,
        Self::Draining,
        Self::Distrusted,
        Self::Gone,
    ];

    /// The phase as its status field has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Seeding => "Seeding",
            Self::Federated => "Federated",
            Self::Draining => "Draining",
            Self::Distrusted => "Distrusted",
            Self::Gone => "Gone",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is thought of what the peer publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nobody asks for it: it was not looked at.
    NotLookedAt,
    /// It is, or may be, delivered.
    Accepted,
    /// A verified publication that is not delivered.
    Refused(Refusal),
    /// No bundle of the peer.
    Rejected(Rejection),
}

impl Judgement {
    /// Why it is not delivered, in one word; `None` if it is, or was not looked at.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::NotLookedAt | Self::Accepted => None,
            Self::Refused(refusal) => Some(refusal.reason()),
            Self::Rejected(rejection) => Some(rejection.reason()),
        }
    }
}

/// What is done about the peer's relationship in this pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// All is as it should be, or there is nothing to do.
    Keep,
    /// The first bundle of which this cluster knows: there is nothing to compare it with.
    FirstUse,
    /// A newer bundle.
    Push,
    /// The same bundle again, since the object or SPIRE's row was changed by somebody else, or a
    /// poll may have written over it.
    Repair,
    /// Only the endpoint changes: without a bundle, so that SPIRE keeps what its polling brought.
    Relocate,
    /// Keys are taken away, and polling with them.
    Revoke,
    /// The endpoint was seen without the revoked keys: SPIRE polls it again.
    Reconnect,
    /// Every key is taken away, as the peer has left.
    Distrust,
    /// The relationship is deleted.
    Delete,
}

impl Action {
    /// Whether SPIRE is made to take a bundle.
    pub fn is_push(self) -> bool {
        !matches!(self, Self::Keep | Self::Relocate | Self::Delete)
    }
}

/// What a pass decides about a peer.
#[derive(Clone, Debug)]
pub struct PeerState {
    /// The peer.
    pub peer: TrustDomain,
    /// Where it is in its life.
    pub phase: Phase,
    /// The `ClusterFederatedTrustDomain` that should be; `None` leaves what there is.
    pub cftd: Option<Value>,
    /// The name of the `ClusterFederatedTrustDomain` that is to be deleted.
    pub delete: Option<String>,
    /// The probe that should be; `None` if there should be none.
    pub probe: Option<Value>,
    /// Whether registrations may name it.
    pub standing: Standing,
    /// What is thought of its publication.
    pub judgement: Judgement,
    /// What is done about its relationship.
    pub action: Action,
    /// What must be remembered from now on, this pass's delivery included.
    pub memory: Memory,
    /// The bundle that SPIRE is given, or was.
    pub bundle: Option<Bundle>,
    /// Whether the observed roots are the delivered ones; `None` if they can't be seen.
    pub confirmed: Option<bool>,
    /// When what the peer publishes was signed, if it is its bundle.
    pub issued: Option<Timestamp>,
    /// Keys that this pass takes from SPIRE although certificates signed by them may still be in
    /// use, without anybody having revoked them.
    pub vanished: Vec<KeyId>,
    /// SPIRE's own counter of the peer's bundle went back, from and to: its datastore was lost.
    pub sequence_fell: Option<(u64, u64)>,
    /// Registrations that the agent does not keep, and that name the peer.
    pub named_by_others: Vec<String>,
    /// Whether the agent should look at the peer's endpoint itself.
    pub look_at_endpoint: bool,
    /// When something is to be done even if nothing changes.
    pub wake: Option<Timestamp>,
    /// The conditions, in a fixed order.
    pub conditions: Vec<Condition>,
}

impl PeerState {
    /// The newest delivery, this pass's included.
    pub fn watermark(&self) -> Option<&Watermark> {
        self.memory.watermark.as_ref()
    }

    /// When the first of the delivered roots ends.
    pub fn expires(&self) -> Option<Timestamp> {
        self.bundle.as_ref()?.earliest_expiry()
    }

    /// The most telling sentence: of the first condition that does not hold, or else of `Ready`; of a
    /// peer that leaves, what it waits for. That nobody can see what a workload holds is no complaint.
    pub fn message(&self) -> String {
        let leaves = self.phase >= Phase::Draining;
        let complaint = self
            .conditions
            .iter()
            .find(|condition| match condition.status {
                Some(holds) => !holds,
                None => condition.kind != "Confirmed",
            })
            .filter(|_| !leaves);
        let ready = || self.conditions.iter().find(|c| c.kind == "Ready");
        complaint
            .or_else(ready)
            .map(|condition| condition.message.clone())
            .unwrap_or_default()
    }
}

/// Decides about all peers of a cluster.
pub fn decide(context: &Context, now: Timestamp, facts: &[Facts]) -> Vec<PeerState> {
    let mut total = 0;
    facts
        .iter()
        .map(|facts| {
            let state = Peer::new(context, now, facts).decide(total);
            let held = state.cftd.as_ref().map_or_else(
                || facts.live.first().and_then(|live| live.bundle.as_deref()),
                |cftd| cftd["spec"]["trustDomainBundle"].as_str(),
            );
            total += held.map_or(0, str::len);
            state
        })
        .collect()
}

/// A peer under decision.
struct Peer<'a> {
    context: &'a Context,
    now: Timestamp,
    facts: &'a Facts,
    live: Option<&'a LiveCftd>,
    record: Option<&'a Record>,
    /// The newest delivery that anything remembers.
    held: Option<Watermark>,
}

/// What becomes of a peer's relationship.
#[derive(Debug)]
struct Step {
    action: Action,
    judgement: Judgement,
    /// What should stand there; `None` leaves it.
    stand: Option<Stand>,
}

impl Step {
    /// Leaves what there is.
    fn keep(judgement: Judgement) -> Self {
        Self {
            action: Action::Keep,
            judgement,
            stand: None,
        }
    }
}

/// A relationship as it should be.
#[derive(Debug)]
struct Stand {
    record: Record,
    /// Without one, SPIRE keeps what it holds.
    bundle: Option<Bundle>,
    /// Whether SPIRE must not poll the peer's endpoint.
    cut: bool,
}

impl<'a> Peer<'a> {
    fn new(context: &'a Context, now: Timestamp, facts: &'a Facts) -> Self {
        let live = facts.live.first();
        let record = live.and_then(|live| live.record.as_ref());
        let held = record.map(|record| record.watermark.clone());
        Self {
            context,
            now,
            facts,
            live,
            record,
            held: held.max(facts.memory.watermark.clone()),
        }
    }

    /// Whether both sides agree now.
    fn is_active(&self) -> bool {
        matches!(self.facts.edge, Some(Consent::Given))
    }

    /// Whether the peer stays: what can't be read ends nothing.
    fn is_wanted(&self) -> bool {
        self.is_active() || matches!(self.facts.edge, Some(Consent::Unknown { .. }))
    }

    /// The revocations that what SPIRE holds was filtered by.
    fn recorded(&self) -> &'a [Revoked] {
        match self.record {
            Some(record) => &record.revoked,
            None => &self.facts.memory.revoked,
        }
    }

    /// Whether a key was revoked since the last delivery.
    fn revokes_more(&self) -> bool {
        let recorded = self.recorded();
        let mut revoked = self.facts.revoked.iter();
        revoked.any(|new| !super::revocation::is_revoked(recorded, &new.key))
    }

    fn issued(&self) -> Option<Timestamp> {
        let publication = self.facts.published.as_ref().ok()?;
        Some(publication.attestation.issued_at)
    }

    /// Whether a repetition that was announced is due.
    fn is_due(&self) -> bool {
        let again = self.record.and_then(|record| record.again);
        again.is_some_and(|again| again.at <= self.now)
    }

    /// Whether registrations of ours name the peer, or may.
    fn was_federated(&self) -> bool {
        self.facts.memory.was_federated || !self.facts.named.ours.is_empty()
    }

    /// Whether workloads federate with the peer already, by a relationship that people made: by hand, or
    /// in the configuration of SPIRE's server, where an accepted entry is all that can be seen of it. To
    /// hold the peer back would take away what workloads have.
    fn stands_by_hand(&self) -> bool {
        let named = &self.facts.named;
        let by_hand = match self.live {
            Some(live) => {
                live.record.is_none() && !(named.ours.is_empty() && named.others.is_empty())
            }
            None => self.held.is_none() && named.proven,
        };
        by_hand && self.is_wanted()
    }

    /// Whether SPIRE accepts entries that federate with the peer, and that proves that it holds
    /// `bundle`: it may hold an empty one until this pass's push, or since its keys were revoked.
    fn is_proven(&self, step: &Step, bundle: Option<&Bundle>) -> bool {
        let rooted = bundle.is_some_and(|bundle| !bundle.x509_authorities.is_empty());
        let given = step.judgement == Judgement::Accepted || self.facts.revoked.is_empty();
        rooted && given && !step.action.is_push() && self.facts.probe == Probe::Ready
    }

    /// Whether no registration that counts names the peer.
    fn is_unnamed(&self) -> bool {
        let named = &self.facts.named;
        let others = !self.facts.forced && !named.others.is_empty();
        !named.probe && named.ours.is_empty() && !others
    }

    /// Whether SPIRE refuses entries that federate with the peer, although it accepts others.
    fn is_failing(&self) -> bool {
        matches!(self.facts.probe, Probe::Refused(_)) && self.facts.control == Probe::Ready
    }

    /// When the last of everything ends that was delivered, `bundle` included.
    fn trusted_until(&self, bundle: Option<&Bundle>) -> Option<Timestamp> {
        bundle
            .and_then(Bundle::latest_expiry)
            .max(self.record.and_then(|record| record.trusted_until))
            .max(self.facts.memory.trusted_until)
    }

    /// What a relationship should remember once `bundle` is delivered.
    fn record(
        &self,
        watermark: Watermark,
        bundle: Option<&Bundle>,
        again: Option<Again>,
    ) -> Record {
        Record {
            watermark,
            revoked: self.facts.revoked.clone(),
            trusted_until: self.trusted_until(bundle),
            again,
        }
    }

    fn decide(self, total: usize) -> PeerState {
        let step = if self.is_wanted() {
            self.deliver(total)
        } else {
            self.leave()
        };
        let (facts, now) = (self.facts, self.now);
        let deleted = step.action == Action::Delete;
        let ours = (self.record.is_some() || step.stand.is_some()) && !deleted;
        let before = self.live.and_then(LiveCftd::parsed);
        let delivered = step.stand.as_ref().and_then(|stand| stand.bundle.clone());
        let bundle = delivered.or_else(|| before.clone().filter(|_| ours));
        let cut = match &step.stand {
            Some(stand) => stand.cut,
            None => self.live.is_some_and(LiveCftd::is_cut),
        };
        // What somebody else emptied is no news to SPIRE, as the URL stays.
        let emptied = bundle.as_ref().is_some_and(|bundle| {
            if self.is_wanted() {
                (cut || !facts.revoked.is_empty()) && bundle.x509_authorities.is_empty()
            } else {
                cut && bundle.keys().next().is_none()
            }
        });

        let failing = !emptied && self.is_wanted() && ours && self.is_failing();
        let failing_since = failing.then(|| facts.memory.failing_since.unwrap_or(now));
        let lost = failing_since.is_some_and(|since| since + LOST_AFTER <= now);
        let stood = self.was_federated() || self.stands_by_hand();
        let stands = !lost && (stood || self.is_proven(&step, bundle.as_ref()));
        let phase = self.phase(ours, emptied, stands);
        let record = step.stand.as_ref().map(|stand| &stand.record);
        let record = record.or(self.record).filter(|_| !deleted);
        let repaired = u32::from(step.action == Action::Repair);
        let memory = Memory {
            watermark: record
                .map(|record| record.watermark.clone())
                .max(self.held.clone()),
            revoked: facts.revoked.clone(),
            // What is deleted trusts nothing.
            trusted_until: self.trusted_until(bundle.as_ref()).filter(|_| !deleted),
            was_federated: phase == Phase::Federated,
            unnamed_since: (ours && !self.is_wanted() && self.is_unnamed())
                .then(|| facts.memory.unnamed_since.unwrap_or(now)),
            failing_since,
            lag: match (step.action, self.issued()) {
                (Action::Push, Some(issued)) => Some(now.duration_since(issued)),
                _ => facts.memory.lag,
            },
            repairs: if failing {
                facts.memory.repairs.saturating_add(repaired)
            } else {
                0
            },
        };
        let mut state = PeerState {
            peer: facts.peer.clone(),
            cftd: step.stand.as_ref().map(|stand| self.object(stand)),
            delete: self.live.map(|live| live.name.clone()).filter(|_| deleted),
            probe: self.probe(phase, step.action, &memory),
            standing: match phase {
                Phase::Federated => Standing::Ready,
                Phase::Draining | Phase::Distrusted | Phase::Gone => Standing::Leaving,
                Phase::Pending if facts.edge.is_none() => Standing::Leaving,
                Phase::Pending if self.stands_by_hand() => Standing::Ready,
                Phase::Pending | Phase::Seeding => Standing::HeldBack,
            },
            confirmed: confirmed(&facts.view, bundle.as_ref()),
            vanished: vanished(facts, step.action, before.as_ref(), bundle.as_ref(), now),
            issued: self.issued(),
            sequence_fell: self.sequence_fell(&memory),
            named_by_others: facts.named.others.clone(),
            look_at_endpoint: self.is_wanted() && ours && !facts.revoked.is_empty(),
            wake: wake(now, phase, &memory, record),
            phase,
            judgement: step.judgement,
            action: step.action,
            memory,
            bundle,
            conditions: Vec::new(),
        };
        state.conditions = conditions::of(facts, &state);
        state
    }

    /// Where the peer is, given whether its relationship is `ours`, was `emptied` of roots, and
    /// whether SPIRE is known to hold its bundle, which `stands`.
    fn phase(&self, ours: bool, emptied: bool, stands: bool) -> Phase {
        let facts = self.facts;
        let named = !facts.named.ours.is_empty();
        match (ours, self.is_wanted()) {
            (false, false) if facts.edge.is_none() && self.held.is_some() => Phase::Gone,
            (false, _) => Phase::Pending,
            (true, false) if emptied => Phase::Distrusted,
            (true, true) if emptied && !named => Phase::Distrusted,
            (true, false) => Phase::Draining,
            (true, true) if emptied => Phase::Draining,
            (true, true) if stands => Phase::Federated,
            (true, true) => Phase::Seeding,
        }
    }

    /// The probe, while there is something to see. A leaving peer's comes back once nothing else
    /// names the peer, to see that its keys are gone.
    fn probe(&self, phase: Phase, action: Action, memory: &Memory) -> Option<Value> {
        let probed = match phase {
            // What was said before this push proves nothing: a new one is asked.
            Phase::Seeding => !(action.is_push() && self.facts.probe == Probe::Ready),
            Phase::Federated => true,
            Phase::Distrusted => !self.is_wanted() && self.facts.view != View::None,
            Phase::Pending | Phase::Draining | Phase::Gone => false,
        };
        let watermark = memory.watermark.as_ref().filter(|_| probed)?;
        Some(objects::probe(self.context, &self.facts.peer, watermark))
    }

    fn object(&self, stand: &Stand) -> Value {
        let name = match self.live {
            Some(live) => live.name.clone(),
            None => objects::cftd_name(&self.facts.peer),
        };
        let endpoint = self.facts.declaration.as_ref().filter(|_| !stand.cut);
        objects::cftd(
            self.context,
            &name,
            &self.facts.peer,
            endpoint.map(|declaration| &declaration.bundle_endpoint),
            &stand.record,
            stand.bundle.as_ref(),
        )
    }

    /// Told in the pass that delivers the bundle: afterwards the new counter is what is remembered.
    fn sequence_fell(&self, memory: &Memory) -> Option<(u64, u64)> {
        let held = self.held.as_ref()?;
        let (before, now) = (held.sequence?, memory.watermark.as_ref()?.sequence?);
        (now < before).then_some((before, now))
    }
}

/// When something is to be done even if nothing changes.
fn wake(
    now: Timestamp,
    phase: Phase,
    memory: &Memory,
    record: Option<&Record>,
) -> Option<Timestamp> {
    let failing = memory.failing_since;
    let moments = [
        record.and_then(|record| record.again).map(|again| again.at),
        memory.unnamed_since.map(|since| since + CONTROLLER_PASS),
        failing.map(|since| since + LOST_AFTER),
        failing.map(|since| repair_at(since, memory.repairs)),
        memory.trusted_until.filter(|_| phase == Phase::Distrusted),
    ];
    moments.into_iter().flatten().filter(|at| *at > now).min()
}

/// When the bundle is pushed again to a SPIRE that refuses a peer's entries: each time three times
/// as long after the first refusal.
fn repair_at(since: Timestamp, repairs: u32) -> Timestamp {
    since + SignedDuration::from_secs(20) * 3_i32.pow(repairs.min(8))
}

/// Whether a workload holds exactly the delivered roots.
fn confirmed(view: &View, delivered: Option<&Bundle>) -> Option<bool> {
    let View::Roots(observed) = view else {
        return None;
    };
    let mut observed = observed.clone();
    let mut delivered: Vec<_> = delivered?
        .x509_authorities
        .iter()
        .map(|a| a.certificate.clone())
        .collect();
    observed.sort();
    delivered.sort();
    Some(observed == delivered)
}

/// Keys that a push takes away before their end, without a revocation.
fn vanished(
    facts: &Facts,
    action: Action,
    before: Option<&Bundle>,
    after: Option<&Bundle>,
    now: Timestamp,
) -> Vec<KeyId> {
    let (Action::Push, Some(before), Some(after)) = (action, before, after) else {
        return Vec::new();
    };
    let alive = before
        .x509_authorities
        .iter()
        .filter(|root| root.not_after > now);
    alive
        .map(X509Authority::id)
        .filter(|key| !after.keys().any(|kept| kept == *key))
        .filter(|key| !super::revocation::is_revoked(&facts.revoked, key))
        .collect()
}

#[cfg(test)]
mod tests;
