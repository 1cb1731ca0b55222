//! The layers hold: who may use whom, and where each outside crate may be named.
//!
//! A layer is a directory of `src`. Sources are read as tokens, without comments and the content of literals, so a
//! violation is found wherever it stands: in a `use` of any form, in an expression or in an attribute.

use std::{collections::BTreeSet, fs, io, path::Path};

/// Each layer, and the layers below it that it may use. All know themselves.
const LAYERS: [(&str, &[&str]); 11] = [
    ("model", &[]),
    ("render", &["model"]),
    ("federation", &["model"]),
    ("plan", &["model"]),
    ("git", &["model"]),
    ("forge", &["model"]),
    ("cluster", &["model"]),
    ("spire", &["model"]),
    ("reconcile", BELOW_RECONCILE),
    ("agent", BELOW_AGENT),
    ("cli", BELOW_CLI),
];

const BELOW_RECONCILE: &[&str] = &[
    "model",
    "render",
    "federation",
    "plan",
    "git",
    "forge",
    "cluster",
    "spire",
];

const BELOW_AGENT: &[&str] = &[
    "model",
    "render",
    "federation",
    "plan",
    "git",
    "forge",
    "cluster",
    "spire",
    "reconcile",
];

const BELOW_CLI: &[&str] = &[
    "model",
    "render",
    "federation",
    "plan",
    "git",
    "forge",
    "cluster",
    "spire",
    "reconcile",
    "agent",
];

/// Layers that take values and return values.
const PURE: [&str; 4] = ["model", "render", "federation", "plan"];

/// What a pure layer must not name: the outside world, and the run time that waits for it.
const IMPURE: [&[&str]; 5] = [
    &["tokio"],
    &["std", "fs"],
    &["std", "env"],
    &["std", "net"],
    &["std", "process"],
];

/// Crates, and the only places (files, or directories with a slash) that may name them.
const CONFINED: [(&str, &[&str]); 17] = [
    ("git2", &["git/"]),
    ("kube", KUBE),
    ("k8s_openapi", KUBE),
    ("hyper", HTTPS),
    ("hyper_util", HTTPS),
    ("http_body_util", HTTPS),
    ("tokio_rustls", HTTPS),
    ("rustls_platform_verifier", HTTPS),
    ("similar", &["plan/diff.rs"]),
    ("saphyr_parser", &["model/yaml.rs"]),
    ("serde_saphyr", &["model/yaml.rs"]),
    ("clap", &["cli/", "agent/telemetry.rs"]),
    ("axum", &["agent/"]),
    ("notify", &["agent/"]),
    ("miette", &["cli/"]),
    ("comfy_table", &["cli/"]),
    ("indicatif", &["cli/"]),
];

const HTTPS: &[&str] = &["spire/endpoint.rs", "spire/endpoint/", "forge/"];

const KUBE: &[&str] = &[
    "cluster/",
    "spire/configmap.rs",
    "spire/exec/mod.rs",
    "spire/source.rs",
];

/// Macros that write past the one place for output (`cli/output.rs`) and past the log.
const PRINTING: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] = [
    "common", "helper", "helpers", "manager", "misc", "types", "util", "utils",
];

/// The agent's kinds in the cluster are types in the field's own sense.
const TYPES: &str = "cluster/types.rs";

/// `main.rs` only maps an outcome to an exit code.
const MAIN_LINES: usize = 30;

#[test]
fn the_layers_hold() {
    let sources = sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))).unwrap();
    // Neither a wrong directory nor a wrong suffix may pass for a clean one.
    for (layer, _) in LAYERS {
        let module = format!("{layer}/mod.rs");
        assert!(
            sources.iter().any(|(path, _)| *path == module),
            "src/{module} is missing"
        );
    }
    let found: Vec<_> = sources
        .iter()
        .flat_map(|(path, text)| violations(path, text))
        .collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn check(path: &str, text: &str, expected: &str) {
    assert_eq!(violations(path, text), [expected], "{path}: {text}");
}

