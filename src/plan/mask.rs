//! The values of Secrets are never shown: only whether they are there, and whether they change.

use serde_json::Value;

/// Where `kubectl apply` keeps a copy of everything, a Secret's values too.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

const MASK: &str = "***";
const BEFORE: &str = "*** (before)";
const AFTER: &str = "*** (after)";

/// Both sides of a change, fit to be shown. Values that are equal have equal masks.
pub fn pair(before: Option<&Value>, after: Option<&Value>) -> (Option<Value>, Option<Value>) {
    let (mut before, mut after) = (before.cloned(), after.cloned());
    let secret = |side: &Option<Value>| side.as_ref().is_some_and(is_secret);
    // The kind of either side decides: a side that lies about its kind shows nothing.
    if secret(&before) || secret(&after) {
        mask(before.as_mut(), after.as_mut());
    }
    (before, after)
}

/// One object, fit to be shown.
pub fn one(object: &Value) -> Value {
    pair(Some(object), None).0.unwrap_or_default()
}

/// A text about an object, such as a server's refusal, without the object's secret values.
pub fn redacted(text: &str, object: &Value) -> String {
    let mut text = text.to_owned();
    if is_secret(object) {
        let members = ["data", "stringData"].map(|field| object[field].as_object());
        for value in members
            .into_iter()
            .flatten()
            .flat_map(|members| members.values())
        {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            // A shorter one would blot out words, and tells little.
            if value.len() > 2 {
                text = text.replace(&value, MASK);
            }
        }
    }
    text
}

fn is_secret(object: &Value) -> bool {
    object["kind"] == "Secret"
}

fn mask(mut before: Option<&mut Value>, mut after: Option<&mut Value>) {
    for field in ["data", "stringData"] {
        let original = before.as_deref().map(|side| side[field].clone());
        if let Some(members) = before.as_deref_mut().and_then(|side| side.get_mut(field)) {
            mask_members(members, after.as_deref().map(|side| &side[field]), BEFORE);
        }
        if let Some(members) = after.as_deref_mut().and_then(|side| side.get_mut(field)) {
            mask_members(members, original.as_ref(), AFTER);
        }
    }
    for side in [before, after].into_iter().flatten() {
        if let Some(copy) = side.pointer_mut("/metadata/annotations")
            && let Some(copy) = copy.get_mut(LAST_APPLIED)
        {
            *copy = MASK.into();
        }
    }
}

fn mask_members(members: &mut Value, other: Option<&Value>, changed: &str) {
    match members {
        Value::Object(members) => {
            for (name, value) in members {
                let other = other.and_then(|other| other.get(name));
                let mask = if other.is_none_or(|other| other == value) {
                    MASK
                } else {
                    changed
                };
                *value = mask.into();
            }
        }
        Value::Null => {}
        // Not what a Secret looks like, but perhaps what somebody keeps secret.
        other => *other = MASK.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_masked_and_changes_are_seen() {
        let secret = |a: &str| json!({"kind": "Secret", "data": {"a": a, "b": "same"}});
        let (before, after) = pair(Some(&secret("one")), Some(&secret("two")));
        assert_eq!(
            before.unwrap()["data"],
            json!({"a": "*** (before)", "b": "***"})
        );
        assert_eq!(
            after.unwrap()["data"],
            json!({"a": "*** (after)", "b": "***"})
        );
        let applied = json!({
            "kind": "Secret",
            "metadata": {"annotations": {LAST_APPLIED: "{\"data\":{\"a\":\"hidden\"}}"}},
        });
        assert!(!one(&applied).to_string().contains("hidden"));
        let other = json!({"kind": "ConfigMap", "data": {"a": "shown"}});
        assert_eq!(one(&other), other);
    }

    #[test]
    fn a_refusal_does_not_quote_the_value() {
        let secret = json!({"kind": "Secret", "data": {"a": "not base64"}});
        assert_eq!(redacted("illegal: `not base64`", &secret), "illegal: `***`");
    }

    proptest! {
        #[test]
        fn no_value_gets_through(value in "[a-z]{12}", other in "[a-z]{12}", kind in "Secret|ConfigMap") {
            let before = json!({"kind": "Secret", "data": {"k": value}, "stringData": {"l": value}});
            let after = json!({"kind": kind, "data": {"k": other}, "stringData": [other]});
            let (before, after) = pair(Some(&before), Some(&after));
            let text = format!("{before:?}{after:?}");
            prop_assert!(!text.contains(&value) && !text.contains(&other), "{}", text);
        }
    }
}
