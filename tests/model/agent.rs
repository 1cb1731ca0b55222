//! A pass of the agent over the world: what it reads is gathered, decided by the library, and written,
//! as `reconcile::sync` does.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use trustweave::{
    cluster::inventory,
    federation::{
        consent::{Consent, consent},
        lifecycle::{self, Facts, Memory, Named, PeerState, Phase, Probe, View},
        objects,
        resolve::{self, Peers, Standing},
        revocation,
    },
    model::{
        attestation::Rejection,
        declarations::Declarations,
        manifest::{Manifest, Origin},
        repository::{RepoPath, distrust_path, topology_path},
        topology::Edge,
    },
};

use super::world::{World, live, own, registration, seconds};

/// The agent was killed.
struct Killed;

impl World {
    pub(crate) fn pass(&mut self) {
        self.writes = 0;
        if let Err(Killed) = self.try_pass() {
            self.checks.trace(self.now, format_args!("killed"));
            self.restart();
        }
        self.crash_after = None;
    }

    fn try_pass(&mut self) -> Result<(), Killed> {
        let declarations = self.declarations();
        let facts = self.facts(&declarations);
        let mut states = lifecycle::decide(&self.context, self.time(), &facts);
        self.check_decision(&facts);
        for state in &states {
            self.checks.trace(
                self.now,
                format_args!("  {} {} {:?}", state.peer, state.phase, state.action),
            );
        }
        let resolved = self.resolved(&declarations, &states);
        let standing: BTreeMap<_, _> = states.iter().map(|s| (s.peer.clone(), s.clone())).collect();
        self.deliver(&mut states)?;
        if !self.refuses_overlay {
            self.overlay(resolved, &standing)?;
        }
        self.report(&states)?;
        self.wake = states
            .iter()
            .filter_map(|state| state.wake)
            .min()
            .map(|wake| seconds(wake).max(self.now + 1));
        // What failed is tried again.
        if !self.refuses_delivery.is_empty() || self.refuses_overlay {
            let retry = self.now + 10;
            self.wake = Some(self.wake.map_or(retry, |wake| wake.min(retry)));
        }
        let looks: BTreeSet<usize> = states
            .iter()
            .filter(|state| state.look_at_endpoint)
            .filter_map(|state| self.index(&state.peer))
            .collect();
        self.seen.retain(|peer, _| {
            let index = self.peers.iter().position(|it| it.name == *peer);
            index.is_some_and(|index| looks.contains(&index))
        });
        self.looks = looks;
        Ok(())
    }

    pub(crate) fn index(
        &self,
        peer: &trustweave::model::trust_domain::TrustDomain,
    ) -> Option<usize> {
        self.peers.iter().position(|it| it.name == *peer)
    }

    pub(crate) fn facts(&self, declarations: &Declarations) -> Vec<Facts> {
        let wanted = declarations.topology.peers_of(&own());
        let mut facts = Vec::new();
        for (index, peer) in self.peers.iter().enumerate() {
            let found = self.cftds.get(&index).and_then(live);
            let ours = found.as_ref().is_some_and(|live| live.record.is_some());
            let remembered = self.trust_peers.get(&peer.name);
            if !wanted.contains(&peer.name) && !ours && remembered.is_none() {
                continue;
            }
            let edge = if wanted.contains(&peer.name) {
                let edge = Edge {
                    importer: own(),
                    exporter: peer.name.clone(),
                };
                Some(consent(&edge, declarations))
            } else if declarations.topology_unknown {
                Some(Consent::Unknown {
                    path: topology_path(),
                })
            } else {
                None
            };
            let declaration = declarations.trust_domains.get(&peer.name).cloned();
            let published = match (&declaration, &peer.tip) {
                (None, _) => Err(Rejection::Unpublished),
                (Some(spec), Ok(publication)) => {
                    let (attested, declared) = (publication.attestation.epoch, spec.epoch);
                    let checked = publication.bundle.check(&peer.name, self.time());
                    if attested == declared {
                        checked.map(|()| publication.clone()).map_err(Into::into)
                    } else {
                        Err(Rejection::OtherEpoch { attested, declared })
                    }
                }
                (Some(_), Err(rejection)) => Err(rejection.clone()),
            };
            let memory = remembered
                .map(|(memory, _)| memory.clone())
                .unwrap_or_default();
            let recorded = found.as_ref().and_then(|live| live.record.as_ref());
            let recorded = recorded.map(|record| record.revoked.clone());
            let remembered_revocations = recorded
                .into_iter()
                .flatten()
                .chain(memory.revoked.iter().cloned());
            let revoked =
                revocation::in_force(&own(), &peer.name, declarations, remembered_revocations);
            facts.push(Facts {
                revoked,
                distrust_unknown: declarations
                    .distrust_unknown
                    .contains(&own())
                    .then(|| distrust_path(&own())),
                forced: remembered.is_some_and(|(_, forced)| *forced),
                memory,
                live: found.into_iter().collect(),
                probe: self.probe(&objects::probe_name(&peer.name)),
                control: self.probe(objects::CONTROL_PROBE),
                named: self.naming(index),
                view: match &self.observed {
                    None => View::None,
                    Some(view) => match view.get(&peer.name) {
                        Some(roots) => View::Roots(roots.clone()),
                        None => View::NotFederated,
                    },
                },
                endpoint: self.seen.get(&peer.name).cloned(),
                declaration,
                edge,
                published,
                peer: peer.name.clone(),
            });
        }
        facts
    }

