//! What must hold after every step.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::Value;
use trustweave::{
    federation::{
        consent::Consent,
        guard::Watermark,
        lifecycle::{Facts, Judgement, PeerState, Phase},
        resolve::federates_with,
    },
    model::{
        distrust::{DistrustSpec, KeyId},
        trust_domain::TrustDomain,
    },
};

use super::{
    agent::is_member,
    keys::{self, PEERS},
    spire::{self, Keys},
    world::{World, live, own, record, seconds},
};

/// How long taking a key away may take, once the agent and SPIRE can act: a pass of each, and a look
/// at the endpoint or at a workload.
const REVOKED_WITHIN: i64 = 40;

/// How long taking all keys away may take: out of registrations, a pass of the controller manager,
/// the push, and its pass.
const LEFT_WITHIN: i64 = 60;

/// How long a registration may name a peer that SPIRE lost.
const LOST_WITHIN: i64 = 90;

/// What is known of a peer over time.
#[derive(Clone, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is something that may be so or not, on its own"
)]
struct Known {
    /// Revocations in force: the key, by whom, and when.
    revoked: BTreeMap<(KeyId, TrustDomain), i64>,
    watermark: Option<Watermark>,
    /// Somebody changed the relationship by hand, and it was not delivered since.
    tampered: bool,
    /// SPIRE lost the row by hand.
    lost: bool,
    /// A poll brought the row. If the endpoint is no longer the one that it names, SPIRE does not
    /// believe it any more until the next push, and only a workload could tell.
    polled: bool,
    /// A poll that began while the endpoint was thought clean brought the row.
    unseen: bool,
    forgotten: bool,
    last: Option<Last>,
    /// Since when each wrong thing is.
    since: BTreeMap<&'static str, i64>,
}

/// The last decision.
#[derive(Clone)]
struct Last {
    wanted: bool,
    blocked: bool,
}

pub(crate) struct Checks {
    /// What was broken first.
    pub(crate) broken: Option<String>,
    pub(crate) log: Option<Vec<String>>,
    known: Vec<Known>,
    able_since: Option<i64>,
}

impl Checks {
    pub(crate) fn new(trace: bool) -> Self {
        Self {
            broken: None,
            log: trace.then(Vec::new),
            known: vec![Known::default(); PEERS.len()],
            able_since: Some(0),
        }
    }

    pub(crate) fn trace(&mut self, now: i64, what: fmt::Arguments<'_>) {
        if let Some(log) = &mut self.log {
            log.push(format!("{now:>6} {what}"));
        }
    }

