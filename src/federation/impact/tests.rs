//! What people are told about changes of the declarations.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::model::declaration::Consent as Lists;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA4qpBnwTjqK3UPDXP2c7Zzj+c9jQOTFZjLwOaQfbOZr";

fn name(text: &str) -> TrustDomain {
    TrustDomain::parse(text).unwrap()
}

fn spec(cluster: &str, consent: &[&str]) -> TrustDomainSpec {
    let lists = Lists {
        import: consent.iter().map(|peer| name(peer)).collect(),
        export: consent.iter().map(|peer| name(peer)).collect(),
    };
    serde_json::from_value(json!({
        "clusters": [{"name": cluster}], "signers": [], "bundleEndpoint": "none",
        "spire": {"distribution": "custom", "namespace": "s", "className": "c"},
        "consent": lists,
    }))
    .unwrap()
}

/// `a.test` and `b.test`, with an edge from `b.test` to `a.test` that both agree to.
fn declarations() -> Declarations {
    let edges = json!({"edges": [{"from": "b.test", "to": "a.test"}]});
    Declarations {
        topology: serde_json::from_value(edges).unwrap(),
        trust_domains: BTreeMap::from([
            (name("a.test"), spec("cluster-1", &["b.test"])),
            (name("b.test"), spec("cluster-2", &["a.test"])),
        ]),
        ..Declarations::default()
    }
}

fn check(change: impl Fn(&mut Declarations), forth: &[&str], back: &[&str]) {
    let before = declarations();
    let mut after = before.clone();
    change(&mut after);
    let words = |a: &Declarations, b: &Declarations| -> Vec<String> {
        impact(a, b, &Bundles::default())
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(words(&before, &after), forth);
    assert_eq!(words(&after, &before), back);
    assert_eq!(words(&after, &after), [""; 0]);
}

fn own<'a>(declarations: &'a mut Declarations, of: &str) -> &'a mut TrustDomainSpec {
    declarations.trust_domains.get_mut(&name(of)).unwrap()
}

#[test]
fn edges_begin_and_end() {
    check(
        |after| after.topology.edges.clear(),
        &[
            "b.test: the workloads of cluster-2 will no longer trust a.test: the topology does not \
           ask for it any more",
        ],
        &["b.test: the workloads of cluster-2 will trust a.test"],
    );
    check(
        |after| own(after, "a.test").consent.export.clear(),
        &[
            "b.test: the workloads of cluster-2 will no longer trust a.test: a consent is withdrawn; to \
           agree again, the owners of a.test must add b.test to consent.export",
        ],
        &["b.test: the workloads of cluster-2 will trust a.test"],
    );
    check(
        |after| drop(after.trust_domains.remove(&name("a.test"))),
        &[
            "a.test is no longer declared: cluster-1 will give up every peer, and keep the overlay's objects",
            "b.test: the workloads of cluster-2 will go on trusting a.test as before: \
             trust-domains/a.test/trust-domain.yaml can't be used",
        ],
        &[
            "a.test is new, on cluster-1; no key may sign its bundles yet; it has no bundle endpoint",
            "b.test: the workloads of cluster-2 will trust a.test",
        ],
    );
}

#[test]
fn an_edge_without_consent_says_whose_move_it_is() {
    check(
        |after| {
            let edge = json!({"from": "a.test", "to": "b.test"});
            after
                .topology
                .edges
                .push(serde_json::from_value(edge).unwrap());
            own(after, "a.test").consent.import.clear();
        },
        &[
            "a.test: the workloads of cluster-1 will not trust b.test yet: \
           the owners of a.test must add b.test to consent.import",
        ],
        &[
            "a.test: the workloads of cluster-1 will not come to trust b.test: \
           the topology does not ask for it any more",
        ],
    );
}

#[test]
fn what_decides_about_bundles_is_told() {
    let fingerprint = Signer::parse(KEY).unwrap().fingerprint();
    check(
        |after| {
            let key = Signer::parse(KEY).unwrap();
            own(after, "a.test").signers.push(key);
        },
        &[&format!(
            "a.test: its bundles may also be signed by {fingerprint} (trusted by b.test)"
        )],
        &[&format!(
            "a.test: its bundles may no longer be signed by {fingerprint} (trusted by b.test)"
        )],
    );
    check(
        |after| own(after, "b.test").epoch = 1,
        &["b.test: its epoch goes from 0 to 1: its serials start again (nobody trusts it yet)"],
        &["b.test: its epoch goes back from 1 to 0: \
           peers that saw the later one accept nothing (nobody trusts it yet)"],
    );
    let served = json!({
        "profile": "https_spiffe", "url": "https://a.test", "spiffeID": "spiffe://a.test/x",
    });
    check(
        |after| {
            let served = serde_json::from_value(served.clone()).unwrap();
            own(after, "a.test").bundle_endpoint = served;
        },
        &["a.test: its bundle endpoint was none, and will be \
           https://a.test (profile https_spiffe, SPIFFE ID spiffe://a.test/x) (trusted by b.test)"],
        &[
            "a.test: its bundle endpoint was https://a.test (profile https_spiffe, SPIFFE ID \
           spiffe://a.test/x), and will be none (trusted by b.test)",
        ],
    );
}

