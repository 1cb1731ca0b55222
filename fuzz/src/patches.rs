//! Patches, strategic and RFC 6902, of objects that are as they should be.

use std::fmt::Write as _;

use trustweave::model::{diagnostic::Diagnostic, manifest::Manifest, repository::Tree};

use super::{render::rendered, sections::sections};

/// What is patched: a Deployment, and two that no patch with a target names.
const OBJECTS: &str = include_str!("patched.yaml");

/// Patches change what they name and nothing else, and a broken one leaves out what it was to change.
pub fn holds(data: &[u8]) {
    let patches = sections(data);
    let mut kustomization = "resources: [objects.yaml]\npatches:\n".to_owned();
    let mut files = vec![(
        "overlay/objects.yaml".to_owned(),
        OBJECTS.as_bytes().to_vec(),
    )];
    let mut targeted = true;
    for (index, (form, content)) in patches.into_iter().enumerate() {
        let target = if form == "json" {
            ", target: {kind: Deployment}"
        } else {
            targeted = false;
            ""
        };
        writeln!(kustomization, "  - {{path: {index}.yaml{target}}}").unwrap();
        files.push((format!("overlay/{index}.yaml"), content));
    }
    files.push((
        "overlay/kustomization.yaml".to_owned(),
        kustomization.into_bytes(),
    ));
    let outcome = rendered(&files.into_iter().collect());
    if !targeted {
        return;
    }
    let plain = [
        ("overlay/kustomization.yaml", "resources: [objects.yaml]\n"),
        ("overlay/objects.yaml", OBJECTS),
    ];
    let plain = rendered(&plain.into_iter().collect::<Tree>());
    let others = |of: &[Manifest]| -> Vec<Manifest> {
        let known = ["ConfigMap shop/web", "Service shop/web"];
        let named = |it: &&Manifest| known.contains(&it.reference.to_string().as_str());
        of.iter().filter(named).cloned().collect()
    };
    let broken = outcome.diagnostics.iter().any(Diagnostic::is_error);
    if broken {
        // What is no Deployment any more, by an earlier patch, is not what a later one was to change.
        let mut kinds = outcome.manifests.iter().map(|it| &it.reference.gvk.kind);
        assert!(
            kinds.all(|kind| kind != "Deployment"),
            "{:?}",
            outcome.diagnostics
        );
    } else {
        assert_eq!(others(&outcome.manifests), others(&plain.manifests));
        assert!(outcome.manifests.len() <= plain.manifests.len());
    }
}