    pub(crate) fn fail(&mut self, now: i64, what: String) {
        self.trace(now, format_args!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }

    pub(crate) fn tampered(&mut self, peer: usize) {
        self.known[peer].tampered = true;
    }

    pub(crate) fn forgot(&mut self, peer: usize) {
        self.known[peer].forgotten = true;
    }

    pub(crate) fn lost_rows(&mut self, peers: impl IntoIterator<Item = usize>) {
        for peer in peers {
            self.known[peer].lost = true;
        }
    }

    pub(crate) fn polled(&mut self, peer: usize, unseen: bool) {
        self.known[peer].unseen = unseen;
        self.known[peer].polled = true;
    }

    pub(crate) fn was_polled(&self, peer: usize) -> bool {
        self.known[peer].polled
    }

    pub(crate) fn was_forgotten(&self, peer: usize) -> bool {
        self.known[peer].forgotten
    }

    fn is_revoked(&self, peer: usize, x5c: &str) -> bool {
        let key = keys::key_of(x5c);
        self.known[peer].revoked.keys().any(|(it, _)| it == key)
    }

    /// Whether something wrong has stood for too long. It counts only while the agent and SPIRE can
    /// do something about it.
    fn stands(
        &mut self,
        peer: usize,
        what: &'static str,
        wrong: bool,
        now: i64,
        limit: i64,
    ) -> bool {
        let since = &mut self.known[peer].since;
        if !wrong {
            since.remove(what);
            return false;
        }
        let since = *since.entry(what).or_insert(now);
        self.able_since
            .is_some_and(|able| since.max(able) + limit < now)
    }

    /// Looks at the world as it stands.
    pub(crate) fn look(world: &mut World) {
        let now = world.now;
        if !world.is_able() {
            world.checks.able_since = None;
        } else if world.checks.able_since.is_none() {
            world.checks.able_since = Some(now);
        }
        for peer in 0..PEERS.len() {
            Self::look_at(world, peer);
        }
        // Nobody loses an identity that names no peer.
        let unrelated: BTreeSet<_> = world
            .registrations
            .values()
            .collect::<Vec<_>>()
            .iter()
            .filter(|it| it["metadata"]["name"] == "unrelated")
            .filter_map(|it| it["spec"]["federatesWith"].as_array().map(Vec::len))
            .collect();
        if unrelated.iter().any(|names| *names > 0) {
            world
                .checks
                .fail(now, "an unrelated registration names a peer".to_owned());
        }
        for name in ["unrelated", "all", "first"] {
            let wanted = world.registrations.contains_key(name);
            let entries = world.spire.entries.keys();
            let pods = entries.filter(|(of, _)| of == name).count();
            let missing = wanted && pods < world.pods as usize;
            let what: &'static str = match name {
                "unrelated" => "unrelated",
                "all" => "all",
                _ => "first",
            };
            let limit = if name == "unrelated" { 20 } else { LOST_WITHIN };
            if world.checks.stands(0, what, missing, now, limit) {
                world
                    .checks
                    .fail(now, format!("pods of `{name}` have no identity"));
            }
        }
    }

    fn look_at(world: &mut World, peer: usize) {
        let (now, name) = (world.now, PEERS[peer]);
        let empty = Keys::new();
        let row = world.spire.rows.get(name).cloned();
        let held = row.as_ref().unwrap_or(&empty);
        let cftd = world.cftds.get(&peer);
        let announced = cftd
            .and_then(record)
            .and_then(|record| record.again)
            .is_some_and(|again| seconds(again.at) + REVOKED_WITHIN >= now);
        let name_of = &world.peers[peer].name;
        let reported = world.trust_peers.get(name_of);
        let reported = reported.is_some_and(|(memory, _)| memory.watermark.is_some());
        // If not, somebody took away all that the agent knew.
        let remembered = reported || cftd.and_then(record).is_some();
        let naming: Vec<String> = world
            .registrations
            .iter()
            .filter(|(_, it)| is_member(it) && federates_with(it, &world.peers[peer].name))
            .map(|(name, _)| name.clone())
            .collect();
        let view = world.setting.view;
        let checks = &mut world.checks;
        let known = &mut checks.known[peer];
        if row.is_some() {
            known.lost = false;
        }
        known.forgotten &= !reported;

        // No key that is revoked.
        let revoked = held.iter().any(|key| checks.is_revoked(peer, key));
        let known = &checks.known[peer];
        let unseen = known.unseen && !view;
        let wrong = revoked && !announced && !unseen && remembered;
        if checks.stands(peer, "revoked", wrong, now, REVOKED_WITHIN) {
            checks.fail(now, format!("SPIRE holds a revoked key of {name}"));
        }

        // No key of who left.
        let known = &checks.known[peer];
        let left = known
            .last
            .as_ref()
            .is_some_and(|it| !it.wanted && !it.blocked);
        let wrong = left && !held.is_empty() && !announced && remembered;
        if checks.stands(peer, "left", wrong, now, LEFT_WITHIN) {
            checks.fail(now, format!("SPIRE holds keys of {name}, which left"));
        }

        // No registration names a peer that SPIRE does not hold.
        let wrong = !naming.is_empty() && row.is_none();
        if checks.stands(peer, "lost", wrong, now, LOST_WITHIN) {
            checks.fail(
                now,
                format!("{naming:?} name {name}, of which SPIRE has no bundle"),
            );
        }
        let tampered = checks.known[peer].tampered;
        let wrong = !naming.is_empty() && held.is_empty() && !tampered;
        if checks.stands(peer, "empty", wrong, now, LOST_WITHIN) {
            checks.fail(
                now,
                format!("{naming:?} name {name}, of which SPIRE has no key"),
            );
        }
    }
}

