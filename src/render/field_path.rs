//! Paths to fields, as `replacements` write them: `spec.containers.[name=web].ports.0`.

use regex::Regex;
use serde_json::{Map, Value};

use crate::model::scalar::{self, text};

/// What is created at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// A mapping.
    Mapping,
    /// A list.
    List,
    /// A single value.
    Single,
}

impl Created {
    fn value(self) -> Value {
        match self {
            Self::Mapping => Value::Object(Map::new()),
            Self::List => Value::Array(Vec::new()),
            Self::Single => scalar::untyped(),
        }
    }
}

/// A path, in parts.
#[derive(Debug)]
pub(super) struct FieldPath(Vec<String>);

impl FieldPath {
    /// Splits at dots, but for those after a backslash and those in brackets.
    pub(super) fn parse(path: &str) -> Self {
        let mut parts: Vec<String> = Vec::new();
        for part in path.strip_prefix('.').unwrap_or(path).split('.') {
            match parts.last_mut() {
                Some(last) if last.ends_with('\\') => {
                    last.pop();
                    *last = format!("{last}.{part}");
                }
                _ => parts.push(part.to_owned()),
            }
        }
        let mut whole = Vec::new();
        let mut parts = parts.into_iter();
        while let Some(mut part) = parts.next() {
            if part.starts_with('[') && !part.ends_with(']') {
                for next in parts.by_ref() {
                    part = format!("{part}.{next}");
                    if part.ends_with(']') {
                        break;
                    }
                }
                if !part.contains('=') {
                    let inner = part.trim_matches(['[', ']']).to_owned();
                    part = inner;
                }
            }
            whole.push(part);
        }
        Self(whole)
    }

    /// The one value at the path.
    pub(super) fn get<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        let parts = self.0.iter().map(|part| part.trim());
        parts
            .filter(|part| !part.is_empty())
            .try_fold(value, |value, part| {
                if let Ok(index) = part.parse::<usize>() {
                    value.as_array()?.get(index)
                } else if part == "-" {
                    value.as_array()?.last()
                } else if let Some(element) = bracketed(part) {
                    let (field, wanted) = element.split_once('=')?;
                    value.as_array()?.iter().find(|item| {
                        let found = if field.is_empty() {
                            Some(*item)
                        } else {
                            item.get(field).filter(|value| !value.is_null())
                        };
                        found.is_some_and(|found| text(found) == wanted)
                    })
                } else {
                    value.as_object()?.get(part)
                }
            })
    }

    /// Calls `set` with every value at the path; gives their number. What is missing is created if
    /// asked for.
    pub(super) fn visit(
        &self,
        value: &mut Value,
        create: Option<Created>,
        set: &mut dyn FnMut(&mut Value) -> Result<(), String>,
    ) -> Result<usize, String> {
        let mut visitor = Visitor { create, set };
        visitor.visit(value, &self.0)
    }
}

/// The inside of `[…]`.
fn bracketed(part: &str) -> Option<&str> {
    part.strip_prefix('[')?.strip_suffix(']')
}

struct Visitor<'s> {
    create: Option<Created>,
    set: &'s mut dyn FnMut(&mut Value) -> Result<(), String>,
}

impl Visitor<'_> {
    fn visit(&mut self, value: &mut Value, path: &[String]) -> Result<usize, String> {
        let Some((part, rest)) = path.split_first() else {
            (self.set)(value)?;
            return Ok(1);
        };
        if let Ok(index) = part.parse::<usize>() {
            self.index(value, index, rest)
        } else if let Some(element) = bracketed(part) {
            let (field, wanted) = element
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not `[field=value]`"))?;
            self.element(value, field, wanted, rest)
        } else if part == "*" {
            let mut visited = 0;
            for item in items(value, part)? {
                visited += self.visit(item, rest)?;
            }
            Ok(visited)
        } else {
            self.field(value, part, rest)
        }
    }

    fn field(&mut self, value: &mut Value, name: &str, rest: &[String]) -> Result<usize, String> {
        let map = match value {
            Value::Object(map) => map,
            Value::Null if self.create.is_none() => return Ok(0),
            _ => return Err(format!("`{name}` is looked for in what is no mapping")),
        };
        let next = match (map.get_mut(name), self.create) {
            (Some(_), _) => map.get_mut(name),
            (None, None) => None,
            (None, Some(create)) => Some(map.entry(name).or_insert(start(rest, create).value())),
        };
        let Some(next) = next else {
            return Ok(0);
        };
        if !(rest.is_empty() || next.is_object() || next.is_array() || next.is_null()) {
            return Err(format!(
                "`{name}` is a single value; what is written inside of a text can't be replaced"
            ));
        }
        self.visit(next, rest)
    }

    fn index(&mut self, value: &mut Value, index: usize, rest: &[String]) -> Result<usize, String> {
        let items = items(value, &index.to_string())?;
        if let Some(create) = self.create
            && items.len() == index
        {
            items.push(start(rest, create).value());
        }
        let length = items.len();
        let item = items
            .get_mut(index)
            .ok_or_else(|| format!("there is no item {index} in a list of {length}"))?;
        self.visit(item, rest)
    }

    fn element(
        &mut self,
        value: &mut Value,
        field: &str,
        wanted: &str,
        rest: &[String],
    ) -> Result<usize, String> {
        let pattern =
            Regex::new(wanted).map_err(|_| format!("`{wanted}` is not a regular expression"))?;
        let items = items(value, wanted)?;
        let visited = self.matching(items, field, &pattern, rest)?;
        if visited > 0 || self.create.is_none() {
            return Ok(visited);
        }
        let name = match scalar::plain(wanted) {
            scalar::Scalar::Value(value) => value,
            scalar::Scalar::NotFinite => wanted.into(),
        };
        items.push(if field.is_empty() {
            name
        } else {
            Value::Object(Map::from_iter([(field.to_owned(), name)]))
        });
        let created = items.len() - 1;
        self.matching(&mut items[created..], field, &pattern, rest)
    }

    fn matching(
        &mut self,
        items: &mut [Value],
        field: &str,
        pattern: &Regex,
        rest: &[String],
    ) -> Result<usize, String> {
        let mut visited = 0;
        for item in items {
            if field.is_empty() {
                if pattern.is_match(text(item).trim()) {
                    (self.set)(item)?;
                    visited += 1;
                }
            } else if item
                .get(field)
                .is_some_and(|found| pattern.is_match(text(found).trim()))
            {
                visited += self.visit(item, rest)?;
            }
        }
        Ok(visited)
    }
}

/// What a part of the path is created as: what the rest goes through.
fn start(rest: &[String], create: Created) -> Created {
    match rest.first() {
        None => create,
        Some(next) if bracketed(next).is_some() || next.parse::<usize>().is_ok() => Created::List,
        Some(_) => Created::Mapping,
    }
}

fn items<'v>(value: &'v mut Value, part: &str) -> Result<&'v mut Vec<Value>, String> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(format!("`{part}` is looked for in what is no list")),
    }
}
