//! Changes field by field, and whose the fields are.

use std::{collections::BTreeSet, fmt};

use serde_json::{Map, Value};

use crate::model::field_owners::others;

/// What tells the items of a list apart, as Kubernetes' own types declare it (`patchMergeKey`,
/// `x-kubernetes-list-map-keys`); the first that fits counts.
const ITEM_KEYS: [&[&str]; 9] = [
    &["name"],
    &["containerPort", "protocol"],
    &["containerPort"],
    &["port", "protocol"],
    &["port"],
    &["mountPath"],
    &["key"],
    &["ip"],
    &["type"],
];

/// A field that changes.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// Where it is, as the API server writes it: `.spec.containers[name="app"].image`.
    pub path: String,
    /// Its value before the change; `None` if it is new.
    pub before: Option<Value>,
    /// Its value after it; `None` if it goes.
    pub after: Option<Value>,
    /// Who besides us has set it in the live object, by the name of the field manager.
    pub managers: BTreeSet<String>,
}

/// A step from an object to a part of it.
enum Step<'v> {
    Member(&'v str),
    /// An item that its keys tell apart, as it is in the live object.
    Item(&'static [&'static str], &'v Value),
    /// An item that only its place tells apart.
    Place(usize),
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(name) if name.contains(['.', '/']) => write!(f, ".\"{name}\""),
            Self::Member(name) => write!(f, ".{name}"),
            Self::Place(place) => write!(f, "[{place}]"),
            Self::Item(keys, item) => {
                let keys = keys.iter().filter(|key| !item[**key].is_null());
                let keys: Vec<_> = keys.map(|key| format!("{key}={}", item[*key])).collect();
                write!(f, "[{}]", keys.join(","))
            }
        }
    }
}

/// Compares two states of an object. `live` is the first with its record of managers, if it comes from
/// a cluster.
pub(super) fn changes(before: &Value, after: &Value, live: Option<&Value>) -> Vec<FieldChange> {
    let mut walk = Walk {
        live,
        path: Vec::new(),
        found: Vec::new(),
    };
    walk.compare(Some(before), Some(after));
    walk.found
}

/// The members that tell apart the items of both lists; `None` if nothing does.
pub(super) fn item_keys(a: &[Value], b: &[Value]) -> Option<&'static [&'static str]> {
    let unique = |items: &[Value], keys: &[&str]| {
        let identities: BTreeSet<Vec<String>> = items
            .iter()
            .filter(|item| keys.iter().all(|key| item.get(*key).is_some()))
            .map(|item| keys.iter().map(|key| item[*key].to_string()).collect())
            .collect();
        identities.len() == items.len()
    };
    let mut all = ITEM_KEYS.into_iter();
    all.find(|keys| unique(a, keys) && unique(b, keys))
}

struct Walk<'v> {
    live: Option<&'v Value>,
    path: Vec<Step<'v>>,
    found: Vec<FieldChange>,
}

impl<'v> Walk<'v> {
    fn compare(&mut self, before: Option<&'v Value>, after: Option<&'v Value>) {
        match (before, after) {
            (Some(before), Some(after)) if before == after => {}
            (Some(Value::Object(before)), Some(Value::Object(after))) => {
                let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
                for name in names {
                    self.path.push(Step::Member(name));
                    self.compare(before.get(name), after.get(name));
                    self.path.pop();
                }
            }
            (Some(Value::Array(before)), Some(Value::Array(after))) => self.lists(before, after),
            (before, after) => self.tell(before, after),
        }
    }

    fn lists(&mut self, before: &'v [Value], after: &'v [Value]) {
        let objects = |items: &[Value]| items.iter().all(Value::is_object);
        if !objects(before) || !objects(after) {
            // A list of plain values is read as one.
            let whole = |items: &[Value]| Value::Array(items.to_vec());
            let change = self.change(Some(whole(before)), Some(whole(after)));
            self.found.push(change);
            return;
        }
        let Some(keys) = item_keys(before, after) else {
            for place in 0..before.len().max(after.len()) {
                self.path.push(Step::Place(place));
                self.compare(before.get(place), after.get(place));
                self.path.pop();
            }
            return;
        };
        let same = |a: &Value, b: &Value| keys.iter().all(|key| a[*key] == b[*key]);
        let found = self.found.len();
        for item in before {
            self.path.push(Step::Item(keys, item));
            self.compare(Some(item), after.iter().find(|other| same(item, other)));
            self.path.pop();
        }
        for item in after
            .iter()
            .filter(|item| !before.iter().any(|it| same(it, item)))
        {
            self.path.push(Step::Item(keys, item));
            self.compare(None, Some(item));
            self.path.pop();
        }
        let order = |items: &[Value]| -> Vec<Value> {
            items.iter().map(|item| item[keys[0]].clone()).collect()
        };
        if self.found.len() == found && order(before) != order(after) {
            let change = self.change(Some(order(before).into()), Some(order(after).into()));
            self.found.push(change);
        }
    }

