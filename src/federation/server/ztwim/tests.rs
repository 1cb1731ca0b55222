use jiff::Timestamp;

use super::*;
use crate::model::declaration::{Distribution, Server};

const HOST: &str = "federation.a.test";

fn members_of(object: Value) -> serde_json::Map<String, Value> {
    serde_json::from_value(object).unwrap()
}

/// What a declaration says, as a fragment of `bundleEndpoint`.
fn wanted(endpoint: Value) -> Wanted {
    let mut declared = json!({
        "profile": "https_spiffe",
        "url": format!("https://{HOST}"),
        "spiffeID": "spiffe://a.test/spire/server",
        "expose": "route",
        "manage": true,
        "acceptIrreversible": true,
    });
    let members = declared.as_object_mut().unwrap();
    members.extend(members_of(endpoint));
    Wanted {
        trust_domain: TrustDomain::parse("a.test").unwrap(),
        installation: installation(),
        endpoint: serde_json::from_value(declared).unwrap(),
        static_peers: None,
        tls_route: None,
    }
}

fn installation() -> Installation {
    Installation {
        distribution: Distribution::Ztwim,
        namespace: "ztwim".to_owned(),
        server: Server::default(),
    }
}

fn peers(number: usize) -> std::collections::BTreeMap<TrustDomain, ServedEndpoint> {
    let names = (0..number).map(|number| TrustDomain::parse(&format!("p{number}.test")).unwrap());
    names
        .map(|name| {
            let endpoint = json!({
                "profile": "https_spiffe",
                "url": format!("https://federation.{name}"),
                "spiffeID": format!("spiffe://{name}/spire/server"),
            });
            (name, serde_json::from_value(endpoint).unwrap())
        })
        .collect()
}

/// A cluster: the definition, `SpireServer` with such a `spec.federation`, and further objects.
fn live(knows_federation: bool, server: Value, others: &[Value]) -> Live {
    let mut spec = json!({"jwtIssuer": {}});
    if knows_federation {
        spec["federation"] = json!({"type": "object"});
    }
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "spireservers.operator.openshift.io"},
        "spec": {"versions": [{
            "name": "v1alpha1",
            "served": true,
            "schema": {"openAPIV3Schema": {"properties": {"spec": {"properties": spec}}}},
        }]},
    });
    let mut object = objects::bare(&spire_server());
    object.as_object_mut().unwrap().extend(members_of(server));
    object["metadata"]["name"] = json!("cluster");
    let mut live = Live::default();
    for object in [definition, object].iter().chain(others) {
        live.insert(&ObjectRef::of(object).unwrap(), object.clone());
    }
    live
}

fn decide(wanted: &Wanted, live: &Live) -> Decision {
    decide_after(&Memory::default(), wanted, live)
}

fn decide_after(memory: &Memory, wanted: &Wanted, live: &Live) -> Decision {
    let facts = Facts {
        wanted: Some(wanted),
        live,
        memory,
        accept_data_loss: false,
        now: Timestamp::UNIX_EPOCH,
    };
    manage(&facts, wanted)
}

/// Reason of each condition, and what is written.
fn summary(decision: &Decision) -> (Vec<&'static str>, Vec<Value>) {
    let told = decision.conditions.iter().map(|it| it.reason).collect();
    let writes = decision.steps.iter();
    let writes = writes.map(|step| match &step.write {
        Write::Apply(object) => object["spec"]["federation"].clone(),
        other => panic!("{other:?}"),
    });
    (told, writes.collect())
}

fn message(decision: &Decision, kind: &str) -> String {
    let mut told = decision.conditions.iter();
    told.find(|it| it.kind == kind).unwrap().message.clone()
}

fn operators_route(host: &str) -> Value {
    let mut object = objects::bare(&route(&installation()));
    object["spec"] = json!({"host": host});
    object
}

#[test]
fn from_nothing_the_one_field_is_set_and_said_to_stay() {
    let live = live(true, json!({"spec": {}}), &[]);
    let decision = decide(&wanted(json!({"refreshHint": 60})), &live);
    let expected = json!({
        "bundleEndpoint": {"profile": "https_spiffe", "refreshHint": 60},
        "managedRoute": "true",
    });
    assert_eq!(
        summary(&decision),
        (vec!["Configured", "Awaited"], vec![expected])
    );
    assert!(decision.steps[0].restarts);

    let refused = decide(&wanted(json!({"acceptIrreversible": false})), &live);
    assert_eq!(summary(&refused), (vec!["Irreversible", "Awaited"], vec![]));
    let said = message(&refused, SERVER_CONFIGURED);
    assert!(said.contains("acceptIrreversible: true"), "{said}");
}

