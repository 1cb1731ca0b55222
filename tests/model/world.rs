//! A cluster, its peers and the repository: what happens to them, and how time passes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use trustweave::{
    federation::{
        lifecycle::{LiveCftd, Memory},
        objects::{self, Context, ProbePods},
        record::Record,
    },
    model::{
        attestation::{Attestation, KIND, Publication, Rejection, Serial},
        bundle::Bundle,
        declaration::{API_VERSION, BundleEndpoint, TrustDomainSpec},
        declarations::Declarations,
        distrust::{DistrustSpec, Revocation},
        topology::TopologySpec,
        trust_domain::TrustDomain,
    },
};

use super::{
    checks::Checks,
    events::{Event, Tamper},
    keys::{self, PEERS},
    spire::{Keys, Spire},
};

pub(crate) const CLASS: &str = "class";

/// What differs between worlds from the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Whether the controller manager looks at once when an object changes, or in its next pass.
    pub(crate) triggers: bool,
    /// Whether the agent can ask a workload what it holds.
    pub(crate) view: bool,
}

/// What happens outside the cluster about a peer.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is something that may be so or not, on its own"
)]
pub(crate) struct Peer {
    pub(crate) name: TrustDomain,
    pub(crate) edge: bool,
    pub(crate) import: bool,
    pub(crate) export: bool,
    pub(crate) declared: bool,
    pub(crate) epoch: u64,
    pub(crate) moves: u32,
    pub(crate) history: Vec<Publication>,
    pub(crate) tip: Result<Publication, Rejection>,
    pub(crate) published: u8,
    pub(crate) served: u8,
    pub(crate) signer: usize,
    pub(crate) reachable: bool,
    pub(crate) slow: Option<u8>,
    next_poll: i64,
}

impl Peer {
    fn new(index: usize) -> Self {
        Self {
            name: name(PEERS[index]),
            edge: true,
            import: true,
            export: true,
            declared: true,
            epoch: 0,
            moves: 0,
            history: Vec::new(),
            tip: Err(Rejection::Unpublished),
            published: 1,
            served: 1,
            signer: 0,
            reachable: true,
            slow: None,
            next_poll: 0,
        }
    }

    /// Where its bundle is served; the last peer has no endpoint.
    pub(crate) fn address(&self) -> Option<String> {
        let (name, moves) = (&self.name, self.moves);
        (name.as_str() != PEERS[2]).then(|| format!("https://e{moves}.{name}"))
    }

    fn endpoint(&self) -> Value {
        let name = &self.name;
        match self.address() {
            None => json!("none"),
            Some(url) if name.as_str() == PEERS[0] => json!({
                "profile": "https_spiffe", "url": url,
                "spiffeID": format!("spiffe://{name}/spire/server"), "refreshHint": 60,
            }),
            Some(url) => json!({"profile": "https_web", "url": url}),
        }
    }
}

/// A poll that answers late.
struct Late {
    at: i64,
    peer: usize,
    keys: Keys,
    uncut: bool,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is something that may be so or not, on its own"
)]
pub(crate) struct World {
    pub(crate) setting: Setting,
    pub(crate) context: Context,
    pub(crate) now: i64,
    pub(crate) peers: Vec<Peer>,
    pub(crate) distrust: BTreeMap<TrustDomain, DistrustSpec>,
    pub(crate) topology_unreadable: bool,
    pub(crate) distrust_unreadable: bool,
    pub(crate) overlay_unreadable: bool,
    // The agent's process.
    pub(crate) agent_runs: bool,
    pub(crate) crash_after: Option<usize>,
    pub(crate) last_topology: Option<TopologySpec>,
    pub(crate) last_distrust: Option<DistrustSpec>,
    pub(crate) looks: BTreeSet<usize>,
    pub(crate) seen: BTreeMap<TrustDomain, Bundle>,
    pub(crate) wake: Option<i64>,
    pub(crate) dirty: bool,
    pub(crate) writes: usize,
    // The cluster.
    pub(crate) refuses_delivery: BTreeSet<usize>,
    pub(crate) refuses_overlay: bool,
    pub(crate) cftds: BTreeMap<usize, Value>,
    pub(crate) backups: BTreeMap<usize, Value>,
    pub(crate) registrations: BTreeMap<String, Value>,
    pub(crate) trust_peers: BTreeMap<TrustDomain, (Memory, bool)>,
    pub(crate) pods: u32,
    // SPIRE.
    pub(crate) spire: Spire,
    pub(crate) controller_runs: bool,
    pub(crate) observed: Option<BTreeMap<TrustDomain, Vec<Vec<u8>>>>,
    late: Vec<Late>,
    next_controller: i64,
    next_view: i64,
    next_look: i64,
    changed_at: i64,
    pub(crate) checks: Checks,
}