#[test]
fn a_wrong_layer_is_found_in_every_form() {
    let upwards = "src/plan/order.rs:1: `plan` must not use `cluster`";
    for text in [
        "use crate::cluster::Error;",
        "use crate::{model::{a, b}, cluster};",
        "use {crate::{cluster as c}};",
        "pub(crate) use ::crate::cluster;",
        "fn f(_: &crate::cluster::E) {}",
        "use super::super::cluster::E;",
    ] {
        check("plan/order.rs", text, upwards);
    }
    check(
        "plan/mod.rs",
        "\n\nuse super::cluster::E;",
        "src/plan/mod.rs:3: `plan` must not use `cluster`",
    );
    check(
        "git/mod.rs",
        "use crate::spire;",
        "src/git/mod.rs:1: `git` must not use `spire`",
    );
    check(
        "reconcile/sync.rs",
        "use crate::agent::config;",
        "src/reconcile/sync.rs:1: `reconcile` must not use `agent`",
    );
    check(
        "agent/mod.rs",
        "use crate::cli::output;",
        "src/agent/mod.rs:1: `agent` must not use `cli`",
    );
    check(
        "plan/order.rs",
        "use crate::*;",
        "src/plan/order.rs:1: name the layer, not `crate::*`",
    );
    check(
        "hub/mod.rs",
        "",
        "src/hub/mod.rs:1: `hub` is not a layer: add it to the table",
    );
}

#[test]
fn a_crate_in_the_wrong_place_is_found_in_every_form() {
    let confined = "src/reconcile/sync.rs:1: `kube` belongs in cluster/, spire/configmap.rs, \
                    spire/exec/mod.rs, spire/source.rs only";
    for text in [
        "use kube::Api;",
        "use kube as k;",
        "use {a, kube::{b, c}};",
        "#[derive(kube::Resource)] struct S;",
        "fn f() { ::kube::f::<u8>() }",
        "extern crate kube;",
    ] {
        check("reconcile/sync.rs", text, confined);
    }
    check(
        "cli/check.rs",
        "use git2::Oid;",
        "src/cli/check.rs:1: `git2` belongs in git/ only",
    );
    check(
        "render/yaml.rs",
        "use serde_saphyr::from_str;",
        "src/render/yaml.rs:1: `serde_saphyr` belongs in model/yaml.rs only",
    );
    check(
        "agent/mod.rs",
        "#[derive(clap::Args)] struct A;",
        "src/agent/mod.rs:1: `clap` belongs in cli/, agent/telemetry.rs only",
    );
}

#[test]
fn impurity_printing_and_empty_names_are_found() {
    check(
        "model/a.rs",
        "use std::{collections::BTreeMap, fs};",
        "src/model/a.rs:1: `model` is pure: no `std::fs`",
    );
    check(
        "render/a.rs",
        "const X: fn() = std::env::args;",
        "src/render/a.rs:1: `render` is pure: no `std::env`",
    );
    check(
        "federation/a.rs",
        "use tokio::time;",
        "src/federation/a.rs:1: `federation` is pure: no `tokio`",
    );
    check(
        "plan/a.rs",
        "async fn f() {}",
        "src/plan/a.rs:1: `plan` is pure: no `async`",
    );
    check(
        "git/a.rs",
        "fn f() { eprintln!(\"x\") }",
        "src/git/a.rs:1: no `eprintln!`: the log, or `cli/output.rs`",
    );
    check(
        "git/utils.rs",
        "",
        "src/git/utils.rs:1: `utils` says nothing: name what is inside",
    );
    check(
        "git/helpers/mod.rs",
        "",
        "src/git/helpers/mod.rs:1: `helpers` says nothing: name what is inside",
    );
    check(
        "git/a.rs",
        "mod common { }",
        "src/git/a.rs:1: `common` says nothing: name what is inside",
    );
    check(
        "main.rs",
        &"\n".repeat(MAIN_LINES),
        "src/main.rs:30: `main.rs` has to stay under 30 lines",
    );
}

#[test]
fn what_is_allowed_or_only_looks_alike_is_no_violation() {
    let check = |path: &str, text: &str| {
        assert_eq!(violations(path, text), [""; 0], "{path}: {text}");
    };
    for text in [
        "use crate::{model, plan::Step};",
        "/// Unlike [`kube::Api`].\nfn f() {}",
        "/* use kube::Api; /* async */ tokio::spawn */",
        r#"const A: &str = "use kube::Api";"#,
        r##"const A: &str = r#"" kube::Api "#;"##,
        "use crate::model::{git2::A, kube::B};",
        "fn f<'a>(c: char) -> &'a str { if c == '\"' { a } else { b } }",
        "use super::cluster;",
        "fn f(kube: u8) -> u8 { model::git2(kube) }",
    ] {
        check("plan/order.rs", text);
    }
    check("cli/check.rs", "use crate::{agent, reconcile::desired};");
    check("plan/diff.rs", "use similar::TextDiff;");
    check("plan/diff.rs", "const V: &str = env!(\"V\");");
    check("git/mirror.rs", "use std::fs; async fn f(t: git2::Oid) {}");
    check(TYPES, "use kube::CustomResource;");
}

