use serde_json::json;

use super::*;
use crate::{
    federation::checkup::tests::{importer, peer, peer_bundle},
    model::{
        attestation::{Attestation, KIND, Rejection, Serial},
        bundle::sample,
        declaration::API_VERSION,
        declarations::Declarations,
    },
};

/// Two clusters, and `a.test` trusts `b.test`.
struct World {
    clusters: Vec<ClusterFacts>,
    repository: RepositoryFacts,
}

fn name(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

fn world() -> World {
    let spec = |consent: Value| {
        let declaration = json!({
            "clusters": [], "signers": [], "bundleEndpoint": {
                "profile": "https_spiffe", "url": "https://federation.b.test",
                "spiffeID": "spiffe://b.test/spire/server",
            },
            "spire": {"distribution": "custom", "namespace": "s", "className": "c"},
            "consent": consent,
        });
        serde_json::from_value(declaration).unwrap()
    };
    let edges = json!({"edges": [{"from": "a.test", "to": "b.test"}]});
    let declarations = Declarations {
        topology: serde_json::from_value(edges).unwrap(),
        trust_domains: [
            (name("a.test"), spec(json!({"import": ["b.test"]}))),
            (name("b.test"), spec(json!({"export": ["a.test"]}))),
        ]
        .into(),
        ..Declarations::default()
    };
    let mut one = importer();
    one.trust_peers[0]["status"] = json!({
        "phase": "Federated", "version": "0.7", "lastDelivered": "2026-01-01T00:00:02Z",
        "conditions": [{
            "type": "Confirmed", "status": "True", "message": "a workload holds exactly the delivered roots",
            "lastTransitionTime": "2026-01-01T00:00:03Z",
        }],
    });
    World {
        clusters: vec![one, peer()],
        repository: RepositoryFacts {
            now: one_second(),
            declarations,
            diagnostics: Vec::new(),
            publications: [(name("b.test"), Ok(publication(peer_bundle())))].into(),
        },
    }
}

fn one_second() -> Timestamp {
    "2026-01-01T00:00:01Z".parse().unwrap()
}

fn publication(bundle: Bundle) -> Publication {
    Publication {
        attestation: Attestation {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            trust_domain: name("b.test"),
            epoch: 0,
            serial: Serial(7),
            sha256: bundle.digest(),
            spiffe_sequence: bundle.sequence,
            endpoint: BundleEndpoint::None,
            cluster_uid: String::new(),
            issued_at: one_second(),
        },
        bundle,
    }
}

/// Changes a world that is well: which claims no longer hold (`-`) or are not seen (`?`), and whether the
/// whole does.
#[track_caller]
fn check(change: impl FnOnce(&mut World), expected: &str, holds: bool) -> Proof {
    let mut world = world();
    change(&mut world);
    let mut proofs = prove(&world.clusters, &world.repository);
    assert_eq!(proofs.len(), 1, "{proofs:#?}");
    let proof = proofs.remove(0);
    let steps = proof.steps.iter().filter_map(|step| {
        let sign = match &step.evidence {
            Evidence::For(_) => return None,
            Evidence::Against(_) => '-',
            Evidence::Missing(_) => '?',
        };
        Some(format!("{sign}{}", step.claim.id()))
    });
    let steps: Vec<String> = steps.collect();
    assert_eq!(steps.join(" "), expected, "{proof:#?}");
    assert_eq!(proof.holds(false), holds, "{proof:#?}");
    proof
}

#[test]
fn a_federation_that_works_is_proven_with_its_timeline() {
    let proof = check(|_| {}, "", true);
    assert!(!proof.is_by_git_alone());
    assert_eq!(proof.version.as_deref(), Some("0.7"));
    let whats: Vec<&str> = proof.events.iter().map(|it| it.what.as_str()).collect();
    let [.., signed, delivered, held] = whats.as_slice() else {
        panic!("{whats:?}");
    };
    assert_eq!(*signed, "b.test signs 0.7");
    assert_eq!(*delivered, "cluster-1 hands 0.7 to SPIRE");
    assert_eq!(*held, "a workload of cluster-1 holds what was handed over");
}

#[test]
fn git_proves_it_without_the_endpoint() {
    let cut = |world: &mut World| {
        let silence = Silence::Unreachable("no route".to_owned());
        let answers = &mut world.clusters[0].answers;
        answers.insert("b".to_owned(), Err(silence));
    };
    let proof = check(cut, "-served", true);
    assert!(proof.is_by_git_alone());
    // SPIRE's own keys, where its cluster is not seen, only the endpoint can show.
    let alone = |world: &mut World| drop(world.clusters.pop());
    check(alone, "", true);
    let neither = |world: &mut World| {
        cut(world);
        alone(world);
    };
    check(neither, "?published -served", false);
}

#[test]
fn whatever_is_missing_keeps_it_from_being_proven() {
    let unsigned = |world: &mut World| {
        let publications = &mut world.repository.publications;
        publications.insert(name("b.test"), Err(Rejection::Unpublished));
    };
    check(unsigned, "-published -delivered -read-back -served", false);
    // Its SPIRE has rotated, and nothing of that was published.
    let stale = |world: &mut World| {
        let publications = &mut world.repository.publications;
        publications.insert(name("b.test"), Ok(publication(sample("b.test"))));
    };
    check(stale, "-published -delivered -served", false);
    let unrelated = |world: &mut World| world.clusters[0].objects.relationships.clear();
    check(unrelated, "-delivered ?served", false);
    let emptied = |world: &mut World| {
        let spec = &mut world.clusters[0].objects.relationships[0]["spec"];
        spec["trustDomainBundle"] = "{\"keys\": []}".into();
    };
    check(emptied, "-delivered", false);
    let unnamed = |world: &mut World| {
        world.clusters[0].objects.registrations[0]["spec"]["federatesWith"] = json!([]);
    };
    check(unnamed, "-named", false);
    let refused = |world: &mut World| {
        let stats = &mut world.clusters[0].objects.registrations[0]["status"]["stats"];
        stats["entryFailures"] = 1.into();
    };
    check(refused, "-named", false);
    let unseen = |world: &mut World| world.clusters[0].trust_peers.clear();
    let proof = check(unseen, "?read-back", false);
    assert!(proof.holds(true));
    let older = |world: &mut World| {
        world.clusters[0].trust_peers[0]["status"]["version"] = "0.6".into();
    };
    check(older, "-read-back", false);
}

#[test]
fn only_active_directions_are_proven() {
    let mut world = world();
    let declarations = &mut world.repository.declarations;
    let exporter = declarations.trust_domains.get_mut(&name("b.test")).unwrap();
    exporter.consent.export.clear();
    assert_eq!(prove(&world.clusters, &world.repository), []);
}
