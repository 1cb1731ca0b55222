use serde_json::json;

use super::*;

/// Replaces the federation of a text, and looks at the result byte by byte.
fn check(text: &str, federation: Option<&Value>, expected: &str) {
    let conf = ServerConf::parse(text).unwrap();
    let written = conf.with_federation(federation);
    assert_eq!(written, expected, "{text}");
    let again = ServerConf::parse(&written).unwrap();
    assert_eq!(again.federation(), federation);
}

#[test]
fn nothing_else_changes_by_a_byte() {
    let one = json!({"port": 1});
    // Numbers keep their text, strings their escapes, the file its form.
    check(
        r#"{"server": {"a": 1.50, "b": 123456789012345678901234567890, "c": "\u00e9\/"}, "plugins":[ ]}"#,
        Some(&one),
        r#"{"server": {"a": 1.50, "b": 123456789012345678901234567890, "c": "\u00e9\/","federation":{"port":1}}, "plugins":[ ]}"#,
    );
    check(
        "{\n  \"server\": {\n    \"a\": 1e3\n  },\n  \"plugins\": {}\n}\n",
        Some(&one),
        "{\n  \"server\": {\n    \"a\": 1e3,\n    \"federation\": {\n      \"port\": 1\n    }\n  },\n  \"plugins\": {}\n}\n",
    );
    check(
        "{\n\t\"server\": {\n\t\t\"federation\": {\"x\": [\n1]},\n\t\t\"b\": 2\n\t}\n}",
        Some(&one),
        "{\n\t\"server\": {\n\t\t\"federation\": {\n\t\t\t\"port\": 1\n\t\t},\n\t\t\"b\": 2\n\t}\n}",
    );
    check(
        "{\n    \"plugins\": {},\n    \"server\": {}\n}",
        Some(&one),
        "{\n    \"plugins\": {},\n    \"server\": {\n        \"federation\": {\n            \"port\": 1\n        }\n    }\n}",
    );
    check(
        r#"{"Server":{"Federation":null}}"#,
        Some(&one),
        r#"{"Server":{"Federation":{"port":1}}}"#,
    );
}

#[test]
fn taken_away_it_leaves_no_comma() {
    check(r#"{"server":{"federation":{}}}"#, None, r#"{"server":{}}"#);
    check(
        r#"{"server":{"federation":{"a":"},{"} , "b":","}}"#,
        None,
        r#"{"server":{ "b":","}}"#,
    );
    check(
        r#"{"server":{"b":1, "federation":{}, "c":2}}"#,
        None,
        r#"{"server":{"b":1, "c":2}}"#,
    );
    check(
        "{\n  \"server\": {\n    \"b\": 1,\n    \"federation\": {}\n  }\n}",
        None,
        "{\n  \"server\": {\n    \"b\": 1\n  }\n}",
    );
    check(r#"{"server":{"b":1}}"#, None, r#"{"server":{"b":1}}"#);
}

#[test]
fn put_in_and_taken_out_it_is_as_it_was() {
    for text in [
        "{\"server\":{\"a\":1}}",
        "{\n   \"server\": {\n      \"a\": [1,\n2]\n   }\n}\n",
    ] {
        let with = ServerConf::parse(text)
            .unwrap()
            .with_federation(Some(&json!({"a": {}})));
        let without = ServerConf::parse(&with).unwrap().with_federation(None);
        assert_eq!(without, text);
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let refused = |text: &str| ServerConf::parse(text).unwrap_err();
    assert_eq!(refused("server {\n}"), Unusable::Hcl);
    assert_eq!(refused(""), Unusable::Hcl);
    for (text, expected) in [
        ("{", "is not JSON"),
        ("{\"server\": {}, }", "is not JSON"),
        ("{\"plugins\": {}}", "has no `server`"),
        ("{\"server\": [{}]}", "not one object"),
        ("{\"server\": {}, \"server\": {}}", "twice"),
        (
            "{\"server\": {\"federation\": {}, \"Federation\": 1}}",
            "twice",
        ),
    ] {
        let error = refused(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn names_that_spire_does_not_know_are_told() {
    let federation = json!({
        "bundle_endpoint": {"adress": "0.0.0.0", "port": 8443, "Profile": []},
        "federatesWith": {},
        "federates_with": {"b.test": {"bundle_endpoint_urls": "x", "bundle_endpoint_profile": {}}},
    });
    let found = Misspelt::in_section(&federation);
    assert_eq!(
        found.dropped,
        [
            "`federatesWith` (is `federates_with` meant?)",
            "`federates_with.b.test.bundle_endpoint_urls` (is `bundle_endpoint_url` meant?)",
        ]
    );
    assert_eq!(
        found.fatal,
        ["`bundle_endpoint.adress` (is `address` meant?)"]
    );
    assert_eq!(static_names(Some(&federation)), ["b.test"]);
    let list = json!({"federates_with": [{"a.test": [{}]}, {"b.test": [{}]}]});
    assert_eq!(static_names(Some(&list)), ["a.test", "b.test"]);
    let right = json!({"bundle_endpoint": [{"port": 1}]});
    assert_eq!(Misspelt::in_section(&right), Misspelt::default());
}