    fn probe(&self, name: &str) -> Probe {
        let probe = self.registrations.get(name);
        Probe::read(probe.filter(|it| objects::is_probe(it)))
    }

    fn naming(&self, peer: usize) -> Named {
        let mut named = Named::default();
        for (name, object) in &self.registrations {
            if !resolve::federates_with(object, &self.peers[peer].name) {
                continue;
            }
            if objects::is_probe(object) {
                named.probe = true;
            } else if is_member(object) {
                named.ours.push(name.clone());
            } else {
                named.others.push(name.clone());
            }
        }
        named
    }

    fn resolved(&self, declarations: &Declarations, states: &[PeerState]) -> Option<Vec<Value>> {
        if self.overlay_unreadable {
            return None;
        }
        let overlay = [
            registration("all", &json!([]), Some("all")),
            registration("first", &json!([self.peers[0].name]), None),
            registration("unrelated", &json!([]), None),
        ];
        let origin = Origin {
            path: RepoPath::ROOT,
            position: None,
        };
        let manifests = overlay
            .into_iter()
            .filter_map(|object| Manifest::new(object, origin.clone()))
            .collect();
        let peers = Peers {
            declared: states
                .iter()
                .map(|state| (state.peer.clone(), state.standing))
                .collect(),
            foreign: BTreeSet::new(),
            ..Peers::default()
        };
        let resolved = resolve::resolve(manifests, &declarations.topology, &peers);
        let objects = resolved.manifests.into_iter().map(|mut manifest| {
            inventory::enrol(&mut manifest.object);
            manifest.object
        });
        Some(objects.collect())
    }

    /// Counts a write; an agent that is killed makes no more.
    fn write(&mut self) -> Result<(), Killed> {
        if let Some(left) = &mut self.crash_after {
            match left.checked_sub(1) {
                Some(rest) => *left = rest,
                None => return Err(Killed),
            }
        }
        self.writes += 1;
        self.touch();
        Ok(())
    }

