//! Fields that kustomize's transformers change, by kind: its "field specs".

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{kustomization::FieldSpec, resource::Resource};
use crate::model::{manifest::Gvk, scalar};

/// A field of some kinds. Lists on the way are entered without being named; `[]` after a name says
/// that a list is expected there, and so that it is not created.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) group: Option<&'a str>,
    pub(super) version: Option<&'a str>,
    pub(super) kind: Option<&'a str>,
    /// Names, separated by `/`; a `/` in a name is written `\/`.
    pub(super) path: &'a str,
    /// Whether the field is created where it is missing.
    pub(super) create: bool,
}

/// What a field holds, and so what is created for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    /// A mapping.
    Mapping,
    /// A single value.
    Single,
    /// Nothing is created, whatever the field says.
    Existing,
}

impl<'a> Field<'a> {
    /// A field of every kind.
    pub(super) const fn everywhere(path: &'a str) -> Self {
        Self {
            group: None,
            version: None,
            kind: None,
            path,
            create: true,
        }
    }

    /// A field of every kind of the name, whatever its group.
    pub(super) const fn of(kind: &'a str, path: &'a str, create: bool) -> Self {
        Self {
            group: None,
            version: None,
            kind: Some(kind),
            path,
            create,
        }
    }

    /// A field of a kind in a group.
    pub(super) const fn in_group(
        group: &'a str,
        kind: &'a str,
        path: &'a str,
        create: bool,
    ) -> Self {
        Self {
            group: Some(group),
            version: None,
            kind: Some(kind),
            path,
            create,
        }
    }

    /// A field of a kind in every group's `v1`.
    pub(super) const fn in_v1(kind: &'a str, path: &'a str, create: bool) -> Self {
        Self {
            group: None,
            version: Some("v1"),
            kind: Some(kind),
            path,
            create,
        }
    }

    /// The field that a user named.
    pub(super) fn named(spec: &'a FieldSpec) -> Self {
        fn given(text: Option<&String>) -> Option<&str> {
            text.map(String::as_str).filter(|text| !text.is_empty())
        }
        Self {
            group: given(spec.group.as_ref()),
            version: given(spec.version.as_ref()),
            kind: given(spec.kind.as_ref()),
            path: &spec.path,
            create: spec.create,
        }
    }

    /// Whether objects of this kind have the field.
    pub(super) fn is_of(&self, gvk: &Gvk) -> bool {
        self.group.is_none_or(|group| group == gvk.group)
            && self.version.is_none_or(|version| version == gvk.version)
            && self.kind.is_none_or(|kind| kind == gvk.kind)
    }

    /// Calls `set` with every place of the field in the object, if it is of the right kind.
    pub(super) fn visit(
        &self,
        resource: &mut Resource,
        leaf: Leaf,
        set: &mut dyn FnMut(&mut Value) -> Result<(), String>,
    ) -> Result<(), String> {
        if !self.is_of(&resource.gvk()) {
            return Ok(());
        }
        self.visit_all(&mut resource.object, leaf, set)
    }

    /// As [`Self::visit`], whatever the object's kind is.
    pub(super) fn visit_all(
        &self,
        object: &mut Value,
        leaf: Leaf,
        set: &mut dyn FnMut(&mut Value) -> Result<(), String>,
    ) -> Result<(), String> {
        let create = self.create && leaf != Leaf::Existing;
        let mut visitor = Visitor { create, leaf, set };
        visitor
            .visit(object, &names(self.path))
            .map_err(|reason| format!("`{}`: {reason}", self.path.replace('/', ".")))
    }
}

/// The names of a path; a list's end in `[]`.
pub(super) fn names(path: &str) -> Vec<Cow<'_, str>> {
    let mut names: Vec<Cow<'_, str>> = Vec::new();
    for part in path.strip_prefix('/').unwrap_or(path).split('/') {
        match names
            .last_mut()
            .map(|last| (last.strip_suffix('\\').map(str::to_owned), last))
        {
            Some((Some(begun), last)) => *last = format!("{begun}/{part}").into(),
            _ => names.push(part.into()),
        }
    }
    names
}

struct Visitor<'s> {
    create: bool,
    leaf: Leaf,
    set: &'s mut dyn FnMut(&mut Value) -> Result<(), String>,
}

impl Visitor<'_> {
    fn visit(&mut self, value: &mut Value, path: &[Cow<'_, str>]) -> Result<(), String> {
        let Some((name, rest)) = path.split_first() else {
            return (self.set)(value);
        };
        match value {
            Value::Null => Ok(()),
            Value::Array(list) => list.iter_mut().try_for_each(|item| self.visit(item, path)),
            Value::Object(map) => {
                let (name, is_list) = match name.strip_suffix("[]") {
                    Some(name) => (name, true),
                    None => (name.as_ref(), false),
                };
                let next = if self.create && !is_list {
                    map.entry(name).or_insert(Value::Null)
                } else if let Some(next) = map.get_mut(name) {
                    next
                } else {
                    return Ok(());
                };
                if next.is_null() {
                    if is_list {
                        *next = Value::Array(Vec::new());
                    } else if self.create && !(rest.is_empty() && self.leaf == Leaf::Single) {
                        *next = Value::Object(Map::new());
                    }
                }
                self.visit(next, rest)
            }
            _ => Err("a single value on the way".to_owned()),
        }
    }
}

/// Puts an entry into a mapping of texts, such as labels.
pub(super) fn set_entry(value: &mut Value, name: &str, text: &str) -> Result<(), String> {
    match value {
        Value::Object(map) => {
            map.insert(name.to_owned(), scalar::literal(text));
            Ok(())
        }
        // Kustomize leaves it as it is.
        Value::Null => Ok(()),
        _ => Err("not a mapping".to_owned()),
    }
}

/// Puts a single value in the place of another.
pub(super) fn set_single(value: &mut Value, new: Value) -> Result<(), String> {
    if value.is_object() || value.is_array() {
        return Err("not a single value".to_owned());
    }
    // The quotes of the old value stay.
    *value = if scalar::is_quoted(value) {
        scalar::quoted(&scalar::text(&new))
    } else {
        new
    };
    Ok(())
}
