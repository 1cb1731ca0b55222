//! The one place that reads and writes YAML.
//!
//! Scalars mean what they mean to kustomize, which reads YAML with go-yaml v3: YAML 1.2's core
//! schema, plus `0644` as an octal number, `1_000`, `0b11`, while `yes`, `on` and dates are strings.
//! That needs the style of a scalar, and diagnostics need positions; so this is built on a parser's
//! events, and not on `serde_yaml`, which can't tell `0644` from `"0644"`.

use std::collections::{BTreeMap, HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use super::{
    diagnostic::{Code, Diagnostic, Position, nearest},
    repository::RepoPath,
    scalar::{self, Scalar},
};

/// How deep a document may nest.
const MAX_DEPTH: usize = 64;

/// How many documents a file may hold.
const MAX_DOCUMENTS: usize = 10_000;

/// How many nodes a file may hold, each use of an alias counted with all that it stands for.
const MAX_NODES: usize = 500_000;

/// A document of a file, with the places of its parts.
#[derive(Clone, Debug)]
pub struct Document {
    /// The content, as JSON.
    pub value: Value,
    /// Where the document begins.
    pub position: Position,
    /// The places of values and of their keys, by JSON pointer (RFC 6901).
    places: HashMap<String, Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key: Option<Position>,
    value: Position,
}

impl Document {
    /// Where the value at a JSON pointer is written, or else the nearest part around it.
    pub fn position_of(&self, pointer: &str) -> Position {
        self.place(pointer)
            .map_or(self.position, |place| place.value)
    }

    /// Where the key of the value at a JSON pointer is written, or else the nearest part around it.
    pub fn key_position_of(&self, pointer: &str) -> Position {
        self.place(pointer)
            .map_or(self.position, |place| place.key.unwrap_or(place.value))
    }

    fn place(&self, pointer: &str) -> Option<Place> {
        let mut pointer = pointer;
        loop {
            match self.places.get(pointer) {
                Some(place) => return Some(*place),
                None => pointer = &pointer[..pointer.rfind('/')?],
            }
        }
    }

    /// Decodes the document into a type; the diagnostic names the place and the nearest right field.
    pub fn decode<T: DeserializeOwned>(&self, path: &RepoPath) -> Result<T, Diagnostic> {
        serde_path_to_error::deserialize(&self.value).map_err(|error| {
            let mut pointer = String::new();
            let mut field = String::new();
            for segment in error.path() {
                let part = match segment {
                    Segment::Map { key } => key.clone(),
                    Segment::Seq { index } => index.to_string(),
                    Segment::Enum { .. } | Segment::Unknown => continue,
                };
                pointer = child(&pointer, &part);
                match segment {
                    Segment::Seq { .. } => field = format!("{field}[{part}]"),
                    _ if field.is_empty() => field = part,
                    _ => field = format!("{field}.{part}"),
                }
            }
            self.misfit(path, &pointer, &field, &error.into_inner().to_string())
        })
    }

    /// A diagnostic from serde's words about a field.
    fn misfit(&self, path: &RepoPath, pointer: &str, field: &str, reason: &str) -> Diagnostic {
        let quoted: Vec<&str> = reason.split('`').skip(1).step_by(2).collect();
        let here = if field.is_empty() {
            "the document"
        } else {
            field
        };
        match quoted.split_first() {
            Some((unknown, known)) if reason.starts_with("unknown field") => {
                let inside = field.rsplit('.').next() == Some(*unknown);
                let pointer = if inside {
                    pointer.to_owned()
                } else {
                    child(pointer, unknown)
                };
                let field = match (inside, field.is_empty()) {
                    (true, _) => field.to_owned(),
                    (false, true) => (*unknown).to_owned(),
                    (false, false) => format!("{field}.{unknown}"),
                };
                let diagnostic =
                    Diagnostic::error(Code::UnknownField, path, format!("unknown field `{field}`"))
                        .at(self.key_position_of(&pointer));
                match nearest(unknown, known.iter().copied()) {
                    Some(known) => diagnostic.help(format!("did you mean `{known}`?")),
                    None if known.is_empty() => diagnostic,
                    None => diagnostic.help(format!("known fields: {}", known.join(", "))),
                }
            }
            Some((missing, _)) if reason.starts_with("missing field") => Diagnostic::error(
                Code::MissingField,
                path,
                format!("{here} lacks the field `{missing}`"),
            )
            .at(self.position_of(pointer)),
            Some((unknown, known)) if reason.starts_with("unknown variant") => {
                let diagnostic = Diagnostic::error(
                    Code::InvalidValue,
                    path,
                    format!("{here}: `{unknown}` is not one of its values"),
                )
                .at(self.position_of(pointer));
                match nearest(unknown, known.iter().copied()) {
                    Some(known) => diagnostic.help(format!("did you mean `{known}`?")),
                    None => diagnostic.help(format!("its values: {}", known.join(", "))),
                }
            }
            _ => Diagnostic::error(Code::InvalidValue, path, format!("{here}: {reason}"))
                .at(self.position_of(pointer)),
        }
    }
}

/// The JSON pointer of a member or item.
fn child(pointer: &str, part: &str) -> String {
    format!("{pointer}/{}", part.replace('~', "~0").replace('/', "~1"))
}

/// Reads every document of a file that is not empty.
pub fn parse(path: &RepoPath, text: &str) -> Result<Vec<Document>, Diagnostic> {
    load(path, text, false)
}

/// Reads as [`parse`] does, with scalars carried as [`scalar`] says.
pub fn parse_carried(path: &RepoPath, text: &str) -> Result<Vec<Document>, Diagnostic> {
    load(path, text, true)
}

fn load(path: &RepoPath, text: &str, carried: bool) -> Result<Vec<Document>, Diagnostic> {
    let mut loader = Loader {
        carried,
        events: Parser::new_from_str(text),
        path,
        anchors: BTreeMap::new(),
        places: HashMap::new(),
        nodes: 0,
    };
    let mut documents = Vec::new();
    loop {
        let (event, span) = loader.next()?;
        match event {
            Event::StreamEnd => return Ok(documents),
            Event::DocumentStart(_) if documents.len() == MAX_DOCUMENTS => {
                let message = format!("more than {MAX_DOCUMENTS} documents in one file");
                return Err(loader.refuse(message, span).help("split the file"));
            }
            Event::DocumentStart(_) => {
                loader.anchors.clear();
                let (event, span) = loader.next()?;
                let value = loader.node(event, span, "", None, 0)?.value;
                let places = std::mem::take(&mut loader.places);
                if !value.is_null() {
                    documents.push(Document {
                        value,
                        position: position(span),
                        places,
                    });
                }
            }
            _ => {}
        }
    }
}

fn position(span: Span) -> Position {
    Position {
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

/// A value, and how many nodes it is made of.
#[derive(Clone)]
struct Node {
    value: Value,
    nodes: usize,
}

struct Loader<'a> {
    /// Whether scalars are carried.
    carried: bool,
    events: Parser<'a, StrInput<'a>>,
    path: &'a RepoPath,
    anchors: BTreeMap<usize, Node>,
    places: HashMap<String, Place>,
    nodes: usize,
}

impl<'a> Loader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Diagnostic> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let at = Position {
                    line: error.marker().line(),
                    column: error.marker().col() + 1,
                };
                Err(Diagnostic::error(
                    Code::YamlSyntax,
                    self.path,
                    format!("not valid YAML: {}", error.info()),
                )
                .at(at))
            }
            None => Err(Diagnostic::error(
                Code::YamlSyntax,
                self.path,
                "the file ends too early",
            )),
        }
    }

    fn refuse(&self, message: impl Into<String>, span: Span) -> Diagnostic {
        Diagnostic::error(Code::YamlSyntax, self.path, message).at(position(span))
    }

    /// Reads one node, whose first event was taken already.
    fn node(
        &mut self,
        event: Event<'a>,
        span: Span,
        pointer: &str,
        key: Option<Position>,
        depth: usize,
    ) -> Result<Node, Diagnostic> {
        if depth > MAX_DEPTH {
            return Err(self.refuse(format!("nested deeper than {MAX_DEPTH} levels"), span));
        }
        self.places.insert(
            pointer.to_owned(),
            Place {
                key,
                value: position(span),
            },
        );
        let before = self.nodes;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (self.scalar(&text, style, tag.as_deref(), span)?, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", span)?;
                (self.sequence(pointer, depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", span)?;
                (self.mapping(pointer, depth)?, anchor)
            }
            Event::Alias(anchor) => {
                let node = self
                    .anchors
                    .get(&anchor)
                    .cloned()
                    .ok_or_else(|| self.refuse("an alias inside its own anchor", span))?;
                self.count(node.nodes, span)?;
                return Ok(node);
            }
            _ => return Err(self.refuse("a value is missing", span)),
        };
        self.count(1, span)?;
        let node = Node {
            value,
            nodes: self.nodes - before,
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Diagnostic> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} values, aliases counted in full");
            return Err(self.refuse(message, span));
        }
        Ok(())
    }

    fn sequence(&mut self, pointer: &str, depth: usize) -> Result<Value, Diagnostic> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Value::Array(items));
            }
            let pointer = format!("{pointer}/{}", items.len());
            items.push(self.node(event, span, &pointer, None, depth + 1)?.value);
        }
    }

    fn mapping(&mut self, pointer: &str, depth: usize) -> Result<Value, Diagnostic> {
        let mut members = Map::new();
        let mut merged: Vec<Map<String, Value>> = Vec::new();
        loop {
            let (event, key_span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let merge =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.key(event, key_span, depth)?;
            let (event, span) = self.next()?;
            let at = child(pointer, &key);
            let value = self
                .node(event, span, &at, Some(position(key_span)), depth + 1)?
                .value;
            if merge {
                merged.extend(self.merged(value, span)?);
            } else if members.insert(key.clone(), value).is_some() {
                return Err(Diagnostic::error(
                    Code::DuplicateKey,
                    self.path,
                    format!("the key `{key}` is written twice in one mapping"),
                )
                .at(position(key_span))
                .help("keep one of the two"));
            }
        }
        // Keys of the mapping itself win, then those of the mapping merged first.
        for (key, value) in merged.into_iter().flatten() {
            members.entry(key).or_insert(value);
        }
        Ok(Value::Object(members))
    }

    /// The mappings that a merge key brings in.
    fn merged(&self, value: Value, span: Span) -> Result<Vec<Map<String, Value>>, Diagnostic> {
        let mappings = match value {
            Value::Object(mapping) => return Ok(vec![mapping]),
            Value::Array(items) => items
                .into_iter()
                .map(|item| match item {
                    Value::Object(mapping) => Some(mapping),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        mappings
            .ok_or_else(|| self.refuse("a merge key `<<` needs a mapping or a list of them", span))
    }

    fn key(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<String, Diagnostic> {
        if matches!(event, Event::SequenceStart(..) | Event::MappingStart(..)) {
            return Err(self.refuse("a key must be a single value", span));
        }
        // A key is its text, but for null.
        if let Event::Scalar(text, _, 0, None) = &event
            && !text.is_empty()
        {
            self.count(1, span)?;
            return Ok(text.clone().into_owned());
        }
        match self.node(event, span, "\0key", None, depth)?.value {
            Value::String(key) => Ok(scalar::text(&key.into()).into_owned()),
            Value::Array(_) | Value::Object(_) => {
                Err(self.refuse("a key must be a single value", span))
            }
            other => Ok(other.to_string()),
        }
    }

    fn collection_tag(&self, tag: Option<&Tag>, own: &str, span: Span) -> Result<(), Diagnostic> {
        match tag {
            None => Ok(()),
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == own => Ok(()),
            Some(tag) => Err(self.unknown_tag(tag, span)),
        }
    }

    fn unknown_tag(&self, tag: &Tag, span: Span) -> Diagnostic {
        self.refuse(
            format!("the tag `{}{}` has no meaning here", tag.handle, tag.suffix),
            span,
        )
        .help("remove the tag")
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<Value, Diagnostic> {
        let no_json = |text: &str| {
            self.refuse(
                format!("`{text}` is a number that JSON does not have"),
                span,
            )
        };
        let plain = || match scalar::resolve(text) {
            Scalar::NotFinite => Err(no_json(text)),
            Scalar::Value(value) => Ok(value),
        };
        let Some(tag) = tag else {
            return match (style, self.carried) {
                (ScalarStyle::Plain, false) => plain(),
                (ScalarStyle::Plain, true) => match scalar::plain(text) {
                    Scalar::NotFinite => Err(no_json(text)),
                    Scalar::Value(value) => Ok(value),
                },
                (_, false) => Ok(text.into()),
                (_, true) => Ok(scalar::quoted(text)),
            };
        };
        // `!` alone, the non-specific tag, is a string.
        if (tag.handle == "!" && tag.suffix.is_empty())
            || (tag.handle.is_empty() && tag.suffix == "!")
        {
            return Ok(if self.carried {
                scalar::literal(text)
            } else {
                text.into()
            });
        }
        if !tag.is_yaml_core_schema() {
            return Err(self.unknown_tag(tag, span));
        }
        let value = match tag.suffix.as_str() {
            "str" if self.carried => return Ok(scalar::literal(text)),
            "str" => return Ok(text.into()),
            "int" | "bool" | "null" | "float" => plain()?,
            _ => return Err(self.unknown_tag(tag, span)),
        };
        let fits = match tag.suffix.as_str() {
            "int" => value.is_i64() || value.is_u64(),
            "bool" => value.is_boolean(),
            "null" => value.is_null(),
            _ => value.is_number(),
        };
        if fits {
            Ok(value)
        } else {
            Err(self.refuse(format!("`{text}` is no `!!{}`", tag.suffix), span))
        }
    }
}

/// Writes objects as YAML documents that YAML 1.1 and 1.2 readers understand alike: every string
/// that some reader would take for something else is quoted.
pub fn emit(values: &[Value]) -> String {
    let mut text = String::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            text.push_str("---\n");
        }
        match serde_saphyr::to_string(value) {
            Ok(document) => text.push_str(&document),
            // JSON is YAML.
            Err(_) => text += &value.to_string(),
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    fn path() -> RepoPath {
        RepoPath::parse("x.yaml").unwrap()
    }

    fn one(text: &str) -> Value {
        parse(&path(), text).unwrap().remove(0).value
    }

    fn fails(text: &str, expected: &str) {
        assert_eq!(
            parse(&path(), text).unwrap_err().to_string(),
            expected,
            "{text}"
        );
    }

    #[test]
    fn scalars_mean_what_they_mean_to_kustomize() {
        let check = |text: &str, expected: Value| {
            assert_eq!(one(&format!("a: {text}"))["a"], expected, "{text}");
        };
        for string in [
            "yes",
            "no",
            "on",
            "off",
            "y",
            "2001-01-01",
            "12:30:45",
            "1.2.3",
            "0x",
            "1e",
            "=",
            "0o9",
        ] {
            check(string, string.into());
        }
        check("0644", 420.into());
        check("0o644", 420.into());
        check("0x1F", 31.into());
        check("0b11", 3.into());
        check("1_000", 1000.into());
        check("-7", (-7).into());
        check("+7", 7.into());
        check("08", 8.into());
        check("18446744073709551615", u64::MAX.into());
        check(".5", json!(0.5));
        check("1e3", 1000.into());
        check("1.0", 1.into());
        check("~", Value::Null);
        check("", Value::Null);
        check("True", true.into());
        check("'0644'", "0644".into());
        check("!!str 1", "1".into());
        check("! 1", "1".into());
        check("|\n  x\n  y\n", "x\ny\n".into());
        assert_eq!(one("1: a\ntrue: b"), json!({"1": "a", "true": "b"}));
    }

    #[test]
    fn what_is_not_plain_data_is_refused_where_it_stands() {
        fails(
            "a: 1\nb: 2\na: 3",
            "x.yaml:3:1: error[duplicate-key]: the key `a` is written twice in one mapping (keep one of the two)",
        );
        fails(
            "a: !foo x",
            "x.yaml:1:4: error[yaml-syntax]: the tag `!foo` has no meaning here (remove the tag)",
        );
        fails(
            "a: .nan",
            "x.yaml:1:4: error[yaml-syntax]: `.nan` is a number that JSON does not have",
        );
        fails(
            "a: !!int x",
            "x.yaml:1:4: error[yaml-syntax]: `x` is no `!!int`",
        );
        fails(
            "[a]: b",
            "x.yaml:1:1: error[yaml-syntax]: a key must be a single value",
        );
        assert!(parse(&path(), &"[".repeat(2_000)).is_err());
        assert!(parse(&path(), "a: [").is_err());
        let bomb: String =
            (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
                let last = level - 1;
                format!(
                    "{text}a{level}: &a{level} [{}]\n",
                    vec![format!("*a{last}"); 9].join(",")
                )
            });
        assert!(
            parse(&path(), &bomb)
                .unwrap_err()
                .message
                .contains("aliases counted in full")
        );
    }

    #[test]
    fn anchors_and_merge_keys_work() {
        assert_eq!(
            one("base: &b {x: 1, y: 2}\nover:\n  <<: *b\n  y: 3"),
            json!({"base": {"x": 1, "y": 2}, "over": {"y": 3, "x": 1}})
        );
        assert_eq!(
            one("a: {<<: [{x: 1}, {x: 2, y: 2}]}"),
            json!({"a": {"x": 1, "y": 2}})
        );
    }

    #[test]
    fn empty_documents_are_skipped() {
        let documents = parse(&path(), "---\n# nothing\n---\na: 1\n---\n---\nb: 2\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[1].position, Position { line: 7, column: 1 });
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only decoded")]
    struct Outer {
        spec: Spec,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only decoded")]
    struct Spec {
        bundle_endpoint: u64,
        #[serde(default)]
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only decoded")]
    struct Item {
        name: super::super::trust_domain::TrustDomain,
    }

    #[test]
    fn a_misfit_names_the_place_and_the_nearest_right_field() {
        let check = |text: &str, expected: &str| {
            let document = parse(&path(), text).unwrap().remove(0);
            let error = document.decode::<Outer>(&path()).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check(
            "spec:\n  bundleEndpont: 1",
            "x.yaml:2:3: error[unknown-field]: unknown field `spec.bundleEndpont` (did you mean `bundleEndpoint`?)",
        );
        check(
            "spec: {bundleEndpoint: 1, items: [{name: a}, {nam: b}]}",
            "x.yaml:1:47: error[unknown-field]: unknown field `spec.items[1].nam` (did you mean `name`?)",
        );
        check(
            "spec: {}",
            "x.yaml:1:7: error[missing-field]: spec lacks the field `bundleEndpoint`",
        );
        check(
            "spec: {bundleEndpoint: x}",
            "x.yaml:1:24: error[invalid-value]: spec.bundleEndpoint: invalid type: string \"x\", expected u64",
        );
        check(
            "spec:\n  bundleEndpoint: 1\n  items:\n    - name: spiffe://b",
            "x.yaml:4:13: error[invalid-value]: spec.items[0].name: `spiffe://b` is a URI, not a trust domain name: write it without `spiffe://` and path",
        );
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let awkward = prop::sample::select(vec![
            "yes",
            "no",
            "on",
            "y",
            "null",
            "~",
            "",
            " x",
            "x ",
            "12:30:45",
            "2001-01-01",
            "1_000",
            "0644",
            "=",
            "<<",
            "- a",
            "a: b",
            "#c",
            "a #c",
            "!x",
            "&a",
            "*a",
            "true",
            "0x1f",
            "1e3",
            ".5",
            ".inf",
            "a\nb",
            "a\nb\n",
            "\n",
            "a\n\nb",
            "  a\n b",
            "\t",
            "é",
            "'",
            "\"",
            "\\",
            "{",
            "[",
            "%",
            "@",
            "`",
            "|",
            ">",
            "?",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            awkward.prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z0-9./-]{1,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// An independent reader of YAML 1.1-ish rules agrees with what was written.
        #[test]
        fn what_is_written_is_read_back_by_us_and_by_others(value in json_value()) {
            let text = emit(&[json!({"value": value})]);
            prop_assert_eq!(&one(&text)["value"], &value, "{}", text);
            let other: Value = serde_yaml::from_str(&text).unwrap();
            prop_assert_eq!(&other["value"], &value, "{}", text);
        }

        #[test]
        fn nothing_that_is_read_makes_it_panic(text in "[-a-z:{}\\[\\],&*!|>'\"# \n\t0-9.<]{0,80}") {
            drop(parse(&path(), &text));
        }
    }
}
