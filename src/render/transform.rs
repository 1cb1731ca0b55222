//! Changes the objects of a layer, in the order in which kustomize does.

use super::{
    accumulate::{Read, Renderer},
    affix, annotations, images,
    kustomization::{Kustomization, PatchEntry, PatchOptions, SortOrder},
    labels::Labelling,
    layer::Layer,
    load::{Place, refuse},
    namespace,
    patch::{self, Form, Patch, Source},
    replacement::Replacement,
    replicas,
};
use crate::model::{
    diagnostic::{Code, Diagnostic, Position},
    repository::RepoPath,
    yaml::{self, Document},
};

impl<'a> Renderer<'a> {
    /// Applies every transformer of a kustomization to the layer.
    pub(super) fn transform(
        &mut self,
        directory: &RepoPath,
        file: &RepoPath,
        read: &Read,
        layer: &mut Layer,
    ) {
        let (kustomization, document) = read;
        let entries: Vec<PatchEntry> = kustomization
            .patches_strategic_merge
            .iter()
            .flatten()
            .map(|text| strategic_merge(text))
            .collect();
        self.patches(
            directory,
            file,
            (Form::StrategicMerge, &entries),
            document,
            layer,
        );
        let entries = kustomization.patches.as_deref().unwrap_or_default();
        self.patches(directory, file, (Form::Patches, entries), document, layer);
        self.names(kustomization, layer);
        self.metadata(file, read, layer);
        let entries = kustomization
            .patches_json6902
            .as_deref()
            .unwrap_or_default();
        self.patches(directory, file, (Form::Json6902, entries), document, layer);
        self.replicas(file, read, layer);
        self.images(file, read, layer);
        self.replacements(directory, file, read, layer);
        if let Some(options) = &kustomization.sort_options
            && options.order == SortOrder::Fifo
            && options.legacy_sort_options.is_some()
        {
            let at = document.key_position_of("/sortOptions/legacySortOptions");
            let message = "`legacySortOptions` are for `order: legacy`";
            self.diagnostics.push(
                refuse((file, at), Code::InvalidValue, message).help("remove one of the two"),
            );
        }
    }

    fn patches(
        &mut self,
        directory: &RepoPath,
        file: &RepoPath,
        (form, entries): (Form, &[PatchEntry]),
        document: &Document,
        layer: &mut Layer,
    ) {
        for (index, entry) in entries.iter().enumerate() {
            let at = document.position_of(&format!("/{}/{index}", form.field()));
            let patch = Patch::read(file, document, (form, index), entry, |entry| {
                self.patch_source(directory, entry, (file, at))
            });
            match patch {
                Ok(patch) => {
                    let diagnostics = patch.apply(&mut layer.resources, !layer.incomplete);
                    layer.incomplete |= diagnostics.iter().any(Diagnostic::is_error);
                    self.diagnostics.extend(diagnostics);
                }
                Err(unreadable) => {
                    let selector = unreadable.selector;
                    layer.leave_out(self, unreadable.diagnostic, |_, resource| {
                        selector
                            .as_ref()
                            .is_none_or(|selector| selector.matches(resource))
                    });
                }
            }
        }
        if !entries.is_empty() {
            layer.reindex(self);
        }
    }

