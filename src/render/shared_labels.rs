//! Labels that stand in several fields of an object as one value.
//!
//! Where kustomize adds a label to fields that did not have it, it puts one node into all of them
//! (`kyaml/filtersutil.SetEntry`): whatever changes the label in one of them later changes it in the
//! others, as `labels` without `includeSelectors` over a base with `commonLabels`. Manifests rely on
//! what comes of it, since selectors are immutable.

use std::{borrow::Cow, collections::BTreeSet};

use serde_json::Value;

/// A name as part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// JSON pointers of the mappings at a field's path that have an entry.
pub(super) fn having(object: &Value, path: &[Cow<'_, str>], name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    search(object, path, name, String::new(), &mut found);
    found
}

fn search(
    value: &Value,
    path: &[Cow<'_, str>],
    name: &str,
    pointer: String,
    found: &mut BTreeSet<String>,
) {
    match (value, path.split_first()) {
        (Value::Array(list), Some(_)) => {
            for (index, item) in list.iter().enumerate() {
                search(item, path, name, format!("{pointer}/{index}"), found);
            }
        }
        (Value::Object(map), Some((part, rest))) => {
            let part = part.strip_suffix("[]").unwrap_or(part);
            if let Some(next) = map.get(part) {
                search(
                    next,
                    rest,
                    name,
                    format!("{pointer}/{}", escaped(part)),
                    found,
                );
            }
        }
        (Value::Object(map), None) if map.contains_key(name) => drop(found.insert(pointer)),
        _ => {}
    }
}

/// One label in fields of one object.
#[derive(Clone, Debug)]
struct Shared {
    /// JSON pointers of the values.
    places: Vec<String>,
    value: Value,
}

/// All such labels of an object.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedLabels(Vec<Shared>);

impl SharedLabels {
    /// Remembers a label that was added to several mappings at once.
    pub(super) fn add(&mut self, name: &str, mappings: &BTreeSet<String>, object: &Value) {
        let name = escaped(name);
        let places = mappings.iter().map(|mapping| format!("{mapping}/{name}"));
        let places: Vec<String> = places.collect();
        if let [first, _, ..] = places.as_slice()
            && let Some(value) = object.pointer(first)
        {
            let value = value.clone();
            self.0.push(Shared { places, value });
        }
    }

    /// Has a change of a label in one field hold in all.
    pub(super) fn settle(&mut self, object: &mut Value) {
        self.0.retain_mut(|shared| {
            shared
                .places
                .retain(|place| object.pointer(place).is_some());
            let changed = shared.places.iter().find_map(|place| {
                let value = object.pointer(place)?;
                (*value != shared.value).then(|| value.clone())
            });
            if let Some(changed) = changed {
                for place in &shared.places {
                    if let Some(value) = object.pointer_mut(place) {
                        value.clone_from(&changed);
                    }
                }
                shared.value = changed;
            }
            shared.places.len() > 1
        });
    }

    /// Forgets all: the object was written out and read again.
    pub(super) fn part(&mut self) {
        self.0.clear();
    }
}
