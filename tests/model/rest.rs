//! What must hold once nothing happens any more.

use trustweave::{
    federation::{
        consent::Consent,
        lifecycle::{self, Facts, Judgement, PeerState, Phase},
        objects,
        resolve::federates_with,
        revocation::is_revoked,
    },
    model::distrust::KeyId,
};

use super::{
    keys::{self, PEERS},
    spire::Keys,
    world::{World, live},
};

impl World {
    /// Nothing happens any more: everything is as the repository says, and nothing is written.
    pub(crate) fn check_rest(&mut self) {
        let mut wrong = Vec::new();
        for _ in 0..3 {
            self.dirty = false;
            self.pass();
            self.controller();
            if self.writes > 0 {
                wrong.push("passes write".to_owned());
            }
        }
        let declarations = self.declarations();
        let facts = self.facts(&declarations);
        let decide = || lifecycle::decide(&self.context, self.time(), &facts);
        let states = decide();
        for (facts, (one, other)) in facts.iter().zip(states.iter().zip(decide())) {
            if (&one.cftd, &one.probe) != (&other.cftd, &other.probe) {
                wrong.push("the same facts give other objects".to_owned());
            }
            let found = match (&facts.edge, &one.judgement) {
                (Some(Consent::Given), Judgement::Accepted) => self.delivered(facts, one),
                // What can't be read ends nothing, and brings nothing.
                (Some(Consent::Given | Consent::Unknown { .. }), _) => Vec::new(),
                (Some(Consent::Missing { .. }) | None, _) => self.left(one),
            };
            wrong.extend(found);
        }
        for (index, peer) in PEERS.iter().enumerate() {
            let known = facts.iter().any(|facts| facts.peer.as_str() == *peer);
            if !known && !self.held(index).is_empty() && !self.checks.was_forgotten(index) {
                wrong.push(format!("SPIRE holds keys of {peer}, which nobody knows"));
            }
        }
        // A probe may fail for good, of a peer that SPIRE lost and that nothing can be delivered of.
        let workloads = self.registrations.iter();
        for (name, _) in workloads.filter(|(_, it)| !objects::is_probe(it)) {
            let pods = self.pods;
            let entries = self.spire.entries.keys();
            let entries = entries.filter(|(of, _)| of == name).count();
            if entries != pods as usize {
                wrong.push(format!(
                    "{entries} of {pods} pods of {name} have an identity"
                ));
            }
        }
        if !wrong.is_empty() {
            self.checks.fail(self.now, format!("at rest: {wrong:?}"));
        }
    }

    fn held(&self, index: usize) -> Keys {
        let row = self.spire.rows.get(PEERS[index]);
        row.cloned().unwrap_or_default()
    }

    /// What is wrong with a peer that is wanted, and whose publication is good.
    fn delivered(&self, facts: &Facts, state: &PeerState) -> Vec<String> {
        let (Some(index), Ok(published)) = (self.index(&facts.peer), &facts.published) else {
            return vec!["something unknown was accepted".to_owned()];
        };
        let (peer, held) = (&facts.peer, self.held(index));
        let mut wrong = Vec::new();
        let revoked = |key: &KeyId| is_revoked(&facts.revoked, key);
        let filtered = keys::held(&published.bundle.clone().without(revoked));
        let all = keys::held(&published.bundle);
        let served = keys::certificates(index, self.peers[index].served);
        let standing = self.cftds.get(&index).and_then(live);
        let cut = standing.is_none_or(|live| live.is_cut());
        let polled = !cut && (held == served || self.checks.was_polled(index));
        if held != filtered && !polled {
            wrong.push(format!("SPIRE holds other keys of {peer} than published"));
        }
        if !cut && served == all && filtered != all && self.is_believed(index) {
            wrong.push(format!("{peer} is polled though it serves a revoked key"));
        }
        let expected = if filtered.is_empty() {
            Phase::Distrusted
        } else {
            Phase::Federated
        };
        if state.phase != expected {
            wrong.push(format!("{peer} is {}, not {expected}", state.phase));
        }
        let named = federates_with(&self.registrations["all"], peer);
        if named != (expected == Phase::Federated) {
            wrong.push(format!("{peer} is {expected} and named: {named}"));
        }
        wrong
    }

    /// What is wrong with a peer that nobody wants.
    fn left(&self, state: &PeerState) -> Vec<String> {
        let (peer, mut wrong) = (&state.peer, Vec::new());
        let held = self.index(peer).map(|index| self.held(index));
        if held.is_some_and(|held| !held.is_empty()) && state.watermark().is_some() {
            wrong.push(format!("SPIRE holds keys of {peer}, which left"));
        }
        let over = match state.phase {
            Phase::Gone | Phase::Pending => true,
            // Without a view nobody sees that its keys are gone.
            Phase::Distrusted => !self.setting.view,
            Phase::Seeding | Phase::Federated | Phase::Draining => false,
        };
        if !over {
            wrong.push(format!("{peer}, which left, is {}", state.phase));
        }
        wrong
    }
}
