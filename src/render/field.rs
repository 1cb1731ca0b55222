//! Fields that kustomize's transformers change, by kind: its "field specs".

use serde_json::{Map, Value};

use super::resource::Resource;

/// A field of some kinds. Lists on the way are entered without being named; `[]` after a name says
/// that a list is expected there, and so that it is not created.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) group: Option<&'static str>,
    pub(super) version: Option<&'static str>,
    pub(super) kind: Option<&'static str>,
    pub(super) path: &'static str,
    /// Whether the field is created where it is missing.
    pub(super) create: bool,
}

impl Field {
    /// A field of every kind of the name, whatever its group.
    pub(super) const fn of(kind: &'static str, path: &'static str, create: bool) -> Self {
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
        group: &'static str,
        kind: &'static str,
        path: &'static str,
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

    /// Whether objects of this kind have the field.
    pub(super) fn is_of(&self, resource: &Resource) -> bool {
        let gvk = resource.gvk();
        self.group.is_none_or(|group| group == gvk.group)
            && self.version.is_none_or(|version| version == gvk.version)
            && self.kind.is_none_or(|kind| kind == gvk.kind)
    }

    /// Calls `set` with every place of the field in the object, if it is of the right kind.
    pub(super) fn visit(
        &self,
        resource: &mut Resource,
        set: &mut dyn FnMut(&mut Value),
    ) -> Result<(), String> {
        if !self.is_of(resource) {
            return Ok(());
        }
        let parts: Vec<&str> = self.path.split('/').collect();
        visit(&mut resource.object, &parts, self.create, set).map_err(|()| {
            format!(
                "`{}` leads through a single value",
                self.path.replace('/', ".")
            )
        })
    }
}

fn visit(
    value: &mut Value,
    path: &[&str],
    create: bool,
    set: &mut dyn FnMut(&mut Value),
) -> Result<(), ()> {
    let Some((name, rest)) = path.split_first() else {
        set(value);
        return Ok(());
    };
    match value {
        Value::Null => Ok(()),
        Value::Array(list) => list
            .iter_mut()
            .try_for_each(|item| visit(item, path, create, set)),
        Value::Object(map) => {
            let (name, is_list) = match name.strip_suffix("[]") {
                Some(name) => (name, true),
                None => (*name, false),
            };
            if create && !is_list {
                let next = map.entry(name).or_insert(Value::Null);
                if next.is_null() {
                    *next = Value::Object(Map::new());
                }
                visit(next, rest, create, set)
            } else {
                map.get_mut(name)
                    .map_or(Ok(()), |next| visit(next, rest, create, set))
            }
        }
        _ => Err(()),
    }
}
