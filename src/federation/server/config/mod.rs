//! The text of `server.conf`: what its `server.federation` says, and how that one value is replaced
//! without touching a byte of anything else.
//!
//! SPIRE reads HCL (`github.com/hashicorp/hcl` v1), of which JSON is a form: there a block may be an
//! object or a list of one, `profile "https_spiffe" {}` is `{"https_spiffe": {}}`, and names are
//! matched whatever their case. All distributions write JSON.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize as _,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, ser::PrettyFormatter, value::RawValue};
use thiserror::Error;

use crate::model::diagnostic::nearest;

/// A server's configuration as it stands in a `ConfigMap`.
#[derive(Clone, Debug)]
pub struct ServerConf<'a> {
    text: &'a str,
    document: Value,
    server: Place,
    /// The members of `server`: name, and place of the value.
    members: Vec<(String, Place)>,
}

/// Where something stands in the text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    start: usize,
    end: usize,
}

/// Why a configuration can't be changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unusable {
    /// It is HCL in its own form.
    #[error(
        "the configuration is HCL, which is not changed for you, as its comments and form would be lost"
    )]
    Hcl,
    /// It is neither.
    #[error("the configuration is not JSON: {0}")]
    NotJson(String),
    /// It has not the form that is understood.
    #[error("the configuration {0}")]
    Form(&'static str),
}

impl<'a> ServerConf<'a> {
    /// Reads a configuration.
    pub fn parse(text: &'a str) -> Result<Self, Unusable> {
        if !text.trim_start().starts_with('{') {
            return Err(Unusable::Hcl);
        }
        let not_json = |error: serde_json::Error| Unusable::NotJson(error.to_string());
        let top: Members<'a> = serde_json::from_str(text).map_err(not_json)?;
        let server = top.only("server")?;
        let server = server.ok_or(Unusable::Form("has no `server`"))?;
        let place = Place::of(server, text);
        let members: Members<'a> = serde_json::from_str(server.get())
            .map_err(|_| Unusable::Form("has a `server` that is not one object"))?;
        members.only(FEDERATION)?;
        let members = members.0.into_iter();
        Ok(Self {
            text,
            document: serde_json::from_str(text).map_err(not_json)?,
            server: place,
            members: members
                .map(|(name, value)| (name, Place::of(value, text)))
                .collect(),
        })
    }

    /// All of it.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// `server.federation`.
    pub fn federation(&self) -> Option<&Value> {
        let server = named(self.document.as_object()?, "server")?;
        named(server.as_object()?, FEDERATION)
    }

    /// The text with another `server.federation`, or without one.
    pub fn with_federation(&self, federation: Option<&Value>) -> String {
        let index = self
            .members
            .iter()
            .position(|(name, _)| name.eq_ignore_ascii_case(FEDERATION));
        match (index, federation) {
            (None, None) => self.text.to_owned(),
            (Some(index), Some(federation)) => {
                let place = self.members[index].1;
                let indent = self.indent_at(place.start);
                self.spliced(place, &self.written(federation, indent))
            }
            (Some(index), None) => self.spliced(self.place_of_member(index), ""),
            (None, Some(federation)) => {
                let name = Value::from(FEDERATION);
                if let Some((_, last)) = self.members.last() {
                    let indent = self.indent_at(last.start);
                    let value = self.written(federation, indent);
                    let after = Place {
                        start: last.end,
                        end: last.end,
                    };
                    let separator = match self.unit() {
                        Some(_) => format!(",\n{indent}{name}: {value}"),
                        None => format!(",{name}:{value}"),
                    };
                    self.spliced(after, &separator)
                } else {
                    let server = serde_json::json!({FEDERATION: federation});
                    let indent = self.indent_at(self.server.start);
                    self.spliced(self.server, &self.written(&server, indent))
                }
            }
        }
    }

    fn spliced(&self, place: Place, text: &str) -> String {
        let (before, after) = (&self.text[..place.start], &self.text[place.end..]);
        format!("{before}{text}{after}")
    }

    /// The place of a member of `server` with its name, and with the comma that goes with it.
    fn place_of_member(&self, index: usize) -> Place {
        let end = self.members[index].1.end;
        if let Some(before) = index.checked_sub(1) {
            let start = self.members[before].1.end;
            return Place { start, end };
        }
        let start = self.server.start + 1;
        let comma = self.text[end..self.server.end]
            .find(',')
            .filter(|_| self.members.len() > 1);
        Place {
            start,
            end: comma.map_or(self.server.end - 1, |comma| end + comma + 1),
        }
    }

