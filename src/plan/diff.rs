//! Changes as people read them: unified diffs of YAML.

use serde_json::Value;
use similar::TextDiff;

use super::{mask, settled::strip_bookkeeping};
use crate::model::{manifest::ObjectRef, yaml};

/// How many unchanged lines are shown around a change.
const CONTEXT: usize = 3;

/// The change of one object as a unified diff, Secrets masked; empty if there is none.
pub fn unified(reference: &ObjectRef, before: Option<&Value>, after: Option<&Value>) -> String {
    let (before, after) = mask::pair(before, after);
    let (before, after) = (document(before), document(after));
    if before == after {
        return String::new();
    }
    let (from, to) = match (before.is_empty(), after.is_empty()) {
        (true, _) => ("/dev/null".to_owned(), reference.to_string()),
        (_, true) => (reference.to_string(), "/dev/null".to_owned()),
        _ => (reference.to_string(), reference.to_string()),
    };
    TextDiff::from_lines(&before, &after)
        .unified_diff()
        .context_radius(CONTEXT)
        .header(&from, &to)
        .to_string()
}

/// The change of a file's text as a unified diff.
pub fn texts(path: &str, before: &str, after: &str) -> String {
    TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(CONTEXT)
        .header(path, path)
        .to_string()
}

fn document(object: Option<Value>) -> String {
    let Some(mut object) = object else {
        return String::new();
    };
    strip_bookkeeping(&mut object);
    sort(&mut object);
    yaml::emit(&[object])
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_content_differs_and_secrets_stay_hidden() {
        let object = |value: &str, version: &str| {
            json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "s", "namespace": "n", "resourceVersion": version},
                "stringData": {"token": value},
            })
        };
        let reference = ObjectRef::of(&object("", "")).unwrap();
        let diff = |a: &Value, b: &Value| unified(&reference, Some(a), Some(b));
        assert_eq!(diff(&object("x", "1"), &object("x", "2")), "");
        insta::assert_snapshot!(diff(&object("x", "1"), &object("y", "2")), @r#"
        --- Secret n/s
        +++ Secret n/s
        @@ -4,4 +4,4 @@
           name: s
           namespace: "n"
         stringData:
        -  token: "*** (before)"
        +  token: "*** (after)"
        "#);
    }
}
