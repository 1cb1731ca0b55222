//! The file `kustomization.yaml`, read strictly: what is not rendered is refused, never ignored.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{dialect, generator::GeneratorArgs, replacement::Replacement, selector::Target};
use crate::model::{
    diagnostic::{Code, Diagnostic},
    repository::RepoPath,
    yaml::{self, Document},
};

/// The names under which kustomize looks for the file.
pub(super) const FILE_NAMES: [&str; 3] =
    ["kustomization.yaml", "kustomization.yml", "Kustomization"];

const COMMIT_RESULT: &str = "render it where you have the tool (`kustomize build`, `helm template`) and commit the result as a resource";

/// Fields of kustomize that are not rendered here, and what to use instead.
const UNSUPPORTED: &[(&str, &str)] = &[
    (
        "buildMetadata",
        "remove it; `labels` and `commonAnnotations` add what you want to see on objects",
    ),
    ("configurations", COMMIT_RESULT),
    (
        "crds",
        "remove it, list the CRD in `resources`, and follow names with `replacements`",
    ),
    ("generators", COMMIT_RESULT),
    ("helmChartInflationGenerator", COMMIT_RESULT),
    ("helmCharts", COMMIT_RESULT),
    ("helmGlobals", COMMIT_RESULT),
    ("openapi", COMMIT_RESULT),
    ("transformers", COMMIT_RESULT),
    ("validators", "remove it; `trustweave check` validates"),
    ("vars", "use `replacements`"),
];

/// The content of a `kustomization.yaml`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Kustomization {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    kind: Option<String>,
    #[serde(rename = "metadata")]
    _metadata: Option<Metadata>,
    /// Files and directories, relative to the file.
    pub(super) resources: Option<Vec<String>>,
    /// More of them, as older versions of kustomize called them.
    pub(super) bases: Option<Vec<String>>,
    /// Directories with kustomizations that work on the objects of this one.
    pub(super) components: Option<Vec<String>>,
    /// The namespace of everything.
    pub(super) namespace: Option<String>,
    /// What names begin with.
    pub(super) name_prefix: Option<String>,
    /// What names end with.
    pub(super) name_suffix: Option<String>,
    /// Labels for everything.
    pub(super) labels: Option<Vec<Labels>>,
    /// Labels for everything, selectors too.
    pub(super) common_labels: Option<BTreeMap<String, String>>,
    /// Annotations for everything, pod templates too.
    pub(super) common_annotations: Option<BTreeMap<String, String>>,
    /// Changes to objects.
    pub(super) patches: Option<Vec<PatchEntry>>,
    /// Strategic merge patches, or files of them.
    pub(super) patches_strategic_merge: Option<Vec<String>>,
    /// JSON patches with targets.
    pub(super) patches_json6902: Option<Vec<PatchEntry>>,
    /// Other names, tags and digests for images.
    pub(super) images: Option<Vec<Image>>,
    /// More of them, as older versions of kustomize called them.
    pub(super) image_tags: Option<Vec<Image>>,
    /// Other numbers of replicas.
    pub(super) replicas: Option<Vec<Replica>>,
    /// `ConfigMaps` made of files and literals.
    pub(super) config_map_generator: Option<Vec<GeneratorArgs>>,
    /// Secrets made of files and literals.
    pub(super) secret_generator: Option<Vec<GeneratorArgs>>,
    /// Options for all of them.
    pub(super) generator_options: Option<GeneratorOptions>,
    /// Values of some fields copied to others.
    pub(super) replacements: Option<Vec<Replacement>>,
    /// The order of the objects.
    pub(super) sort_options: Option<SortOptions>,
}

impl Kustomization {
    /// Whether it works on the objects of the kustomization that includes it.
    pub(super) fn is_component(&self) -> bool {
        self.kind.as_deref() == Some("Component")
    }
}

/// `metadata`, which has no effect.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "namespace")]
    _namespace: Option<String>,
    #[serde(rename = "labels")]
    _labels: Option<BTreeMap<String, String>>,
    #[serde(rename = "annotations")]
    _annotations: Option<BTreeMap<String, String>>,
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
    #[serde(default)]
    pub(super) fields: Vec<FieldSpec>,
}

