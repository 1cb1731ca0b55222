//! The hash of an object's content, which kustomize appends to the names of what it generates.
//!
//! It is that of the object's JSON as Go's `encoding/json` writes it, shortened, and without the
//! letters and digits that make words.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::resource::Resource;
use crate::model::scalar;

/// The length of a hash.
const LENGTH: usize = 10;

/// The hash of a `ConfigMap` or Secret; `None` for all other kinds.
pub(super) fn of(resource: &Resource) -> Option<String> {
    let mut object = resource.object.clone();
    scalar::settle(&mut object);
    // Kustomize means to hash the name too, but looks for it in a field `metadata/name`.
    let mut hashed = Map::from_iter([
        ("kind".to_owned(), resource.kind().into()),
        ("name".to_owned(), "".into()),
    ]);
    let mut take = |field: &str, always: bool| {
        let value = object.get_mut(field).map(Value::take);
        match value {
            Some(value @ Value::Object(_)) => drop(hashed.insert(field.to_owned(), value)),
            value if always => {
                let text = value.map_or(String::new(), |value| scalar::text(&value).into_owned());
                hashed.insert(field.to_owned(), text.into());
            }
            _ => {}
        }
    };
    take("data", true);
    match resource.kind() {
        "ConfigMap" => take("binaryData", false),
        "Secret" => {
            take("type", true);
            take("stringData", false);
        }
        _ => return None,
    }
    let mut json = String::new();
    write(&Value::Object(hashed), &mut json);
    let digest = base16ct::lower::encode_string(&Sha256::digest(json.as_bytes()));
    let letter = |digit: char| match digit {
        '0' => 'g',
        '1' => 'h',
        '3' => 'k',
        'a' => 'm',
        'e' => 't',
        other => other,
    };
    Some(digest.chars().take(LENGTH).map(letter).collect())
}

/// Writes JSON as Go does: keys in order, and what HTML gives a meaning is escaped.
fn write(value: &Value, json: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| key.as_bytes());
            json.push('{');
            for (index, (key, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write_text(key, json);
                json.push(':');
                write(value, json);
            }
            json.push('}');
        }
        Value::Array(items) => {
            json.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write(item, json);
            }
            json.push(']');
        }
        Value::String(text) => write_text(text, json),
        scalar => json.push_str(&scalar.to_string()),
    }
}

fn write_text(text: &str, json: &mut String) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
}
