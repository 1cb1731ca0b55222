//! Whether an apply would change anything, by the record that the cluster keeps of whose field is whose.

use serde_json::{Map, Value};

use super::{fields, quantity};
use crate::model::field_owners::applied_fields;

/// Whether a live object is already as our apply of `desired` would make it: it has every desired
/// value, and we own nothing that is no longer desired. False is always safe: the apply decides.
pub fn in_force(desired: &Value, live: &Value) -> bool {
    match applied_fields(live) {
        Some(fields) => contains(live, desired) && owns_only(fields, desired),
        None => false,
    }
}

/// Whether `live` has everything that `desired` has. Lists must agree item by item: an item may
/// have more, a list may not.
pub(super) fn contains(live: &Value, desired: &Value) -> bool {
    contains_in("", live, desired)
}

/// As [`contains`], inside a member of this name.
fn contains_in(within: &str, live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            desired.iter().all(|(name, desired)| match live.get(name) {
                Some(live) => {
                    contains_in(name, live, desired)
                        || (quantity::is_quantity(within, name) && quantity::same(live, desired))
                }
                // The server drops what says nothing.
                None => is_void(desired),
            })
        }
        (Value::Array(live), Value::Array(desired)) => {
            live.len() == desired.len()
                && live
                    .iter()
                    .zip(desired)
                    .all(|(live, desired)| contains_in("", live, desired))
        }
        (live, desired) => live == desired,
    }
}

/// A null, or a list or mapping of nothing.
fn is_void(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

/// Whether every owned field is still desired.
fn owns_only(fields: &Map<String, Value>, desired: &Value) -> bool {
    fields.iter().all(|(path, below)| {
        let found = match path.split_once(':') {
            None => return path == ".",
            Some(("f", name)) => desired.get(name),
            Some(("k", keys)) => fields::keyed(desired, keys),
            Some(("v", value)) => item(desired, |item| {
                serde_json::from_str::<Value>(value).is_ok_and(|value| *item == value)
            }),
            Some(_) => return false,
        };
        match (found, below.as_object()) {
            (Some(found), Some(below)) => owns_only(below, found),
            (found, _) => found.is_some(),
        }
    })
}

fn item(list: &Value, matches: impl Fn(&Value) -> bool) -> Option<&Value> {
    list.as_array()?.iter().find(|item| matches(item))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live(spec: &Value, fields: &Value) -> Value {
        json!({
            "spec": spec,
            "metadata": {"managedFields": [
                {"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {}}},
                {"manager": "trustweave", "operation": "Apply", "subresource": "status", "fieldsV1": {}},
                {"manager": "trustweave", "operation": "Apply", "fieldsV1": {"f:spec": fields}},
            ]},
        })
    }

    #[test]
    fn in_force_means_nothing_missing_and_nothing_left_over() {
        let check = |desired: Value, standing: Value, fields: Value, expected: bool| {
            let live = live(&standing, &fields);
            assert_eq!(
                in_force(&json!({"spec": desired}), &live),
                expected,
                "{live}"
            );
        };
        check(
            json!({"a": 1}),
            json!({"a": 1, "default": 2}),
            json!({"f:a": {}}),
            true,
        );
        check(json!({"a": 1}), json!({"a": 2}), json!({"f:a": {}}), false);
        check(
            json!({"a": 1}),
            json!({"a": 1, "b": 2}),
            json!({"f:a": {}, "f:b": {}}),
            false,
        );
        check(
            json!({"c": [{"name": "x", "i": 1}]}),
            json!({"c": [{"name": "x", "i": 1, "p": "d"}]}),
            json!({"f:c": {"k:{\"name\":\"x\"}": {".": {}, "f:name": {}, "f:i": {}}}}),
            true,
        );
        check(
            json!({"c": [{"name": "x"}]}),
            json!({"c": [{"name": "x"}, {"name": "y"}]}),
            json!({"f:c": {"k:{\"name\":\"x\"}": {".": {}}}}),
            false,
        );
        check(
            json!({"s": ["b"]}),
            json!({"s": ["b"]}),
            json!({"f:s": {"v:\"a\"": {}}}),
            false,
        );
        // An item's key that the server defaulted, such as a port's protocol, is not ours to miss.
        check(
            json!({"p": [{"port": 1}]}),
            json!({"p": [{"port": 1, "protocol": "TCP"}]}),
            json!({"f:p": {"k:{\"port\":1,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}),
            true,
        );
        // What the server spells its own way, and what it leaves out.
        check(
            json!({"limits": {"cpu": "1000m"}, "list": [], "none": null}),
            json!({"limits": {"cpu": "1"}}),
            json!({"f:limits": {"f:cpu": {}}}),
            true,
        );
        assert!(!in_force(&json!({"a": 1}), &json!({"a": 1})));
    }
}
