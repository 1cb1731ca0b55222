//! Sets of fields as a cluster records them, and the values that they lead to.
//!
//! The format is `FieldsV1` (`sigs.k8s.io/structured-merge-diff/fieldpath`): members are `f:<name>`,
//! list items `k:<keys as JSON>`, set items `v:<value as JSON>`, positions `i:<number>`, and `.` the
//! thing itself. A step is kept as it is written, so that names with dots stay unambiguous.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Leads from an object to one of its fields: the steps of `FieldsV1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(Vec<String>);

impl FieldPath {
    /// The path as people write it: `.spec.template.spec.containers[name="app"].image`.
    pub fn words(&self) -> String {
        let mut words = String::new();
        for step in &self.0 {
            match step.split_once(':') {
                Some(("f", name)) => {
                    words.push('.');
                    words.push_str(name);
                }
                Some(("k", keys)) => {
                    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                    let keys = keys.iter().map(|(key, value)| format!("{key}={value}"));
                    let _ = write!(words, "[{}]", keys.collect::<Vec<_>>().join(","));
                }
                Some((_, value)) => {
                    let _ = write!(words, "[{value}]");
                }
                None => {}
            }
        }
        words
    }

    /// Whether the path begins with these steps.
    pub fn starts_with(&self, steps: &[&str]) -> bool {
        self.0.len() >= steps.len() && self.0.iter().zip(steps).all(|(own, other)| own == other)
    }

    /// Whether the path ends with this step.
    pub fn ends_with(&self, step: &str) -> bool {
        self.0.last().is_some_and(|last| last == step)
    }

    /// Whether the path leads to, or below, what `words` (as of [`Self::words`]) leads to.
    pub fn is_within(&self, words: &str) -> bool {
        let own = self.words();
        let rest = own.strip_prefix(words.trim_end_matches('.'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }

    /// What it leads to.
    pub fn of<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        let mut steps = self.0.iter();
        steps.try_fold(object, |at, step| descend(at, step))
    }

    /// Takes what it leads to out of an object. An item that has lost everything but its keys goes
    /// too, and so does a member that has nothing left.
    pub fn remove(&self, object: &mut Value) {
        remove(object, &self.0);
    }
}

/// The ends of a set of fields: every path that has nothing below it.
pub fn leaves(fields: &Value) -> Vec<FieldPath> {
    let mut found = Vec::new();
    let mut at = Vec::new();
    collect(fields, &mut at, &mut found);
    found
}

/// Adds the fields of one set to those of another.
pub fn join(fields: &mut Value, more: &Value) {
    if let (Some(fields), Some(more)) = (fields.as_object_mut(), more.as_object()) {
        for (step, below) in more {
            join(
                fields.entry(step.clone()).or_insert_with(|| below.clone()),
                below,
            );
        }
    }
}

/// Takes out of a set the ends that `keep` is false for; branches that have no end left go too.
pub fn retain(fields: &mut Value, keep: &impl Fn(&FieldPath) -> bool) {
    retain_below(fields, &mut Vec::new(), keep);
}

/// The item of a list that has these keys; a key that the item does not write is not missed, as the
/// server defaulted it.
pub(super) fn keyed<'a>(list: &'a Value, keys: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| has_keys(item, keys))
}

fn has_keys(item: &Value, keys: &str) -> bool {
    serde_json::from_str::<Map<String, Value>>(keys).is_ok_and(|keys| {
        item.is_object()
            && keys
                .iter()
                .all(|(key, value)| item.get(key).is_none_or(|found| found == value))
    })
}

fn descend<'a>(at: &'a Value, step: &str) -> Option<&'a Value> {
    match step.split_once(':')? {
        ("f", name) => at.get(name),
        ("k", keys) => keyed(at, keys),
        ("v", value) => {
            let value: Value = serde_json::from_str(value).ok()?;
            at.as_array()?.iter().find(|item| **item == value)
        }
        ("i", index) => at.get(index.parse::<usize>().ok()?),
        _ => None,
    }
}

