//! Renders an overlay in-process to the objects that `kubectl kustomize` gives.
//!
//! It is hermetic: files come from a [`Tree`], nothing is fetched, nothing is run. A field that is
//! not supported is an error, never ignored. One bad file never stops the rest; but what would be
//! rendered differently from what was written is left out, see [`Rendered::diagnostics`].
//!
//! `accumulate` collects the objects of a kustomization, `transform` changes them in kustomize's
//! order, a module for each transformer; here is what comes last: hashes, references by name, order.
//! `docs/kustomize.md` says what is supported, and where this is stricter than kustomize.

mod accumulate;
mod affix;
mod annotations;
mod builtin;
mod dialect;
mod field;
mod field_path;
mod generator;
mod hash;
mod images;
mod json6902;
mod kustomization;
mod labels;
mod layer;
mod load;
mod namespace;
mod order;
mod patch;
mod reference_table;
mod references;
mod replacement;
mod replicas;
mod resource;
mod selector;
mod shape;
mod shared_labels;
mod strategic;
#[cfg(test)]
mod tests;
mod transform;

use std::collections::BTreeMap;

use serde_json::Value;

use self::{
    accumulate::Renderer,
    kustomization::{FILE_NAMES, SortOptions},
    layer::Layer,
    resource::Resource,
};
use crate::model::{
    diagnostic::{Code, Diagnostic},
    manifest::Manifest,
    repository::{RepoPath, Tree},
    scalar,
};

/// The annotation of objects that only other tools read; kustomize leaves them out.
const LOCAL_CONFIG: &str = "config.kubernetes.io/local-config";

/// The objects of an overlay, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Rendered {
    /// The objects. With an error among the diagnostics objects may be missing, so that what is
    /// not here must not be pruned.
    pub manifests: Vec<Manifest>,
    /// What is wrong, and what was left out because of it.
    pub diagnostics: Vec<Diagnostic>,
}

/// Renders the kustomization in a directory.
pub fn render(tree: &Tree, overlay: &RepoPath) -> Rendered {
    let mut renderer = Renderer::new(tree);
    let mut layer = Layer::default();
    let mut sort_options = None;
    match renderer.kustomization_file(overlay) {
        Ok(Some(file)) => {
            if let Some(read) = renderer.read(&file, &mut layer) {
                renderer.accumulate(
                    overlay,
                    &file,
                    &read,
                    &mut vec![overlay.clone()],
                    &mut layer,
                );
                sort_options = read.0.sort_options;
            }
        }
        Ok(None) => {
            let file = overlay.join(FILE_NAMES[0]).unwrap_or_default();
            renderer.diagnostics.push(
                Diagnostic::error(Code::MissingOverlay, &file, "there is no overlay here")
                    .help("create it, and list manifests in `resources`"),
            );
            return Rendered {
                manifests: Vec::new(),
                diagnostics: renderer.diagnostics,
            };
        }
        Err(diagnostic) => {
            renderer.diagnostics.push(diagnostic);
            layer.incomplete = true;
        }
    }
    let manifests = finish(&mut renderer, layer, sort_options.as_ref());
    if manifests.is_empty() && !renderer.diagnostics.iter().any(Diagnostic::is_error) {
        let file = overlay.join(FILE_NAMES[0]).unwrap_or_default();
        renderer.diagnostics.push(
            Diagnostic::error(Code::MissingOverlay, &file, "the overlay yields no object").help(
                "list manifests in `resources`; to stop applying, suspend the agent or remove the cluster",
            ),
        );
    }
    Rendered {
        manifests,
        diagnostics: renderer.diagnostics,
    }
}

/// What comes last, once for all objects: hashes of what was generated, references, order.
fn finish(
    renderer: &mut Renderer<'_>,
    mut layer: Layer,
    sort_options: Option<&SortOptions>,
) -> Vec<Manifest> {
    layer.each(renderer, append_hash);
    layer.reindex(renderer);
    let outcome = references::update(&mut layer.resources);
    let mut left_out: BTreeMap<usize, String> = outcome.failed.into_iter().collect();
    if layer.incomplete && renderer.renames {
        // What is missing could have been what they name, under a name that is not known.
        for (index, name) in outcome.dangling {
            left_out.entry(index).or_insert_with(|| {
                format!("it names `{name}`, which may be among what could not be rendered")
            });
        }
    }
    for (index, reason) in left_out.into_iter().rev() {
        let resource = layer.resources.remove(index);
        renderer.left_out(&resource, Code::InvalidReference, &reason);
    }
    layer.resources.retain(|resource| !is_local(resource));
    layer.each(renderer, |resource| {
        without_value(resource).map_or(Ok(()), Err)
    });
    order::sort(&mut layer.resources, sort_options);
    layer.resources.into_iter().filter_map(finished).collect()
}

/// Appends the hash of its content to the name of an object that was generated.
fn append_hash(resource: &mut Resource) -> Result<(), String> {
    if !resource.needs_hash {
        return Ok(());
    }
    let hash = hash::of(resource)
        .ok_or("a patch changed its kind, and there is no hash for the new one")?;
    let name = format!("{}-{hash}", resource.name());
    resource.rename(&name);
    Ok(())
}

/// What is wrong with an annotation without a value: to kustomize it is a text, but which one depends
/// on how nothing is written.
fn without_value(resource: &Resource) -> Option<String> {
    let annotations = resource.object["metadata"]["annotations"].as_object()?;
    let (name, _) = annotations.iter().find(|(_, value)| value.is_null())?;
    Some(format!(
        "the annotation `{name}` has no value: write `\"\"`"
    ))
}

fn is_local(resource: &Resource) -> bool {
    resource.object["metadata"]["annotations"]
        .get(LOCAL_CONFIG)
        .is_some_and(|value| scalar::text(value) != "false")
}

/// The manifest of an object, with its annotations as kustomize writes them: texts, and no empty
/// mapping.
fn finished(mut resource: Resource) -> Option<Manifest> {
    if let Some(Value::Object(metadata)) = resource.object.get_mut("metadata") {
        let annotations = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut);
        let is_empty = annotations.as_ref().is_some_and(|map| map.is_empty());
        for value in annotations.into_iter().flat_map(|map| map.values_mut()) {
            if scalar::string(value).is_none() {
                *value = scalar::literal(&scalar::text(value));
            }
        }
        if is_empty {
            metadata.shift_remove("annotations");
        }
    }
    scalar::settle(&mut resource.object);
    Manifest::new(resource.object, resource.origin)
}
