//! Kustomize reads `kustomization.yaml` and JSON patches with another YAML library than manifests:
//! there `yes` and `on` are booleans, and `0o17` is a text. Such scalars are refused, as nobody
//! means that.

use serde_json::Value;

use crate::model::{
    diagnostic::{Code, Diagnostic, Position},
    repository::RepoPath,
    yaml::Document,
};

/// A scalar that means something else to kustomize than it does in a manifest.
pub(super) struct Ambiguous {
    /// As written.
    scalar: String,
    /// Its place in the text.
    position: Position,
}

impl Ambiguous {
    /// What is wrong with it, at its place in the file.
    pub(super) fn refuse(self, path: &RepoPath) -> Diagnostic {
        let (meaning, help) = if is_boolean(&self.scalar) {
            ("a boolean", "put it in quotes, or write `true` or `false`")
        } else {
            ("a text", "write it in decimal")
        };
        let message = format!("`{}` is {meaning} to kustomize here", self.scalar);
        Diagnostic::error(Code::InvalidValue, path, message)
            .at(self.position)
            .help(help)
    }
}

/// The first ambiguous scalar of a document; `text` is what the document was read from.
pub(super) fn ambiguous(document: &Document, text: &str) -> Option<Ambiguous> {
    // JSON has no plain scalars.
    if text.starts_with('[') {
        return None;
    }
    let lines: Vec<&str> = text.lines().collect();
    search(&document.value, "", &|pointer, scalar, is_key| {
        let position = if is_key {
            document.key_position_of(pointer)
        } else {
            document.position_of(pointer)
        };
        let line = lines.get(position.line.checked_sub(1)?)?;
        let written: String = line.chars().skip(position.column - 1).collect();
        let plain = match scalar {
            Some(word) => written.starts_with(word),
            None => written.starts_with("0o") || written.starts_with("0O"),
        };
        plain.then(|| Ambiguous {
            scalar: scalar.map_or_else(
                || {
                    written
                        .split([' ', ',', '}', ']'])
                        .next()
                        .unwrap_or_default()
                        .to_owned()
                },
                str::to_owned,
            ),
            position,
        })
    })
}

type Test<'a> = dyn Fn(&str, Option<&str>, bool) -> Option<Ambiguous> + 'a;

fn search(value: &Value, pointer: &str, test: &Test<'_>) -> Option<Ambiguous> {
    let child = |part: &str| format!("{pointer}/{}", part.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::String(word) if is_boolean(word) => test(pointer, Some(word), false),
        Value::Number(_) => test(pointer, None, false),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .find_map(|(index, item)| search(item, &child(&index.to_string()), test)),
        Value::Object(map) => map.iter().find_map(|(key, value)| {
            let pointer = child(key);
            is_boolean(key)
                .then(|| test(&pointer, Some(key), true))
                .flatten()
                .or_else(|| search(value, &pointer, test))
        }),
        _ => None,
    }
}

/// Whether a plain scalar is a boolean in YAML 1.1, and not in YAML 1.2.
fn is_boolean(text: &str) -> bool {
    let word = text.to_ascii_lowercase();
    let cased = text == word || text == word.to_ascii_uppercase() || text.get(1..) == word.get(1..);
    cased && matches!(word.as_str(), "y" | "yes" | "on" | "n" | "no" | "off")
}