    fn deliver(&mut self, states: &mut [PeerState]) -> Result<(), Killed> {
        for state in states.iter_mut() {
            let Some(index) = self.index(&state.peer) else {
                continue;
            };
            let refused = self.refuses_delivery.contains(&index);
            if let Some(cftd) = &state.cftd
                && self.cftds.get(&index) != Some(cftd)
            {
                if refused {
                    self.undo(state);
                    continue;
                }
                self.write()?;
                self.check_delivery(index, state);
                self.backups.entry(index).or_insert_with(|| cftd.clone());
                self.cftds.insert(index, cftd.clone());
                self.react();
            }
            if let Some(probe) = &state.probe {
                if refused && !self.stands(probe) {
                    self.undo(state);
                    continue;
                }
                self.apply(probe)?;
            }
        }
        let probed = states.iter().any(|state| state.probe.is_some());
        if probed {
            self.apply(&objects::control_probe(&self.context))?;
        }
        let needed: BTreeSet<&str> = states
            .iter()
            .filter_map(|state| state.probe.as_ref()?["metadata"]["name"].as_str())
            .chain(probed.then_some(objects::CONTROL_PROBE))
            .collect();
        let mut live = self.registrations.iter();
        let left: Vec<String> = live
            .by_ref()
            .filter(|(name, it)| objects::is_probe(it) && !needed.contains(name.as_str()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in left {
            self.write()?;
            self.registrations.remove(&name);
            self.react();
        }
        for state in states.iter_mut().filter(|state| state.delete.is_some()) {
            let Some(index) = self.index(&state.peer) else {
                continue;
            };
            if self.refuses_delivery.contains(&index) {
                self.undo(state);
                continue;
            }
            self.write()?;
            self.cftds.remove(&index);
            self.react();
        }
        Ok(())
    }

    /// What was not written is not remembered as delivered.
    fn undo(&self, state: &mut PeerState) {
        let former = self.trust_peers.get(&state.peer);
        state.memory = Memory {
            revoked: std::mem::take(&mut state.memory.revoked),
            ..former.map(|(memory, _)| memory.clone()).unwrap_or_default()
        };
        state.action = lifecycle::Action::Keep;
    }

    fn stands(&self, desired: &Value) -> bool {
        let name = desired["metadata"]["name"].as_str().unwrap_or_default();
        let live = self.registrations.get(name);
        live.is_some_and(|live| {
            live["spec"] == desired["spec"] && live["metadata"] == desired["metadata"]
        })
    }

    /// Applies a registration, whose status stays.
    fn apply(&mut self, desired: &Value) -> Result<(), Killed> {
        if self.stands(desired) {
            return Ok(());
        }
        self.write()?;
        let name = desired["metadata"]["name"].as_str().unwrap_or_default();
        let mut object = desired.clone();
        if let Some(live) = self.registrations.get(name) {
            object["status"] = live["status"].clone();
        }
        self.registrations.insert(name.to_owned(), object);
        self.react();
        Ok(())
    }

    fn overlay(
        &mut self,
        resolved: Option<Vec<Value>>,
        states: &BTreeMap<trustweave::model::trust_domain::TrustDomain, PeerState>,
    ) -> Result<(), Killed> {
        if let Some(objects) = resolved {
            for object in objects {
                if !self.stands(&object) {
                    self.check_registration(&object, states);
                }
                self.apply(&object)?;
            }
            return Ok(());
        }
        // Nothing is known of the overlay: whoever leaves is taken out of what stands.
        let members = self.registrations.values().filter(|it| is_member(it));
        for mut object in members.cloned().collect::<Vec<_>>() {
            let leaves = |name: &Value| {
                let mut states = states.values();
                states.any(|s| {
                    s.standing == Standing::Leaving && name.as_str() == Some(s.peer.as_str())
                })
            };
            if let Some(names) = object["spec"]["federatesWith"].as_array_mut() {
                names.retain(|name| !leaves(name));
            }
            if !self.stands(&object) {
                self.check_registration(&object, states);
            }
            self.apply(&object)?;
        }
        Ok(())
    }

    fn report(&mut self, states: &[PeerState]) -> Result<(), Killed> {
        for state in states {
            // Nothing was ever delivered, and nobody asks for it.
            let forgettable = state.phase == Phase::Pending
                && state.memory.watermark.is_none()
                && state.conditions.iter().any(|it| it.reason == "NoEdge");
            let former = self.trust_peers.get(&state.peer);
            if forgettable {
                if former.is_some() {
                    self.write()?;
                    self.trust_peers.remove(&state.peer);
                }
                continue;
            }
            if former.is_some_and(|(memory, _)| *memory == state.memory) {
                continue;
            }
            let forced = former.is_some_and(|(_, forced)| *forced);
            self.write()?;
            let memory = (state.memory.clone(), forced);
            self.trust_peers.insert(state.peer.clone(), memory);
        }
        Ok(())
    }
}

pub(crate) fn is_member(object: &Value) -> bool {
    object["metadata"]["labels"][inventory::PART_OF] == inventory::id().as_str()
}
