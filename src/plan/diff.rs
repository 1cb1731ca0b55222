//! Changes as people read them: diffs of YAML, without what does not matter.

use std::fmt;

use serde_json::Value;
use similar::{ChangeTag, DiffOp, TextDiff, udiff::UnifiedHunkHeader};

use super::{field_changes, mask, settled::strip_bookkeeping};
use crate::model::{manifest::ObjectRef, yaml};

/// How many unchanged lines are shown around a change.
const CONTEXT: usize = 3;

/// The largest piece of text, in bytes, in which single words are compared: beyond, it takes long and
/// helps nobody.
const EMPHASISED: usize = 16 << 10;

/// Lists whose order means nothing to Kubernetes or SPIRE.
const UNORDERED: [&str; 19] = [
    "accessModes",
    "apiGroups",
    "dnsNameTemplates",
    "federatesWith",
    "finalizers",
    "hostnames",
    "imagePullSecrets",
    "namespaces",
    "nonResourceURLs",
    "policyTypes",
    "ports",
    "resourceNames",
    "resources",
    "shortNames",
    "subjects",
    "tolerations",
    "verbs",
    "volumeMounts",
    "volumes",
];

/// How one object changes, Secrets masked.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    from: String,
    to: String,
    /// The places where it changes.
    pub hunks: Vec<Hunk>,
    /// The fields that change; none if the object begins or ends.
    pub fields: Vec<field_changes::FieldChange>,
}

/// A place where an object changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunk {
    /// `@@ -5,7 +5,8 @@`, and inside which field that is.
    pub heading: String,
    /// Its lines, with the unchanged ones around the change.
    pub lines: Vec<Line>,
}

/// A line of a [`Hunk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// On which side it is.
    pub side: Side,
    /// Its text in pieces, without a line break; true are those that differ from the line's
    /// counterpart on the other side.
    pub pieces: Vec<(bool, String)>,
}

/// On which side of a change a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// On both.
    Both,
    /// Only before.
    Before,
    /// Only after.
    After,
}

impl Side {
    /// The first character of the line in a unified diff.
    pub fn sign(self) -> char {
        match self {
            Self::Both => ' ',
            Self::Before => '-',
            Self::After => '+',
        }
    }
}

impl Difference {
    /// The two lines that name the object on either side.
    pub fn header(&self) -> [String; 2] {
        [format!("--- {}", self.from), format!("+++ {}", self.to)]
    }
}

impl fmt::Display for Difference {
    /// A unified diff.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header();
        header.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        for hunk in &self.hunks {
            writeln!(f, "{}", hunk.heading)?;
            for line in &hunk.lines {
                write!(f, "{}", line.side.sign())?;
                line.pieces
                    .iter()
                    .try_for_each(|(_, text)| f.write_str(text))?;
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

/// The change of one object; `None` if nothing that matters differs.
pub fn difference(
    reference: &ObjectRef,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Option<Difference> {
    let live = before;
    let (before, after) = mask::pair(before, after);
    let (mut before, after) = (before.map(tidy), after.map(tidy));
    if let (Some(before), Some(after)) = (&mut before, &after) {
        align(before, after);
    }
    let [old, new] = [&before, &after].map(|side| side.as_ref().map(document));
    if old == new {
        return None;
    }
    let name = |side: &Option<String>| {
        side.as_ref()
            .map_or_else(|| "/dev/null".to_owned(), |_| reference.to_string())
    };
    let (from, to) = (name(&old), name(&new));
    let fields = match (&before, &after) {
        (Some(before), Some(after)) => field_changes::changes(before, after, live),
        (_, _) => Vec::new(),
    };
    Some(Difference {
        from,
        to,
        hunks: hunks(&old.unwrap_or_default(), &new.unwrap_or_default()),
        fields,
    })
}

/// The change of a file's text as a unified diff.
pub fn texts(path: &str, before: &str, after: &str) -> String {
    TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(CONTEXT)
        .header(path, path)
        .to_string()
}

/// Without what changes by itself, members by name.
fn tidy(mut object: Value) -> Value {
    strip_bookkeeping(&mut object);
    sort(&mut object);
    object
}

fn document(object: &Value) -> String {
    yaml::emit(std::slice::from_ref(object))
}

/// Members by name, so that only content differs.
fn sort(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.sort_keys();
            members.values_mut().for_each(sort);
        }
        Value::Array(items) => items.iter_mut().for_each(sort),
        _ => {}
    }
}

/// Brings lists without an order of their own into the order that they have in `after`.
fn align(before: &mut Value, after: &Value) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before {
                let Some(counterpart) = after.get(name) else {
                    continue;
                };
                if let (Value::Array(items), Value::Array(order)) = (&mut *value, counterpart)
                    && UNORDERED.contains(&name.as_str())
                {
                    *items = in_order_of(std::mem::take(items), order);
                }
                align(value, counterpart);
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            before.iter_mut().zip(after).for_each(|(b, a)| align(b, a));
        }
        (_, _) => {}
    }
}

