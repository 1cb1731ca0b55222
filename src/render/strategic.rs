//! Strategic merge patches with kustomize's semantics, its peculiarities included.
//!
//! A merged list starts with the patch's elements, in the patch's order; the elements that the
//! patch does not name follow. `$patch: replace` has no effect on an element of a merged list, and
//! `$setElementOrder` and `$deleteFromPrimitiveList` are no directives.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::shape::{Merge, Shape};
use crate::model::scalar::{self, text};

const DIRECTIVE: &str = "$patch";

type Reason = String;

/// What became of a value that a patch met.
enum Merged {
    /// The value itself, changed or not.
    Kept(Value),
    /// The patch took its place.
    Replaced(Value),
    /// Nothing is left.
    Cleared,
}

impl Merged {
    fn into_value(self) -> Option<Value> {
        match self {
            Self::Kept(value) | Self::Replaced(value) => Some(value),
            Self::Cleared => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

/// Applies a patch to an object; `None` if the patch deletes it.
pub(super) fn apply(object: &Value, patch: &Value) -> Result<Option<Value>, Reason> {
    Ok(match merge(object.clone(), Some(patch), None)? {
        Merged::Kept(value) => Some(value),
        // Kustomize ignores `$patch: replace` at the top of a patch, and the patch with it.
        Merged::Replaced(_) => Some(object.clone()),
        Merged::Cleared => None,
    })
}

fn parse_directive(value: &Value) -> Result<Directive, Reason> {
    match scalar::string(value) {
        Some("merge") => Ok(Directive::Merge),
        Some("replace") => Ok(Directive::Replace),
        Some("delete") => Ok(Directive::Delete),
        _ => Err(format!(
            "`{DIRECTIVE}: {}` is none of merge, replace, delete",
            text(value)
        )),
    }
}

/// Takes the directive out of a map of the patch.
fn take_directive(map: &mut Map<String, Value>) -> Result<Directive, Reason> {
    map.shift_remove(DIRECTIVE)
        .map_or(Ok(Directive::Merge), |value| parse_directive(&value))
}

/// Takes the directive out of a merged list of the patch: an element with nothing else in it.
fn take_list_directive(list: &mut Vec<Value>) -> Result<Directive, Reason> {
    let marker = list.iter().find_map(|element| {
        let map = element.as_object()?;
        Some((map.get(DIRECTIVE)?.clone(), map.len()))
    });
    match marker {
        Some((value, 1)) => {
            let directive = parse_directive(&value)?;
            set(list, None, &[DIRECTIVE], &[text(&value).into_owned()]);
            Ok(directive)
        }
        _ => Ok(Directive::Merge),
    }
}

/// The shape of a value: what its parent says of it, or else what its own kind says.
fn shape_of(known: Option<&'static Shape>, values: [Option<&Value>; 2]) -> Option<&'static Shape> {
    known.or_else(|| {
        values.into_iter().flatten().find_map(|value| {
            Shape::of(
                scalar::string(value.get("apiVersion")?)?,
                scalar::string(value.get("kind")?)?,
            )
        })
    })
}

fn kind_name(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "a mapping",
        Value::Array(_) => "a list",
        _ => "a single value",
    }
}

fn same_kind(a: &Value, b: &Value) -> Result<(), Reason> {
    if kind_name(a) == kind_name(b) {
        Ok(())
    } else {
        Err(format!(
            "the patch has {} where the object has {}",
            kind_name(b),
            kind_name(a)
        ))
    }
}

/// Merges a patch into a value that is not null. Without a patch, lists that merge are still put
/// in order, as kustomize does.
fn merge(
    value: Value,
    patch: Option<&Value>,
    known: Option<&'static Shape>,
) -> Result<Merged, Reason> {
    if patch.is_some_and(Value::is_null) {
        return Ok(Merged::Cleared);
    }
    if let Some(patch) = patch {
        same_kind(&value, patch)?;
    }
    let shape = shape_of(known, [Some(&value), patch]);
    match (value, patch) {
        (Value::Object(map), patch) => merge_map(map, patch.and_then(Value::as_object), shape),
        (Value::Array(list), patch) => match shape.and_then(Shape::merge) {
            Some(rule) => merge_list(list, patch.and_then(Value::as_array), rule),
            None => Ok(Merged::Kept(patch.cloned().unwrap_or(Value::Array(list)))),
        },
        (scalar, Some(patch)) => Ok(Merged::Kept(restyled(&scalar, patch))),
        (scalar, None) => Ok(Merged::Kept(scalar)),
    }
}

/// What a scalar becomes where another stood. Kustomize keeps the old one's quotes: a number in the
/// place of `"1"` becomes a text.
fn restyled(old: &Value, new: &Value) -> Value {
    match (scalar::is_quoted(old), scalar::string(new)) {
        (true, _) => scalar::quoted(&text(new)),
        (false, Some(new)) => scalar::tagged(new),
        (false, None) => new.clone(),
    }
}

fn merge_map(
    mut map: Map<String, Value>,
    patch: Option<&Map<String, Value>>,
    shape: Option<&'static Shape>,
) -> Result<Merged, Reason> {
    let mut patch = patch.cloned().unwrap_or_default();
    match take_directive(&mut patch)? {
        Directive::Delete => return Ok(Merged::Cleared),
        Directive::Replace => {
            return Ok(
                adopt(Value::Object(patch), shape, true)?.map_or(Merged::Cleared, Merged::Replaced)
            );
        }
        Directive::Merge => {}
    }
    let names: BTreeSet<String> = map.keys().chain(patch.keys()).cloned().collect();
    for name in names {
        let field = shape.and_then(|shape| shape.field(&name));
        let merged = match (map.get_mut(&name), patch.get(&name)) {
            (None | Some(Value::Null), Some(added)) => adopt(added.clone(), field, false),
            (None | Some(Value::Null), None) => continue,
            (Some(old), new) => merge(old.take(), new, field).map(Merged::into_value),
        };
        match merged.map_err(|reason| inside(&name, &reason))? {
            Some(value) => {
                map.insert(name, value);
            }
            None => {
                map.shift_remove(&name);
            }
        }
    }
    Ok(Merged::Kept(Value::Object(map)))
}

/// Prefixes a reason with the field in which it arose.
fn inside(field: &str, reason: &str) -> Reason {
    match reason.strip_prefix("in `") {
        Some(rest) => format!("in `{field}.{rest}"),
        None => format!("in `{field}`: {reason}"),
    }
}

fn merge_list(
    mut list: Vec<Value>,
    patch: Option<&Vec<Value>>,
    rule: Merge,
) -> Result<Merged, Reason> {
    let mut patch = patch.cloned().unwrap_or_default();
    match take_list_directive(&mut patch)? {
        Directive::Delete => return Ok(Merged::Cleared),
        Directive::Replace => return Ok(Merged::Replaced(adopt_list(patch, rule)?)),
        Directive::Merge => {}
    }
    merge_elements(&mut list, Some(patch), rule)?;
    Ok(Merged::Kept(Value::Array(list)))
}

/// What a patch adds where the object has nothing: without directives, deletions and nulls.
/// Only below the added value itself (`nested`) do lists have directives.
fn adopt(
    added: Value,
    known: Option<&'static Shape>,
    nested: bool,
) -> Result<Option<Value>, Reason> {
    let shape = shape_of(known, [Some(&added), None]);
    match added {
        Value::Null => Ok(None),
        Value::Object(mut map) => {
            if take_directive(&mut map)? == Directive::Delete {
                return Ok(None);
            }
            let mut adopted = Map::new();
            for (name, value) in map {
                let field = shape.and_then(|shape| shape.field(&name));
                if let Some(value) =
                    adopt(value, field, true).map_err(|reason| inside(&name, &reason))?
                {
                    adopted.insert(name, value);
                }
            }
            Ok(Some(Value::Object(adopted)))
        }
        Value::Array(mut list) => match shape.and_then(Shape::merge) {
            None => Ok(Some(Value::Array(list))),
            Some(rule) => {
                if nested && take_list_directive(&mut list)? == Directive::Delete {
                    return Ok(None);
                }
                adopt_list(list, rule).map(Some)
            }
        },
        scalar => Ok(Some(scalar)),
    }
}

fn adopt_list(mut list: Vec<Value>, rule: Merge) -> Result<Value, Reason> {
    merge_elements(&mut list, None, rule)?;
    Ok(Value::Array(list))
}

/// Merges the elements of a patch into those of a list; without a patch the list itself is what a
/// patch added.
fn merge_elements(
    list: &mut Vec<Value>,
    mut patch: Option<Vec<Value>>,
    rule: Merge,
) -> Result<(), Reason> {
    if rule.keys.is_empty() {
        merge_values(list, patch.as_ref());
        return Ok(());
    }
    let mut identities: Vec<Vec<String>> = Vec::new();
    for element in patch.iter().flatten().chain(list.iter()) {
        let values = rule.keys.iter().map(|key| key_text(element, key)).collect();
        if !identities.contains(&values) {
            identities.push(values);
        }
    }
    if rule.keys.len() > 1 {
        complete(&mut identities);
    }
    let mut merged: Vec<Value> = Vec::new();
    let mut keys: Vec<&str> = rule.keys.to_vec();
    let mut values;
    for identity in &identities {
        (keys, values) = usable(&identities, identity, rule.keys);
        let (find_keys, find_values) = usable(std::slice::from_ref(&values), &values, &keys);
        let ours = find(list, &find_keys, &find_values);
        let theirs = patch.as_mut().and_then(|patch| {
            let index = find(patch, &find_keys, &find_values)?;
            Some(without_directive(&mut patch[index]))
        });
        let element = match (ours, &patch, theirs) {
            (Some(index), Some(_), theirs) => {
                let outcome = merge(list[index].clone(), theirs.as_ref(), Some(rule.element))?;
                if let Merged::Kept(value) = &outcome {
                    list[index] = value.clone();
                }
                outcome.into_value()
            }
            (Some(index), None, _) => {
                let added = without_directive(&mut list[index]);
                let adopted = adopt(added, Some(rule.element), true)?;
                if let Some(value) = &adopted {
                    list[index] = value.clone();
                }
                adopted
            }
            (None, _, Some(theirs)) => adopt(theirs, Some(rule.element), false)?,
            (None, _, None) => None,
        };
        match element {
            Some(element) if !is_empty(&element) => {
                set(&mut merged, Some(&element), &keys, &values);
            }
            _ => set(list, None, &keys, &values),
        }
    }
    if !identities.is_empty() {
        append(&mut merged, list, &keys);
        *list = merged;
    }
    Ok(())
}

/// A copy of an element, which itself loses its directive: where two elements of a patch have one
/// identity, only the first use of the directive counts.
fn without_directive(element: &mut Value) -> Value {
    let copy = element.clone();
    if let Value::Object(map) = element {
        map.shift_remove(DIRECTIVE);
    }
    copy
}

/// Merges lists of plain values: a union, the patch's first.
fn merge_values(list: &mut Vec<Value>, patch: Option<&Vec<Value>>) {
    let mut seen = BTreeSet::new();
    *list = patch
        .into_iter()
        .flatten()
        .chain(list.iter())
        .filter(|value| seen.insert(text(value).into_owned()))
        .cloned()
        .collect();
}

/// The value of a key in an element, as text; empty if there is none.
fn key_text(element: &Value, key: &str) -> String {
    match element.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(value) => text(value).into_owned(),
    }
}

/// Fills in missing values of identities that can only mean one element: a port without a protocol
/// is the port with one.
fn complete(identities: &mut [Vec<String>]) {
    for i in 0..identities.len() {
        let before = identities[i].clone();
        for j in 0..identities.len() {
            if let Some(both) = unite(&before, &identities[j]) {
                identities[i].clone_from(&both);
                identities[j] = both;
            }
        }
    }
}

fn unite(a: &[String], b: &[String]) -> Option<Vec<String>> {
    let mut common = false;
    let mut both = Vec::new();
    for (a, b) in a.iter().zip(b) {
        common |= a == b;
        if a != b && !a.is_empty() && !b.is_empty() {
            return None;
        }
        both.push(if a.is_empty() { b } else { a }.clone());
    }
    common.then_some(both)
}

/// The keys that some identity has a value for, with this identity's values.
fn usable<'k>(
    identities: &[Vec<String>],
    identity: &[String],
    keys: &[&'k str],
) -> (Vec<&'k str>, Vec<String>) {
    let used = |index: usize| identities.iter().any(|values| !values[index].is_empty());
    if !(0..keys.len()).any(used) {
        return (keys.to_vec(), identity.to_vec());
    }
    (0..keys.len())
        .filter(|index| used(*index))
        .map(|index| (keys[index], identity[index].clone()))
        .unzip()
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

/// Whether an element has the values; an empty value stands for any.
fn has(element: &Value, keys: &[&str], values: &[String]) -> bool {
    keys.iter().zip(values).all(|(key, value)| {
        element
            .get(key)
            .is_some_and(|found| value.is_empty() || text(found) == *value)
    })
}

/// The first element with exactly the values.
fn find(list: &[Value], keys: &[&str], values: &[String]) -> Option<usize> {
    list.iter().position(|element| {
        keys.iter()
            .zip(values)
            .all(|(key, value)| element.get(key).is_some_and(|found| text(found) == *value))
    })
}

/// Puts an element where one with the same values stands, else at the end; without an element,
/// takes those away.
fn set(list: &mut Vec<Value>, element: Option<&Value>, keys: &[&str], values: &[String]) {
    let mut found = false;
    let mut kept = Vec::with_capacity(list.len() + 1);
    for old in list.drain(..) {
        if is_empty(&old) {
            continue;
        }
        if !old.is_object() {
            kept.push(old);
        } else if values.is_empty() || !has(&old, keys, values) {
            if !values.is_empty() {
                kept.push(old);
            }
        } else {
            found = true;
            kept.extend(element.cloned());
        }
    }
    if !found {
        kept.extend(element.cloned());
    }
    *list = kept;
}

/// Adds the elements of the old list to the merged ones, or puts them in their places.
fn append(merged: &mut Vec<Value>, list: &[Value], keys: &[&str]) {
    for element in list {
        let mut values = Vec::new();
        for key in keys {
            match element.get(key) {
                Some(value) => values.push(text(value).into_owned()),
                None => merged.push(element.clone()),
            }
        }
        if keys.len() > 1 {
            set(merged, None, keys, &values);
        }
        set(merged, Some(element), keys, &values);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
    }

    fn check(spec: &Value, patch: &Value, expect: &Value) {
        let merged = apply(&pod(spec), &pod(patch)).unwrap();
        assert_eq!(merged, Some(pod(expect)), "{patch}");
    }

    #[test]
    fn merged_lists_begin_with_the_patch() {
        check(
            &json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}),
            &json!({"containers": [{"name": "c"}, {"name": "b", "image": "2"}]}),
            &json!({"containers": [{"name": "c"}, {"name": "b", "image": "2"}, {"name": "a", "image": "1"}]}),
        );
        check(
            &json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            &json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            &json!({"containers": [{"name": "b"}]}),
        );
        check(
            &json!({"volumes": [{"name": "a"}]}),
            &json!({"volumes": [{"$patch": "replace"}, {"name": "b"}]}),
            &json!({"volumes": [{"name": "b"}]}),
        );
    }

    #[test]
    fn other_lists_are_replaced_and_null_deletes() {
        check(
            &json!({"tolerations": [{"key": "a"}], "hostNetwork": true}),
            &json!({"tolerations": [{"key": "b"}], "hostNetwork": null}),
            &json!({"tolerations": [{"key": "b"}]}),
        );
    }

    #[test]
    fn a_number_in_the_place_of_a_quoted_one_becomes_a_text() {
        let env = |value: Value| json!({"containers": [{"name": "a", "env": [{"name": "A", "value": value}]}]});
        check(&env(json!("1")), &env(json!(2)), &env(json!("2")));
        check(&env(json!("x")), &env(json!(2)), &env(json!(2)));
    }

    #[test]
    fn a_misfit_names_its_place() {
        let patch = pod(&json!({"securityContext": {"runAsUser": [1]}}));
        let object = pod(&json!({"securityContext": {"runAsUser": 1}}));
        assert_eq!(
            apply(&object, &patch).unwrap_err(),
            "in `spec.securityContext.runAsUser`: the patch has a list where the object has a single value"
        );
    }
}
