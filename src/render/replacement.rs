//! `replacements`: values of some fields, copied to others.

use serde::Deserialize;
use serde_json::Value;

use super::{
    field_path::{Created, FieldPath},
    resource::{Identity, Resource},
    selector::{Selector, Target},
};
use crate::model::scalar::{self, Scalar};

/// The field that is meant when none is named.
const NAME: &str = "metadata.name";

/// An entry of `replacements`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Replacement {
    /// A file that holds it, or a list of them.
    pub(super) path: Option<String>,
    source: Option<Source>,
    source_value: Option<String>,
    #[serde(default)]
    targets: Vec<TargetFields>,
}

/// Where the value comes from: the one object that fits, and a field of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Source {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    field_path: String,
    #[serde(default)]
    options: Options,
}

/// Where the value goes to.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TargetFields {
    select: Target,
    #[serde(default)]
    reject: Vec<Target>,
    #[serde(default)]
    field_paths: Vec<String>,
    #[serde(default)]
    options: Options,
}

/// Which part of a text is meant, and whether a missing field is created.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Options {
    #[serde(default)]
    delimiter: String,
    #[serde(default)]
    index: i64,
    #[serde(default)]
    create: bool,
}

/// A value to be copied.
struct Copied {
    value: Value,
    text: String,
}

/// Why a replacement was not made, and the indexes of the objects that lack it because of that.
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) lacking: Vec<usize>,
}

impl Replacement {
    /// What is wrong with the entry itself, which stands in a kustomization or in a file.
    pub(super) fn mistake(&self, in_file: bool) -> Option<&'static str> {
        let inline =
            self.source.is_some() || self.source_value.is_some() || !self.targets.is_empty();
        match (&self.path, &self.source, &self.source_value) {
            (Some(_), ..) if inline => Some("it has both `path` and a replacement of its own"),
            (Some(_), ..) if in_file => Some("it is in a file, and names another one"),
            (Some(_), ..) => None,
            (None, Some(_), Some(_)) => Some("it has both `source` and `sourceValue`"),
            (None, None, None) => Some("it has no `source`"),
            _ if self.targets.is_empty() => Some("it has no `targets`"),
            _ => None,
        }
    }

    /// Copies the value to every target.
    pub(super) fn apply(&self, resources: &mut [Resource]) -> Result<(), Failure> {
        let (copied, failed) = match self.copied(resources) {
            Ok(copied) => (Some(copied), None),
            Err(reason) => (None, Some(reason)),
        };
        let mut failure = Failure {
            reason: failed.unwrap_or_default(),
            lacking: Vec::new(),
        };
        for target in &self.targets {
            let selection = Selection::of(target).map_err(|reason| Failure {
                reason,
                lacking: (0..resources.len()).collect(),
            })?;
            for (index, resource) in resources.iter_mut().enumerate() {
                if !selection.holds(resource) {
                    continue;
                }
                let outcome = match &copied {
                    Some(copied) => target.set(resource, copied),
                    None => Err(failure.reason.clone()),
                };
                if let Err(reason) = outcome {
                    failure.reason = reason;
                    failure.lacking.push(index);
                }
            }
        }
        if copied.is_some() && failure.lacking.is_empty() {
            Ok(())
        } else {
            Err(failure)
        }
    }

    fn copied(&self, resources: &[Resource]) -> Result<Copied, String> {
        let Some(source) = &self.source else {
            let text = self.source_value.clone().unwrap_or_default();
            return Ok(Copied {
                value: plain(&text),
                text,
            });
        };
        let mut found = resources.iter().filter(|resource| source.is(resource));
        let resource = match (found.next(), found.next()) {
            (Some(one), None) => one,
            (None, _) => return Err("no object is its source".to_owned()),
            (Some(_), Some(_)) => return Err("several objects could be its source".to_owned()),
        };
        let path = match source.field_path.as_str() {
            "" => NAME,
            path => path,
        };
        let value = FieldPath::parse(path)
            .get(&resource.object)
            .filter(|value| !is_empty(value))
            .ok_or_else(|| format!("{} has no `{path}`", resource.title()))?;
        source.options.part(value)
    }
}

impl Source {
    fn is(&self, resource: &Resource) -> bool {
        let gvk = resource.gvk();
        let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        let namespace = |found: &str| {
            let named = |namespace: &str| match namespace {
                "" => "default".to_owned(),
                other => other.to_owned(),
            };
            self.namespace.is_empty() || named(&self.namespace) == named(found)
        };
        fits(&self.group, &gvk.group)
            && fits(&self.version, &gvk.version)
            && written_identities(resource).any(|identity| {
                fits(&self.kind, &identity.kind)
                    && fits(&self.name, &identity.name)
                    && namespace(&identity.namespace)
            })
    }
}