#[test]
fn what_is_done_to_spire_servers_is_told_and_what_stays_of_it() {
    let manage = |distribution: &'static str, accept: bool| {
        move |after: &mut Declarations| {
            let spec = own(after, "a.test");
            spec.spire.distribution = serde_json::from_value(json!(distribution)).unwrap();
            let served = json!({
                "profile": "https_spiffe", "url": "https://a.test", "manage": true,
                "acceptIrreversible": accept,
            });
            spec.bundle_endpoint = serde_json::from_value(served).unwrap();
        }
    };
    let told = |distribution, accept| -> (String, String) {
        let before = declarations();
        let mut after = before.clone();
        manage(distribution, accept)(&mut after);
        let last = |a: &Declarations, b: &Declarations| {
            let changes = impact(a, b, &Bundles::default());
            changes.last().unwrap().to_string()
        };
        (last(&before, &after), last(&after, &before))
    };
    let begin = "a.test: the SPIRE server of cluster-1 will";
    assert_eq!(
        told("custom", false),
        (
            format!("{begin} be configured to serve its bundle, and restarted for that"),
            format!(
                "{begin} no longer be managed: what was there before comes back, with a restart"
            ),
        )
    );
    let stays = format!(
        "{begin} no longer be managed, but `spec.federation` of its SpireServer stays: its \
         operator lets nobody remove it"
    );
    assert_eq!(
        told("ztwim", true),
        (
            format!(
                "{begin} serve its bundle by `spec.federation` of its SpireServer, which can't be \
                 taken back: once that is set, nobody can remove it, nor change its profile, \
                 https_spiffe"
            ),
            stays.clone(),
        )
    );
    assert_eq!(
        told("ztwim", false),
        (
            format!(
                "{begin} be managed, but `spec.federation` of its SpireServer can't be taken \
                 back: it is set only with `acceptIrreversible: true`"
            ),
            stays,
        )
    );
}

#[test]
fn a_managed_server_is_restarted_for_its_configuration_alone() {
    let managed = |more: Value| {
        let mut served = json!({
            "profile": "https_spiffe", "url": "https://a.test", "manage": true,
            "expose": "route",
        });
        let members = more.as_object().unwrap().clone();
        served.as_object_mut().unwrap().extend(members);
        let mut declarations = declarations();
        let endpoint = serde_json::from_value(served).unwrap();
        own(&mut declarations, "a.test").bundle_endpoint = endpoint;
        declarations
    };
    let check = |more: Value, expected: &[&str]| {
        let changes = impact(&managed(json!({})), &managed(more), &Bundles::default());
        let changes = changes.iter().map(ToString::to_string);
        let told: Vec<_> = changes.filter(|it| it.contains("SPIRE server")).collect();
        assert_eq!(told, expected);
    };
    let restarted = "a.test: the SPIRE server of cluster-1 will be reconfigured and restarted";
    check(json!({}), &[]);
    check(json!({"port": 9443}), &[restarted]);
    check(json!({"refreshHint": 60}), &[restarted]);
    check(json!({"staticFederatesWith": true}), &[restarted]);
    check(
        json!({"expose": "none"}),
        &["a.test: the SPIRE server of cluster-1 will be exposed otherwise, without a restart"],
    );
    check(json!({"acceptDataLoss": true}), &[]);
}

#[test]
fn clusters_join_and_leave() {
    check(
        |after| {
            let cluster = json!({"name": "cluster-3", "publisher": true});
            let cluster = serde_json::from_value(cluster).unwrap();
            own(after, "b.test").clusters.push(cluster);
        },
        &[
            "b.test: cluster-3 will publish its bundle, instead of cluster-2",
            "b.test: new in it: cluster-3, which will trust a.test",
        ],
        &[
            "b.test: cluster-2 will publish its bundle, instead of cluster-3",
            "b.test: no longer in it: cluster-3, \
             which will give up every peer, and keep the overlay's objects",
        ],
    );
}

#[test]
fn an_unreadable_topology_says_nothing_about_edges() {
    check(
        |after| {
            after.topology.edges.clear();
            after.topology_unknown = true;
        },
        &[],
        &[],
    );
}

#[test]
fn a_change_has_a_form_for_programs() {
    let before = declarations();
    let mut after = before.clone();
    own(&mut after, "a.test").consent.export.clear();
    let changes: Vec<Value> = impact(&before, &after, &Bundles::default())
        .iter()
        .map(|change| json!(change))
        .collect();
    let waiting = "the owners of `a.test` must add `b.test` to consent.export";
    assert_eq!(
        changes,
        [json!({
            "kind": "edge", "importer": "b.test", "exporter": "a.test",
            "clusters": ["cluster-2"],
            "before": {"state": "active"},
            "after": {"state": "waiting", "moves": [waiting]},
            "keys": [],
        })]
    );
}