/// Every Rust file below a directory: its path relative to there, with slashes, and its text.
fn sources(root: &Path) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).map_err(io::Error::other)?;
                found.push((
                    name.to_string_lossy().replace('\\', "/"),
                    fs::read_to_string(&path)?,
                ));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What is wrong with one file, each once per line.
fn violations(path: &str, text: &str) -> Vec<String> {
    let layer = path.split_once('/').map(|(layer, _)| layer);
    let tokens = tokens(text);
    let mut found = BTreeSet::new();
    found.extend(misnamed(path, text, layer));
    for (index, token) in tokens.iter().enumerate() {
        let next = tokens.get(index + 1).map_or("", |next| next.text.as_str());
        let name = token.text.as_str();
        if PRINTING.contains(&name) && next == "!" {
            found.insert((
                token.line,
                format!("no `{name}!`: the log, or `cli/output.rs`"),
            ));
        }
        if name == "mod" && EMPTY_NAMES.contains(&next) && path != "cluster/mod.rs" {
            found.insert((token.line, says_nothing(next)));
        }
        if let Some(layer) = layer.filter(|layer| PURE.contains(layer))
            && (name == "async" || name == "await")
        {
            found.insert((token.line, format!("`{layer}` is pure: no `{name}`")));
        }
    }
    for (line, used) in paths(&tokens) {
        let wrong = misused(path, layer, &used).into_iter();
        found.extend(wrong.map(|what| (line, what)));
    }
    found
        .into_iter()
        .map(|(line, what)| format!("src/{path}:{line}: {what}"))
        .collect()
}

fn says_nothing(name: &str) -> String {
    format!("`{name}` says nothing: name what is inside")
}

/// What is wrong with a file's place, name and size.
fn misnamed(path: &str, text: &str, layer: Option<&str>) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    if let Some(layer) = layer
        && !LAYERS.iter().any(|(name, _)| *name == layer)
    {
        found.push((1, format!("`{layer}` is not a layer: add it to the table")));
    }
    let lines = text.lines().count();
    if path == "main.rs" && lines >= MAIN_LINES {
        let what = format!("`main.rs` has to stay under {MAIN_LINES} lines");
        found.push((lines, what));
    }
    for name in path.trim_end_matches(".rs").split('/') {
        if EMPTY_NAMES.contains(&name) && path != TYPES {
            found.push((1, says_nothing(name)));
        }
    }
    found
}

/// What is wrong with using a path in a file.
fn misused(file: &str, layer: Option<&str>, used: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    if let Some((layer, below)) = LAYERS.iter().find(|(name, _)| Some(*name) == layer)
        && let Some(target) = layer_of(file, used)
        && target != *layer
        && !below.contains(&target)
    {
        found.push(if target == "*" {
            "name the layer, not `crate::*`".to_owned()
        } else {
            format!("`{layer}` must not use `{target}`")
        });
    }
    for (name, places) in CONFINED {
        let here = places
            .iter()
            .any(|place| file == *place || place.ends_with('/') && file.starts_with(place));
        if used.first().is_some_and(|first| first == name) && !here {
            found.push(format!("`{name}` belongs in {} only", places.join(", ")));
        }
    }
    if let Some(layer) = layer.filter(|layer| PURE.contains(layer)) {
        let named = |impure: &&[&str]| used.iter().take(impure.len()).eq(impure.iter());
        let impure = IMPURE.into_iter().filter(named);
        found.extend(impure.map(|impure| format!("`{layer}` is pure: no `{}`", impure.join("::"))));
    }
    found
}

/// The layer that a path leads to from the crate's root, `*` for all of them.
fn layer_of<'a>(file: &str, used: &'a [String]) -> Option<&'a str> {
    let supers = used.iter().take_while(|part| *part == "super").count();
    // How many `super` lead to the root; from a module inside a file, one more.
    let depth = if file.ends_with("/mod.rs") { 1 } else { 2 };
    let target = match used.first()?.as_str() {
        "crate" => used.get(1)?,
        "super" if supers >= depth => used.get(supers)?,
        _ => return None,
    };
    let known = LAYERS.iter().any(|(name, _)| name == target);
    (known || used[0] == "crate" && target == "*").then_some(target)
}

/// A word or a sign of a source.
struct Token {
    line: usize,
    text: String,
}

/// The words and signs of a source. Comments are left out, and literals are empty.
fn tokens(text: &str) -> Vec<Token> {
    let characters: Vec<char> = text.chars().collect();
    let mut found: Vec<Token> = Vec::new();
    let (mut index, mut line) = (0, 1);
    while index < characters.len() {
        let (length, text) = token(&characters[index..]);
        if let Some(text) = text {
            found.push(Token { line, text });
        }
        let end = (index + length).min(characters.len());
        let read = &characters[index..end];
        line += read.iter().filter(|c| **c == '\n').count();
        index = end;
    }
    found
}