impl World {
    /// What was decided agrees with what is known.
    pub(crate) fn check_decision(&mut self, facts: &[Facts]) {
        let now = self.now;
        for facts in facts {
            let Some(index) = self.index(&facts.peer) else {
                continue;
            };
            self.note_revocations(index);
            let wanted = matches!(facts.edge, Some(Consent::Given | Consent::Unknown { .. }));
            let others = !facts.forced && !facts.named.others.is_empty();
            let known = &mut self.checks.known[index];
            known.last = Some(Last {
                wanted,
                blocked: others,
            });
            let missing: Vec<_> = known
                .revoked
                .keys()
                .filter(|(key, by)| {
                    !facts
                        .revoked
                        .iter()
                        .any(|it| it.key == *key && it.by == *by)
                })
                .cloned()
                .collect();
            if !missing.is_empty() {
                let what = format!("revocations of {} are forgotten: {missing:?}", facts.peer);
                self.checks.fail(now, what);
            }
            self.check_watermark(index, facts);
        }
    }

    /// What is revoked by what the agent can read, and what it read before.
    fn note_revocations(&mut self, peer: usize) {
        let of = self.peers[peer].name.clone();
        let own_file = self.last_distrust.clone();
        let files = [
            (own(), own_file),
            (of.clone(), self.distrust.get(&of).cloned()),
        ];
        let remembered =
            self.cftds.get(&peer).and_then(record).is_some() || self.trust_peers.contains_key(&of);
        let known = &mut self.checks.known[peer];
        // Nothing in the cluster remembers, or what people put there.
        if !remembered || known.forgotten && known.tampered {
            known.revoked.clear();
        }
        for (by, file) in files {
            let DistrustSpec { revoked, unrevoked } = file.unwrap_or_default();
            for entry in revoked.iter().filter(|it| it.trust_domain == of) {
                let since = known
                    .revoked
                    .entry((entry.key.clone(), by.clone()))
                    .or_insert(i64::MIN);
                *since = seconds(entry.time).max(*since);
            }
            for entry in unrevoked.iter().filter(|it| it.trust_domain == of) {
                known.revoked.retain(|(key, author), since| {
                    *key != entry.key || *author != by || seconds(entry.time) <= *since
                });
            }
        }
    }

    fn check_watermark(&mut self, index: usize, facts: &Facts) {
        let recorded = facts.live.first().and_then(|live| live.record.as_ref());
        let recorded = recorded.map(|record| record.watermark.clone());
        let held = recorded.max(facts.memory.watermark.clone());
        let known = &mut self.checks.known[index];
        let fell = held < known.watermark;
        // What people delete or put back from a backup is not known any more.
        if fell && !(known.forgotten || known.tampered) {
            let what = format!("the watermark of {} fell to {held:?}", facts.peer);
            self.checks.fail(self.now, what);
        }
        if fell || held > self.checks.known[index].watermark {
            self.checks.known[index].watermark = held;
        }
    }

