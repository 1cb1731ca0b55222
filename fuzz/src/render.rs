//! Overlays: YAML and kustomizations, as a repository gives them.

use std::collections::BTreeSet;

use serde_json::Value;
use trustweave::{
    model::{
        diagnostic::Diagnostic,
        manifest::ObjectRef,
        repository::{RepoPath, Tree},
        yaml,
    },
    render::{Rendered, render},
};

use super::sections::sections;

/// What is read from YAML is the same after it was written, and so is what an overlay yields.
pub fn holds(data: &[u8]) {
    let files = sections(data);
    for (_, content) in &files {
        if let Ok(text) = str::from_utf8(content) {
            is_read_again(text);
        }
    }
    rendered(&files.into_iter().collect());
}

fn is_read_again(text: &str) {
    let path = RepoPath::ROOT;
    let Ok(documents) = yaml::parse(&path, text) else {
        return;
    };
    let values: Vec<Value> = documents.into_iter().map(|it| it.value).collect();
    is_written(&values);
}

/// Values are the same after they were written as YAML.
fn is_written(values: &[Value]) {
    let text = yaml::emit(values);
    let again = yaml::parse(&RepoPath::ROOT, &text);
    let again = again.map(|documents| documents.into_iter().map(|it| it.value).collect());
    assert_eq!(again, Ok(values.to_vec()), "{text}");
}

/// Renders the directory `overlay`, and checks what holds of all that is rendered.
pub(super) fn rendered(tree: &Tree) -> Rendered {
    let overlay = RepoPath::parse("overlay").unwrap();
    let rendered = render(tree, &overlay);
    let again = render(tree, &overlay);
    assert_eq!(rendered.manifests, again.manifests);
    assert_eq!(rendered.diagnostics, again.diagnostics);

    let mut keys = BTreeSet::new();
    for manifest in &rendered.manifests {
        let found = ObjectRef::of(&manifest.object);
        assert_eq!(found.as_ref(), Some(&manifest.reference));
        assert!(
            keys.insert(manifest.reference.key()),
            "{} is there twice",
            manifest.reference
        );
    }
    let objects = objects(&rendered);
    is_written(&objects);
    if !objects.is_empty() && !rendered.diagnostics.iter().any(Diagnostic::is_error) {
        is_rendered_again(&objects);
    }
    rendered
}

fn objects(rendered: &Rendered) -> Vec<Value> {
    let manifests = rendered.manifests.iter();
    manifests.map(|manifest| manifest.object.clone()).collect()
}

/// Objects that are listed as resources are rendered as they are.
fn is_rendered_again(objects: &[Value]) {
    let text = yaml::emit(objects);
    let files = [
        ("overlay/kustomization.yaml", "resources: [all.yaml]\n"),
        ("overlay/all.yaml", &text),
    ];
    let again = render(
        &files.into_iter().collect(),
        &RepoPath::parse("overlay").unwrap(),
    );
    assert_eq!(again.diagnostics, [], "{text}");
    let found = again.manifests.iter().map(|it| &it.object);
    assert!(found.eq(objects), "{:#?} is not {text}", again.manifests);
}
