//! The file `kustomization.yaml`, read strictly: what is not rendered is refused, never ignored.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{dialect, selector::Target};
use crate::model::{
    diagnostic::{Code, Diagnostic},
    repository::RepoPath,
    yaml::{self, Document},
};

/// The names under which kustomize looks for the file.
pub(super) const FILE_NAMES: [&str; 3] =
    ["kustomization.yaml", "kustomization.yml", "Kustomization"];

const API_VERSION: &str = "kustomize.config.k8s.io/v1beta1";
const KIND: &str = "Kustomization";

const COMMIT_RESULT: &str = "render it where you have the tool (`kustomize build`, `helm template`) and commit the result as a resource";
const PLAIN_PATCH: &str = "use `patches`, or write it in the manifests";

/// Fields of kustomize that are not rendered here, and what to use instead.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("bases", "list the directory in `resources`"),
    ("buildMetadata", "remove it"),
    ("commonAnnotations", PLAIN_PATCH),
    (
        "commonLabels",
        "use `labels` with `pairs` and `includeSelectors: true`",
    ),
    (
        "components",
        "make it a kustomization of kind Kustomization and list it in `resources`",
    ),
    ("configMapGenerator", COMMIT_RESULT),
    ("configurations", COMMIT_RESULT),
    ("crds", "remove it, and list the CRD in `resources`"),
    ("generatorOptions", COMMIT_RESULT),
    ("generators", COMMIT_RESULT),
    ("helmChartInflationGenerator", COMMIT_RESULT),
    ("helmCharts", COMMIT_RESULT),
    ("helmGlobals", COMMIT_RESULT),
    ("imageTags", PLAIN_PATCH),
    ("images", PLAIN_PATCH),
    ("namePrefix", "write the full names in the manifests"),
    ("nameSuffix", "write the full names in the manifests"),
    ("openapi", COMMIT_RESULT),
    ("patchesJson6902", "use `patches` with `target`"),
    ("patchesStrategicMerge", "use `patches` with `path`"),
    ("replacements", PLAIN_PATCH),
    ("replicas", PLAIN_PATCH),
    ("secretGenerator", COMMIT_RESULT),
    (
        "sortOptions",
        "remove it: objects are applied in an order of their own",
    ),
    ("transformers", COMMIT_RESULT),
    ("validators", "remove it; `trustweave check` validates"),
    ("vars", PLAIN_PATCH),
];

/// The content of a `kustomization.yaml`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Kustomization {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    #[serde(rename = "metadata")]
    _metadata: Option<Value>,
    /// Files and directories, relative to the file.
    pub(super) resources: Option<Vec<String>>,
    /// The namespace of everything.
    pub(super) namespace: Option<String>,
    /// Labels for everything.
    pub(super) labels: Option<Vec<Labels>>,
    /// Changes to objects.
    pub(super) patches: Option<Vec<PatchEntry>>,
}

/// An entry of `labels`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Labels {
    pub(super) pairs: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(super) include_selectors: bool,
    #[serde(default)]
    pub(super) include_templates: bool,
}

/// An entry of `patches`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PatchEntry {
    pub(super) path: Option<String>,
    pub(super) patch: Option<String>,
    pub(super) target: Option<Target>,
}

/// Reads the file; with its document, for the places in it.
pub(super) fn read(
    path: &RepoPath,
    text: &str,
) -> Result<(Kustomization, Document), Vec<Diagnostic>> {
    let mut documents = yaml::parse(path, text)
        .map_err(|error| vec![error])?
        .into_iter();
    let (Some(document), rest) = (documents.next(), documents.next()) else {
        return Err(vec![empty(path)]);
    };
    if let Some(second) = rest {
        return Err(vec![
            Diagnostic::error(
                Code::WrongKind,
                path,
                "a second document, where kustomize reads one",
            )
            .at(second.position),
        ]);
    }
    if let Some(diagnostic) = wrong_kind(path, &document) {
        return Err(vec![diagnostic]);
    }
    let mut diagnostics = unsupported(path, &document);
    diagnostics.extend(dialect::ambiguous(&document, text).map(|found| found.refuse(path)));
    // Decoded without them, so that a typo shows in the same run.
    let mut supported = document.clone();
    strip(&mut supported.value);
    match supported.decode::<Kustomization>(path) {
        Err(diagnostic) => diagnostics.push(diagnostic),
        Ok(kustomization) if diagnostics.is_empty() => {
            let content = document.value.as_object().into_iter().flatten();
            let typed = |name: &str| matches!(name, "apiVersion" | "kind");
            if content.filter(|(name, _)| !typed(name)).count() == 0 {
                return Err(vec![empty(path)]);
            }
            return Ok((kustomization, document));
        }
        Ok(_) => {}
    }
    Err(diagnostics)
}

fn empty(path: &RepoPath) -> Diagnostic {
    Diagnostic::error(Code::MissingField, path, "the kustomization is empty")
        .help("list manifests in `resources`")
}

fn wrong_kind(path: &RepoPath, document: &Document) -> Option<Diagnostic> {
    let at = |pointer: &str| document.position_of(pointer);
    if document.value["kind"] == "Component" {
        return Some(
            Diagnostic::error(
                Code::UnsupportedKustomization,
                path,
                "components are not rendered",
            )
            .at(at("/kind"))
            .help("make it a kustomization of kind Kustomization"),
        );
    }
    let wrong = |field: &str, expected: &str| {
        let found = document.value.get(field)?;
        (found != expected).then(|| {
            Diagnostic::error(
                Code::WrongKind,
                path,
                format!("`{field}` is {found}, not `{expected}`"),
            )
            .at(at(&format!("/{field}")))
            .help(format!("write `{field}: {expected}`"))
        })
    };
    wrong("apiVersion", API_VERSION).or_else(|| wrong("kind", KIND))
}

/// Everything in the document that kustomize knows and that is not rendered here.
fn unsupported(path: &RepoPath, document: &Document) -> Vec<Diagnostic> {
    let refuse = |pointer: &str, message: String, help: &str| {
        Diagnostic::error(Code::UnsupportedKustomization, path, message)
            .at(document.key_position_of(pointer))
            .help(help)
    };
    let mut found = Vec::new();
    for name in document
        .value
        .as_object()
        .into_iter()
        .flat_map(|map| map.keys())
    {
        if let Some((_, help)) = UNSUPPORTED.iter().find(|(field, _)| field == name) {
            let message = format!("`{name}` is not rendered by Trustweave");
            found.push(refuse(&format!("/{name}"), message, help));
        }
    }
    let nested = [
        ("labels", "fields", "label these fields with `patches`"),
        (
            "patches",
            "options",
            "remove it: a patch does not change an object's name or kind",
        ),
    ];
    for (list, field, help) in nested {
        let entries = document.value[list].as_array().into_iter().flatten();
        for (index, entry) in entries.enumerate() {
            if entry.get(field).is_some() {
                let message = format!("`{list}[{index}].{field}` is not rendered by Trustweave");
                found.push(refuse(&format!("/{list}/{index}/{field}"), message, help));
            }
        }
    }
    found
}

/// Takes out what [`unsupported`] reports.
fn strip(value: &mut Value) {
    let Value::Object(map) = value else {
        return;
    };
    map.retain(|name, _| !UNSUPPORTED.iter().any(|(field, _)| field == name));
    for (list, field) in [("labels", "fields"), ("patches", "options")] {
        if let Some(Value::Array(entries)) = map.get_mut(list) {
            for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
                entry.shift_remove(field);
            }
        }
    }
}
