use serde_json::json;

use super::*;
use crate::{
    federation::{
        consent::{Consent, Move},
        guard::MAX_TOTAL_BYTES,
        objects::ProbePods,
    },
    model::{
        attestation::{Attestation, KIND, Publication, Serial},
        declaration::{API_VERSION, BundleEndpoint, TrustDomainSpec},
    },
};

const CLASS: &str = "class";

fn peer() -> TrustDomain {
    TrustDomain::parse("b.test").unwrap()
}

fn context() -> Context {
    Context {
        trust_domain: TrustDomain::parse("a.test").unwrap(),
        class_name: CLASS.to_owned(),
        probe: ProbePods {
            namespace: "n".to_owned(),
            label: ("app".to_owned(), "x".to_owned()),
        },
    }
}

fn declaration(url: &str) -> TrustDomainSpec {
    serde_json::from_value(json!({
        "clusters": [{"name": "b"}], "signers": [],
        "spire": {"distribution": "custom", "namespace": "s", "className": CLASS},
        "bundleEndpoint": {
            "profile": "https_spiffe", "url": url, "spiffeID": "spiffe://b.test/spire/server",
        },
    }))
    .unwrap()
}

fn bundle() -> Bundle {
    crate::model::bundle::sample("b.test")
}

/// A bundle with the keys of both.
fn both(one: &Bundle, other: &Bundle) -> Bundle {
    let mut bundle = one.clone();
    let roots = other.x509_authorities.iter().cloned();
    bundle.x509_authorities.extend(roots);
    Bundle::parse(&bundle.canonical()).unwrap()
}

