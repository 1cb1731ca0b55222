//! Small readings of Kubernetes objects that several rooms here need.

use serde_json::Value;

/// The name of an object.
pub(in crate::federation) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The namespace of an object.
pub(in crate::federation) fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

/// The label of an object.
pub(in crate::federation) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"][key].as_str()
}

/// The items of a list, none if it is none.
pub(in crate::federation) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Whether a selector's labels are all among these labels; an empty selector selects nothing.
pub(in crate::federation) fn selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().is_some_and(|wanted| {
        !wanted.is_empty()
            && wanted
                .iter()
                .all(|(key, value)| labels[key.as_str()] == *value)
    })
}
