//! Which objects a patch is for: regular expressions over the identity, selectors over labels and
//! annotations.

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use super::resource::{Identity, Resource};
use crate::model::scalar::text;

/// `target` of a patch.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Target {
    group: Option<String>,
    version: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    namespace: Option<String>,
    label_selector: Option<String>,
    annotation_selector: Option<String>,
}

/// A target, ready to match; what is not given matches everything.
#[derive(Debug)]
pub(super) struct Selector {
    group: Option<Regex>,
    version: Option<Regex>,
    kind: Option<Regex>,
    name: Option<Regex>,
    namespace: Option<Regex>,
    labels: Vec<Requirement>,
    annotations: Vec<Requirement>,
}

impl Target {
    /// Whether it names objects.
    pub(super) fn has_name(&self) -> bool {
        self.name.as_ref().is_some_and(|name| !name.is_empty())
    }

    /// Compiles the target; an error names the field, and what is wrong with it.
    pub(super) fn compile(&self) -> Result<Selector, (&'static str, String)> {
        Ok(Selector {
            group: anchored("group", self.group.as_deref())?,
            version: anchored("version", self.version.as_deref())?,
            kind: anchored("kind", self.kind.as_deref())?,
            name: anchored("name", self.name.as_deref())?,
            namespace: anchored("namespace", self.namespace.as_deref())?,
            labels: requirements("labelSelector", self.label_selector.as_deref())?,
            annotations: requirements("annotationSelector", self.annotation_selector.as_deref())?,
        })
    }
}

fn anchored(
    field: &'static str,
    pattern: Option<&str>,
) -> Result<Option<Regex>, (&'static str, String)> {
    pattern
        .filter(|pattern| !pattern.is_empty())
        .map(|pattern| Regex::new(&format!("^(?:{pattern})$")))
        .transpose()
        .map_err(|_| (field, "not a regular expression".to_owned()))
}

fn requirements(
    field: &'static str,
    selector: Option<&str>,
) -> Result<Vec<Requirement>, (&'static str, String)> {
    let text = selector.unwrap_or_default();
    split(text)
        .into_iter()
        .map(|term| {
            Requirement::parse(term).ok_or_else(|| (field, format!("`{term}` is no requirement")))
        })
        .collect()
}

impl Selector {
    /// Whether the object is meant, by its present or its original name and namespace.
    pub(super) fn matches(&self, resource: &Resource) -> bool {
        let original = resource.original();
        let gvk = resource.gvk();
        is(self.group.as_ref(), &[&gvk.group])
            && is(self.version.as_ref(), &[&gvk.version])
            && is(self.kind.as_ref(), &[&gvk.kind])
            && is(self.name.as_ref(), &[&original.name, resource.name()])
            && is(
                self.namespace.as_ref(),
                &[&original.namespace, resource.effective_namespace()],
            )
            && self.matches_metadata(resource)
    }

    /// Whether it is for an identity, of an object with this group and version.
    pub(super) fn matches_identity(&self, group: &str, version: &str, identity: &Identity) -> bool {
        is(self.group.as_ref(), &[group])
            && is(self.version.as_ref(), &[version])
            && is(self.kind.as_ref(), &[&identity.kind])
            && is(self.name.as_ref(), &[&identity.name])
            && is(self.namespace.as_ref(), &[&identity.namespace])
    }

    /// Whether the object's labels and annotations are those that are meant.
    pub(super) fn matches_metadata(&self, resource: &Resource) -> bool {
        let metadata = &resource.object["metadata"];
        let all = |requirements: &[Requirement], map: &Value| {
            requirements
                .iter()
                .all(|requirement| requirement.holds(map))
        };
        all(&self.labels, &metadata["labels"]) && all(&self.annotations, &metadata["annotations"])
    }

    /// Whether it says anything about identities.
    pub(super) fn has_identity(&self) -> bool {
        let parts = [
            &self.group,
            &self.version,
            &self.kind,
            &self.name,
            &self.namespace,
        ];
        parts.into_iter().any(Option::is_some)
    }

    /// Whether it says anything about labels or annotations.
    pub(super) fn has_metadata(&self) -> bool {
        !(self.labels.is_empty() && self.annotations.is_empty())
    }
}

fn is(pattern: Option<&Regex>, texts: &[&str]) -> bool {
    pattern.is_none_or(|pattern| texts.iter().any(|text| pattern.is_match(text)))
}

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

/// The requirements of a selector, split at commas outside parentheses.
fn split(selector: &str) -> Vec<&str> {
    let mut inside = false;
    selector
        .split(move |c| {
            match c {
                '(' => inside = true,
                ')' => inside = false,
                _ => {}
            }
            c == ',' && !inside
        })
        .map(str::trim)
        .filter(|term| !term.is_empty())
        .collect()
}

impl Requirement {
    fn parse(term: &str) -> Option<Self> {
        let one = |value: &str| vec![value.trim().to_owned()];
        let (key, test) = if let Some(key) = term.strip_prefix('!') {
            (key, Test::Absent)
        } else if let Some((key, value)) = term.split_once("!=") {
            (key, Test::NotIn(one(value)))
        } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (key, Test::In(one(value)))
        } else if let Some((key, bound)) = term.split_once('>') {
            (key, Test::Above(bound.trim().parse().ok()?))
        } else if let Some((key, bound)) = term.split_once('<') {
            (key, Test::Below(bound.trim().parse().ok()?))
        } else if let Some((head, values)) = term.split_once('(') {
            let values = values.strip_suffix(')')?.split(',');
            let values = values.map(|value| value.trim().to_owned()).collect();
            let (key, operator) = head.trim().split_once(char::is_whitespace)?;
            match operator.trim() {
                "in" => (key, Test::In(values)),
                "notin" => (key, Test::NotIn(values)),
                _ => return None,
            }
        } else {
            (term, Test::Exists)
        };
        let key = key.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        (!key.is_empty() && key.chars().all(plain)).then(|| Self {
            key: key.to_owned(),
            test,
        })
    }

    fn holds(&self, map: &Value) -> bool {
        let value = map.get(&self.key).map(|value| text(value).into_owned());
        let number = || value.as_ref().and_then(|value| value.parse::<i64>().ok());
        match (&self.test, &value) {
            (Test::Exists, value) => value.is_some(),
            (Test::Absent, value) => value.is_none(),
            (Test::In(values), Some(value)) => values.contains(value),
            (Test::NotIn(values), Some(value)) => !values.contains(value),
            (Test::In(_), None) => false,
            (Test::NotIn(_), None) => true,
            (Test::Above(bound), _) => number().is_some_and(|number| number > *bound),
            (Test::Below(bound), _) => number().is_some_and(|number| number < *bound),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_select_as_kubernetes_does() {
        let labels = json!({"app": "web", "tier": "front", "rank": "7"});
        let check = |selector: &str, expect: bool| {
            let requirements = requirements("labelSelector", Some(selector)).unwrap();
            let holds = requirements.iter().all(|one| one.holds(&labels));
            assert_eq!(holds, expect, "{selector}");
        };
        check("", true);
        check("app=web", true);
        check("app==web, tier = front", true);
        check("app!=web", false);
        check("nope!=web", true);
        check("app in (db, web),tier", true);
        check("app notin (db, web)", false);
        check("nope notin (db)", true);
        check("!nope", true);
        check("!app", false);
        check("rank>6", true);
        check("rank<7", false);
        assert!(requirements("labelSelector", Some("app within (a)")).is_err());
        assert!(requirements("labelSelector", Some("a b")).is_err());
    }
}