fn publication(bundle: &Bundle, serial: u64) -> Publication {
    Publication {
        bundle: bundle.clone(),
        attestation: Attestation {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            trust_domain: peer(),
            epoch: 0,
            serial: Serial(serial),
            sha256: bundle.digest(),
            spiffe_sequence: bundle.sequence,
            endpoint: BundleEndpoint::None,
            cluster_uid: String::new(),
            issued_at: Timestamp::UNIX_EPOCH,
        },
    }
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// A peer in a world that does what is decided.
struct World {
    facts: Facts,
    now: Timestamp,
}

impl World {
    /// A peer that both sides agree on, with nothing delivered yet.
    fn new(published: Result<Publication, Rejection>) -> Self {
        let facts = Facts {
            peer: peer(),
            declaration: Some(declaration("https://b.example")),
            edge: Some(Consent::Given),
            published,
            revoked: Vec::new(),
            distrust_unknown: None,
            live: Vec::new(),
            memory: Memory::default(),
            probe: Probe::Unknown(String::new()),
            control: Probe::Ready,
            named: Named::default(),
            view: View::None,
            endpoint: None,
            forced: false,
        };
        Self {
            facts,
            now: start(),
        }
    }

    /// A peer whose bundle was delivered under a serial, and that a registration names.
    fn federated(bundle: &Bundle, serial: u64) -> Self {
        let mut world = Self::new(Ok(publication(bundle, serial)));
        world.pass();
        world.facts.probe = Probe::Ready;
        world.pass();
        world.facts.named.ours = vec!["frontend".to_owned()];
        assert_eq!(world.pass().phase, Phase::Federated);
        world
    }

    fn decide(&self) -> PeerState {
        decide(&context(), self.now, std::slice::from_ref(&self.facts)).remove(0)
    }

    /// Decides, and makes it so.
    fn pass(&mut self) -> PeerState {
        let state = self.decide();
        if let Some(cftd) = &state.cftd {
            let (_, mut live) = LiveCftd::read(cftd, CLASS).unwrap();
            // An apply without a bundle takes the field away.
            live.name = "adopted".to_owned();
            self.facts.live = vec![live];
        }
        if state.delete.is_some() {
            self.facts.live.clear();
        }
        self.facts.named.probe = state.probe.is_some();
        if state.standing == Standing::Leaving {
            self.facts.named.ours.clear();
        }
        self.facts.memory = state.memory.clone();
        state
    }

    fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// The peer's keys in the object as it stands.
    fn keys(&self) -> usize {
        let live = self.facts.live.first().unwrap();
        live.parsed().map_or(0, |bundle| bundle.keys().count())
    }

    fn url(&self) -> &str {
        &self.facts.live[0].url
    }

    fn revoke(&mut self, keys: &[KeyId], by: &str) {
        self.facts.revoked = keys
            .iter()
            .map(|key| Revoked {
                key: key.clone(),
                by: TrustDomain::parse(by).unwrap(),
                time: start(),
            })
            .collect();
    }
}

fn url(state: &PeerState) -> &str {
    let cftd = state.cftd.as_ref().unwrap();
    cftd["spec"]["bundleEndpointURL"].as_str().unwrap()
}

fn key(bundle: &Bundle) -> KeyId {
    bundle.keys().next().unwrap()
}

#[test]
fn a_peer_is_seeded_then_federated_then_left_alone() {
    let bundle = bundle();
    let mut world = World::new(Ok(publication(&bundle, 1)));
    let seeded = world.pass();
    assert_eq!(seeded.phase, Phase::Seeding);
    assert_eq!(seeded.standing, Standing::HeldBack);
    assert_eq!(seeded.action, Action::FirstUse);
    assert_eq!(url(&seeded), "https://b.example/#0.1.0.0");
    let delivered = seeded.cftd.as_ref().unwrap()["spec"]["trustDomainBundle"].clone();
    let delivered = delivered.as_str().unwrap();
    assert!(delivered.contains("\"spiffe_refresh_hint\": 60"));
    assert!(seeded.probe.is_some());

    world.facts.probe = Probe::Refused("entryFailures is 1".to_owned());
    assert_eq!(world.pass().phase, Phase::Seeding);
    world.facts.probe = Probe::Ready;
    let ready = world.pass();
    assert_eq!(
        (ready.phase, ready.standing),
        (Phase::Federated, Standing::Ready)
    );
    assert_eq!((ready.action, ready.wake), (Action::Keep, None));
    let again = world.pass();
    assert_eq!(again.cftd, ready.cftd);
}

#[test]
fn nothing_is_delivered_without_consent_and_a_bundle() {
    let unpublished = World::new(Err(Rejection::Unpublished)).decide();
    assert_eq!(
        (unpublished.phase, unpublished.cftd),
        (Phase::Pending, None)
    );
    assert_eq!(unpublished.standing, Standing::HeldBack);
    let mut refused = World::new(Ok(publication(&bundle(), 1)));
    refused.facts.edge = Some(Consent::Missing {
        moves: vec![Move {
            owner: peer(),
            list: "export",
            peer: context().trust_domain,
        }],
    });
    let refused = refused.decide();
    assert_eq!(
        (refused.phase, refused.cftd, refused.probe),
        (Phase::Pending, None, None)
    );
}

#[test]
fn a_newer_bundle_is_pushed_and_an_older_or_a_second_one_never() {
    let (first, second) = (bundle(), bundle());
    let mut world = World::federated(&first, 5);
    world.facts.published = Ok(publication(&second, 6));
    let newer = world.decide();
    assert_eq!(newer.action, Action::Push);
    assert_eq!(url(&newer), "https://b.example/#0.6.0.0");
    assert_eq!(newer.vanished, [key(&first)]);
    for (published, reason) in [
        (publication(&second, 4), "Rollback"),
        (publication(&second, 5), "Equivocation"),
    ] {
        world.facts.published = Ok(published);
        let state = world.decide();
        assert!(
            matches!(&state.judgement, Judgement::Refused(refusal) if refusal.reason() == reason)
        );
        assert_eq!((state.phase, state.cftd.clone()), (Phase::Federated, None));
        assert_eq!(state.watermark().unwrap().serial, Serial(5));
    }
    world.facts.published = Err(Rejection::NoSigners);
    let rejected = world.decide();
    assert_eq!((rejected.phase, rejected.cftd), (Phase::Federated, None));
}

#[test]
fn the_larger_of_both_memories_counts() {
    let (old, new) = (bundle(), bundle());
    let mut world = World::federated(&old, 1);
    let backup = world.facts.live.clone();
    world.facts.published = Ok(publication(&new, 2));
    world.pass();
    // The object was put back to an older state, as from a backup.
    world.facts.live = backup;
    world.facts.published = Ok(publication(&old, 1));
    let state = world.decide();
    assert!(matches!(
        state.judgement,
        Judgement::Refused(Refusal::Rollback { .. })
    ));
    world.facts.published = Ok(publication(&new, 2));
    assert_eq!(world.pass().action, Action::Repair);
    // The TrustPeer is lost: the object remembers, also that the peer was federated.
    world.facts.memory = Memory::default();
    world.facts.probe = Probe::Unknown("no pod".to_owned());
    let state = world.decide();
    assert_eq!(
        (state.phase, state.action),
        (Phase::Federated, Action::Keep)
    );
    assert_eq!(state.watermark().unwrap().serial, Serial(2));
}

#[test]
fn a_lost_datastore_is_an_alarm_and_no_deadlock() {
    let numbered = |sequence| {
        let mut bundle = bundle();
        bundle.sequence = Some(sequence);
        bundle
    };
    let mut world = World::federated(&numbered(9), 1);
    world.facts.published = Ok(publication(&numbered(1), 2));
    let state = world.pass();
    assert_eq!(state.action, Action::Push);
    assert_eq!(state.sequence_fell, Some((9, 1)));
    assert_eq!(world.pass().sequence_fell, None);
}

#[test]
fn what_somebody_changed_or_deleted_is_repaired_by_a_new_push() {
    let mut world = World::federated(&bundle(), 1);
    world.facts.live[0].bundle = Some("{\"keys\": []}".to_owned());
    let changed = world.decide();
    assert_eq!(changed.action, Action::Repair);
    assert_eq!(url(&changed), "https://b.example/#0.1.0.1");
    world.facts.live.clear();
    let deleted = world.decide();
    assert_eq!(deleted.action, Action::Repair);
    assert_eq!(deleted.phase, Phase::Federated);
}

#[test]
fn a_bundle_that_spire_lost_is_pushed_again_and_the_peer_leaves_registrations_if_that_fails() {
    let mut world = World::federated(&bundle(), 1);
    world.facts.probe = Probe::Refused("entryFailures is 1".to_owned());
    let refused = world.pass();
    assert_eq!(
        (refused.phase, refused.action),
        (Phase::Federated, Action::Keep)
    );
    let wake = refused.wake.unwrap();
    assert_eq!(wake, world.now + SignedDuration::from_secs(20));
    world.now = wake;
    assert_eq!(world.pass().action, Action::Repair);
    assert_eq!(world.pass().action, Action::Keep);
    world.wait(10);
    let lost = world.pass();
    assert_eq!(
        (lost.phase, lost.standing),
        (Phase::Seeding, Standing::HeldBack)
    );
    world.facts.probe = Probe::Ready;
    assert_eq!(world.pass().phase, Phase::Federated);
    // If the probe that federates with nobody is refused too, SPIRE is the trouble, not the peer.
    world.facts.probe = Probe::Refused("entryFailures is 1".to_owned());
    world.facts.control = Probe::Refused("entryFailures is 1".to_owned());
    for _ in 0..5 {
        world.wait(60);
        let state = world.pass();
        assert_eq!(
            (state.phase, state.action),
            (Phase::Federated, Action::Keep)
        );
    }
}

#[test]
fn another_address_never_brings_an_older_bundle_with_it() {
    let mut world = World::federated(&bundle(), 1);
    world.facts.declaration = Some(declaration("https://moved.example"));
    let moved = world.pass();
    assert_eq!(moved.action, Action::Relocate);
    assert_eq!(
        moved.cftd.as_ref().unwrap()["spec"].get("trustDomainBundle"),
        None
    );
    // It is put back once the address is the same: SPIRE looks at nothing but the URL.
    let next = world.decide();
    assert_eq!(next.action, Action::Keep);
    assert_eq!(url(&next), url(&moved));
    let next = next.cftd.unwrap();
    assert!(next["spec"].get("trustDomainBundle").is_some());
}

#[test]
fn what_is_unknown_ends_nothing() {
    let mut world = World::federated(&bundle(), 1);
    world.facts.probe = Probe::Unknown("no pod".to_owned());
    assert_eq!(world.decide().standing, Standing::Ready);
    world.facts.edge = Some(Consent::Unknown {
        path: crate::model::repository::topology_path(),
    });
    let unknown = world.decide();
    assert_eq!(
        (unknown.phase, unknown.standing),
        (Phase::Federated, Standing::Ready)
    );
    assert_eq!(unknown.cftd, None);
    assert!(unknown.probe.is_some());
}

#[test]
fn a_leaving_peer_drains_is_distrusted_and_is_gone() {
    let bundle = bundle();
    let mut world = World::federated(&bundle, 1);
    world.facts.edge = None;
    world.facts.named.others = vec!["legacy".to_owned()];
    let draining = world.pass();
    assert_eq!(
        (draining.phase, draining.standing),
        (Phase::Draining, Standing::Leaving)
    );
    assert_eq!((draining.cftd, draining.probe), (None, None));
    // What people keep blocks it, however long.
    world.wait(3600);
    let blocked = world.pass();
    assert_eq!(blocked.phase, Phase::Draining);
    assert!(
        blocked.message().contains("legacy"),
        "{}",
        blocked.message()
    );
    world.facts.forced = true;
    assert_eq!(world.pass().phase, Phase::Draining);
    world.wait(14);
    assert_eq!(world.pass().action, Action::Keep);
    world.wait(1);
    let distrusted = world.pass();
    assert_eq!(
        (distrusted.phase, distrusted.action),
        (Phase::Distrusted, Action::Distrust)
    );
    assert_eq!(
        (world.keys(), world.url()),
        (0, "https://b.test.invalid/#0.1.0.1")
    );
    // Nobody can see it: pushed again, and kept until everything that was trusted has ended.
    world.now = distrusted.wake.unwrap();
    assert_eq!(world.pass().action, Action::Repair);
    assert_eq!(world.url(), "https://b.test.invalid/#0.1.0.2");
    world.now = bundle.latest_expiry().unwrap();
    let gone = world.pass();
    assert_eq!((gone.phase, gone.action), (Phase::Gone, Action::Delete));
    let gone = world.pass();
    assert_eq!(
        (gone.phase, gone.action, gone.wake),
        (Phase::Gone, Action::Keep, None)
    );
    assert_eq!(gone.watermark().unwrap().serial, Serial(1));

    // It comes back as a peer that was never ready, under its old watermark.
    world.facts.edge = Some(Consent::Given);
    world.facts.probe = Probe::Unknown(String::new());
    let back = world.pass();
    assert_eq!((back.phase, back.action), (Phase::Seeding, Action::Repair));
}

#[test]
fn a_workload_that_holds_nothing_ends_the_wait() {
    let mut world = World::federated(&bundle(), 1);
    world.facts.view = View::Roots(vec![b"root".to_vec()]);
    world.facts.edge = None;
    world.pass();
    world.pass();
    world.wait(15);
    assert_eq!(world.pass().action, Action::Distrust);
    let shown = world.pass();
    assert!(shown.probe.is_some(), "the probe looks again");
    world.facts.view = View::Roots(Vec::new());
    // Not before a poll that was under way has ended: it may yet write.
    assert_eq!(world.pass().action, Action::Keep);
    world.wait(15);
    let again = world.pass();
    assert_eq!(again.action, Action::Repair);
    assert_eq!(world.pass().action, Action::Keep);
    assert!(again.wake.unwrap() > world.now + POLL_IN_FLIGHT + CONTROLLER_PASS);
    world.now = again.wake.unwrap();
    world.facts.view = View::Roots(vec![b"root".to_vec()]);
    let written = world.pass();
    assert_eq!(written.action, Action::Repair);
    world.facts.view = View::Roots(Vec::new());
    world.now = written.wake.unwrap();
    assert_eq!(world.pass().action, Action::Delete);
}

#[test]
fn an_edge_that_returns_once_the_keys_are_gone_waits_for_a_new_probe() {
    let mut world = World::federated(&bundle(), 1);
    world.facts.view = View::Roots(Vec::new());
    world.facts.edge = None;
    world.pass();
    world.pass();
    world.wait(15);
    assert_eq!(world.pass().action, Action::Distrust);
    assert!(world.pass().probe.is_some());
    // SPIRE accepts entries, as it holds an empty bundle.
    world.facts.edge = Some(Consent::Given);
    let back = world.pass();
    assert_eq!(
        (back.phase, back.standing, back.action),
        (Phase::Seeding, Standing::HeldBack, Action::Repair)
    );
    assert_eq!(back.probe, None);
    world.facts.probe = Probe::Unknown("nobody looked at it yet".to_owned());
    assert!(world.pass().probe.is_some());
    world.facts.probe = Probe::Ready;
    assert_eq!(world.pass().phase, Phase::Federated);
}

#[test]
fn what_somebody_else_emptied_is_not_taken_for_distrust() {
    let mut world = World::federated(&bundle(), 1);
    world.facts.published = Err(Rejection::NoSigners);
    world.facts.live[0].bundle = Some("{\"keys\": []}".to_owned());
    assert_eq!(world.pass().phase, Phase::Federated);
    // Nor does it prove that SPIRE holds a key.
    let standing = world.facts.clone();
    (world.facts.memory.was_federated, world.facts.probe) = (false, Probe::Ready);
    world.facts.named.ours.clear();
    assert_eq!(world.pass().phase, Phase::Seeding);
    world.facts = standing;
    world.facts.edge = None;
    world.facts.view = View::Roots(vec![b"root".to_vec()]);
    assert_eq!(world.pass().phase, Phase::Draining);
    world.pass();
    world.wait(15);
    assert_eq!(world.pass().action, Action::Distrust);
}

#[test]
fn a_relationship_that_somebody_deleted_does_not_keep_the_keys_of_who_leaves() {
    let mut world = World::federated(&bundle(), 1);
    world.facts.live.clear();
    world.facts.edge = None;
    let taken_up = world.pass();
    assert_eq!(
        (taken_up.phase, taken_up.action),
        (Phase::Draining, Action::Relocate)
    );
    // SPIRE keeps what it holds until no registration needs it.
    assert_eq!(world.facts.live[0].bundle, None);
    assert!(world.facts.live[0].is_cut());
    world.pass();
    world.wait(15);
    assert_eq!(world.pass().action, Action::Distrust);
    assert_eq!(world.keys(), 0);
}

#[test]
fn a_deleted_relationship_is_taken_up_though_no_bundle_can_be_delivered() {
    let bundle = bundle();
    let mut world = World::federated(&bundle, 1);
    world.facts.published = Err(Rejection::NoSigners);
    let standing = world.facts.clone();
    world.facts.live.clear();
    let taken_up = world.pass();
    assert_eq!(
        (taken_up.phase, taken_up.action),
        (Phase::Federated, Action::Relocate)
    );
    assert_eq!(world.facts.live[0].bundle, None);
    assert_eq!(world.pass().action, Action::Keep);
    // What can be delivered again is pushed: what SPIRE holds is not known.
    let mut healed = world.facts.clone();
    healed.published = Ok(publication(&bundle, 1));
    let pushed = decide(&context(), world.now, &[healed]).remove(0);
    assert_eq!(pushed.action, Action::Repair);
    assert_eq!(url(&pushed), "https://b.example/#0.1.0.2");
    // As is one that SPIRE's controller manager deletes since it is invalid now.
    world.facts = standing.clone();
    world.facts.live[0].bundle = Some("{}".to_owned());
    assert_eq!(world.pass().action, Action::Relocate);
    assert_eq!(world.facts.live[0].bundle, None);
    // What is revoked outranks that.
    world.facts = standing;
    world.facts.live.clear();
    world.revoke(&[key(&bundle)], "b.test");
    assert_eq!(world.pass().action, Action::Revoke);
    assert_eq!(world.keys(), 0);
}

#[test]
fn a_revoked_key_that_somebody_puts_back_is_taken_away_though_nothing_is_delivered() {
    let (bad, good) = (bundle(), bundle());
    let mut world = World::federated(&both(&bad, &good), 1);
    let before = world.facts.live[0].bundle.clone();
    world.facts.published = Err(Rejection::NoSigners);
    world.revoke(&[key(&bad)], "b.test");
    world.pass();
    assert_eq!(world.keys(), 1);
    world.facts.live[0].bundle = before;
    assert_eq!(world.pass().action, Action::Repair);
    assert_eq!(world.keys(), 1);
}

#[test]
fn an_edge_that_returns_while_it_drains_costs_nothing() {
    let mut world = World::federated(&bundle(), 1);
    world.facts.edge = None;
    let before = world.facts.memory.clone();
    let draining = world.decide();
    assert_eq!(draining.phase, Phase::Draining);
    world.facts.memory = Memory {
        was_federated: draining.memory.was_federated,
        ..before
    };
    world.facts.edge = Some(Consent::Given);
    let back = world.pass();
    assert_eq!((back.phase, back.action), (Phase::Federated, Action::Keep));
}

#[test]
fn a_revoked_key_is_filtered_at_once_and_the_endpoint_is_cut_until_it_was_seen_clean() {
    let (bad, good) = (bundle(), bundle());
    let all = both(&bad, &good);
    let mut world = World::federated(&all, 1);
    world.revoke(&[key(&bad)], "b.test");
    let revoked = world.pass();
    assert_eq!(
        (revoked.phase, revoked.action),
        (Phase::Federated, Action::Revoke)
    );
    assert_eq!(
        (world.keys(), world.url()),
        (1, "https://b.test.invalid/#0.1.1.0")
    );
    assert!(revoked.look_at_endpoint);
    // The endpoint is clean, but a poll may be under way for a minute.
    world.facts.endpoint = Some(good.clone());
    assert_eq!(world.pass().action, Action::Keep);
    world.facts.endpoint = Some(all.clone());
    world.now = revoked.wake.unwrap();
    let again = world.pass();
    assert_eq!(again.action, Action::Repair);
    assert_eq!(world.url(), "https://b.test.invalid/#0.1.1.1");
    assert_eq!(again.wake.unwrap(), world.now + POLL_IN_FLIGHT * 2);
    world.facts.endpoint = Some(good.clone());
    let clean = world.pass();
    assert_eq!(clean.action, Action::Reconnect);
    assert_eq!(
        (world.keys(), world.url()),
        (1, "https://b.example/#0.1.1.1")
    );
    assert_eq!(world.pass().action, Action::Keep);
    // The endpoint serves it again.
    world.facts.endpoint = Some(all.clone());
    assert_eq!(world.pass().action, Action::Repair);
    assert_eq!(
        (world.keys(), world.url()),
        (1, "https://b.test.invalid/#0.1.1.2")
    );

    // A newer bundle with the key in it is delivered without.
    world.facts.published = Ok(publication(&both(&all, &bundle()), 2));
    world.pass();
    assert_eq!(
        (world.keys(), world.url()),
        (2, "https://b.test.invalid/#0.2.1.0")
    );
    // Lifted.
    world.facts.revoked.clear();
    world.pass();
    assert_eq!(
        (world.keys(), world.url()),
        (3, "https://b.example/#0.2.2.0")
    );
}

#[test]
fn an_endpoint_that_serves_a_revoked_key_again_or_is_not_looked_at_is_cut_whatever_is_published() {
    let (bad, good) = (bundle(), bundle());
    let all = both(&bad, &good);
    let mut world = World::federated(&all, 1);
    world.revoke(&[key(&bad)], "b.test");
    let revoked = world.pass();
    world.facts.endpoint = Some(good);
    world.now = revoked.wake.unwrap();
    world.pass();
    assert!(!world.facts.live[0].is_cut());
    world.facts.published = Err(Rejection::NoSigners);
    let reconnected = world.facts.clone();
    assert_eq!(world.pass().action, Action::Keep);
    world.facts.endpoint = Some(all);
    assert_eq!(world.pass().action, Action::Repair);
    assert!(world.facts.live[0].is_cut());

    world.facts = reconnected;
    world.facts.edge = Some(Consent::Unknown {
        path: crate::model::repository::topology_path(),
    });
    let looked_at = world.pass();
    assert!(looked_at.look_at_endpoint && !world.facts.live[0].is_cut());
    world.facts.declaration = None;
    assert_eq!(world.pass().action, Action::Repair);
    assert!(world.facts.live[0].is_cut());
}

#[test]
fn a_revocation_needs_no_usable_publication_and_no_readable_topology() {
    let (bad, good) = (bundle(), bundle());
    for edge in [
        Some(Consent::Given),
        None,
        Some(Consent::Unknown {
            path: crate::model::repository::topology_path(),
        }),
    ] {
        let mut world = World::federated(&both(&bad, &good), 1);
        world.facts.edge = edge;
        world.facts.published = Err(Rejection::NoSigners);
        world.facts.declaration = None;
        world.revoke(&[key(&bad)], "a.test");
        assert_eq!(world.pass().action, Action::Revoke);
        assert_eq!(world.keys(), 1);
        assert_eq!(world.url(), "https://b.test.invalid/#0.1.1.0");
        assert_eq!(world.pass().action, Action::Keep);
    }
}

#[test]
fn all_keys_revoked_means_empty_at_once_before_draining() {
    let bundle = bundle();
    let mut world = World::federated(&bundle, 1);
    world.revoke(&[key(&bundle)], "b.test");
    let emptied = world.pass();
    assert_eq!(
        (emptied.phase, emptied.standing, emptied.action),
        (Phase::Draining, Standing::Leaving, Action::Revoke)
    );
    assert_eq!(world.keys(), 0);
    assert_eq!(world.pass().phase, Phase::Distrusted);
    // New keys bring the peer back, as one that was never ready.
    world.facts.probe = Probe::Unknown(String::new());
    world.facts.published = Ok(publication(&both(&bundle, &super::tests::bundle()), 2));
    let back = world.pass();
    assert_eq!((back.phase, back.action), (Phase::Seeding, Action::Push));
    assert_eq!(world.keys(), 1);
}

#[test]
fn a_first_bundle_waits_for_revocations_that_cannot_be_read() {
    let mut world = World::new(Ok(publication(&bundle(), 1)));
    let path = crate::model::repository::distrust_path(&peer());
    world.facts.distrust_unknown = Some(path.clone());
    let waiting = world.decide();
    assert_eq!(waiting.phase, Phase::Pending);
    assert!(matches!(
        waiting.judgement,
        Judgement::Refused(Refusal::DistrustUnknown(_))
    ));
    // Who has a memory goes by it.
    let mut world = World::federated(&bundle(), 1);
    world.facts.distrust_unknown = Some(path);
    world.facts.published = Ok(publication(&bundle(), 2));
    assert_eq!(world.decide().action, Action::Push);
}

#[test]
fn somebody_elses_relationship_is_left_alone() {
    let mut world = World::new(Err(Rejection::Unpublished));
    world.facts.edge = Some(Consent::Missing { moves: Vec::new() });
    world.facts.live = vec![LiveCftd {
        name: "by-hand".to_owned(),
        url: "https://b.example".to_owned(),
        bundle: None,
        record: None,
    }];
    world.revoke(&[key(&bundle())], "b.test");
    let state = world.decide();
    assert_eq!(
        (state.phase, state.cftd, state.delete),
        (Phase::Pending, None, None)
    );
}

/// A peer with a relationship that people made, and that a registration of theirs names.
fn made_by_hand(published: Result<Publication, Rejection>) -> World {
    let mut world = World::new(published);
    world.facts.live = vec![LiveCftd {
        name: "by-hand".to_owned(),
        url: "https://b.example".to_owned(),
        bundle: Some("what was pasted".to_owned()),
        record: None,
    }];
    world.facts.named.others = vec!["frontend".to_owned()];
    world
}

#[test]
fn what_people_made_by_hand_is_adopted_without_a_gap() {
    // Nothing published yet: the relationship is left alone, and its registrations stay.
    let mut world = made_by_hand(Err(Rejection::Unpublished));
    let waiting = world.pass();
    assert_eq!(
        (waiting.phase, waiting.cftd.as_ref()),
        (Phase::Pending, None)
    );
    assert_eq!(waiting.standing, Standing::Ready);
    // They are applied by the agent from now on.
    std::mem::swap(&mut world.facts.named.ours, &mut world.facts.named.others);
    assert_eq!(world.pass().standing, Standing::Ready);

    // The first bundle comes in one write with the address, under the name that is there.
    let bundle = bundle();
    world.facts.published = Ok(publication(&bundle, 1));
    let adopted = world.decide();
    assert_eq!(adopted.action, Action::FirstUse);
    let cftd = adopted.cftd.as_ref().unwrap();
    assert_eq!(cftd["metadata"]["name"], "by-hand");
    assert!(cftd["spec"]["trustDomainBundle"].is_string());
    assert_eq!(url(&adopted), "https://b.example/#0.1.0.0");
    for _ in 0..3 {
        let state = world.pass();
        assert_eq!(
            (state.phase, state.standing),
            (Phase::Federated, Standing::Ready)
        );
    }
}

#[test]
fn an_adopted_peer_is_not_held_back_though_the_overlay_is_not_applied_yet() {
    let mut world = made_by_hand(Ok(publication(&bundle(), 1)));
    // The probe has not said anything, and the registrations are still others'.
    for _ in 0..3 {
        let state = world.pass();
        assert_eq!(
            (state.phase, state.standing),
            (Phase::Federated, Standing::Ready)
        );
    }
    // As much is a relationship in the configuration of SPIRE's server, of which entries tell.
    let mut configured = made_by_hand(Ok(publication(&bundle(), 1)));
    configured.facts.live.clear();
    assert_eq!(configured.decide().standing, Standing::HeldBack);
    configured.facts.named.proven = true;
    for _ in 0..3 {
        assert_eq!(configured.pass().standing, Standing::Ready);
    }
    // But what SPIRE refuses for long is not believed for the sake of that.
    world.facts.probe = Probe::Refused(String::new());
    world.pass();
    world.wait(31);
    assert_eq!(world.pass().standing, Standing::HeldBack);
}

#[test]
fn a_relationship_by_hand_that_nobody_uses_proves_nothing_and_needs_both_consents() {
    let mut unused = made_by_hand(Ok(publication(&bundle(), 1)));
    unused.facts.named.others.clear();
    assert_eq!(unused.pass().standing, Standing::HeldBack);
    let mut refused = made_by_hand(Err(Rejection::Unpublished));
    refused.facts.edge = Some(Consent::Missing { moves: Vec::new() });
    let state = refused.pass();
    assert_eq!((state.standing, state.cftd), (Standing::HeldBack, None));
}

#[test]
fn all_bundles_together_stay_below_what_spire_can_carry() {
    let bundle = bundle();
    let one = bundle.clone().with_refresh_hint(None).canonical().len();
    let many = MAX_TOTAL_BYTES / one + 1;
    let facts: Vec<_> = (0..many)
        .map(|number| Facts {
            peer: TrustDomain::parse(&format!("p{number}.test")).unwrap(),
            ..World::new(Ok(publication(&bundle, 1))).facts
        })
        .collect();
    let states = decide(&context(), start(), &facts);
    let refused = states
        .iter()
        .filter(|state| matches!(state.judgement, Judgement::Refused(Refusal::TooMuch(_))));
    assert_eq!(refused.count(), 1);
}

#[test]
fn a_git_that_is_slower_than_rotation_is_told() {
    let told = |seconds: i64| {
        let mut world = World::federated(&bundle(), 1);
        let mut newer = publication(&bundle(), 2);
        // The sample's roots live for thousands of years.
        newer.attestation.issued_at = world.now - SignedDuration::from_secs(seconds);
        world.facts.published = Ok(newer);
        world.pass();
        let state = world.pass();
        let told = state
            .conditions
            .iter()
            .any(|it| it.kind == "DeliveredInTime");
        (state.memory.lag.unwrap().as_secs(), told)
    };
    assert_eq!(told(3600), (3600, false));
    let life = bundle().shortest_life().unwrap().as_secs();
    assert_eq!(told(life / 3 + 1), (life / 3 + 1, true));
}