    /// A relationship is about to be written.
    pub(crate) fn check_delivery(&mut self, index: usize, state: &PeerState) {
        let now = self.now;
        let Some(cftd) = &state.cftd else { return };
        let peer = PEERS[index];
        let mut wrong = Vec::new();
        let bundle = cftd["spec"].get("trustDomainBundle");
        let text = bundle.and_then(Value::as_str);
        let pushed = text.map(spire::keys);
        if pushed == Some(None) {
            wrong.push("it is invalid".to_owned());
        }
        if let Some(text) = text {
            let document: Value = serde_json::from_str(text).unwrap();
            let hint = document["spiffe_refresh_hint"].as_u64();
            if !hint.is_some_and(|hint| (60..=300).contains(&hint)) {
                wrong.push(format!("its refresh hint is {hint:?}"));
            }
        }
        let keys = pushed.flatten().unwrap_or_default();
        if keys.iter().any(|key| self.checks.is_revoked(index, key)) {
            wrong.push("it holds a revoked key".to_owned());
        }
        let written = record(cftd).map(|record| record.watermark);
        let standing = self.cftds.get(&index).and_then(record);
        let remembered = self.trust_peers.get(&state.peer);
        let remembered = remembered.and_then(|(memory, _)| memory.watermark.clone());
        let before = standing.map(|record| record.watermark).max(remembered);
        if written < before {
            wrong.push(format!(
                "its watermark falls from {before:?} to {written:?}"
            ));
        }
        // What is pushed was published under its watermark.
        let known = &self.checks.known[index];
        if let (Some(written), false) = (&written, known.tampered) {
            let history = self.peers[index].history.iter();
            let mut published = history
                .map(|it| (it.attestation.epoch, it.attestation.serial, &it.bundle))
                .filter(|(epoch, serial, bundle)| {
                    (*epoch, *serial) == (written.epoch, written.serial)
                        && bundle.digest() == written.digest
                })
                .map(|(_, _, bundle)| keys::held(bundle));
            if !keys.is_empty() && !published.any(|published| keys.is_subset(&published)) {
                wrong.push("its keys were not published under its watermark".to_owned());
            }
        }
        if let Some(live) = self.cftds.get(&index).and_then(live) {
            let url = cftd["spec"]["bundleEndpointURL"].as_str();
            let host = |url: &str| url.split('#').next().map(str::to_owned);
            // Without a bundle SPIRE keeps what it has; with one, it takes it.
            if host(&live.url) != url.and_then(host)
                && text.is_some()
                && url.and_then(|it| it.split('#').nth(1)) == live.url.split('#').nth(1)
                && !state.action.is_push()
            {
                wrong.push("an address brings a bundle with it".to_owned());
            }
        }
        if !wrong.is_empty() {
            let what = format!("what is written for {peer} is wrong: {wrong:?}");
            self.checks.fail(now, what);
        }
        let known = &mut self.checks.known[index];
        if state.judgement == Judgement::Accepted && text.is_some() {
            known.tampered = false;
        }
        if state.action.is_push() {
            known.unseen = false;
            known.polled = false;
        }
    }

    /// A registration is about to be written.
    pub(crate) fn check_registration(
        &mut self,
        desired: &Value,
        states: &BTreeMap<TrustDomain, PeerState>,
    ) {
        let name = desired["metadata"]["name"].as_str().unwrap_or_default();
        let none = Value::Null;
        let standing = self.registrations.get(name).unwrap_or(&none);
        let mut wrong = Vec::new();
        for (index, peer) in self.peers.iter().enumerate() {
            let before = federates_with(standing, &peer.name);
            let after = federates_with(desired, &peer.name);
            let known = &self.checks.known[index];
            let row = self.spire.rows.get(PEERS[index]);
            // What people wrote into a relationship is taken for what was delivered.
            let known_row = !known.lost && !known.tampered;
            if !before && after && row.is_none_or(Keys::is_empty) && known_row {
                wrong.push(format!(
                    "it names {}, of which SPIRE holds nothing",
                    peer.name
                ));
            }
            let state = states.get(&peer.name);
            if before && !after && known.last.as_ref().is_some_and(|it| it.wanted) {
                let refused = state
                    .and_then(|state| state.memory.failing_since)
                    .is_some_and(|since| seconds(since) + 30 <= self.now);
                let drains = state.is_some_and(|state| state.phase >= Phase::Draining);
                // Nothing remembers what was delivered, or that there was such a peer.
                let forgotten = state.is_none_or(|state| state.memory.watermark.is_none());
                if !refused && !drains && !forgotten {
                    let phase = state.map(|state| state.phase);
                    wrong.push(format!("{} leaves it, in phase {phase:?}", peer.name));
                }
            }
        }
        if !wrong.is_empty() {
            let what = format!("the registration `{name}` is wrong: {wrong:?}");
            self.checks.fail(self.now, what);
        }
    }
}