fn remove(at: &mut Value, steps: &[String]) {
    let Some((step, below)) = steps.split_first() else {
        return;
    };
    let Some((kind, name)) = step.split_once(':') else {
        return;
    };
    match (kind, at) {
        ("f", Value::Object(members)) => {
            if let Some(member) = members.get_mut(name) {
                remove(member, below);
                let empty = member.as_object().is_some_and(Map::is_empty)
                    || member.as_array().is_some_and(Vec::is_empty);
                if below.is_empty() || empty {
                    members.shift_remove(name);
                }
            }
        }
        ("k", Value::Array(items)) => {
            if let Some(place) = items.iter().position(|item| has_keys(item, name)) {
                remove(&mut items[place], below);
                let keys: Map<String, Value> = serde_json::from_str(name).unwrap_or_default();
                let only_keys = items[place]
                    .as_object()
                    .is_none_or(|item| item.keys().all(|member| keys.contains_key(member)));
                if below.is_empty() || only_keys {
                    items.remove(place);
                }
            }
        }
        ("v", Value::Array(items)) => {
            let value: Option<Value> = serde_json::from_str(name).ok();
            items.retain(|item| Some(item) != value.as_ref());
        }
        _ => {}
    }
}

fn collect(fields: &Value, at: &mut Vec<String>, found: &mut Vec<FieldPath>) {
    let below = fields.as_object().into_iter().flatten();
    let mut below = below.filter(|(step, _)| *step != ".").peekable();
    if below.peek().is_none() {
        if !at.is_empty() {
            found.push(FieldPath(at.clone()));
        }
        return;
    }
    for (step, fields) in below {
        at.push(step.clone());
        collect(fields, at, found);
        at.pop();
    }
}

fn retain_below(
    fields: &mut Value,
    at: &mut Vec<String>,
    keep: &impl Fn(&FieldPath) -> bool,
) -> bool {
    let Some(members) = fields.as_object_mut() else {
        return true;
    };
    if members.keys().all(|step| step == ".") {
        return at.is_empty() || keep(&FieldPath(at.clone()));
    }
    let mut kept = false;
    members.retain(|step, below| {
        if step == "." {
            return true;
        }
        at.push(step.clone());
        let stays = retain_below(below, at, keep);
        at.pop();
        kept |= stays;
        stays
    });
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields() -> Value {
        json!({
            "f:data": {"f:server.conf": {}},
            "f:spec": {"f:c": {".": {}, "k:{\"name\":\"x\"}": {".": {}, "f:name": {}, "f:i": {}}}},
        })
    }

    #[test]
    fn paths_are_told_followed_and_taken_out() {
        let paths = leaves(&fields());
        let words: Vec<_> = paths.iter().map(FieldPath::words).collect();
        let item = ".spec.c[name=\"x\"].i";
        assert_eq!(
            words,
            [".data.server.conf", ".spec.c[name=\"x\"].name", item]
        );
        assert!(paths[2].is_within(".spec") && paths[2].is_within(item));
        assert!(!paths[2].is_within(".sp") && !paths[0].is_within(".data.server.conf.x"));
        let mut object = json!({
            "data": {"server.conf": 1, "other": 2},
            "spec": {"c": [{"name": "y", "i": 1}, {"name": "x", "i": 2}]},
        });
        assert_eq!(paths[0].of(&object), Some(&json!(1)));
        assert_eq!(paths[2].of(&object), Some(&json!(2)));
        for path in &paths {
            path.remove(&mut object);
        }
        assert_eq!(
            object,
            json!({"data": {"other": 2}, "spec": {"c": [{"name": "y", "i": 1}]}})
        );
    }

    #[test]
    fn sets_are_joined_and_thinned() {
        let mut set = fields();
        join(&mut set, &json!({"f:spec": {"f:r": {}}}));
        retain(&mut set, &|path| !path.is_within(".spec.c"));
        assert_eq!(
            set,
            json!({"f:data": {"f:server.conf": {}}, "f:spec": {"f:r": {}}})
        );
    }
}
