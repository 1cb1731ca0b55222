//! JSON Schemas as Markdown: a table for each object of a document.

use std::fmt::Write as _;

use serde_json::Value;

use super::cell;

/// Who writes a document, and so what has to be said of its fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    /// What must be there, and what it is otherwise.
    People,
    /// The meaning is enough.
    Agent,
}

/// The object at a path of a document, and each object in it, with a table of its fields.
pub(crate) fn tables(schema: &Value, path: &str, author: Author) -> String {
    let mut tables = Tables {
        root: schema,
        author,
        told: Vec::new(),
        text: String::new(),
    };
    let mut object = schema;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        object = tables.resolved(&object["properties"][part]);
    }
    tables.object(path, object);
    tables.text
}

struct Tables<'a> {
    /// What references begin at.
    root: &'a Value,
    author: Author,
    /// The objects that have a table, or will have one, and where.
    told: Vec<(&'a Value, String)>,
    text: String,
}

impl<'a> Tables<'a> {
    fn object(&mut self, path: &str, schema: &'a Value) {
        let forms = self.objects(schema);
        assert!(!forms.is_empty(), "`{path}` has no field: {schema:#}");
        // Of several forms each has one field.
        let one_of = forms.len() > 1;
        if !path.is_empty() {
            let _ = writeln!(self.text, "### `{path}`\n");
        }
        if let Some(described) = described(schema) {
            let _ = writeln!(self.text, "{}\n", described.trim());
        }
        self.text.push_str(match self.author {
            Author::People => "| field | type | | meaning |\n|---|---|---|---|\n",
            Author::Agent => "| field | type | meaning |\n|---|---|---|\n",
        });
        let mut below = Vec::new();
        for form in forms {
            let fields = form["properties"].as_object().into_iter().flatten();
            for (name, field) in fields {
                let resolved = self.resolved(field);
                let meaning = described(field)
                    .or_else(|| described(form).filter(|_| one_of))
                    .or_else(|| described(resolved))
                    .unwrap_or_default();
                let meaning = format!("{}{}", cell(meaning), self.meanings(resolved));
                let path = match path {
                    "" => name.clone(),
                    _ => format!("{path}.{name}"),
                };
                let mut kind = self.kind(field);
                if let Some((path, object)) = self.below(path, field) {
                    let mut told = self.told.iter();
                    let told = told.find(|(other, _)| std::ptr::eq(*other, object));
                    if let Some((_, place)) = told {
                        kind = format!("{kind}, as `{place}`");
                    } else {
                        self.told.push((object, path.clone()));
                        below.push((path, object));
                    }
                }
                let _ = match self.author {
                    Author::Agent => writeln!(self.text, "| `{name}` | {kind} | {meaning} |"),
                    Author::People => {
                        let otherwise = if one_of {
                            String::new()
                        } else {
                            otherwise(form, name, field)
                        };
                        let row = format!("| `{name}` | {kind} | {otherwise} | {meaning} |");
                        writeln!(self.text, "{row}")
                    }
                };
            }
        }
        self.text.push('\n');
        for (path, schema) in below {
            self.object(&path, schema);
        }
    }

    /// What a schema stands for: a reference, or what may also be left out.
    fn resolved(&self, schema: &'a Value) -> &'a Value {
        let reference = schema
            .get("$ref")
            .or_else(|| schema.pointer("/allOf/0/$ref"));
        if let Some(reference) = reference.and_then(Value::as_str) {
            let target = self.root.pointer(reference.trim_start_matches('#'));
            let target = target.ok_or_else(|| format!("there is no {reference}"));
            return self.resolved(target.unwrap());
        }
        let choices = schema.get("anyOf").and_then(Value::as_array);
        let some = choices.map(|choices| choices.iter().filter(|it| it["type"] != "null"));
        match some.map(Iterator::collect::<Vec<_>>).as_deref() {
            Some([one]) => self.resolved(one),
            _ => schema,
        }
    }

    /// The forms that a value may have, or the only one.
    fn forms(&self, schema: &'a Value) -> Vec<&'a Value> {
        match schema.get("oneOf").or_else(|| schema.get("anyOf")) {
            Some(forms) => {
                let forms = forms.as_array().into_iter().flatten();
                forms.map(|form| self.resolved(form)).collect()
            }
            None => vec![schema],
        }
    }

    /// The forms with fields.
    fn objects(&self, schema: &'a Value) -> Vec<&'a Value> {
        let mut forms = self.forms(schema);
        forms.retain(|form| {
            form["properties"]
                .as_object()
                .is_some_and(|it| !it.is_empty())
        });
        forms
    }

    /// The words that a value may be, with what each means.
    fn words(&self, schema: &'a Value) -> Vec<(&'a str, Option<&'a str>)> {
        let mut words = Vec::new();
        for form in self.forms(schema) {
            let one = form.get("const").into_iter();
            let several = form
                .get("enum")
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            let texts = one.chain(several).filter_map(Value::as_str);
            // What is said of the type is not said of its only word.
            let meaning = described(form).filter(|_| !std::ptr::eq(form, schema));
            words.extend(texts.map(|text| (text, meaning)));
        }
        words
    }

    /// What each word means, for the end of a cell.
    fn meanings(&self, schema: &'a Value) -> String {
        let mut text = String::new();
        for (word, meaning) in self.words(schema) {
            if let Some(meaning) = meaning {
                let _ = write!(text, "<br>`{word}`: {}", cell(meaning));
            }
        }
        text
    }

    fn kind(&self, schema: &'a Value) -> String {
        let schema = self.resolved(schema);
        let words = self.words(schema).into_iter();
        let mut kinds: Vec<String> = words.map(|(word, _)| format!("`{word}`")).collect();
        if !self.objects(schema).is_empty() {
            kinds.push("object".to_owned());
        }
        if kinds.is_empty() {
            let named = match &schema["type"] {
                Value::Array(types) => types.iter().find(|it| *it != "null"),
                one => Some(one),
            };
            kinds.push(match named.and_then(Value::as_str) {
                Some("array") => format!("list of {}", self.kind(&schema["items"])),
                Some("object") => format!("map to {}", self.kind(&schema["additionalProperties"])),
                Some(other) => other.to_owned(),
                None => "anything".to_owned(),
            });
        }
        kinds.join(", ")
    }

    /// The object that a field is, or a list or map of such.
    fn below(&self, path: String, schema: &'a Value) -> Option<(String, &'a Value)> {
        let schema = self.resolved(schema);
        if !self.objects(schema).is_empty() {
            return Some((path, schema));
        }
        if let Some(items) = schema.get("items") {
            return self.below(format!("{path}[]"), items);
        }
        let values = schema
            .get("additionalProperties")
            .filter(|it| it.is_object());
        self.below(format!("{path}.*"), values?)
    }
}

fn described(schema: &Value) -> Option<&str> {
    schema.get("description")?.as_str()
}

/// Whether a field must be there, and if not, what holds without it, where that is one value.
fn otherwise(object: &Value, name: &str, field: &Value) -> String {
    let mut required = object["required"].as_array().into_iter().flatten();
    if required.any(|it| it == name) {
        return "required".to_owned();
    }
    match field.get("default") {
        Some(Value::String(text)) if text.is_empty() => String::new(),
        Some(Value::String(text)) => format!("default `{text}`"),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => format!("default `{value}`"),
        _ if field["type"] == "boolean" => "default `false`".to_owned(),
        _ => String::new(),
    }
}
