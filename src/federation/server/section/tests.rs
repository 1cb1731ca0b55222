use serde_json::json;

use super::*;
use crate::federation::server::tests::wanted;

fn check(current: &Value, more: &Value, expected: &Value) {
    let found = target(Some(current), &wanted(more), Statically::Standing).unwrap();
    assert_eq!(found, *expected, "{current}");
    // Once written, it stays.
    let again = target(Some(&found), &wanted(more), Statically::Standing).unwrap();
    assert_eq!(again, found);
}

#[test]
fn what_is_missing_is_added_and_the_rest_stays() {
    let full = json!({
        "address": "0.0.0.0", "port": 8443, "refresh_hint": "5m", "profile": [{"https_spiffe": {}}],
    });
    let found = target(None, &wanted(&json!({})), Statically::Standing).unwrap();
    assert_eq!(
        found.to_string(),
        json!({"bundle_endpoint": full}).to_string()
    );

    // The seed's own: no profile, no hint.
    let seed = json!({
        "bundle_endpoint": {"port": 8443, "address": "0.0.0.0"},
        "federates_with": {"b.test": {}},
        "unknown": 1,
    });
    let found = target(Some(&seed), &wanted(&json!({})), Statically::Standing).unwrap();
    assert_eq!(
        found.to_string(),
        json!({
            "bundle_endpoint": {
                "port": 8443, "address": "0.0.0.0", "refresh_hint": "5m",
                "profile": [{"https_spiffe": {}}],
            },
            "federates_with": {"b.test": {}},
            "unknown": 1,
        })
        .to_string()
    );
}

#[test]
fn what_means_the_same_is_left_as_it_is_written() {
    let hint = json!({"refreshHint": 300});
    for standing in [
        json!({"address": "0.0.0.0", "port": 8443, "refresh_hint": "5m0s", "profile": {"https_spiffe": {}}}),
        json!({"address": "::", "port": "8443", "refresh_hint": "300s", "profile": [{"https_spiffe": [{}]}]}),
        json!([{"address": "10.1.2.3", "port": 8443, "refresh_hint": "0.5m4.5m", "profile": [{"https_spiffe": {}}], "x": 1}]),
    ] {
        let section = json!({"bundle_endpoint": standing});
        check(&section, &hint, &section);
        let list = json!([section]);
        check(&list, &hint, &list);
    }
}

#[test]
fn what_means_something_else_is_set() {
    let section = |port: Value, hint: &str, profile: Value, address: &str| {
        json!({"bundle_endpoint": {
            "port": port, "refresh_hint": hint, "profile": profile, "address": address,
        }})
    };
    let spiffe = || json!([{"https_spiffe": {}}]);
    check(
        &section(
            json!(1),
            "6m",
            json!({"https_web": {"acme": {}}}),
            "127.0.0.1",
        ),
        &json!({"refreshHint": 300, "port": 9443}),
        &section(json!(9443), "300s", spiffe(), "0.0.0.0"),
    );
    // What is not declared is not touched, unless SPIRE could not read it.
    check(
        &section(json!(8443), "6m", spiffe(), "0.0.0.0"),
        &json!({}),
        &section(json!(8443), "6m", spiffe(), "0.0.0.0"),
    );
    check(
        &section(
            json!(8443),
            "6 minutes",
            json!([{"https_spiffe": {}}, {}]),
            "0.0.0.0",
        ),
        &json!({}),
        &section(json!(8443), "5m", spiffe(), "0.0.0.0"),
    );
}

#[test]
fn a_certificate_of_the_web_is_kept_and_never_made_up() {
    let web = json!({"profile": "https_web"});
    let with = json!({"bundle_endpoint": {
        "address": "0.0.0.0", "port": 8443, "refresh_hint": "5m",
        "profile": [{"https_web": [{"serving_cert_file": {"cert_file_path": "x"}}]}],
    }});
    check(&with, &web, &with);
    for without in [
        json!({}),
        json!({"bundle_endpoint": {"profile": [{"https_spiffe": {}}]}}),
        json!({"bundle_endpoint": {"profile": [{"https_web": {}}]}}),
    ] {
        let found = target(Some(&without), &wanted(&web), Statically::Standing);
        assert_eq!(found, Err(NoCertificate), "{without}");
    }
}

#[test]
fn peers_stand_there_only_if_that_is_asked_for() {
    let mut asking = wanted(&json!({}));
    let peer = |more: &Value| wanted(more).endpoint;
    asking.static_peers = Some(
        [
            (
                "b.test",
                peer(&json!({"spiffeID": "spiffe://b.test/spire/server"})),
            ),
            (
                "c.test",
                peer(&json!({"profile": "https_web", "url": "https://c.test"})),
            ),
        ]
        .map(|(name, endpoint)| (TrustDomain::parse(name).unwrap(), endpoint))
        .into(),
    );
    let by_hand = json!({"federates_with": {"x.test": {}}});
    let found = target(Some(&by_hand), &asking, Statically::Declared).unwrap();
    let peers = json!({
        "b.test": {
            "bundle_endpoint_url": "https://a.test",
            "bundle_endpoint_profile": [{"https_spiffe": {"endpoint_spiffe_id": "spiffe://b.test/spire/server"}}],
        },
        "c.test": {
            "bundle_endpoint_url": "https://c.test",
            "bundle_endpoint_profile": [{"https_web": {}}],
        },
    });
    assert_eq!(found["federates_with"], peers);
    // No longer asked for, what was there before comes back.
    let former = Some(&by_hand["federates_with"]);
    let back = target(
        Some(&found),
        &wanted(&json!({})),
        Statically::Former(former),
    )
    .unwrap();
    assert_eq!(back["federates_with"], by_hand["federates_with"]);
    let back = target(Some(&found), &wanted(&json!({})), Statically::Former(None)).unwrap();
    assert!(back.get("federates_with").is_none());
    // Nobody left is nobody there.
    asking.static_peers = Some(BTreeMap::new());
    let none = target(Some(&found), &asking, Statically::Declared).unwrap();
    assert!(none.get("federates_with").is_none());
}

#[test]
fn durations_are_read_as_go_reads_them() {
    for (text, expected) in [
        ("5m", Some(300_000)),
        ("1h30m", Some(5_400_000)),
        ("1.5s", Some(1_500)),
        ("250ms", Some(250)),
        ("", None),
        ("5", None),
        ("m", None),
        ("5 m", None),
        ("-5m", None),
    ] {
        assert_eq!(milliseconds(text), expected, "{text}");
    }
}