/// What `order` has, too, in its order; then the rest.
fn in_order_of(mut items: Vec<Value>, order: &[Value]) -> Vec<Value> {
    let keys = field_changes::item_keys(&items, order);
    let same = |a: &Value, b: &Value| match keys {
        Some(keys) => keys.iter().all(|key| a[*key] == b[*key]),
        None => a == b,
    };
    let mut sorted = Vec::with_capacity(items.len());
    for wanted in order {
        if let Some(at) = items.iter().position(|item| same(item, wanted)) {
            sorted.push(items.remove(at));
        }
    }
    sorted.extend(items);
    sorted
}

fn hunks(old: &str, new: &str) -> Vec<Hunk> {
    let diff = TextDiff::from_lines(old, new);
    let (old_lines, new_lines): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let mut unified = diff.unified_diff();
    unified
        .context_radius(CONTEXT)
        .iter_hunks()
        .map(|hunk| {
            let changed = hunk
                .ops()
                .iter()
                .find(|op| !matches!(op, DiffOp::Equal { .. }));
            let section = changed.map(|op| match op {
                DiffOp::Delete { old_index, .. } => section(&old_lines, *old_index),
                op => section(&new_lines, op.new_range().start),
            });
            let heading = format!(
                "{} {}",
                UnifiedHunkHeader::new(hunk.ops()),
                section.unwrap_or_default()
            );
            Hunk {
                heading: heading.trim_end().to_owned(),
                lines: hunk.ops().iter().flat_map(|op| lines(&diff, op)).collect(),
            }
        })
        .collect()
}

fn lines(diff: &TextDiff<'_, '_, str>, op: &DiffOp) -> Vec<Line> {
    let side = |tag| match tag {
        ChangeTag::Equal => Side::Both,
        ChangeTag::Delete => Side::Before,
        ChangeTag::Insert => Side::After,
    };
    let bytes: usize = diff
        .iter_changes(op)
        .map(|change| change.value().len())
        .sum();
    if bytes > EMPHASISED {
        let whole = diff.iter_changes(op).map(|change| Line {
            side: side(change.tag()),
            pieces: pieces(std::iter::once((false, change.value()))),
        });
        return whole.collect();
    }
    let inline = diff.iter_inline_changes_deadline(op, None);
    inline
        .map(|change| Line {
            side: side(change.tag()),
            pieces: pieces(
                change
                    .values()
                    .iter()
                    .map(|(emphasised, text)| (*emphasised, *text)),
            ),
        })
        .collect()
}

/// Neighbours of one kind as one, without the line break.
fn pieces<'t>(parts: impl Iterator<Item = (bool, &'t str)>) -> Vec<(bool, String)> {
    let mut pieces: Vec<(bool, String)> = Vec::new();
    for (emphasised, text) in parts {
        let text = text.trim_end_matches('\n');
        match pieces.last_mut() {
            _ if text.is_empty() => {}
            Some((last, piece)) if *last == emphasised => piece.push_str(text),
            _ => pieces.push((emphasised, text.to_owned())),
        }
    }
    pieces
}

/// The fields around a line of a YAML document in block style: `spec.containers[app]`.
fn section(lines: &[&str], at: usize) -> String {
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let Some(first) = lines.get(at) else {
        return String::new();
    };
    // A list stands at the indentation of its key, so an item counts as one deeper.
    let depth = |line: &str| indent(line) + usize::from(line.trim_start().starts_with("- "));
    let mut depth_of_child = depth(first);
    let mut path = Vec::new();
    for (index, line) in lines.iter().enumerate().take(at).rev() {
        if depth_of_child == 0 {
            break;
        }
        let (spaces, text) = (indent(line), line.trim_start());
        if let Some(member) = text.strip_prefix("- ") {
            if spaces + 2 < depth_of_child {
                path.extend(key(member).map(|key| format!(".{key}")));
            }
            if spaces + 1 < depth_of_child {
                path.push(item_name(lines, index, spaces));
                depth_of_child = spaces + 1;
            }
        } else if spaces < depth_of_child
            && let Some(key) = key(text)
        {
            path.push(format!(".{key}"));
            depth_of_child = spaces;
        }
    }
    path.reverse();
    path.concat().trim_start_matches('.').to_owned()
}