/// The present identity with the namespace as it is written, and the former ones.
fn written_identities(resource: &Resource) -> impl Iterator<Item = Identity> {
    let present = Identity {
        namespace: resource.namespace().to_owned(),
        ..resource.current()
    };
    std::iter::once(present).chain(resource.previous.iter().cloned())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

fn plain(text: &str) -> Value {
    match scalar::plain(text) {
        Scalar::Value(value) => value,
        Scalar::NotFinite => text.into(),
    }
}

impl Options {
    /// The part of the source's value that is meant.
    fn part(&self, value: &Value) -> Result<Copied, String> {
        let text = scalar::text(value).into_owned();
        if self.delimiter.is_empty() {
            return Ok(Copied {
                value: value.clone(),
                text,
            });
        }
        if value.is_object() || value.is_array() {
            return Err("`delimiter` is for single values".to_owned());
        }
        let part = usize::try_from(self.index)
            .ok()
            .and_then(|index| text.split(&self.delimiter).nth(index))
            .ok_or_else(|| format!("`{text}` has no part {}", self.index))?;
        Ok(Copied {
            value: match scalar::string(value) {
                Some(_) => scalar::literal(part),
                None => plain(part),
            },
            text: part.to_owned(),
        })
    }

    /// The text of the target, with the part in it that is meant replaced.
    fn joined(&self, target: &str, part: &str) -> String {
        let mut parts: Vec<&str> = target.split(&self.delimiter).collect();
        match usize::try_from(self.index) {
            Err(_) => parts.insert(0, part),
            Ok(index) => match parts.get_mut(index) {
                Some(place) => *place = part,
                None => parts.push(part),
            },
        }
        parts.join(&self.delimiter)
    }
}

impl TargetFields {
    /// Sets every field of the object that is meant.
    fn set(&self, resource: &mut Resource, copied: &Copied) -> Result<(), String> {
        let create = self.options.create.then_some(match &copied.value {
            Value::Object(_) => Created::Mapping,
            Value::Array(_) => Created::List,
            _ => Created::Single,
        });
        let mut changed = resource.clone();
        let named = [NAME.to_owned()];
        let paths = match self.field_paths.as_slice() {
            [] => &named,
            paths => paths,
        };
        for path in paths {
            let visited = FieldPath::parse(path)
                .visit(&mut changed.object, create, &mut |value| {
                    self.replace(value, copied)
                })
                .map_err(|reason| format!("`{path}`: {reason}"))?;
            if visited == 0 {
                return Err(format!("it has no `{path}`"));
            }
        }
        changed.settle_labels();
        super::resource::settle_identity(&mut changed.object);
        if crate::model::manifest::ObjectRef::of(&changed.object).is_none() {
            return Err("it would lose its name or kind".to_owned());
        }
        *resource = changed;
        Ok(())
    }

    fn replace(&self, target: &mut Value, copied: &Copied) -> Result<(), String> {
        let is_single = |value: &Value| !(value.is_object() || value.is_array());
        let delimiter = !self.options.delimiter.is_empty();
        match (is_single(target), is_single(&copied.value)) {
            (true, true) => {
                let text = if delimiter {
                    self.options.joined(&scalar::text(target), &copied.text)
                } else {
                    copied.text.clone()
                };
                scalar::set_text(target, &text)
            }
            (false, _) if !delimiter => {
                *target = copied.value.clone();
                Ok(())
            }
            (false, _) => Err("`delimiter` is for single values".to_owned()),
            (true, false) => Err("a single value is no place for a mapping or a list".to_owned()),
        }
    }
}

/// Which objects a target selects.
struct Selection {
    select: Selector,
    reject: Vec<Selector>,
}

impl Selection {
    fn of(target: &TargetFields) -> Result<Self, String> {
        let compile = |target: &Target| {
            target
                .compile()
                .map_err(|(field, reason)| format!("`{field}` of a target: {reason}"))
        };
        Ok(Self {
            select: compile(&target.select)?,
            reject: target
                .reject
                .iter()
                .map(compile)
                .collect::<Result<_, _>>()?,
        })
    }

    fn holds(&self, resource: &Resource) -> bool {
        let gvk = resource.gvk();
        let is = |selector: &Selector| {
            written_identities(resource)
                .any(|identity| selector.matches_identity(&gvk.group, &gvk.version, &identity))
        };
        self.select.matches_metadata(resource)
            && is(&self.select)
            && !self.reject.iter().any(|reject| {
                (reject.has_identity() && is(reject))
                    || (reject.has_metadata() && reject.matches_metadata(resource))
            })
    }
}
