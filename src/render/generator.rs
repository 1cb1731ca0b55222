//! `configMapGenerator` and `secretGenerator`: objects made of files, lines and literals.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{kustomization::GeneratorOptions, resource::Resource};
use crate::model::{manifest::Origin, scalar};

/// Kustomize's reader of lines ends silently at a longer one.
const MAX_LINE_BYTES: usize = 64 << 10;

/// How long lines of base64 are.
const BASE64_LINE: usize = 70;

/// An entry of one of the two generators.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GeneratorArgs {
    pub(super) name: String,
    namespace: Option<String>,
    #[serde(default)]
    pub(super) behavior: Behavior,
    #[serde(default)]
    literals: Vec<String>,
    #[serde(default)]
    files: Vec<String>,
    #[serde(default)]
    envs: Vec<String>,
    env: Option<String>,
    #[serde(default)]
    options: GeneratorOptions,
    #[serde(rename = "type")]
    secret_type: Option<String>,
}

/// What happens to an object of the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Behavior {
    /// There must be none.
    #[default]
    Create,
    /// Its data is kept, but for the keys that are generated.
    Merge,
    /// Its data goes.
    Replace,
}

/// What is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A `ConfigMap`: texts as they are, all else in base64.
    ConfigMap,
    /// A Secret: everything in base64.
    Secret,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// Makes the object of an entry. `load` reads a file relative to the kustomization; its error is
/// given back as it is.
pub(super) fn generate<E: From<String>>(
    kind: Kind,
    args: &GeneratorArgs,
    general: &GeneratorOptions,
    origin: &Origin,
    load: &mut dyn FnMut(&str) -> Result<Vec<u8>, E>,
) -> Result<Resource, E> {
    if args.name.is_empty() {
        return Err(format!("a generated {} needs a name", kind.name()).into());
    }
    if kind == Kind::ConfigMap && args.secret_type.is_some() {
        return Err("a ConfigMap has no `type`".to_owned().into());
    }
    let mut object =
        json!({"apiVersion": "v1", "kind": kind.name(), "metadata": {"name": args.name}});
    if let Some(namespace) = args.namespace.as_deref().filter(|text| !text.is_empty()) {
        object["metadata"]["namespace"] = namespace.into();
    }
    if kind == Kind::Secret {
        let given = args.secret_type.as_deref().filter(|text| !text.is_empty());
        object["type"] = scalar::literal(given.unwrap_or("Opaque"));
        object["data"] = Value::Object(Map::new());
    }
    for (key, content) in pairs(args, load)? {
        let (field, text) = match String::from_utf8(content) {
            Ok(text) if kind == Kind::ConfigMap => ("data", text),
            Ok(text) => ("data", base64(text.as_bytes())),
            Err(error) if kind == Kind::ConfigMap => ("binaryData", base64(error.as_bytes())),
            Err(error) => ("data", base64(error.as_bytes())),
        };
        object[field][key] = scalar::literal(&text);
    }
    let options = &args.options;
    for (field, own, general) in [
        ("labels", &options.labels, &general.labels),
        ("annotations", &options.annotations, &general.annotations),
    ] {
        for (name, text) in general.iter().chain(own) {
            object["metadata"][field][name] = scalar::literal(text);
        }
    }
    if options.immutable || general.immutable {
        object["immutable"] = true.into();
    }
    let mut resource = Resource::new(object, origin.clone());
    resource.is_generated = true;
    resource.needs_hash = !(options.disable_name_suffix_hash || general.disable_name_suffix_hash);
    Ok(resource)
}

/// The keys and values of an entry.
fn pairs<E: From<String>>(
    args: &GeneratorArgs,
    load: &mut dyn FnMut(&str) -> Result<Vec<u8>, E>,
) -> Result<BTreeMap<String, Vec<u8>>, E> {
    let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
    let env = args.env.as_ref().filter(|path| !path.is_empty());
    for path in args.envs.iter().chain(env) {
        let lines = load(path)?;
        pairs.extend(variables(&lines).map_err(|reason| format!("`{path}`: {reason}"))?);
    }
    for literal in &args.literals {
        let (key, value) = literal
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| format!("`{literal}` is not `key=value`"))?;
        pairs.push((key.to_owned(), unquoted(value).as_bytes().to_vec()));
    }
    for file in &args.files {
        let (key, path) = match file.split_once('=') {
            None => (file.rsplit('/').next().unwrap_or(file), file.as_str()),
            Some((key, path)) if !key.is_empty() && !path.is_empty() && !path.contains('=') => {
                (key, path)
            }
            Some(_) => return Err(format!("`{file}` is neither `path` nor `key=path`").into()),
        };
        pairs.push((key.to_owned(), load(path)?));
    }
    let mut unique = BTreeMap::new();
    for (key, value) in pairs {
        if unique.contains_key(&key) {
            return Err(format!("the key `{key}` is there twice").into());
        }
        unique.insert(key, value);
    }
    Ok(unique)
}

/// The variables of a file with a line `NAME=value` for each.
fn variables(content: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut found = Vec::new();
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let refuse = |reason: &str| Err(format!("line {}: {reason}", index + 1));
        if line.len() >= MAX_LINE_BYTES {
            return refuse("longer than 64 KiB");
        }
        let Ok(line) = std::str::from_utf8(line) else {
            return refuse("not UTF-8 text");
        };
        let line = line.trim_start();
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        if !name.is_empty() && !line.starts_with('#') {
            found.push((name.to_owned(), value.as_bytes().to_vec()));
        }
    }
    Ok(found)
}

/// A text without the quotes around it.
fn unquoted(text: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text)
}

/// Base64 in lines, as kustomize writes it: one line has no end.
fn base64(content: &[u8]) -> String {
    let encoded = STANDARD.encode(content);
    if encoded.len() < BASE64_LINE {
        return encoded;
    }
    let mut lines = String::with_capacity(encoded.len() + encoded.len() / BASE64_LINE + 1);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(BASE64_LINE));
        lines.push_str(line);
        lines.push('\n');
        rest = after;
    }
    lines
}

/// Puts a generated object in the place of one of the same name.
pub(super) fn replace(old: &Resource, mut new: Resource, behavior: Behavior) -> Resource {
    for field in ["labels", "annotations"] {
        let pointer = format!("/metadata/{field}");
        let mut texts = old.texts(&pointer);
        texts.extend(new.texts(&pointer));
        set_texts(&mut new.object["metadata"], field, texts);
    }
    if behavior == Behavior::Merge {
        for field in ["data", "binaryData"] {
            let pointer = format!("/{field}");
            let mut texts = old.texts(&pointer);
            texts.extend(new.texts(&pointer));
            set_texts(&mut new.object, field, texts);
        }
    }
    new.object["metadata"]["name"] = old.name().into();
    if let Value::Object(metadata) = &mut new.object["metadata"] {
        metadata.shift_remove("namespace");
        if !old.namespace().is_empty() {
            metadata.insert("namespace".to_owned(), old.namespace().into());
        }
    }
    new.previous.clone_from(&old.previous);
    new.prefixes.clone_from(&old.prefixes);
    new.suffixes.clone_from(&old.suffixes);
    new.needs_hash &= old.needs_hash;
    new
}

fn set_texts(map: &mut Value, field: &str, texts: BTreeMap<String, String>) {
    if let Value::Object(map) = map {
        map.shift_remove(field);
        if !texts.is_empty() {
            let texts = texts
                .into_iter()
                .map(|(key, text)| (key, scalar::literal(&text)));
            map.insert(field.to_owned(), Value::Object(texts.collect()));
        }
    }
}