    fn patch_source<'e>(
        &mut self,
        directory: &RepoPath,
        entry: &'e PatchEntry,
        place: Place<'_>,
    ) -> Result<Source<'e>, Diagnostic>
    where
        'a: 'e,
    {
        let filled =
            |text: &'e Option<String>| text.as_deref().filter(|text| !text.trim().is_empty());
        match (filled(&entry.path), filled(&entry.patch)) {
            (Some(path), None) => {
                let (path, text) = self.text_of(directory, path, place)?;
                Ok(Source::File(path, text))
            }
            (None, Some(patch)) => Ok(Source::Inline(patch)),
            (Some(_), Some(_)) => {
                let message = "a patch has both `path` and `patch`";
                Err(refuse(place, Code::InvalidValue, message).help("make two entries of it"))
            }
            (None, None) => {
                let message = "a patch has neither `path` nor `patch`";
                Err(refuse(place, Code::MissingField, message))
            }
        }
    }

    /// The namespace, then prefix and suffix.
    fn names(&mut self, kustomization: &Kustomization, layer: &mut Layer) {
        let given = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(namespace) = given(&kustomization.namespace) {
            self.renames = true;
            layer.each(self, |resource| namespace::apply(resource, &namespace));
            layer.reindex(self);
        }
        if let Some(prefix) = given(&kustomization.name_prefix) {
            self.renames = true;
            for resource in &mut layer.resources {
                affix::prefix(resource, &prefix);
            }
        }
        if let Some(suffix) = given(&kustomization.name_suffix) {
            self.renames = true;
            for resource in &mut layer.resources {
                affix::suffix(resource, &suffix);
            }
        }
    }

    /// Labels, then annotations.
    fn metadata(&mut self, file: &RepoPath, (kustomization, document): &Read, layer: &mut Layer) {
        for (index, labels) in kustomization.labels.iter().flatten().enumerate() {
            match Labelling::of(labels) {
                Ok(labelling) => layer.each(self, |resource| labelling.apply(resource)),
                Err(reason) => {
                    let at = document.position_of(&format!("/labels/{index}/fields"));
                    let diagnostic = refuse((file, at), Code::InvalidValue, reason);
                    layer.leave_out(self, diagnostic, |_, _| true);
                }
            }
        }
        if let Some(pairs) = &kustomization.common_labels {
            let labelling = Labelling::common(pairs);
            layer.each(self, |resource| labelling.apply(resource));
        }
        if let Some(texts) = &kustomization.common_annotations {
            layer.each(self, |resource| annotations::apply(resource, texts));
        }
    }

    fn replicas(&mut self, file: &RepoPath, (kustomization, document): &Read, layer: &mut Layer) {
        for (index, replica) in kustomization.replicas.iter().flatten().enumerate() {
            let mut found = false;
            layer.each(self, |resource| {
                if replicas::is_for(replica, resource) {
                    found = true;
                    replicas::apply(resource, replica)?;
                }
                Ok(())
            });
            if !found && !layer.incomplete {
                let at = document.position_of(&format!("/replicas/{index}"));
                let message = format!("nothing with replicas is named `{}`", replica.name);
                self.diagnostics.push(
                    refuse((file, at), Code::InvalidReference, message)
                        .help("correct `name`, or remove the entry"),
                );
            }
        }
    }

    fn images(&mut self, file: &RepoPath, (kustomization, document): &Read, layer: &mut Layer) {
        for (field, entries) in [
            ("images", &kustomization.images),
            ("imageTags", &kustomization.image_tags),
        ] {
            for (index, image) in entries.iter().flatten().enumerate() {
                match images::Replacer::new(image) {
                    Ok(replacer) => layer.each(self, |resource| replacer.apply(resource)),
                    Err(reason) => {
                        let at = document.position_of(&format!("/{field}/{index}/name"));
                        let diagnostic = refuse((file, at), Code::InvalidValue, reason);
                        layer.leave_out(self, diagnostic, |_, _| true);
                    }
                }
            }
        }
    }

    fn replacements(
        &mut self,
        directory: &RepoPath,
        file: &RepoPath,
        (kustomization, document): &Read,
        layer: &mut Layer,
    ) {
        let entries = kustomization.replacements.as_deref().unwrap_or_default();
        for (index, entry) in entries.iter().enumerate() {
            let at = document.position_of(&format!("/replacements/{index}"));
            match self.replacement(directory, entry, (file, at)) {
                Err(diagnostic) => layer.leave_out(self, diagnostic, |_, _| true),
                Ok(replacements) => {
                    for (replacement, place) in replacements {
                        let place = (place.0.as_ref().unwrap_or(file), place.1);
                        replace(self, &replacement, place, layer);
                    }
                }
            }
        }
        if !entries.is_empty() {
            layer.reindex(self);
        }
    }

    /// The replacements of an entry, each with its place: the entry itself, or those in its file.
    fn replacement(
        &mut self,
        directory: &RepoPath,
        entry: &Replacement,
        place: Place<'_>,
    ) -> Result<Vec<Placed>, Diagnostic> {
        let mistaken = |entry: &Replacement, in_file, place| match entry.mistake(in_file) {
            Some(mistake) => Err(refuse(
                place,
                Code::InvalidValue,
                format!("a replacement: {mistake}"),
            )),
            None => Ok(()),
        };
        mistaken(entry, false, place)?;
        let Some(path) = entry.path.as_deref() else {
            return Ok(vec![(entry.clone(), (None, place.1))]);
        };
        let (path, text) = self.text_of(directory, path, place)?;
        let documents = yaml::parse(&path, text)?;
        let [document] = documents.as_slice() else {
            let message = format!("`{path}` is not one document");
            return Err(refuse(place, Code::InvalidValue, message));
        };
        let read: Vec<Replacement> = if document.value.is_array() {
            document.decode(&path)?
        } else {
            vec![document.decode(&path)?]
        };
        read.into_iter()
            .map(|replacement| {
                mistaken(&replacement, true, (&path, document.position))?;
                Ok((replacement, (Some(path.clone()), document.position)))
            })
            .collect()
    }
}

/// A replacement and where it stands; without a path, in the kustomization itself.
type Placed = (Replacement, (Option<RepoPath>, Position));

fn replace(
    renderer: &mut Renderer<'_>,
    replacement: &Replacement,
    place: Place<'_>,
    layer: &mut Layer,
) {
    if let Err(failure) = replacement.apply(&mut layer.resources) {
        let message = format!("the replacement can't be made: {}", failure.reason);
        let diagnostic = refuse(place, Code::InvalidReference, message);
        layer.leave_out(renderer, diagnostic, |index, _| {
            failure.lacking.contains(&index)
        });
    }
}

/// An entry of `patchesStrategicMerge`, as one of `patches`.
fn strategic_merge(text: &str) -> PatchEntry {
    let is_inline = patch::is_inline(text);
    let given = |wanted: bool| (is_inline == wanted).then(|| text.to_owned());
    PatchEntry {
        path: given(false),
        patch: given(true),
        target: None,
        options: PatchOptions::default(),
    }
}