    fn tell(&mut self, before: Option<&Value>, after: Option<&Value>) {
        let change = self.change(before.cloned(), after.cloned());
        self.found.push(change);
    }

    fn change(&self, before: Option<Value>, after: Option<Value>) -> FieldChange {
        let others = self.live.into_iter().flat_map(others);
        let managers = others
            .filter(|entry| self.is_in(&entry["fieldsV1"]))
            .filter_map(|entry| entry["manager"].as_str())
            .map(str::to_owned);
        FieldChange {
            path: self.path.iter().map(ToString::to_string).collect(),
            before,
            after,
            managers: managers.collect(),
        }
    }

    /// Whether the field, or the whole that it is a part of, is in a set of `FieldsV1`.
    fn is_in(&self, set: &Value) -> bool {
        let mut at = set;
        for step in &self.path {
            // Whoever owns something that is not divided further owns all of it.
            if at.as_object().is_some_and(Map::is_empty) {
                return true;
            }
            let next = match step {
                Step::Member(name) => at.get(format!("f:{name}")),
                Step::Item(_, item) => at.as_object().and_then(|members| {
                    let mut members = members.iter();
                    let found = members.find(|(name, _)| is_item(name, item));
                    found.map(|(_, set)| set)
                }),
                Step::Place(_) => None,
            };
            match next {
                Some(next) => at = next,
                None => return false,
            }
        }
        true
    }
}

/// Whether a member of a set, `k:{"name":"app"}`, means an item.
fn is_item(member: &str, item: &Value) -> bool {
    let keys = member
        .strip_prefix("k:")
        .map(serde_json::from_str::<Map<String, Value>>);
    matches!(keys, Some(Ok(keys)) if keys.iter().all(|(key, value)| item[key] == *value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::manifest::FIELD_MANAGER;

    fn told(before: &Value, after: &Value) -> Vec<String> {
        let found = changes(before, after, Some(before));
        let side = |side: &Option<Value>| side.as_ref().map_or("-".to_owned(), Value::to_string);
        found
            .iter()
            .map(|it| {
                let managers: Vec<_> = it.managers.iter().map(String::as_str).collect();
                let (before, after) = (side(&it.before), side(&it.after));
                format!("{} {before} {after} {}", it.path, managers.join("+"))
            })
            .collect()
    }

    #[test]
    fn fields_are_named_as_the_server_names_them_with_their_owners() {
        let live = json!({
            "metadata": {
                "labels": {"x/y": "1"},
                "managedFields": [
                    {"manager": "kubectl-edit", "fieldsV1": {
                        "f:metadata": {"f:labels": {"f:x/y": {}}},
                        "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}}},
                    }},
                    {"manager": "hpa", "fieldsV1": {"f:spec": {"f:replicas": {}, "f:atomic": {}}}},
                    {"manager": FIELD_MANAGER, "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                    {"manager": "status", "subresource": "status", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                ],
            },
            "spec": {
                "replicas": 3, "atomic": {"k": 1}, "args": ["x"],
                "containers": [{"name": "a", "image": "1"}, {"name": "b"}],
                "rules": [{"x": 1}],
            },
        });
        let mut after = live.clone();
        after["metadata"]["labels"]["x/y"] = "2".into();
        after["spec"] = json!({
            "replicas": 2, "atomic": {"k": 2}, "args": ["x", "y"],
            "containers": [{"name": "c"}, {"name": "a", "image": "2"}],
            "rules": [{"x": 2}],
        });
        assert_eq!(
            told(&live, &after),
            [
                r#".metadata.labels."x/y" "1" "2" kubectl-edit"#,
                r#".spec.args ["x"] ["x","y"] "#,
                ".spec.atomic.k 1 2 hpa",
                r#".spec.containers[name="a"].image "1" "2" kubectl-edit"#,
                r#".spec.containers[name="b"] {"name":"b"} - "#,
                r#".spec.containers[name="c"] - {"name":"c"} "#,
                ".spec.replicas 3 2 hpa",
                ".spec.rules[0].x 1 2 ",
            ]
        );
    }

    #[test]
    fn items_that_only_change_places_are_one_change() {
        let (a, b) = (json!({"name": "a"}), json!({"name": "b"}));
        let (before, after) = (json!({"c": [a, b]}), json!({"c": [b, a]}));
        assert_eq!(told(&before, &after), [r#".c ["a","b"] ["b","a"] "#]);
    }
}
