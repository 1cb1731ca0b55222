//! Collects the objects of a kustomization: its files and bases, what it generates, its components.

use super::{
    generator::{self, Behavior, GeneratorArgs, Kind},
    kustomization::{self, FILE_NAMES, Kustomization},
    layer::Layer,
    load::{Place, refuse},
    resource::Resource,
};
use crate::model::{
    diagnostic::{Code, Diagnostic},
    manifest::Origin,
    repository::{RepoPath, Tree},
    yaml::{self, Document},
};

/// How deep kustomizations may include each other.
const MAX_DEPTH: usize = 32;

/// How many entries are followed in one overlay, each use of a base counted.
const MAX_REFERENCES: usize = 10_000;

/// The rendering of one overlay.
pub(super) struct Renderer<'a> {
    pub(super) tree: &'a Tree,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Whether a kustomization changes names or namespaces.
    pub(super) renames: bool,
    /// How many entries were followed.
    references: usize,
    /// How much was read.
    pub(super) bytes: usize,
}

/// A kustomization, and its document for the places in it.
pub(super) type Read = (Kustomization, Document);

impl<'a> Renderer<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        Self {
            tree,
            diagnostics: Vec::new(),
            renames: false,
            references: 0,
            bytes: 0,
        }
    }

    /// Says that an object is left out, and why.
    pub(super) fn left_out(&mut self, resource: &Resource, code: Code, reason: &str) {
        self.diagnostics.push(
            Diagnostic::error(
                code,
                &resource.origin.path,
                format!("{} is left out: {reason}", resource.title()),
            )
            .at(resource.origin.position),
        );
    }

    /// Reads a kustomization; without one the layer lacks what it would have given.
    pub(super) fn read(&mut self, file: &RepoPath, layer: &mut Layer) -> Option<Read> {
        let read = self
            .text(file)
            .map_err(|error| vec![error])
            .and_then(|text| kustomization::read(file, text));
        match read {
            Ok(read) => Some(read),
            Err(diagnostics) => {
                self.diagnostics.extend(diagnostics);
                layer.incomplete = true;
                None
            }
        }
    }

    /// Renders one kustomization into the layer. `stack` holds the directories that lead to it,
    /// itself last.
    pub(super) fn accumulate(
        &mut self,
        directory: &RepoPath,
        file: &RepoPath,
        read: &Read,
        stack: &mut Vec<RepoPath>,
        layer: &mut Layer,
    ) {
        let (kustomization, document) = read;
        for (field, entries) in [
            ("resources", &kustomization.resources),
            ("bases", &kustomization.bases),
        ] {
            for (index, entry) in entries.iter().flatten().enumerate() {
                let at = document.position_of(&format!("/{field}/{index}"));
                if let Err(diagnostic) = self.resource(directory, entry, (file, at), stack, layer) {
                    self.diagnostics.push(diagnostic);
                    layer.incomplete = true;
                }
            }
        }
        for (field, kind, generators) in [
            (
                "configMapGenerator",
                Kind::ConfigMap,
                &kustomization.config_map_generator,
            ),
            (
                "secretGenerator",
                Kind::Secret,
                &kustomization.secret_generator,
            ),
        ] {
            for (index, args) in generators.iter().flatten().enumerate() {
                let at = document.position_of(&format!("/{field}/{index}"));
                self.renames = true;
                if let Err(diagnostic) =
                    self.generate(directory, (kind, args), kustomization, (file, at), layer)
                {
                    // Who names what is not there is left out in the end.
                    self.diagnostics.push(diagnostic);
                    layer.incomplete = true;
                }
            }
        }
        for (index, entry) in kustomization.components.iter().flatten().enumerate() {
            let at = document.position_of(&format!("/components/{index}"));
            if let Err(diagnostic) = self.component(directory, entry, (file, at), stack, layer) {
                // A component may change everything.
                layer.leave_out(self, diagnostic, |_, _| true);
            }
        }
        self.transform(directory, file, read, layer);
    }

    /// Adds what an entry of `resources` names.
    fn resource(
        &mut self,
        directory: &RepoPath,
        entry: &str,
        place: Place<'_>,
        stack: &mut Vec<RepoPath>,
        layer: &mut Layer,
    ) -> Result<(), Diagnostic> {
        self.follow(place)?;
        let path = self.resolve(directory, entry, place)?;
        if self.tree.get(&path).is_none() {
            let mut inner = Layer::default();
            self.directory(&path, entry, place, stack, &mut inner, false)?;
            layer.incomplete |= inner.incomplete;
            layer.add(self, inner.resources);
            return Ok(());
        }
        let path = self.file(directory, entry, place)?;
        for document in yaml::parse_carried(&path, self.text(&path)?)? {
            let origin = Origin {
                path: path.clone(),
                position: Some(document.position),
            };
            match Resource::expand(document.value, &origin) {
                Ok(resources) => layer.add(self, resources),
                Err(diagnostic) => {
                    self.diagnostics.push(diagnostic);
                    layer.incomplete = true;
                }
            }
        }
        Ok(())
    }

    /// Lets what an entry of `components` names work on the layer.
    fn component(
        &mut self,
        directory: &RepoPath,
        entry: &str,
        place: Place<'_>,
        stack: &mut Vec<RepoPath>,
        layer: &mut Layer,
    ) -> Result<(), Diagnostic> {
        self.follow(place)?;
        let path = self.resolve(directory, entry, place)?;
        self.directory(&path, entry, place, stack, layer, true)?;
        layer.reindex(self);
        Ok(())
    }

    fn follow(&mut self, place: Place<'_>) -> Result<(), Diagnostic> {
        self.references += 1;
        if self.references > MAX_REFERENCES {
            let message = format!("the overlay follows more than {MAX_REFERENCES} entries");
            return Err(refuse(place, Code::InvalidReference, message));
        }
        Ok(())
    }

    /// Renders the kustomization in a directory into a layer.
    fn directory(
        &mut self,
        path: &RepoPath,
        entry: &str,
        place: Place<'_>,
        stack: &mut Vec<RepoPath>,
        layer: &mut Layer,
        is_component: bool,
    ) -> Result<(), Diagnostic> {
        if !self.tree.is_directory(path) {
            return Err(match self.tree.get(path) {
                None => self.nothing_at(path, place),
                Some(_) => refuse(
                    place,
                    Code::InvalidReference,
                    format!("`{entry}` is a file, where a directory with a component is expected"),
                ),
            });
        }
        if let Some(outer) = stack.iter().find(|outer| outer.is_within(path)) {
            let message = format!("`{entry}` holds `{outer}`, from which it is included: a cycle");
            return Err(refuse(place, Code::InvalidReference, message));
        }
        if stack.len() >= MAX_DEPTH {
            let message = format!("more than {MAX_DEPTH} kustomizations inside each other");
            return Err(refuse(place, Code::InvalidReference, message));
        }
        let Some(file) = self.kustomization_file(path)? else {
            let message = format!("the directory `{path}` has no `{}`", FILE_NAMES[0]);
            return Err(refuse(place, Code::InvalidReference, message)
                .help("create it, or list the files one by one"));
        };
        let Some(read) = self.read(&file, layer) else {
            if is_component {
                // It is said already what is wrong with it.
                layer.resources.clear();
            }
            return Ok(());
        };
        if read.0.is_component() != is_component {
            let (is, list) = if is_component {
                ("no component", "`resources`")
            } else {
                ("a component", "`components`")
            };
            let message = format!("`{entry}` is {is}");
            return Err(refuse(place, Code::WrongKind, message).help(format!("list it in {list}")));
        }
        stack.push(path.clone());
        self.accumulate(path, &file, &read, stack, layer);
        stack.pop();
        Ok(())
    }

    /// Adds what an entry of a generator makes, or puts it in the place of what it is meant for.
    fn generate(
        &mut self,
        directory: &RepoPath,
        (kind, args): (Kind, &GeneratorArgs),
        kustomization: &Kustomization,
        place: Place<'_>,
        layer: &mut Layer,
    ) -> Result<(), Diagnostic> {
        let origin = Origin {
            path: place.0.clone(),
            position: Some(place.1),
        };
        let general = kustomization.generator_options.clone().unwrap_or_default();
        let made = generator::generate(kind, args, &general, &origin, &mut |entry: &str| {
            self.bytes_of(directory, entry, place)
                .map_err(Failure::File)
        });
        let made = made.map_err(|failure| match failure {
            Failure::File(diagnostic) => diagnostic,
            Failure::Entry(reason) => refuse(place, Code::InvalidValue, reason),
        })?;
        let identity = made.current();
        let mut same = layer.resources.iter().enumerate().filter(|(_, resource)| {
            resource.api_version() == made.api_version()
                && resource.identities().any(|one| *one == identity)
        });
        let (first, second) = (same.next().map(|(index, _)| index), same.next());
        let title = made.title();
        match (first, second.is_some(), args.behavior) {
            (_, true, _) => {
                let message = format!("{title} is, or was, the name of several objects");
                Err(refuse(place, Code::DuplicateObject, message))
            }
            (None, _, Behavior::Create) => {
                layer.add(self, vec![made]);
                Ok(())
            }
            (None, _, _) if layer.incomplete => Ok(()),
            (None, _, _) => {
                let message = format!("there is no {title} to merge with or to replace");
                Err(refuse(place, Code::InvalidReference, message)
                    .help("remove `behavior`, or correct the name"))
            }
            (Some(_), _, Behavior::Create) => {
                let message = format!("{title} is there already");
                Err(refuse(place, Code::DuplicateObject, message)
                    .help("write `behavior: merge` or `behavior: replace`"))
            }
            (Some(index), _, behavior) => {
                let old = &layer.resources[index];
                layer.resources[index] = generator::replace(old, made, behavior);
                Ok(())
            }
        }
    }
}

/// Why nothing was generated.
enum Failure {
    /// A file can't be read.
    File(Diagnostic),
    /// Something is wrong with the entry.
    Entry(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Entry(reason)
    }
}
