//! `patches` and its deprecated forms: which objects an entry changes, and how.
//!
//! **Invariant:** an object that a broken patch was to change is never rendered without that
//! change; it is left out, with a diagnostic. What is left out is not to be pruned.

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{
    dialect, json6902,
    kustomization::{PatchEntry, PatchOptions},
    resource::{IDENTITY, Resource, missing, settle_identity},
    selector::{Selector, Target},
    strategic,
};
use crate::model::{
    diagnostic::{Code, Diagnostic, nearest},
    manifest::{ObjectRef, Origin},
    repository::RepoPath,
    scalar,
    yaml::{self, Document},
};

/// The field that an entry stands in; each has a meaning of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `patches`.
    Patches,
    /// `patchesStrategicMerge`.
    StrategicMerge,
    /// `patchesJson6902`.
    Json6902,
}

impl Form {
    pub(super) const fn field(self) -> &'static str {
        match self {
            Self::Patches => "patches",
            Self::StrategicMerge => "patchesStrategicMerge",
            Self::Json6902 => "patchesJson6902",
        }
    }
}

/// An entry, read.
#[derive(Debug)]
pub(super) struct Patch {
    form: Form,
    options: PatchOptions,
    selector: Option<Box<Selector>>,
    content: Content,
    /// Where the entry stands.
    entry: Origin,
}

#[derive(Debug)]
enum Content {
    /// Strategic merge patches, each with its own place.
    Strategic(Vec<Resource>),
    Json(json_patch::Patch, Origin),
}

/// An entry that can't be read, and the objects it would have changed, if that can be told.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) diagnostic: Diagnostic,
    pub(super) selector: Option<Box<Selector>>,
}

