//! Renders an overlay in-process to the objects that `kubectl kustomize` gives, order aside.
//!
//! It is hermetic: files come from a [`Tree`], nothing is fetched, nothing is run. A field that is
//! not supported is an error, never ignored. One bad file never stops the rest; but what would be
//! rendered differently from what was written is left out, see [`Rendered::diagnostics`].

mod builtin;
mod dialect;
mod field;
mod json6902;
mod kustomization;
mod labels;
mod namespace;
mod patch;
mod references;
mod resource;
mod selector;
mod shape;
mod strategic;

use std::collections::{HashMap, hash_map};

use serde_json::Value;

use self::{
    kustomization::{FILE_NAMES, Kustomization, PatchEntry},
    patch::{Patch, Source},
    resource::{Key, Resource, text},
};
use crate::model::{
    diagnostic::{Code, Diagnostic, Position, nearest},
    manifest::{Manifest, Origin},
    repository::{Entry, RepoPath, Tree},
    yaml::{self, Document},
};

/// How deep kustomizations may include each other.
const MAX_DEPTH: usize = 32;

/// How many entries of `resources` are followed in one overlay, each use of a base counted.
const MAX_REFERENCES: usize = 10_000;

/// How much is read for one overlay, each use of a file counted.
const MAX_BYTES: usize = 64 << 20;

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
    let mut renderer = Renderer {
        tree,
        diagnostics: Vec::new(),
        references: 0,
        bytes: 0,
    };
    let mut resources = match renderer.kustomization_file(overlay) {
        Ok(Some(file)) => {
            let mut layer = Layer::default();
            renderer.layer(overlay, &file, &mut vec![overlay.clone()], &mut layer);
            layer.resources
        }
        Ok(None) => {
            let file = overlay.join(FILE_NAMES[0]).unwrap_or_default();
            renderer.diagnostics.push(
                Diagnostic::error(Code::MissingOverlay, &file, "there is no overlay here")
                    .help("create it, and list manifests in `resources`"),
            );
            return renderer.finish(Vec::new());
        }
        Err(diagnostic) => {
            renderer.diagnostics.push(diagnostic);
            Vec::new()
        }
    };
    let ambiguous = references::update(&mut resources);
    for (index, reason) in ambiguous.into_iter().rev() {
        let resource = resources.remove(index);
        renderer.left_out(&resource, Code::InvalidReference, &reason);
    }
    resources.retain(|resource| !is_local(resource));
    let manifests: Vec<Manifest> = resources.into_iter().filter_map(finished).collect();
    if manifests.is_empty() && !renderer.diagnostics.iter().any(Diagnostic::is_error) {
        let file = overlay.join(FILE_NAMES[0]).unwrap_or_default();
        renderer.diagnostics.push(
            Diagnostic::error(Code::MissingOverlay, &file, "the overlay yields no object").help(
                "list manifests in `resources`; to stop applying, suspend the agent or remove the cluster",
            ),
        );
    }
    renderer.finish(manifests)
}

fn is_local(resource: &Resource) -> bool {
    resource.object["metadata"]["annotations"]
        .get(LOCAL_CONFIG)
        .is_some_and(|value| text(value) != "false")
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
            if !value.is_string() {
                *value = if value.is_null() {
                    String::new()
                } else {
                    text(value)
                }
                .into();
            }
        }
        if is_empty {
            metadata.shift_remove("annotations");
        }
    }
    Manifest::new(resource.object, resource.origin)
}

/// What one kustomization yields.
#[derive(Default)]
struct Layer {
    resources: Vec<Resource>,
    /// Where each object was first added.
    places: HashMap<Key, String>,
    /// Whether something below could not be read, so that objects are missing.
    incomplete: bool,
}

struct Renderer<'a> {
    tree: &'a Tree,
    diagnostics: Vec<Diagnostic>,
    references: usize,
    bytes: usize,
}

impl<'a> Renderer<'a> {
    fn finish(self, manifests: Vec<Manifest>) -> Rendered {
        Rendered {
            manifests,
            diagnostics: self.diagnostics,
        }
    }

    fn left_out(&mut self, resource: &Resource, code: Code, reason: &str) {
        self.diagnostics.push(
            Diagnostic::error(
                code,
                &resource.origin.path,
                format!("{} is left out: {reason}", resource.title()),
            )
            .at(resource.origin.position),
        );
    }