/// How long the token is that a source begins with, and its text; `None` for what is left out.
fn token(source: &[char]) -> (usize, Option<String>) {
    let at = |index: usize| source.get(index).copied().unwrap_or('\0');
    let until = |from: usize, end: &dyn Fn(usize) -> bool| {
        (from..source.len())
            .find(|index| end(*index))
            .unwrap_or(source.len())
    };
    let literal = || Some("\"\"".to_owned());
    match (at(0), at(1)) {
        ('/', '/') => (until(0, &|index| at(index) == '\n'), None),
        ('/', '*') => (block_comment(source), None),
        ('"', _) => {
            let mut index = 1;
            while index < source.len() && at(index) != '"' {
                index += if at(index) == '\\' { 2 } else { 1 };
            }
            (index + 1, literal())
        }
        ('\'', '\\') => (until(3, &|index| at(index) == '\'') + 1, literal()),
        ('\'', _) if at(2) == '\'' => (3, literal()),
        // A lifetime.
        ('\'', _) => (1, Some("'".to_owned())),
        (':', ':') => (2, Some("::".to_owned())),
        (first, _) if is_word(first) => {
            let end = until(0, &|index| !is_word(at(index)));
            let text: String = source[..end].iter().collect();
            let hashes = (end..source.len())
                .take_while(|index| at(*index) == '#')
                .count();
            let raw = matches!(text.as_str(), "r" | "br" | "cr");
            if raw && at(end + hashes) == '"' {
                let closes = |index: usize| {
                    at(index) == '"' && (1..=hashes).all(|hash| at(index + hash) == '#')
                };
                (until(end + hashes + 1, &closes) + hashes + 1, literal())
            } else if raw && hashes == 1 {
                // `r#name` is the same name.
                (end + 1, None)
            } else {
                (end, Some(text))
            }
        }
        (space, _) if space.is_whitespace() => (1, None),
        (sign, _) => (1, Some(sign.to_string())),
    }
}

/// How long the comment is that a source begins with; comments nest.
fn block_comment(source: &[char]) -> usize {
    let (mut index, mut depth) = (0, 0_usize);
    while index < source.len() {
        match source[index..] {
            ['/', '*', ..] => depth += 1,
            ['*', '/', ..] => depth -= 1,
            _ => {
                index += 1;
                continue;
            }
        }
        index += 2;
        if depth == 0 {
            break;
        }
    }
    index
}

/// Every path that a source names, with its line; trees of `use` are spelt out.
fn paths(tokens: &[Token]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        index += 1;
        if token.text == "use" {
            use_tree(tokens, &mut index, &[], &mut found);
        } else if token.text == "extern" {
            if let [word, name, ..] = &tokens[index..]
                && word.text == "crate"
            {
                found.push((name.line, vec![name.text.clone()]));
            }
        } else if is_name(token) {
            let mut path = vec![token.text.clone()];
            while let [colons, part, ..] = &tokens[index..]
                && colons.text == "::"
                && is_name(part)
            {
                path.push(part.text.clone());
                index += 2;
            }
            // One name alone is a variable, a keyword or what a `use` brought.
            if path.len() > 1 {
                found.push((token.line, path));
            }
        }
    }
    found
}

/// One tree of a `use`, up to the sign after it.
fn use_tree(
    tokens: &[Token],
    index: &mut usize,
    prefix: &[String],
    found: &mut Vec<(usize, Vec<String>)>,
) {
    let mut path = prefix.to_vec();
    let line = tokens.get(*index).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(*index) {
        match token.text.as_str() {
            "::" => *index += 1,
            "{" => {
                *index += 1;
                while tokens.get(*index).is_some_and(|token| token.text != "}") {
                    use_tree(tokens, index, &path, found);
                    if tokens.get(*index).is_some_and(|token| token.text == ",") {
                        *index += 1;
                    } else {
                        break;
                    }
                }
                *index += 1;
                return;
            }
            "as" => *index += 2,
            "*" => {
                path.push("*".to_owned());
                *index += 1;
            }
            _ if is_name(token) => {
                path.push(token.text.clone());
                *index += 1;
            }
            _ => break,
        }
    }
    if path.len() > prefix.len() {
        found.push((line, path));
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn is_name(token: &Token) -> bool {
    let first = token.text.chars().next();
    first.is_some_and(|first| first.is_alphabetic() || first == '_')
}
