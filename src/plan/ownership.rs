//! Whether an apply would change anything, by the record that the cluster keeps of whose field is whose.

use serde_json::{Map, Value};

use crate::model::field_owners::{applied_fields, is_main, is_ours};

/// The manager that `kubectl apply` without `--server-side` writes down.
const KUBECTL: &str = "kubectl-client-side-apply";

/// Whether a live object is already as our apply of `desired` would make it: it has every desired
/// value, and we own nothing that is no longer desired. False is always safe: the apply decides.
pub fn in_force(desired: &Value, live: &Value) -> bool {
    match applied_fields(live) {
        Some(fields) => contains(live, desired) && owns_only(fields, desired),
        None => false,
    }
}

/// The records of an object that we apply and that people applied by `kubectl apply` before, once that
/// is ours alone: else the field would stay whatever the repository says, or be a conflict for ever.
/// `None` if no such record is left.
pub fn taken_over(live: &Value) -> Option<Value> {
    applied_fields(live)?;
    let mut records = live["metadata"]["managedFields"].as_array()?.clone();
    let place = records.iter().position(|entry| {
        entry["manager"] == KUBECTL && entry["operation"] == "Update" && is_main(entry)
    })?;
    let theirs = records.remove(place);
    let mut own = records.iter_mut();
    let own = own.find(|entry| is_ours(entry))?;
    join(&mut own["fieldsV1"], &theirs["fieldsV1"]);
    Some(records.into())
}

/// Adds the fields of one record to those of another.
fn join(fields: &mut Value, more: &Value) {
    if let (Some(fields), Some(more)) = (fields.as_object_mut(), more.as_object()) {
        for (path, below) in more {
            join(
                fields.entry(path.clone()).or_insert_with(|| below.clone()),
                below,
            );
        }
    }
}

/// Whether `live` has everything that `desired` has. Lists must agree item by item: an item may
/// have more, a list may not.
fn contains(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired.iter().all(|(name, desired)| {
            match live.get(name) {
                Some(live) => contains(live, desired),
                // The server drops a null.
                None => desired.is_null(),
            }
        }),
        (Value::Array(live), Value::Array(desired)) => {
            live.len() == desired.len()
                && live
                    .iter()
                    .zip(desired)
                    .all(|(live, desired)| contains(live, desired))
        }
        (live, desired) => live == desired,
    }
}

/// Whether every owned field is still desired.
fn owns_only(fields: &Map<String, Value>, desired: &Value) -> bool {
    fields.iter().all(|(path, below)| {
        let found = match path.split_once(':') {
            None => return path == ".",
            Some(("f", name)) => desired.get(name),
            Some(("k", keys)) => item(desired, |item| {
                serde_json::from_str::<Map<String, Value>>(keys).is_ok_and(|keys| {
                    keys.iter()
                        .all(|(key, value)| item.get(key).is_none_or(|found| found == value))
                })
            }),
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
    fn what_kubectl_applied_becomes_ours_alone_and_nobody_elses_does() {
        let kubectl = json!({
            "manager": KUBECTL, "operation": "Update", "fieldsV1": {"f:spec": {"f:b": {"f:c": {}}}},
        });
        let mut live = live(&json!({}), &json!({"f:a": {}}));
        assert_eq!(taken_over(&live), None);
        let records = live["metadata"]["managedFields"].as_array_mut().unwrap();
        let others = records.len();
        records.push(kubectl.clone());
        let mut scaled = kubectl.clone();
        scaled["subresource"] = "scale".into();
        records.push(scaled.clone());
        let after = taken_over(&live).unwrap();
        let after = after.as_array().unwrap();
        assert_eq!(after.len(), others + 1);
        assert_eq!(after[others], scaled);
        let ours = json!({"f:spec": {"f:a": {}, "f:b": {"f:c": {}}}});
        assert_eq!(after[2]["fieldsV1"], ours);
        // What we never applied is not taken.
        let theirs = json!({"metadata": {"managedFields": [kubectl]}});
        assert_eq!(taken_over(&theirs), None);
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
        assert!(!in_force(&json!({"a": 1}), &json!({"a": 1})));
    }
}