pub(crate) fn name(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

pub(crate) fn own() -> TrustDomain {
    name("a.test")
}

impl World {
    pub(crate) fn new(setting: Setting, trace: bool) -> Self {
        let mut world = Self {
            setting,
            context: Context {
                trust_domain: own(),
                class_name: CLASS.to_owned(),
                probe: ProbePods {
                    namespace: "n".to_owned(),
                    label: ("app".to_owned(), "x".to_owned()),
                },
            },
            now: 0,
            peers: (0..PEERS.len()).map(Peer::new).collect(),
            distrust: BTreeMap::new(),
            topology_unreadable: false,
            distrust_unreadable: false,
            overlay_unreadable: false,
            agent_runs: true,
            crash_after: None,
            last_topology: None,
            last_distrust: None,
            looks: BTreeSet::new(),
            seen: BTreeMap::new(),
            wake: None,
            dirty: true,
            writes: 0,
            refuses_delivery: BTreeSet::new(),
            refuses_overlay: false,
            cftds: BTreeMap::new(),
            backups: BTreeMap::new(),
            registrations: BTreeMap::new(),
            trust_peers: BTreeMap::new(),
            pods: 1,
            spire: Spire::default(),
            controller_runs: true,
            observed: setting.view.then(BTreeMap::new),
            late: Vec::new(),
            next_controller: 0,
            next_view: 0,
            next_look: 0,
            changed_at: 0,
            checks: Checks::new(trace),
        };
        for peer in 0..PEERS.len() {
            world.publish(peer, 1);
        }
        world
    }

    pub(crate) fn time(&self) -> Timestamp {
        at(self.now)
    }

    /// Something changed that the agent or SPIRE may react to.
    pub(crate) fn touch(&mut self) {
        self.dirty = true;
        self.changed_at = self.now;
    }

    /// What the repository declares, to an agent that may not be able to read all of it.
    pub(crate) fn declarations(&mut self) -> Declarations {
        let edges: Vec<_> = self
            .peers
            .iter()
            .filter(|peer| peer.edge)
            .map(|peer| json!({"from": "a.test", "to": peer.name}))
            .collect();
        let topology: TopologySpec = serde_json::from_value(json!({"edges": edges})).unwrap();
        let mut declarations = Declarations {
            distrust: self.distrust.clone(),
            ..Declarations::default()
        };
        if !self.topology_unreadable {
            self.last_topology = Some(topology);
        }
        match &self.last_topology {
            Some(topology) => declarations.topology = topology.clone(),
            None => declarations.topology_unknown = true,
        }
        if !self.distrust_unreadable {
            self.last_distrust = Some(self.distrust.get(&own()).cloned().unwrap_or_default());
        }
        declarations.distrust.remove(&own());
        match &self.last_distrust {
            Some(file) => drop(declarations.distrust.insert(own(), file.clone())),
            None => drop(declarations.distrust_unknown.insert(own())),
        }
        let imports: Vec<_> = self.peers.iter().filter(|peer| peer.import).collect();
        let imports: Vec<_> = imports.iter().map(|peer| &peer.name).collect();
        let consent = json!({"import": imports});
        let declared = &mut declarations.trust_domains;
        declared.insert(own(), spec(&json!("none"), &consent, 0));
        for peer in self.peers.iter().filter(|peer| peer.declared) {
            let export = if peer.export { vec!["a.test"] } else { vec![] };
            let spec = spec(&peer.endpoint(), &json!({"export": export}), peer.epoch);
            declared.insert(peer.name.clone(), spec);
        }
        declarations
    }

    // What happens.

    pub(crate) fn happen(&mut self, event: &Event) {
        self.checks.trace(self.now, format_args!("{event:?}"));
        match *event {
            Event::Edge(peer, on) => self.peers[peer].edge = on,
            Event::Import(peer, on) => self.peers[peer].import = on,
            Event::Export(peer, on) => self.peers[peer].export = on,
            Event::Declare(peer, on) => self.peers[peer].declared = on,
            Event::Epoch(peer) => self.peers[peer].epoch += 1,
            Event::Move(peer, attested) => {
                self.peers[peer].moves += 1;
                if !attested {
                    self.peers[peer].tip = Err(Rejection::OtherEndpoint("old".to_owned()));
                }
            }
            Event::Revoke(peer, root, by_own) => self.distrust(peer, root, by_own, true),
            Event::Unrevoke(peer, root, by_own) => self.distrust(peer, root, by_own, false),
            Event::Vanish(peer) => {
                let name = self.peers[peer].name.clone();
                for file in self.distrust.values_mut() {
                    file.revoked.retain(|entry| entry.trust_domain != name);
                }
            }
            Event::TopologyUnreadable(on) => self.topology_unreadable = on,
            Event::DistrustUnreadable(on) => self.distrust_unreadable = on,
            Event::OverlayUnreadable(on) => self.overlay_unreadable = on,
            Event::Publish(peer, mask) => self.publish(peer, mask),
            Event::Replay(peer, back) => {
                let peer = &mut self.peers[peer];
                let mut history = peer.history.iter().rev();
                if let Some(old) = history.nth(back) {
                    peer.tip = Ok(old.clone());
                }
            }
            Event::Equivocate(peer, mask) => {
                let last = self.peers[peer].history.last().unwrap();
                let serial = last.attestation.serial;
                let publication = self.publication(peer, mask, serial);
                self.peers[peer].history.push(publication.clone());
                self.peers[peer].tip = Ok(publication);
            }
            Event::Unsigned(peer) => self.peers[peer].tip = Err(Rejection::NoSigners),
            Event::Serve(peer, mask) => self.peers[peer].served = mask,
            Event::Reachable(peer, on) => self.peers[peer].reachable = on,
            Event::SlowPoll(peer, late) => {
                self.peers[peer].slow = Some(late);
                self.poll(peer);
            }
            Event::Restart => self.restart(),
            Event::AgentRuns(on) => {
                if on != self.agent_runs {
                    self.restart();
                }
                self.agent_runs = on;
            }
            Event::CrashAfter(writes) => self.crash_after = Some(writes),
            Event::Forget(peer) => {
                let name = self.peers[peer].name.clone();
                if self.trust_peers.remove(&name).is_some() {
                    self.checks.forgot(peer);
                }
            }
            Event::RefuseDelivery(peer, on) => {
                if on {
                    self.refuses_delivery.insert(peer);
                } else {
                    self.refuses_delivery.remove(&peer);
                }
            }
            Event::RefuseOverlay(on) => self.refuses_overlay = on,
            Event::Tamper(peer, how) => self.tamper(peer, how),
            Event::ControllerRuns(on) => self.controller_runs = on,
            Event::SpireRestarts => self.late.clear(),
            Event::DatastoreLost => {
                self.spire = Spire::default();
                self.late.clear();
                self.checks.lost_rows(0..PEERS.len());
            }
            Event::DeleteRow(peer) => {
                self.spire.delete_row(PEERS[peer]);
                self.checks.lost_rows([peer]);
            }
            Event::Legacy(peer, on) => self.legacy(peer, on),
            Event::Force(peer, on) => {
                let name = &self.peers[peer].name;
                if let Some((_, forced)) = self.trust_peers.get_mut(name) {
                    *forced = on;
                }
            }
            Event::NewPod => self.pods = (self.pods + 1).min(4),
            Event::Nothing => {}
        }
        self.touch();
    }

    fn publish(&mut self, peer: usize, mask: u8) {
        let last = self.peers[peer].history.last();
        let epoch = self.peers[peer].epoch;
        let serial = match last {
            Some(last) if last.attestation.epoch == epoch => {
                last.attestation.serial.next().unwrap()
            }
            _ => Serial(1),
        };
        let publication = self.publication(peer, mask, serial);
        let peer = &mut self.peers[peer];
        peer.history.push(publication.clone());
        peer.tip = Ok(publication);
        (peer.published, peer.served) = (mask, mask);
        peer.signer = usize::try_from(mask.trailing_zeros()).unwrap();
    }

    fn publication(&self, peer: usize, mask: u8, serial: Serial) -> Publication {
        let sequence = u64::try_from(self.peers[peer].history.len()).unwrap();
        let bundle = keys::bundle(peer, mask, Some(sequence));
        Publication {
            attestation: Attestation {
                api_version: API_VERSION.to_owned(),
                kind: KIND.to_owned(),
                trust_domain: self.peers[peer].name.clone(),
                epoch: self.peers[peer].epoch,
                serial,
                sha256: bundle.digest(),
                spiffe_sequence: bundle.sequence,
                endpoint: BundleEndpoint::None,
                cluster_uid: String::new(),
                issued_at: Timestamp::UNIX_EPOCH,
            },
            bundle,
        }
    }

    fn distrust(&mut self, peer: usize, root: usize, by_own: bool, revoke: bool) {
        let of = self.peers[peer].name.clone();
        let by = if by_own { own() } else { of.clone() };
        let entry = Revocation {
            trust_domain: of,
            key: keys::roots(peer)[root].key.clone(),
            reason: "r".to_owned(),
            time: self.time(),
        };
        let file = self.distrust.entry(by).or_default();
        if revoke {
            file.revoked.push(entry);
        } else {
            file.unrevoked.push(entry);
        }
    }

    pub(crate) fn restart(&mut self) {
        self.last_topology = None;
        self.last_distrust = None;
        self.looks.clear();
        self.seen.clear();
        self.wake = None;
        self.crash_after = None;
        self.touch();
    }

    fn legacy(&mut self, peer: usize, on: bool) {
        let key = format!("legacy-{peer}");
        if on {
            let object = registration(&key, &json!([self.peers[peer].name]), None);
            self.registrations.insert(key, object);
        } else {
            self.registrations.remove(&key);
        }
    }

    fn tamper(&mut self, peer: usize, how: Tamper) {
        let Some(standing) = self.cftds.get_mut(&peer) else {
            return;
        };
        let spec = &mut standing["spec"];
        match how {
            Tamper::Bundle(mask) => {
                let bundle = keys::bundle(peer, mask, None).canonical();
                spec["trustDomainBundle"] = String::from_utf8(bundle).unwrap().into();
            }
            Tamper::Empty => spec["trustDomainBundle"] = r#"{"keys": []}"#.into(),
            Tamper::Invalid => spec["trustDomainBundle"] = "{}".into(),
            Tamper::Removed => drop(spec.as_object_mut().unwrap().remove("trustDomainBundle")),
            Tamper::Address => spec["bundleEndpointURL"] = "https://elsewhere.test/".into(),
            Tamper::Restored => {
                if let Some(backup) = self.backups.get(&peer) {
                    *standing = backup.clone();
                }
            }
            Tamper::Deleted => drop(self.cftds.remove(&peer)),
        }
        self.checks.tampered(peer);
        self.react();
    }

    // SPIRE.

    /// The controller manager reacts to a changed object, if it does not wait for its next pass.
    pub(crate) fn react(&mut self) {
        if self.setting.triggers {
            self.controller();
        }
    }

    /// A pass of the controller manager.
    pub(crate) fn controller(&mut self) {
        if !self.controller_runs {
            return;
        }
        let before = self.spire.clone();
        let cftds: Vec<_> = self.cftds.values().cloned().collect();
        for created in self.spire.reconcile_relationships(&cftds) {
            let mut peers = self.peers.iter_mut();
            if let Some(peer) = peers.find(|peer| peer.name.as_str() == created) {
                peer.next_poll = self.now;
            }
        }
        let pods = self.pods;
        let registrations = self.registrations.values();
        let registrations = registrations.map(|registration| {
            let agents = objects::is_probe(registration);
            (registration, if agents { 1 } else { pods })
        });
        let found = self.spire.reconcile_entries(registrations);
        let mut changed = before != self.spire;
        for (name, counts) in found {
            let told = &mut self.registrations.get_mut(&name).unwrap()["status"]["stats"];
            if *told != counts {
                *told = counts;
                changed = true;
            }
        }
        if changed {
            self.touch();
        }
    }

    /// What SPIRE would take from a peer's endpoint now.
    fn polled(&self, index: usize) -> Option<Keys> {
        let peer = &self.peers[index];
        let address = peer.address().filter(|_| peer.reachable)?;
        let served = keys::certificates(index, peer.served);
        let signer = &keys::roots(index)[peer.signer].x5c;
        self.spire.poll(PEERS[index], &address, &served, signer)
    }

    /// Whether SPIRE polls a peer's endpoint, and believes it.
    pub(crate) fn is_believed(&self, index: usize) -> bool {
        self.polled(index).is_some()
    }

    fn poll(&mut self, index: usize) {
        self.peers[index].next_poll = self.now + 15;
        if let Some(keys) = self.polled(index) {
            let peer = &mut self.peers[index];
            let record = self.cftds.get(&index).and_then(record);
            // It began although the agent had seen the endpoint without any revoked key.
            let uncut = record.is_some_and(|record| !record.revoked.is_empty());
            self.late.push(Late {
                at: self.now + i64::from(peer.slow.take().unwrap_or(0)),
                peer: index,
                keys,
                uncut,
            });
        }
    }

    fn answers(&mut self) {
        let (due, late) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|late| late.at <= self.now);
        self.late = late;
        let due: Vec<Late> = due;
        for late in due {
            let row = self.spire.rows.get(PEERS[late.peer]);
            if row != Some(&late.keys) {
                let peer = PEERS[late.peer];
                self.checks
                    .trace(self.now, format_args!("a poll writes {peer}"));
                self.spire.rows.insert(peer.to_owned(), late.keys);
                self.checks.polled(late.peer, late.uncut);
                self.touch();
            }
        }
    }

    fn look_at_view(&mut self) {
        if !self.setting.view {
            return;
        }
        let mut view: BTreeMap<TrustDomain, Vec<Vec<u8>>> = BTreeMap::new();
        for (probe, _) in self
            .registrations
            .iter()
            .filter(|(_, it)| objects::is_probe(it))
        {
            for (td, keys) in self.spire.view(probe) {
                view.insert(
                    name(&td),
                    keys.iter().map(|key| keys::der_of(key)).collect(),
                );
            }
        }
        if self.observed.as_ref() != Some(&view) {
            self.observed = Some(view);
            self.touch();
        }
    }

    fn look_at_endpoints(&mut self) {
        for index in self.looks.clone() {
            let peer = &self.peers[index];
            if !peer.reachable || peer.address().is_none() {
                continue;
            }
            // Whom the agent trusts there is what it delivered.
            let live = self.cftds.get(&index).and_then(live);
            let trusted = live
                .and_then(|live| live.parsed())
                .map(|it| keys::held(&it));
            let signer = &keys::roots(index)[peer.signer].x5c;
            if index == 0 && !trusted.is_some_and(|keys| keys.contains(signer)) {
                continue;
            }
            let bundle = keys::bundle(index, peer.served, None);
            let name = peer.name.clone();
            if self.seen.get(&name) != Some(&bundle) {
                self.seen.insert(name, bundle);
                self.touch();
            }
        }
    }

    // Time.

    /// Lets everybody do what is due now.
    pub(crate) fn settle(&mut self) {
        self.answers();
        for peer in 0..self.peers.len() {
            if self.peers[peer].next_poll <= self.now {
                self.poll(peer);
            }
        }
        self.answers();
        if self.next_controller <= self.now {
            self.next_controller = self.now + 10;
            self.controller();
        }
        if self.next_view <= self.now {
            self.next_view = self.now + 5;
            self.look_at_view();
        }
        if self.next_look <= self.now {
            self.next_look = self.now + 15;
            self.look_at_endpoints();
        }
        for _ in 0..8 {
            let due = self.wake.is_some_and(|wake| wake <= self.now);
            if !self.agent_runs || !(self.dirty || due) {
                break;
            }
            self.dirty = false;
            self.pass();
        }
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, seconds: i64) {
        let end = self.now + seconds;
        loop {
            self.settle();
            Checks::look(self);
            if self.now >= end || self.checks.broken.is_some() {
                return;
            }
            let mut next = end.min(self.now + 5);
            // Everybody had a turn, and nothing changed.
            if self.changed_at + 20 < self.now {
                let late = self.late.iter().map(|late| late.at);
                let until = late.chain(self.wake).filter(|at| *at > self.now).min();
                next = until.unwrap_or(end).min(end);
            }
            self.now = next;
        }
    }

    /// Ends every disturbance.
    pub(crate) fn calm(&mut self) {
        self.topology_unreadable = false;
        self.distrust_unreadable = false;
        self.overlay_unreadable = false;
        self.agent_runs = true;
        self.controller_runs = true;
        self.crash_after = None;
        self.refuses_delivery.clear();
        self.refuses_overlay = false;
        for peer in 0..self.peers.len() {
            self.peers[peer].reachable = true;
            self.peers[peer].served = self.peers[peer].published;
            self.legacy(peer, false);
        }
        self.touch();
    }

    /// Whether the agent could do all that it wants now.
    pub(crate) fn is_able(&self) -> bool {
        self.agent_runs
            && self.controller_runs
            && self.refuses_delivery.is_empty()
            && !self.refuses_overlay
            && !self.overlay_unreadable
            && self.crash_after.is_none()
    }
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    start + SignedDuration::from_secs(seconds)
}