#[test]
fn what_is_as_declared_is_not_written() {
    let federation = json!({
        "bundleEndpoint": {"profile": "https_spiffe", "refreshHint": 300},
        "managedRoute": "true",
    });
    let live = live(
        true,
        json!({"spec": {"federation": federation}}),
        &[operators_route(HOST)],
    );
    // Nothing new is asked for, so there is nothing to accept.
    let decision = decide(&wanted(json!({"acceptIrreversible": false})), &live);
    assert_eq!(summary(&decision), (vec!["Configured", "Exposed"], vec![]));
}

#[test]
fn what_the_operator_refuses_is_not_tried() {
    let set = |endpoint: Value| json!({"spec": {"federation": {"bundleEndpoint": endpoint}}});
    let spiffe = set(json!({"profile": "https_spiffe"}));
    let web = json!({"profile": "https_web", "spiffeID": null});
    let frozen = json!({
        "spec": {},
        "status": {"conditions": [{"type": "CreateOnlyMode", "status": "True"}]},
    });
    for (declared, server, reason) in [
        (web.clone(), spiffe.clone(), "ProfileImmutable"),
        (web.clone(), json!({"spec": {}}), "NoCertificate"),
        (json!({"port": 9443}), json!({"spec": {}}), "PortFixed"),
        (json!({}), frozen, "CreateOnlyMode"),
    ] {
        let decision = decide(&wanted(declared.clone()), &live(true, server, &[]));
        assert_eq!(decision.conditions[0].reason, reason, "{declared}");
        assert_eq!(decision.steps, [], "{declared}");
    }
    let with_certificate = set(json!({"profile": "https_web", "httpsWeb": {"servingCert": {}}}));
    let decision = decide(&wanted(web), &live(true, with_certificate, &[]));
    assert_eq!(decision.conditions[0].reason, "Configured");
}

#[test]
fn peers_are_written_only_if_that_is_declared_and_no_more_than_fit() {
    let federation = json!({"bundleEndpoint": {"profile": "https_spiffe"}, "managedRoute": "true"});
    let live = live(
        true,
        json!({"spec": {"federation": federation}}),
        &[operators_route(HOST)],
    );
    let mut declared = wanted(json!({}));
    declared.static_peers = Some(peers(1));
    let decision = decide(&declared, &live);
    let (_, writes) = summary(&decision);
    assert_eq!(
        writes[0]["federatesWith"],
        json!([{
            "trustDomain": "p0.test",
            "bundleEndpointUrl": "https://federation.p0.test",
            "bundleEndpointProfile": "https_spiffe",
            "endpointSpiffeId": "spiffe://p0.test/spire/server",
        }])
    );
    assert_eq!(decision.memory.static_names, ["p0.test"]);

    declared.static_peers = Some(peers(51));
    let decision = decide(&declared, &live);
    assert_eq!(
        summary(&decision),
        (vec!["TooManyPeers", "Exposed"], vec![])
    );
}

#[test]
fn peers_that_are_no_longer_declared_are_given_up() {
    let owned = json!([{
        "manager": "trustweave",
        "operation": "Apply",
        "fieldsV1": {"f:spec": {"f:federation": {"f:federatesWith": {}}}},
    }]);
    let federation = json!({
        "bundleEndpoint": {"profile": "https_spiffe"},
        "federatesWith": [{"trustDomain": "p0.test"}],
        "managedRoute": "true",
    });
    let server = json!({
        "metadata": {"managedFields": owned},
        "spec": {"federation": federation},
    });
    let decision = decide(
        &wanted(json!({})),
        &live(true, server, &[operators_route(HOST)]),
    );
    let (_, writes) = summary(&decision);
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0].get("federatesWith"), None);

    // Somebody else's stay.
    let server = json!({"spec": {"federation": federation}});
    let decision = decide(
        &wanted(json!({})),
        &live(true, server, &[operators_route(HOST)]),
    );
    let told = vec!["Shadowed", "Configured", "Exposed"];
    assert_eq!(summary(&decision), (told, vec![]));
    assert_eq!(decision.memory.static_names, ["p0.test"]);
}

#[test]
fn a_route_that_moved_is_told_with_its_repair() {
    let federation = json!({"bundleEndpoint": {"profile": "https_spiffe"}, "managedRoute": "true"});
    let server = json!({"spec": {"federation": federation}});
    let declared = wanted(json!({"url": "https://by-hand.example.org"}));
    let decision = decide(
        &declared,
        &live(true, server.clone(), &[operators_route(HOST)]),
    );
    assert_eq!(
        summary(&decision),
        (vec!["Configured", "RouteMoved"], vec![])
    );
    let said = message(&decision, ENDPOINT_EXPOSED);
    for part in [
        "trust-domains/a.test/trust-domain.yaml",
        "to https://federation.a.test",
        "told https://by-hand.example.org",
    ] {
        assert!(said.contains(part), "{said}");
    }
    // Repaired.
    let decision = decide(
        &wanted(json!({})),
        &live(true, server, &[operators_route(HOST)]),
    );
    assert_eq!(summary(&decision), (vec!["Configured", "Exposed"], vec![]));
}