    /// The one kustomization file of a directory.
    fn kustomization_file(&self, directory: &RepoPath) -> Result<Option<RepoPath>, Diagnostic> {
        let mut found = FILE_NAMES
            .iter()
            .filter_map(|name| directory.join(name).ok())
            .filter(|path| self.tree.get(path).is_some());
        let (first, second) = (found.next(), found.next());
        match (&first, &second) {
            (Some(first), Some(second)) => Err(Diagnostic::error(
                Code::InvalidReference,
                second,
                format!("`{}` stands beside it", first.file_name()),
            )
            .help("keep one of the two")),
            _ => Ok(first),
        }
    }

    /// A file's text, within what may be read.
    fn text(&mut self, path: &RepoPath) -> Result<&'a str, Diagnostic> {
        let text = self.tree.text(path)?;
        self.bytes += text.len();
        if self.bytes > MAX_BYTES {
            let message = format!("the overlay reads more than {} MiB", MAX_BYTES >> 20);
            return Err(Diagnostic::error(Code::UnreadableFile, path, message));
        }
        Ok(text)
    }

    /// Renders one kustomization. `stack` holds the directories that lead to it, itself last.
    fn layer(
        &mut self,
        directory: &RepoPath,
        file: &RepoPath,
        stack: &mut Vec<RepoPath>,
        layer: &mut Layer,
    ) {
        let read = self
            .text(file)
            .map_err(|error| vec![error])
            .and_then(|text| kustomization::read(file, text));
        let (kustomization, document) = match read {
            Ok(read) => read,
            Err(diagnostics) => {
                self.diagnostics.extend(diagnostics);
                layer.incomplete = true;
                return;
            }
        };
        let resources = kustomization.resources.as_deref().unwrap_or_default();
        for (index, entry) in resources.iter().enumerate() {
            let at = document.position_of(&format!("/resources/{index}"));
            if let Err(diagnostic) = self.resource(directory, entry, (file, at), stack, layer) {
                self.diagnostics.push(diagnostic);
                layer.incomplete = true;
            }
        }
        self.patches(directory, file, &kustomization, &document, layer);
        self.transform(&kustomization, layer);
    }

    /// Adds what an entry of `resources` names.
    fn resource(
        &mut self,
        directory: &RepoPath,
        entry: &str,
        (file, at): (&RepoPath, Position),
        stack: &mut Vec<RepoPath>,
        layer: &mut Layer,
    ) -> Result<(), Diagnostic> {
        let refuse = |code, message: String| Diagnostic::error(code, file, message).at(at);
        self.references += 1;
        if self.references > MAX_REFERENCES {
            let message = format!("the overlay follows more than {MAX_REFERENCES} entries");
            return Err(refuse(Code::InvalidReference, message));
        }
        let path = self.resolve(directory, entry, (file, at))?;
        match self.tree.get(&path) {
            Some(_) => {
                within(directory, &path, entry, (file, at))?;
                for document in yaml::parse(&path, self.text(&path)?)? {
                    let origin = Origin {
                        path: path.clone(),
                        position: Some(document.position),
                    };
                    match Resource::expand(document.value, &origin) {
                        Ok(resources) => self.add(resources, layer),
                        Err(diagnostic) => {
                            self.diagnostics.push(diagnostic);
                            layer.incomplete = true;
                        }
                    }
                }
                Ok(())
            }
            None if self.tree.is_directory(&path) => {
                if let Some(outer) = stack.iter().find(|outer| outer.is_within(&path)) {
                    return Err(refuse(
                        Code::InvalidReference,
                        format!("`{entry}` holds `{outer}`, from which it is included: a cycle"),
                    ));
                }
                if stack.len() >= MAX_DEPTH {
                    let message = format!("more than {MAX_DEPTH} kustomizations inside each other");
                    return Err(refuse(Code::InvalidReference, message));
                }
                let Some(base) = self.kustomization_file(&path)? else {
                    return Err(refuse(
                        Code::InvalidReference,
                        format!("the directory `{path}` has no `{}`", FILE_NAMES[0]),
                    )
                    .help("create it, or list the files one by one"));
                };
                let mut inner = Layer::default();
                stack.push(path.clone());
                self.layer(&path, &base, stack, &mut inner);
                stack.pop();
                layer.incomplete |= inner.incomplete;
                self.add(inner.resources, layer);
                Ok(())
            }
            None => {
                let parent = path.parent();
                let names: Vec<&str> = self
                    .tree
                    .below(&parent)
                    .filter(|(near, _)| near.parent() == parent)
                    .map(|(near, _)| near.file_name())
                    .chain(self.tree.directories(&parent))
                    .collect();
                let diagnostic = refuse(
                    Code::InvalidReference,
                    format!("there is no file or directory `{path}`"),
                );
                Err(match nearest(path.file_name(), names) {
                    Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                    None => diagnostic,
                })
            }
        }
    }

    /// The path that an entry names; nothing on the way may be a link or a submodule.
    fn resolve(
        &self,
        directory: &RepoPath,
        entry: &str,
        (file, at): (&RepoPath, Position),
    ) -> Result<RepoPath, Diagnostic> {
        if is_remote(entry) {
            return Err(Diagnostic::error(
                Code::UnsupportedKustomization,
                file,
                format!("`{entry}` is remote: nothing is fetched"),
            )
            .at(at)
            .help("commit the files to this repository and name them here"));
        }
        let path = directory.join(entry).map_err(|error| {
            Diagnostic::error(Code::InvalidReference, file, error.to_string()).at(at)
        })?;
        let mut part = path.parent();
        while !part.as_str().is_empty() {
            if let Some(Entry::Symlink | Entry::Submodule) = self.tree.get(&part) {
                self.tree.text(&part)?;
            }
            part = part.parent();
        }
        Ok(path)
    }

    /// Adds resources to a layer; of two that are one object the second is refused.
    fn add(&mut self, resources: Vec<Resource>, layer: &mut Layer) {
        for resource in resources {
            match layer.places.entry(resource.key()) {
                hash_map::Entry::Occupied(first) => self.duplicate(&resource, first.get()),
                hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(place(&resource));
                    layer.resources.push(resource);
                }
            }
        }
    }

    fn duplicate(&mut self, resource: &Resource, first: &str) {
        self.diagnostics.push(
            Diagnostic::error(
                Code::DuplicateObject,
                &resource.origin.path,
                format!("{} is declared twice, first at {first}", resource.title()),
            )
            .at(resource.origin.position)
            .help("keep one of the two, or list its file or base only once"),
        );
    }

    fn patches(
        &mut self,
        directory: &RepoPath,
        file: &RepoPath,
        kustomization: &Kustomization,
        document: &Document,
        layer: &mut Layer,
    ) {
        let entries = kustomization.patches.as_deref().unwrap_or_default();
        for (index, entry) in entries.iter().enumerate() {
            let at = document.position_of(&format!("/patches/{index}"));
            let patch = Patch::read(file, document, index, entry, |entry| {
                self.patch_source(directory, entry, (file, at))
            });
            match patch {
                Ok(patch) => {
                    let diagnostics = patch.apply(&mut layer.resources, !layer.incomplete);
                    layer.incomplete |= diagnostics.iter().any(Diagnostic::is_error);
                    self.diagnostics.extend(diagnostics);
                }
                Err(unreadable) => {
                    let before = layer.resources.len();
                    layer.resources.retain(|resource| {
                        unreadable
                            .selector
                            .as_ref()
                            .is_some_and(|selector| !selector.matches(resource))
                    });
                    layer.incomplete = true;
                    let mut diagnostic = unreadable.diagnostic;
                    let lost = before - layer.resources.len();
                    if lost > 0 {
                        diagnostic.message = format!(
                            "{}; {lost} objects of {directory} that it may change are left out",
                            diagnostic.message
                        );
                    }
                    self.diagnostics.push(diagnostic);
                }
            }
        }
    }

    fn patch_source<'e>(
        &mut self,
        directory: &RepoPath,
        entry: &'e PatchEntry,
        place: (&RepoPath, Position),
    ) -> Result<Source<'e>, Diagnostic>
    where
        'a: 'e,
    {
        let (file, at) = place;
        let filled =
            |text: &'e Option<String>| text.as_deref().filter(|text| !text.trim().is_empty());
        match (filled(&entry.path), filled(&entry.patch)) {
            (Some(path), None) => {
                let resolved = self.resolve(directory, path, place)?;
                within(directory, &resolved, path, place)?;
                let text = self.text(&resolved).map_err(|error| match error.code {
                    Code::MissingFile => Diagnostic::error(
                        Code::InvalidReference,
                        file,
                        format!("there is no file `{resolved}`"),
                    )
                    .at(at),
                    _ => error,
                })?;
                Ok(Source::File(resolved, text))
            }
            (None, Some(patch)) => Ok(Source::Inline(patch)),
            (Some(_), Some(_)) => Err(Diagnostic::error(
                Code::InvalidValue,
                file,
                "a patch has both `path` and `patch`",
            )
            .at(at)
            .help("make two entries of it")),
            (None, None) => Err(Diagnostic::error(
                Code::MissingField,
                file,
                "a patch has neither `path` nor `patch`",
            )
            .at(at)),
        }
    }

    /// Namespace first, labels second, as kustomize does.
    fn transform(&mut self, kustomization: &Kustomization, layer: &mut Layer) {
        if let Some(namespace) = kustomization.namespace.as_deref().filter(|n| !n.is_empty()) {
            self.each(layer, |resource| namespace::apply(resource, namespace));
            layer.places.clear();
            let resources = std::mem::take(&mut layer.resources);
            self.add(resources, layer);
        }
        for labels in kustomization.labels.as_deref().unwrap_or_default() {
            self.each(layer, |resource| labels::apply(resource, labels));
        }
    }

    fn each(&mut self, layer: &mut Layer, change: impl Fn(&mut Resource) -> Result<(), String>) {
        for mut resource in std::mem::take(&mut layer.resources) {
            match change(&mut resource) {
                Ok(()) => layer.resources.push(resource),
                Err(reason) => {
                    self.left_out(&resource, Code::InvalidValue, &reason);
                    layer.incomplete = true;
                }
            }
        }
    }
}