pub(crate) fn seconds(time: Timestamp) -> i64 {
    time.as_second() - at(0).as_second()
}

/// A registration, with what its annotation asks for.
pub(crate) fn registration(name: &str, federates_with: &Value, filled: Option<&str>) -> Value {
    let mut object = json!({
        "apiVersion": objects::SPIRE_API_VERSION, "kind": objects::CLUSTER_SPIFFE_ID,
        "metadata": {"name": name},
        "spec": {"className": CLASS, "federatesWith": federates_with},
    });
    if let Some(filled) = filled {
        object["metadata"]["annotations"] = json!({"trustweave.dev/federates-with": filled});
    }
    object
}

pub(crate) fn live(cftd: &Value) -> Option<LiveCftd> {
    LiveCftd::read(cftd, CLASS).map(|(_, live)| live)
}

pub(crate) fn record(cftd: &Value) -> Option<Record> {
    live(cftd)?.record
}

fn spec(endpoint: &Value, consent: &Value, epoch: u64) -> TrustDomainSpec {
    serde_json::from_value(json!({
        "clusters": [], "signers": [], "bundleEndpoint": endpoint, "consent": consent,
        "spire": {"distribution": "custom", "namespace": "s", "className": CLASS},
        "epoch": epoch,
    }))
    .unwrap()
}