/// The text of a patch: a file, or part of the kustomization.
pub(super) enum Source<'a> {
    File(RepoPath, &'a str),
    Inline(&'a str),
}

fn failed(origin: &Origin, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(Code::PatchFailed, &origin.path, message).at(origin.position)
}

/// Whether the text in `patchesStrategicMerge` is a patch itself, and not the name of a file.
pub(super) fn is_inline(text: &str) -> bool {
    text.contains('\n')
        || yaml::parse(&RepoPath::ROOT, text)
            .is_ok_and(|documents| documents.iter().any(|one| one.value.is_object()))
}

impl Patch {
    /// Reads an entry. `document` is the kustomization, `index` the entry's place in it.
    pub(super) fn read<'a>(
        path: &RepoPath,
        document: &Document,
        (form, index): (Form, usize),
        entry: &'a PatchEntry,
        load: impl FnOnce(&'a PatchEntry) -> Result<Source<'a>, Diagnostic>,
    ) -> Result<Self, Unreadable> {
        let name = form.field();
        let at = |field: &str| Origin {
            path: path.clone(),
            position: Some(document.position_of(&format!("/{name}/{index}{field}"))),
        };
        let selector = entry
            .target
            .as_ref()
            .map(|target| {
                target
                    .compile()
                    .map(Box::new)
                    .map_err(|(field, reason)| Unreadable {
                        diagnostic: Diagnostic::error(
                            Code::InvalidValue,
                            path,
                            format!("{name}[{index}].target.{field}: {reason}"),
                        )
                        .at(at(&format!("/target/{field}")).position),
                        selector: None,
                    })
            })
            .transpose()?;
        if form == Form::Json6902 && !entry.target.as_ref().is_some_and(Target::has_name) {
            return Err(Unreadable {
                diagnostic: failed(&at(""), "a JSON patch does not say which objects it is for")
                    .help("add `target` with `kind` and `name`"),
                selector,
            });
        }
        let content = load(entry).and_then(|source| match source {
            Source::File(path, text) => content(text, &path, None, selector.is_some()),
            Source::Inline(text) => content(text, path, Some(&at("/patch")), selector.is_some()),
        });
        let content = content.and_then(|content| match (form, &content) {
            (Form::Json6902, Content::Strategic(_)) => {
                Err(failed(&at(""), "not a JSON patch").help("use `patches`"))
            }
            (Form::StrategicMerge, Content::Json(..)) => {
                Err(failed(&at(""), "not a strategic merge patch").help("use `patches`"))
            }
            _ => Ok(content),
        });
        match content {
            Ok(content) => Ok(Self {
                form,
                options: entry.options,
                selector,
                content,
                entry: at(""),
            }),
            Err(diagnostic) => Err(Unreadable {
                diagnostic,
                selector,
            }),
        }
    }

    /// Changes the objects it is for. Unless all `resources` are there, an object that is missing
    /// is no mistake of the patch.
    pub(super) fn apply(&self, resources: &mut Vec<Resource>, complete: bool) -> Vec<Diagnostic> {
        match (&self.content, &self.selector) {
            (Content::Strategic(patches), None) => {
                let mut diagnostics = Vec::new();
                for patch in patches {
                    diagnostics.extend(self.apply_by_identity(patch, resources, complete));
                }
                diagnostics
            }
            (Content::Strategic(patches), Some(selector)) => {
                self.to_selected(resources, selector, complete, &mut |resource| {
                    patches.iter().try_for_each(|patch| {
                        merge(
                            resource,
                            &stringified(&patch.object),
                            &patch.origin,
                            self.options,
                        )
                    })
                })
            }
            (Content::Json(patch, origin), selector) => match selector {
                None => vec![
                    failed(origin, "a JSON patch does not say which objects it is for")
                        .help("add `target` with `kind` and `name`"),
                ],
                Some(selector) => {
                    self.to_selected(resources, selector, complete, &mut |resource| {
                        if self.form == Form::Patches {
                            resource.remember();
                        }
                        resource.shared_labels.part();
                        json6902::apply(resource, patch)
                            .map_err(|reason| failed(origin, not_applied(resource, &reason)))
                    })
                }
            },
        }
    }

    /// Applies a patch to the one object whose identity it has.
    fn apply_by_identity(
        &self,
        patch: &Resource,
        resources: &mut Vec<Resource>,
        complete: bool,
    ) -> Option<Diagnostic> {
        let matching: Vec<usize> = (0..resources.len())
            .filter(|index| resources[*index].was(patch))
            .collect();
        match matching[..] {
            [index] => {
                let stringified =
                    (self.form == Form::StrategicMerge).then(|| stringified(&patch.object));
                let content = stringified.as_ref().unwrap_or(&patch.object);
                let outcome = merge(&mut resources[index], content, &patch.origin, self.options);
                if outcome.is_err() || resources[index].object.is_null() {
                    resources.remove(index);
                }
                outcome.err()
            }
            [] if complete => {
                let title = patch.title();
                let diagnostic = failed(
                    &patch.origin,
                    format!("there is no {title} that the patch could change"),
                );
                let titles: Vec<String> = resources.iter().map(Resource::title).collect();
                Some(match nearest(&title, titles.iter().map(String::as_str)) {
                    Some(near) => diagnostic.help(format!("did you mean {near}? Its apiVersion, kind, namespace and name must be the patch's")),
                    None => diagnostic.help("list the object's file in `resources`, or remove the patch"),
                })
            }
            [] => None,
            _ => {
                resources.retain(|resource| !resource.was(patch));
                Some(failed(
                    &patch.origin,
                    format!(
                        "{} is, or was, the name of several objects; all are left out",
                        patch.title()
                    ),
                ))
            }
        }
    }

    fn to_selected(
        &self,
        resources: &mut Vec<Resource>,
        selector: &Selector,
        complete: bool,
        change: &mut dyn FnMut(&mut Resource) -> Result<(), Diagnostic>,
    ) -> Vec<Diagnostic> {
        let mut diagnostics = Vec::new();
        let mut selected = false;
        resources.retain_mut(|resource| {
            if !selector.matches(resource) {
                return true;
            }
            selected = true;
            match change(resource) {
                Ok(()) => !resource.object.is_null(),
                Err(diagnostic) => {
                    diagnostics.push(diagnostic);
                    false
                }
            }
        });
        if !selected && complete {
            diagnostics.push(
                Diagnostic::warning(
                    Code::PatchFailed,
                    &self.entry.path,
                    "the patch changes nothing: no object matches its target",
                )
                .at(self.entry.position)
                .help("correct `target`, or remove the patch"),
            );
        }
        diagnostics
    }
}

fn not_applied(resource: &Resource, reason: &str) -> String {
    format!(
        "the patch does not apply to {}, which is left out: {reason}",
        resource.title()
    )
}

/// Tells strategic merge patches and JSON patches apart, as kustomize does: by what they are.
/// `inline` is the place of a patch inside a kustomization, which has no lines of its own.
fn content(
    text: &str,
    path: &RepoPath,
    inline: Option<&Origin>,
    has_target: bool,
) -> Result<Content, Diagnostic> {
    let relocate = |mut error: Diagnostic| {
        if let Some(place) = inline {
            let line = error.position.map_or(1, |position| position.line);
            error.code = Code::PatchFailed;
            error.message = format!("line {line} of the inline patch: {}", error.message);
            error.position = place.position;
        }
        error
    };
    let documents = yaml::parse_carried(path, text).map_err(relocate)?;
    let origin = |position| {
        inline.cloned().unwrap_or_else(|| Origin {
            path: path.clone(),
            position: Some(position),
        })
    };
    let Some(first) = documents.first() else {
        let place = inline.cloned().unwrap_or_else(|| Origin {
            path: path.clone(),
            position: None,
        });
        return Err(failed(&place, "the patch is empty"));
    };
    if first.value.is_array() {
        // Kustomize trims what is inline.
        let begun = if inline.is_some() { text.trim() } else { text };
        if begun.starts_with('[') && serde_json::from_str::<IgnoredAny>(begun).is_err() {
            let message = "a JSON patch that begins with `[` is not JSON";
            return Err(failed(&origin(first.position), message)
                .help("write each operation on a line that begins with `-`"));
        }
        let plain = yaml::parse(path, text).map_err(relocate)?;
        let first = plain.first().unwrap_or(first);
        if let Some(found) = dialect::ambiguous(first, text) {
            return Err(relocate(found.refuse(path)));
        }
        return match first.decode::<json_patch::Patch>(path) {
            Ok(operations) => Ok(Content::Json(operations, origin(first.position))),
            Err(mut error) => {
                error.code = Code::PatchFailed;
                error.message = format!("not a JSON patch: {}", error.message);
                Err(relocate(error).help(
                    "each operation has `op`, `path` that begins with `/`, and `value` or `from`",
                ))
            }
        };
    }
    if has_target && let Some(second) = documents.get(1) {
        return Err(failed(
            &origin(second.position),
            "several strategic merge patches in one entry that has a `target`",
        )
        .help("make each an entry of its own"));
    }
    documents
        .into_iter()
        .map(|document| {
            let place = origin(document.position);
            let mut object = document.value;
            settle_identity(&mut object);
            // Of what has a target, kustomize does not ask for the version.
            let lacks = missing(&object, &IDENTITY[usize::from(has_target)..]);
            if !lacks.is_empty() {
                return Err(
                    failed(&place, format!("a strategic merge patch lacks `{lacks}`"))
                        .help("begin it as the object that it changes"),
                );
            }
            Ok(Resource::new(object, place))
        })
        .collect::<Result<_, _>>()
        .map(Content::Strategic)
}

/// Merges a patch into an object; a deleted object becomes null.
fn merge(
    resource: &mut Resource,
    patch: &Value,
    origin: &Origin,
    options: PatchOptions,
) -> Result<(), Diagnostic> {
    let (kind, name, namespace) = (
        resource.kind().to_owned(),
        resource.name().to_owned(),
        resource.namespace().to_owned(),
    );
    let mut changed = resource.clone();
    if options.allow_name_change || options.allow_kind_change {
        changed.remember();
    }
    let api_version = resource.api_version().to_owned();
    let mut patch = patch.clone();
    patch["apiVersion"] = api_version.into();
    let refuse = |reason: &str| failed(origin, not_applied(resource, reason));
    match strategic::apply(&resource.object, &patch).map_err(|reason| refuse(&reason))? {
        Some(object) if object != Value::Object(Map::new()) => {
            changed.object = object;
            changed.settle_labels();
            changed.restore(
                (!options.allow_kind_change).then_some(&kind),
                (!options.allow_name_change).then_some(&name),
                &namespace,
            );
            if ObjectRef::of(&changed.object).is_none() {
                return Err(refuse("nothing of its metadata would be left"));
            }
        }
        _ => changed.object = Value::Null,
    }
    *resource = changed;
    Ok(())
}

/// A patch with a target, as kustomize reads it: labels and annotations are texts, so that null
/// does not delete them but becomes `"null"`.
fn stringified(patch: &Value) -> Value {
    let mut patch = patch.clone();
    if let Some(Value::Object(metadata)) = patch.get_mut("metadata") {
        for field in ["labels", "annotations"] {
            match metadata.get_mut(field) {
                Some(Value::Object(map)) if !map.is_empty() => {
                    for value in map.values_mut() {
                        *value = scalar::literal(&scalar::text(value));
                    }
                }
                _ => {
                    metadata.shift_remove(field);
                }
            }
        }
    }
    patch
}