fn place(resource: &Resource) -> String {
    match resource.origin.position {
        Some(position) => format!("{}:{position}", resource.origin.path),
        None => resource.origin.path.to_string(),
    }
}

/// Refuses files outside the kustomization's directory, as kustomize does.
fn within(
    directory: &RepoPath,
    path: &RepoPath,
    entry: &str,
    (file, at): (&RepoPath, Position),
) -> Result<(), Diagnostic> {
    if path.is_within(directory) {
        return Ok(());
    }
    Err(Diagnostic::error(
        Code::InvalidReference,
        file,
        format!("`{entry}` is a file outside the kustomization's directory"),
    )
    .at(at)
    .help("list its directory, with a kustomization.yaml of its own"))
}

/// Whether kustomize would fetch the entry.
fn is_remote(entry: &str) -> bool {
    let prefixes = ["git@", "git::", "gh:", "github.com/", "gitlab.com/"];
    entry.contains("://")
        || entry.contains("?ref=")
        || prefixes.iter().any(|prefix| entry.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";

    /// Renders `o` in a repository of some files and of `c.yaml`, a good manifest.
    fn rendered(files: &[(&str, &str)]) -> Rendered {
        let good = ("o/c.yaml", CONFIG);
        let tree = files.iter().copied().chain([good]).collect();
        render(&tree, &RepoPath::parse("o").unwrap())
    }

    fn check(files: &[(&str, &str)], expect: &[&str]) -> Vec<String> {
        let rendered = rendered(files);
        let found: Vec<String> = rendered
            .diagnostics
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, expect);
        rendered
            .manifests
            .iter()
            .map(|one| one.reference.to_string())
            .collect()
    }

    /// Checks a kustomization of which one thing is wrong.
    fn check_one(kustomization: &str, expect: &str) -> Vec<String> {
        check(&[("o/kustomization.yaml", kustomization)], &[expect])
    }

    #[test]
    fn what_is_not_rendered_is_refused_with_advice() {
        check_one(
            "resources: [c.yaml]\ncommonLabels: {a: b}",
            "o/kustomization.yaml:2:1: error[unsupported-kustomization]: `commonLabels` is not rendered by Trustweave (use `labels` with `pairs` and `includeSelectors: true`)",
        );
        check_one(
            "resources: [c.yaml]\nlabels: [{pairs: {a: b}, fields: [{path: x}]}]",
            "o/kustomization.yaml:2:26: error[unsupported-kustomization]: `labels[0].fields` is not rendered by Trustweave (label these fields with `patches`)",
        );
        check_one(
            "resource: [c.yaml]",
            "o/kustomization.yaml:1:1: error[unknown-field]: unknown field `resource` (did you mean `resources`?)",
        );
        check_one(
            "resources: [c.yaml]\nlabels: [{pairs: {a: 'no', b: no}}]",
            "o/kustomization.yaml:2:31: error[invalid-value]: `no` is a boolean to kustomize here (put it in quotes, or write `true` or `false`)",
        );
        check_one(
            "kind: Component\nresources: [c.yaml]",
            "o/kustomization.yaml:1:7: error[unsupported-kustomization]: components are not rendered (make it a kustomization of kind Kustomization)",
        );
        check_one(
            "apiVersion: kustomize.config.k8s.io/v1\nresources: [c.yaml]",
            "o/kustomization.yaml:1:13: error[wrong-kind]: `apiVersion` is \"kustomize.config.k8s.io/v1\", not `kustomize.config.k8s.io/v1beta1` (write `apiVersion: kustomize.config.k8s.io/v1beta1`)",
        );
        check(
            &[(
                "o/kustomization.yaml",
                "images: []\nhelmCharts: []\nresuorces: []",
            )],
            &[
                "o/kustomization.yaml:1:1: error[unsupported-kustomization]: `images` is not rendered by Trustweave (use `patches`, or write it in the manifests)",
                "o/kustomization.yaml:2:1: error[unsupported-kustomization]: `helmCharts` is not rendered by Trustweave (render it where you have the tool (`kustomize build`, `helm template`) and commit the result as a resource)",
                "o/kustomization.yaml:3:1: error[unknown-field]: unknown field `resuorces` (did you mean `resources`?)",
            ],
        );
    }

    #[test]
    fn a_bad_entry_never_stops_the_rest() {
        let check = |entry: &str, files: &[(&str, &str)], expect: &str| {
            let kustomization = format!("resources:\n- {entry}\n- c.yaml\n");
            let mut all = vec![("o/kustomization.yaml", kustomization.as_str())];
            all.extend(files);
            assert_eq!(check(&all, &[expect]), ["ConfigMap a"], "{entry}");
        };
        check(
            "https://example.test/x?ref=main",
            &[],
            "o/kustomization.yaml:2:3: error[unsupported-kustomization]: `https://example.test/x?ref=main` is remote: nothing is fetched (commit the files to this repository and name them here)",
        );
        check(
            "../../x",
            &[],
            "o/kustomization.yaml:2:3: error[invalid-reference]: `../../x` leaves the repository",
        );
        check(
            "/etc/passwd",
            &[],
            "o/kustomization.yaml:2:3: error[invalid-reference]: `/etc/passwd` is an absolute path",
        );
        check(
            "../x.yaml",
            &[("x.yaml", CONFIG)],
            "o/kustomization.yaml:2:3: error[invalid-reference]: `../x.yaml` is a file outside the kustomization's directory (list its directory, with a kustomization.yaml of its own)",
        );
        check(
            "cc.yaml",
            &[],
            "o/kustomization.yaml:2:3: error[invalid-reference]: there is no file or directory `o/cc.yaml` (did you mean `c.yaml`?)",
        );
        check(
            "../base",
            &[("base/x.yaml", CONFIG)],
            "o/kustomization.yaml:2:3: error[invalid-reference]: the directory `base` has no `kustomization.yaml` (create it, or list the files one by one)",
        );
        check(
            "../base",
            &[("base/kustomization.yaml", "resources: [../o]")],
            "base/kustomization.yaml:1:13: error[invalid-reference]: `../o` holds `o`, from which it is included: a cycle",
        );
        check(
            "..",
            &[("kustomization.yaml", "resources: [o]")],
            "o/kustomization.yaml:2:3: error[invalid-reference]: `..` holds `o`, from which it is included: a cycle",
        );
        check(
            "../base",
            &[
                ("base/kustomization.yaml", "namespace: x"),
                ("base/Kustomization", "namespace: x"),
            ],
            "base/Kustomization: error[invalid-reference]: `kustomization.yaml` stands beside it (keep one of the two)",
        );
        check(
            "bad.yaml",
            &[("o/bad.yaml", "a: [")],
            "o/bad.yaml:2:1: error[yaml-syntax]: not valid YAML: while parsing a node, did not find expected node content",
        );
        check(
            "bad.yaml",
            &[(
                "o/bad.yaml",
                "apiVersion: v1\nkind: Secret\nmetadata: {nam: x}",
            )],
            "o/bad.yaml:1:1: error[not-an-object]: not a Kubernetes object: it lacks `metadata.name`",
        );
    }

    #[test]
    fn links_and_submodules_are_not_followed() {
        for entry in [Entry::Symlink, Entry::Submodule] {
            let mut tree: Tree = [
                (
                    "o/kustomization.yaml",
                    "resources: [c.yaml, link, dir/x.yaml]",
                ),
                ("o/c.yaml", CONFIG),
            ]
            .into_iter()
            .collect();
            tree.insert(RepoPath::parse("o/link").unwrap(), entry.clone());
            tree.insert(RepoPath::parse("o/dir").unwrap(), entry);
            let rendered = render(&tree, &RepoPath::parse("o").unwrap());
            let codes: Vec<Code> = rendered.diagnostics.iter().map(|one| one.code).collect();
            assert_eq!(codes, [Code::UnreadableFile, Code::UnreadableFile]);
            assert_eq!(rendered.manifests.len(), 1);
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let files: Vec<(String, String)> = (0..40)
            .map(|n| {
                let next = format!("resources: [../d{}]", n + 1);
                (format!("d{n}/kustomization.yaml"), next)
            })
            .collect();
        let rendered = render(
            &files.into_iter().collect(),
            &RepoPath::parse("d0").unwrap(),
        );
        assert!(rendered.diagnostics[0].message.contains("more than 32"));

        // Each base twice in the one above: 2^30 if nothing counted.
        let files: Vec<(String, String)> = (0..30)
            .map(|n| {
                let twice = format!("resources: [../d{0}, ../d{0}]", n + 1);
                (format!("d{n}/kustomization.yaml"), twice)
            })
            .collect();
        let rendered = render(
            &files.into_iter().collect(),
            &RepoPath::parse("d0").unwrap(),
        );
        assert!(!rendered.diagnostics.is_empty());
    }

    #[test]
    fn an_object_is_never_rendered_without_its_patch() {
        let web = "apiVersion: v1\nkind: Secret\nmetadata: {name: web}\n";
        let check = |patch: &str, kept: &[&str], expect: &str| {
            let kustomization = format!("resources: [c.yaml, web.yaml]\npatches:\n{patch}");
            let files = [
                ("o/kustomization.yaml", kustomization.as_str()),
                ("o/web.yaml", web),
                ("o/p.yaml", "- {op: remove, path: /no}"),
                ("o/broken.yaml", "a: ["),
            ];
            assert_eq!(check(&files, &[expect]), kept, "{patch}");
        };
        check(
            "- {target: {kind: Secret}, path: p.yaml}",
            &["ConfigMap a"],
            "o/p.yaml:1:1: error[patch-failed]: the patch does not apply to Secret web, which is left out: operation 0 at `/no`: path is invalid",
        );
        check(
            "- {target: {kind: Secret}, path: broken.yaml}",
            &["ConfigMap a"],
            "o/broken.yaml:2:1: error[yaml-syntax]: not valid YAML: while parsing a node, did not find expected node content; 1 objects of o that it may change are left out",
        );
        check(
            "- {path: broken.yaml}",
            &[],
            "o/broken.yaml:2:1: error[yaml-syntax]: not valid YAML: while parsing a node, did not find expected node content; 2 objects of o that it may change are left out",
        );
        check(
            "- target: {kind: Secret}\n  patch: |-\n    - {op: add, path: /x, value: 'y'}\n    - {op: add, path: /x, value: {b: y}}",
            &["ConfigMap a"],
            "o/kustomization.yaml:5:5: error[patch-failed]: line 2 of the inline patch: `y` is a boolean to kustomize here; 1 objects of o that it may change are left out (put it in quotes, or write `true` or `false`)",
        );
        check(
            "- {path: p.yaml}",
            &["ConfigMap a", "Secret web"],
            "o/p.yaml:1:1: error[patch-failed]: a JSON patch does not say which objects it is for (add `target` with `kind` and `name`)",
        );
        check(
            "- patch: '{apiVersion: v1, kind: Secret, metadata: {name: wep}}'",
            &["ConfigMap a", "Secret web"],
            "o/kustomization.yaml:3:10: error[patch-failed]: there is no Secret wep that the patch could change (did you mean Secret web? Its apiVersion, kind, namespace and name must be the patch's)",
        );
        check(
            "- patch: '{apiVersion: v1, kind: Secret, metadata: {name: web, annotations: {}}, kind: [Secret]}'",
            &[],
            "o/kustomization.yaml:3:10: error[patch-failed]: line 1 of the inline patch: the key `kind` is written twice in one mapping; 2 objects of o that it may change are left out (keep one of the two)",
        );
    }
}
