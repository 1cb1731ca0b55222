//! Whose field is it: the record that a cluster keeps in `metadata.managedFields`.
//!
//! Its format is `FieldsV1` (`k8s.io/api meta/v1`, `structured-merge-diff/fieldpath`): members are
//! `f:<name>`, list items `k:<keys as JSON>`, set items `v:<value as JSON>`, and `.` the thing itself.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::manifest::FIELD_MANAGER;

/// The fields that we applied; `None` if we never did.
pub fn applied_fields(live: &Value) -> Option<&Map<String, Value>> {
    entries(live)
        .find(|entry| is_ours(entry))?
        .get("fieldsV1")?
        .as_object()
}

/// Who else wrote last to the object, or to what `path` leads to, if that can be told: the manager's
/// name, and when it was. A path is as in `FieldsV1`: `["f:data", "f:server.conf"]`.
pub fn last_other_writer<'a>(live: &'a Value, path: &[&str]) -> Option<(&'a str, Timestamp)> {
    others(live)
        .filter(|entry| {
            let fields = path
                .iter()
                .try_fold(&entry["fieldsV1"], |at, step| at.get(step));
            fields.is_some()
        })
        .filter_map(|entry| {
            let at = entry["time"].as_str()?.parse().ok()?;
            Some((entry["manager"].as_str()?, at))
        })
        .max_by_key(|(_, at)| *at)
}

/// What others wrote to the object itself: the entries of all other managers.
pub fn others(live: &Value) -> impl Iterator<Item = &Value> {
    entries(live).filter(|entry| entry["manager"] != FIELD_MANAGER && is_main(entry))
}

fn entries(live: &Value) -> impl Iterator<Item = &Value> {
    let entries = live["metadata"]["managedFields"].as_array();
    entries.into_iter().flatten()
}

/// Whether an entry says what we applied to the object itself.
pub fn is_ours(entry: &Value) -> bool {
    entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply" && is_main(entry)
}

/// Whether an entry is about the object itself, not its status.
pub fn is_main(entry: &Value) -> bool {
    entry.get("subresource").is_none_or(|name| name == "")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_writer_is_another_one_of_the_field() {
        let live = json!({"metadata": {"managedFields": [
            {"manager": "helm", "operation": "Update", "time": "2026-01-01T00:00:00Z",
             "fieldsV1": {"f:data": {"f:server.conf": {}}}},
            {"manager": "kubectl-edit", "operation": "Update", "time": "2026-01-02T00:00:00Z",
             "fieldsV1": {"f:data": {"f:server.conf": {}}}},
            {"manager": "labels", "operation": "Update", "time": "2026-01-03T00:00:00Z",
             "fieldsV1": {"f:metadata": {}}},
            {"manager": "status", "operation": "Update", "time": "2026-01-04T00:00:00Z",
             "subresource": "status", "fieldsV1": {"f:data": {"f:server.conf": {}}}},
            {"manager": FIELD_MANAGER, "operation": "Update", "time": "2026-01-05T00:00:00Z",
             "fieldsV1": {"f:data": {"f:server.conf": {}}}},
        ]}});
        let found = |path: &[&str]| last_other_writer(&live, path).map(|(name, _)| name);
        assert_eq!(found(&["f:data", "f:server.conf"]), Some("kubectl-edit"));
        assert_eq!(found(&[]), Some("labels"));
        assert_eq!(found(&["f:data", "f:other"]), None);
    }
}