/// A field of some kinds, as a user names it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FieldSpec {
    pub(super) group: Option<String>,
    pub(super) version: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) path: String,
    #[serde(default)]
    pub(super) create: bool,
}

/// An entry of `patches` or `patchesJson6902`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PatchEntry {
    pub(super) path: Option<String>,
    pub(super) patch: Option<String>,
    pub(super) target: Option<Target>,
    #[serde(default)]
    pub(super) options: PatchOptions,
}

/// What a strategic merge patch may change besides.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PatchOptions {
    #[serde(default)]
    pub(super) allow_name_change: bool,
    #[serde(default)]
    pub(super) allow_kind_change: bool,
}

/// An entry of `images`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Image {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) new_name: String,
    #[serde(default)]
    pub(super) new_tag: String,
    #[serde(default)]
    pub(super) tag_suffix: String,
    #[serde(default)]
    pub(super) digest: String,
}

/// An entry of `replicas`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Replica {
    pub(super) name: String,
    #[serde(default)]
    pub(super) count: i64,
}

/// `generatorOptions`, and `options` of a generator.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GeneratorOptions {
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) disable_name_suffix_hash: bool,
    #[serde(default)]
    pub(super) immutable: bool,
}

/// `sortOptions`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SortOptions {
    pub(super) order: SortOrder,
    pub(super) legacy_sort_options: Option<LegacySortOptions>,
}

/// How objects are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SortOrder {
    /// By kind, then by name.
    Legacy,
    /// As they were read.
    Fifo,
}

/// The kinds that come first and last.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LegacySortOptions {
    #[serde(default)]
    pub(super) order_first: Vec<String>,
    #[serde(default)]
    pub(super) order_last: Vec<String>,
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
    if let Some(map) = supported.value.as_object_mut() {
        map.retain(|name, _| !UNSUPPORTED.iter().any(|(field, _)| field == name));
    }
    match supported.decode::<Kustomization>(path) {
        Err(diagnostic) => diagnostics.push(diagnostic),
        Ok(kustomization) if diagnostics.is_empty() => {
            let content = document.value.as_object().into_iter().flatten();
            let typed = |name: &str| matches!(name, "apiVersion" | "kind");
            let is_empty = content
                .filter(|(name, value)| !typed(name) && !value.is_null() && *value != "")
                .count()
                == 0;
            return if is_empty {
                Err(vec![empty(path)])
            } else {
                Ok((kustomization, document))
            };
        }
        Ok(_) => {}
    }
    Err(diagnostics)
}

fn empty(path: &RepoPath) -> Diagnostic {
    Diagnostic::error(Code::MissingField, path, "the kustomization is empty")
        .help("list manifests in `resources`")
}

/// Refuses other kinds than the two, and a version that is not the kind's.
fn wrong_kind(path: &RepoPath, document: &Document) -> Option<Diagnostic> {
    let wrong = |field: &str, expected: &[&str]| {
        let found = document.value.get(field)?;
        let fits = found.is_null() || found == "" || expected.iter().any(|one| found == one);
        (!fits).then(|| {
            Diagnostic::error(
                Code::WrongKind,
                path,
                format!("`{field}` is {found}, not `{}`", expected.join("` or `")),
            )
            .at(document.position_of(&format!("/{field}")))
            .help(format!("write `{field}: {}`", expected[0]))
        })
    };
    let version = if document.value["kind"] == "Component" {
        "kustomize.config.k8s.io/v1alpha1"
    } else {
        "kustomize.config.k8s.io/v1beta1"
    };
    wrong("kind", &["Kustomization", "Component"]).or_else(|| wrong("apiVersion", &[version]))
}

/// Everything in the document that kustomize knows and that is not rendered here.
fn unsupported(path: &RepoPath, document: &Document) -> Vec<Diagnostic> {
    document
        .value
        .as_object()
        .into_iter()
        .flat_map(|map| map.keys())
        .filter_map(|name| UNSUPPORTED.iter().find(|(field, _)| field == name))
        .map(|(name, help)| {
            Diagnostic::error(
                Code::UnsupportedKustomization,
                path,
                format!("`{name}` is not rendered by Trustweave"),
            )
            .at(document.key_position_of(&format!("/{name}")))
            .help(*help)
        })
        .collect()
}