#[test]
fn another_host_gets_a_route_of_the_agents_own() {
    let declared = wanted(json!({"url": "https://by-hand.example.org"}));
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "spire-server", "namespace": "ztwim"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}},
    });
    let live = live(true, json!({"spec": {}}), &[set]);
    let decision = decide(&declared, &live);
    let written: Vec<_> = decision
        .steps
        .iter()
        .map(|step| match &step.write {
            Write::Apply(object) => format!("{}", ObjectRef::of(object).unwrap()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        written,
        [
            "SpireServer.operator.openshift.io cluster",
            "Service ztwim/spire-server-federation",
            "Route.route.openshift.io ztwim/spire-server-federation",
        ]
    );
    let Write::Apply(server) = &decision.steps[0].write else {
        panic!("{decision:?}");
    };
    assert_eq!(server["spec"]["federation"]["managedRoute"], "false");
}

#[test]
fn before_federation_nothing_is_written_against_the_operator() {
    let decision = decide(&wanted(json!({})), &live(false, json!({"spec": {}}), &[]));
    assert_eq!(summary(&decision), (vec!["OperatorWouldUndo"], vec![]));
    let said = message(&decision, SERVER_CONFIGURED);
    assert!(said.contains(CREATE_ONLY) && said.contains(PRICE), "{said}");

    // Then it is the way of the objects; here there are none.
    let frozen = json!({"metadata": {"annotations": {CREATE_ONLY: "true"}}, "spec": {}});
    let decision = decide(&wanted(json!({})), &live(false, frozen, &[]));
    assert_eq!(decision.conditions[0].reason, "NotFound");
}

#[test]
fn only_what_the_version_needs_is_read() {
    let names = |live: &Live| -> Vec<String> {
        let wanted = wanted(json!({}));
        let references = reads(&installation(), Some(&wanted), live);
        references.iter().map(|it| it.gvk.kind.clone()).collect()
    };
    assert_eq!(
        names(&Live::default()),
        ["CustomResourceDefinition", "SpireServer"]
    );
    let with = live(true, json!({"spec": {}}), &[]);
    assert_eq!(
        names(&with),
        ["CustomResourceDefinition", "SpireServer", "Route"]
    );
    let without = live(false, json!({"spec": {}}), &[]);
    assert!(names(&without).contains(&"StatefulSet".to_owned()));
}

#[test]
fn what_an_upgrade_took_back_is_no_fight() {
    let mut memory = Memory::default();
    let digest = crate::model::bundle::Digest::of(b"by hand");
    memory.wrote(Piece::Configuration, digest.clone(), None);
    memory.wrote(Piece::Workload, digest, None);
    let decision = decide_after(
        &memory,
        &wanted(json!({})),
        &live(true, json!({"spec": {}}), &[]),
    );
    assert_eq!(decision.memory.written.len(), 0);
    assert_eq!(decision.steps.len(), 1);
}

#[test]
fn an_annotation_of_the_former_operator_holds_nothing_up() {
    let annotated = json!({"metadata": {"annotations": {CREATE_ONLY: "true"}}, "spec": {}});
    let decision = decide(&wanted(json!({})), &live(true, annotated, &[]));
    assert_eq!(decision.conditions[0].reason, "Configured");
}

#[test]
fn what_can_be_given_back_is_and_the_rest_is_told() {
    let owned = json!([{
        "manager": "trustweave",
        "operation": "Apply",
        "fieldsV1": {"f:spec": {"f:federation": {"f:federatesWith": {}, "f:managedRoute": {}}}},
    }]);
    let server = json!({
        "metadata": {"managedFields": owned},
        "spec": {"federation": {
            "bundleEndpoint": {"profile": "https_spiffe", "refreshHint": 60},
            "federatesWith": [{"trustDomain": "p0.test"}],
            "managedRoute": "true",
        }},
    });
    let live = live(true, server, &[]);
    let mut memory = Memory {
        installation: Some(installation()),
        ..Memory::default()
    };
    memory.wrote(
        Piece::Operator,
        crate::model::bundle::Digest::of(b"x"),
        None,
    );
    let given_back = |memory: &Memory| {
        let facts = Facts {
            wanted: None,
            live: &live,
            memory,
            accept_data_loss: false,
            now: Timestamp::UNIX_EPOCH,
        };
        release(&facts, &installation())
    };
    let decision = given_back(&memory);
    let rest = json!({"bundleEndpoint": {"profile": "https_spiffe"}, "managedRoute": "true"});
    assert_eq!(summary(&decision), (vec!["Irreversible"], vec![rest]));
}
