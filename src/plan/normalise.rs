//! What a declared object says in a form that servers do not keep, in the form that they do: else
//! the object would never be as it is declared.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// Brings an object into the form that servers keep: `stringData` of a Secret is written into `data`
/// (applied as it is, a key that was removed from it would stay: kubernetes#108008), and what only
/// servers write is left out.
pub fn normalise(object: &mut Value) {
    let is_secret = object["apiVersion"] == "v1" && object["kind"] == "Secret";
    let Some(members) = object.as_object_mut() else {
        return;
    };
    members.shift_remove("status");
    if let Some(metadata) = members.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, value| !(name == "creationTimestamp" && value.is_null()));
    }
    let texts = members.get("stringData").and_then(Value::as_object);
    if let (true, Some(texts)) = (is_secret, texts.cloned()) {
        members.shift_remove("stringData");
        let data = members.entry("data").or_insert_with(|| json!({}));
        if !data.is_object() {
            *data = json!({});
        }
        for (name, text) in texts {
            // Anything else than a text is for the server to refuse.
            data[name] = match text.as_str() {
                Some(text) => STANDARD.encode(text).into(),
                None => text,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_written_as_servers_keep_it() {
        let mut secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "s", "creationTimestamp": null},
            "data": {"a": "eA==", "b": "eA=="}, "stringData": {"b": "y"}, "status": {},
        });
        normalise(&mut secret);
        let expected = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
            "data": {"a": "eA==", "b": "eQ=="},
        });
        assert_eq!(secret, expected);
        let mut other = json!({"kind": "Other", "stringData": {"b": "y"}});
        let before = other.clone();
        normalise(&mut other);
        assert_eq!(other, before);
    }
}