    /// How a level is indented; `None` if all stands on one line.
    fn unit(&self) -> Option<&'a str> {
        let first = self.text.find('"')?;
        let (_, indent) = self.text[..first].rsplit_once('\n')?;
        Some(if indent.is_empty() { "  " } else { indent })
    }

    /// How the line is indented in which a place lies.
    fn indent_at(&self, start: usize) -> &'a str {
        let line = self.text[..start].rsplit('\n').next().unwrap_or_default();
        let content = line.trim_start();
        &line[..line.len() - content.len()]
    }

    /// A value in the form that the text has, in a line with that indent.
    fn written(&self, value: &Value, indent: &str) -> String {
        let Some(unit) = self.unit() else {
            return value.to_string();
        };
        let mut bytes = Vec::new();
        let formatter = PrettyFormatter::with_indent(unit.as_bytes());
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        // Writing a value to memory does not fail.
        if value.serialize(&mut serializer).is_err() {
            return value.to_string();
        }
        String::from_utf8_lossy(&bytes).replace('\n', &format!("\n{indent}"))
    }
}

impl Place {
    /// The place of a value that was read from the text.
    fn of(value: &RawValue, text: &str) -> Self {
        let start = value.get().as_ptr().addr() - text.as_ptr().addr();
        Self {
            start,
            end: start + value.get().len(),
        }
    }
}

/// The name of what is changed, in `server`.
const FEDERATION: &str = "federation";

/// A member by its name, as SPIRE finds it.
fn named<'a>(object: &'a serde_json::Map<String, Value>, name: &str) -> Option<&'a Value> {
    let mut found = object
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value)
}

/// The members of an object, each as it is written.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The member of a name; SPIRE would read two as one.
    fn only(&self, name: &str) -> Result<Option<&'a RawValue>, Unusable> {
        let mut found = self
            .0
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(Unusable::Form("has `server` or `federation` twice")),
            (first, None) => Ok(first.map(|(_, value)| *value)),
        }
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// What a block holds, if it is an object, or a list of one.
pub(super) fn block(value: &Value) -> Option<&serde_json::Map<String, Value>> {
    match value {
        Value::Object(members) => Some(members),
        Value::Array(items) => match items.as_slice() {
            [Value::Object(members)] => Some(members),
            _ => None,
        },
        _ => None,
    }
}

/// Names below `server.federation` that SPIRE does not know, each with the name that was probably
/// meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misspelt {
    /// Those that it drops without a word.
    pub dropped: Vec<String>,
    /// Those with which it does not start (`checkForUnknownConfig` of `cmd/spire-server`).
    pub fatal: Vec<String>,
}

impl Misspelt {
    /// Looks through `server.federation`.
    pub fn in_section(federation: &Value) -> Self {
        let members = block(federation);
        let member = |name: &str| members.and_then(|members| named(members, name));
        let mut dropped = unknown(Some(federation), "", &["bundle_endpoint", "federates_with"]);
        let peers = member("federates_with").and_then(block);
        for (peer, value) in peers.into_iter().flatten() {
            let path = format!("federates_with.{peer}.");
            dropped.extend(unknown(Some(value), &path, &PEER));
        }
        Self {
            dropped,
            fatal: unknown(member("bundle_endpoint"), "bundle_endpoint.", &ENDPOINT),
        }
    }
}

/// What `bundle_endpoint` may hold.
const ENDPOINT: [&str; 5] = ["address", "port", "refresh_hint", "profile", "acme"];

/// What a peer in `federates_with` may hold; the last two since SPIRE 1.16.
const PEER: [&str; 4] = [
    "bundle_endpoint_url",
    "bundle_endpoint_profile",
    "bootstrap_bundle_path",
    "bootstrap_bundle_format",
];

fn unknown(value: Option<&Value>, path: &str, known: &[&str]) -> Vec<String> {
    let members = value.and_then(block).into_iter().flatten();
    members
        .filter(|(name, _)| !known.iter().any(|known| known.eq_ignore_ascii_case(name)))
        .map(|(name, _)| {
            let meant = nearest(&name.to_lowercase(), known.iter().copied());
            let meant = meant.map(|it| format!(" (is `{it}` meant?)"));
            format!("`{path}{name}`{}", meant.unwrap_or_default())
        })
        .collect()
}

/// The trust domains that the server federates with by its own configuration.
pub fn static_names(federation: Option<&Value>) -> Vec<String> {
    let peers = federation
        .and_then(block)
        .and_then(|members| named(members, "federates_with"));
    let blocks = match peers {
        Some(Value::Array(items)) => items.iter().filter_map(block).collect(),
        Some(value) => block(value).into_iter().collect(),
        None => Vec::new(),
    };
    blocks
        .into_iter()
        .flat_map(|members| members.keys().cloned())
        .collect()
}

#[cfg(test)]
mod tests;