fn key(text: &str) -> Option<&str> {
    let (key, rest) = text.split_once(':')?;
    (rest.is_empty() || rest.starts_with(' ')).then_some(key)
}

/// `[app]`, by the member `name` of the list item that begins at a line; else `[]`.
fn item_name(lines: &[&str], at: usize, spaces: usize) -> String {
    let members = lines[at..].iter().enumerate().take_while(|(index, line)| {
        *index == 0 || line.len() > spaces + 2 && line.starts_with(&" ".repeat(spaces + 2))
    });
    let mut names = members.filter_map(|(_, line)| line.get(spaces + 2..)?.strip_prefix("name: "));
    names
        .next()
        .map_or_else(|| "[]".to_owned(), |name| format!("[{name}]"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn diff(before: &Value, after: &Value) -> Option<Difference> {
        let reference = ObjectRef::of(before).unwrap();
        difference(&reference, Some(before), Some(after))
    }

    #[test]
    fn only_content_differs_and_secrets_stay_hidden() {
        let object = |value: &str, version: &str| {
            json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "s", "namespace": "n", "resourceVersion": version},
                "stringData": {"token": value},
            })
        };
        assert_eq!(diff(&object("x", "1"), &object("x", "2")), None);
        let found = diff(&object("x", "1"), &object("y", "2")).unwrap();
        insta::assert_snapshot!(found, @r#"
        --- Secret n/s
        +++ Secret n/s
        @@ -4,4 +4,4 @@ stringData
           name: s
           namespace: "n"
         stringData:
        -  token: "*** (before)"
        +  token: "*** (after)"
        "#);
        assert_eq!(found.fields[0].before, Some("*** (before)".into()));
    }

    fn pod(containers: &Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": containers, "tolerations": [{"key": "a"}, {"key": "b"}]},
        })
    }

    #[test]
    fn a_place_is_named_and_what_differs_in_a_line_is_emphasised() {
        let containers = |image: &str| {
            json!([
                {"name": "first", "image": "x"},
                {"args": ["1", "2", "3", "4"], "image": image, "name": "second"},
            ])
        };
        let found = diff(&pod(&containers("app:1.0")), &pod(&containers("app:1.1"))).unwrap();
        assert!(
            found.hunks[0]
                .heading
                .ends_with("@@ spec.containers[second]"),
            "{found}"
        );
        let changed = |side: Side| {
            let mut lines = found.hunks[0].lines.iter();
            let line = lines.find(|line| line.side == side).unwrap();
            let emphasised = line.pieces.iter().filter(|(emphasised, _)| *emphasised);
            emphasised
                .map(|(_, text)| text.as_str())
                .collect::<String>()
        };
        assert!(changed(Side::Before).ends_with('0') && !changed(Side::Before).contains("image"));
        assert!(changed(Side::After).ends_with('1'));
    }

    #[test]
    fn an_order_that_means_nothing_is_no_change() {
        let one = json!([{"name": "a"}, {"name": "b"}]);
        let mut other = pod(&one);
        other["spec"]["tolerations"]
            .as_array_mut()
            .unwrap()
            .reverse();
        assert_eq!(diff(&pod(&one), &other), None);
        // The order of containers and of arguments means something.
        let turned = json!([{"name": "b"}, {"name": "a"}]);
        assert!(diff(&pod(&one), &pod(&turned)).is_some());
        let mut more = other.clone();
        more["spec"]["tolerations"][0]["operator"] = "Exists".into();
        let found = diff(&pod(&one), &more).unwrap().to_string();
        assert_eq!(found.matches("\n+").count(), 2, "{found}");
    }

    #[test]
    fn what_begins_or_ends_is_shown_whole() {
        let object = pod(&json!([]));
        let reference = ObjectRef::of(&object).unwrap();
        let created = difference(&reference, None, Some(&object))
            .unwrap()
            .to_string();
        assert!(
            created.starts_with("--- /dev/null\n+++ Pod p\n@@ -0,0 +1,"),
            "{created}"
        );
        let deleted = difference(&reference, Some(&object), None)
            .unwrap()
            .to_string();
        assert!(
            deleted.starts_with("--- Pod p\n+++ /dev/null\n"),
            "{deleted}"
        );
        assert_eq!(difference(&reference, None, None), None);
    }
}
