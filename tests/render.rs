//! What is rendered are the objects that the real `kubectl kustomize` gives, order aside; and the
//! example repository is complete and right.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]
#![expect(
    clippy::print_stderr,
    reason = "a slow first build must be seen to progress"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use serde_json::Value;
use trustweave::{
    model::{
        declarations::Declarations,
        diagnostic::{Code, Diagnostic},
        repository::{Entry, RepoPath, Tree, overlay_directory},
        yaml,
    },
    render::{Rendered, render},
};
use trustweave_testbed::binaries::Binaries;

/// The kubectl whose kustomize is the reference: the testbed's pinned one.
fn kubectl() -> Command {
    // No SPIRE: only kubectl is asked for.
    static BINARIES: LazyLock<Binaries> =
        LazyLock::new(|| Binaries::ensure(&BTreeSet::new(), &|line| eprintln!("{line}")).unwrap());
    Command::new(BINARIES.kubectl())
}

fn path(text: &str) -> RepoPath {
    RepoPath::parse(text).unwrap()
}

/// The objects that kustomize gives for a directory, or what it says.
fn kustomize(directory: &Path) -> Result<Vec<Value>, String> {
    let output = kubectl().arg("kustomize").arg(directory).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = yaml::parse(&path("kustomize.yaml"), &text).unwrap();
    Ok(documents.into_iter().map(|one| one.value).collect())
}

fn identity(object: &Value) -> String {
    format!(
        "{} {} {} {}",
        object["apiVersion"],
        object["kind"],
        object["metadata"]["namespace"],
        object["metadata"]["name"]
    )
}

fn sorted(mut objects: Vec<Value>) -> Vec<Value> {
    objects.sort_by_key(identity);
    objects
}

fn objects(rendered: &Rendered) -> Vec<Value> {
    sorted(
        rendered
            .manifests
            .iter()
            .map(|m| m.object.clone())
            .collect(),
    )
}

/// Splits `=== path` sections into files.
fn files(text: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("=== ") {
            files.push((name.to_owned(), String::new()));
        } else if let Some((_, content)) = files.last_mut() {
            content.push_str(line);
            content.push('\n');
        }
    }
    files
}

fn write(root: &Path, files: &[(String, String)]) {
    for (name, content) in files {
        let file = root.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
}

fn same(ours: Vec<Value>, theirs: Vec<Value>) -> Result<(), String> {
    let (ours, theirs) = (sorted(ours), sorted(theirs));
    if ours == theirs {
        return Ok(());
    }
    let differing = |ours: &[Value], theirs: &[Value]| {
        let only: Vec<&Value> = ours.iter().filter(|one| !theirs.contains(one)).collect();
        serde_json::to_string_pretty(&only).unwrap()
    };
    Err(format!(
        "only ours:\n{}\nonly kustomize's:\n{}",
        differing(&ours, &theirs),
        differing(&theirs, &ours)
    ))
}

fn errors(rendered: &Rendered) -> Vec<String> {
    let errors = rendered.diagnostics.iter().filter(|one| one.is_error());
    errors.map(Diagnostic::to_string).collect()
}

/// Renders the directory `overlay` both ways.
fn compare(text: &str) -> Result<(), String> {
    let files = files(text);
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &files);
    let rendered = render(&files.into_iter().collect::<Tree>(), &path("overlay"));
    let theirs = kustomize(&root.path().join("overlay"))?;
    match errors(&rendered) {
        errors if errors.is_empty() => same(objects(&rendered), theirs),
        errors => Err(errors.join("\n")),
    }
}

/// Both refuse it.
fn refused(name: &str, text: &str, code: Code) {
    let files = files(text);
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &files);
    let rendered = render(&files.into_iter().collect::<Tree>(), &path("overlay"));
    assert!(
        kustomize(&root.path().join("overlay")).is_err(),
        "{name}: kustomize accepts it"
    );
    let codes: Vec<Code> = rendered.diagnostics.iter().map(|d| d.code).collect();
    assert!(codes.contains(&code), "{name}: {codes:?}");
}

/// Overlays of `tests/corpus/render`, one a file. Those named `random` were found by comparing
/// thousands of random patches.
fn corpus() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/render");
    let mut found: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
        .into_iter()
        .map(|file| {
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(file).unwrap())
        })
        .collect()
}

#[test]
fn the_corpus_renders_as_with_kustomize() {
    let corpus = corpus();
    assert!(corpus.len() >= 25, "{} overlays", corpus.len());
    let differences: Vec<String> = corpus
        .iter()
        .filter_map(|(name, text)| Some(format!("{name}: {}", compare(text).err()?)))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn what_kustomize_refuses_is_refused() {
    const CONFIG: &str =
        "=== overlay/c.yaml\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let check = |kustomization: &str, rest: &str, code: Code| {
        let text = format!("=== overlay/kustomization.yaml\n{kustomization}\n{CONFIG}{rest}");
        refused(kustomization, &text, code);
    };
    let copy = "=== overlay/d.yaml\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: default}\n";
    check("resources: [c.yaml, d.yaml]", copy, Code::DuplicateObject);
    check("resources: [c.yaml, c.yaml]", "", Code::DuplicateObject);
    let other = "=== overlay/d.yaml\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: other}\n";
    check(
        "resources: [c.yaml, d.yaml]\nnamespace: x",
        other,
        Code::DuplicateObject,
    );
    check("resources: [no.yaml]", "", Code::InvalidReference);
    check(
        "resources: [../c.yaml]",
        "=== c.yaml\na: b\n",
        Code::InvalidReference,
    );
    check(
        "resources: [..]",
        "=== kustomization.yaml\nresources: []\n",
        Code::InvalidReference,
    );
    check("resources: [c.yaml]\nbase: []", "", Code::UnknownField);
    check("kind: Kustomization", "", Code::MissingField);
    let patch = |patch: &str, code: Code| {
        check(
            &format!("resources: [c.yaml]\npatches: [{patch}]"),
            "",
            code,
        );
    };
    patch("{}", Code::MissingField);
    patch("{path: no.yaml}", Code::InvalidReference);
    patch(
        "{patch: '[{\"op\": \"remove\", \"path\": \"/x\"}]'}",
        Code::PatchFailed,
    );
    patch(
        "{target: {kind: ConfigMap}, patch: '[{\"op\": \"remove\", \"path\": \"/x\"}]'}",
        Code::PatchFailed,
    );
    patch(
        "{target: {kind: ConfigMap}, patch: '[{\"op\": \"test\", \"path\": \"/kind\", \"value\": \"x\"}]'}",
        Code::PatchFailed,
    );
    patch(
        "{target: {kind: '('}, patch: '[{\"op\": \"remove\", \"path\": \"/x\"}]'}",
        Code::InvalidValue,
    );
    patch(
        "{patch: '{apiVersion: v1, kind: ConfigMap, metadata: {name: b}}'}",
        Code::PatchFailed,
    );
    patch(
        "{patch: '{apiVersion: v1, kind: ConfigMap, metadata: {name: [a]}}'}",
        Code::PatchFailed,
    );
    patch(
        "{target: {kind: ConfigMap}, patch: '{kind: ConfigMap}'}",
        Code::PatchFailed,
    );
}

fn example() -> (PathBuf, Tree) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/repo-layout");
    let mut tree = Tree::default();
    read(&root, &root, &mut tree);
    (root, tree)
}

#[test]
fn the_declarations_of_the_example_are_right() {
    let (declarations, diagnostics) = Declarations::load(&example().1, None);
    assert_eq!(diagnostics, []);
    assert_eq!(declarations.trust_domains.len(), 2);
    assert_eq!(declarations.topology.edges().len(), 2);
    assert_eq!(declarations.clusters().len(), 2);
}

#[test]
fn the_overlays_of_the_example_render_cleanly_and_as_with_kustomize() {
    let (root, tree) = example();
    let (declarations, _) = Declarations::load(&tree, None);
    for cluster in declarations.clusters() {
        let overlay = overlay_directory(cluster);
        let rendered = render(&tree, &overlay);
        assert_eq!(rendered.diagnostics, [], "{cluster}");
        same(
            objects(&rendered),
            kustomize(&root.join(overlay.as_str())).unwrap(),
        )
        .unwrap();
        for manifest in &rendered.manifests {
            let reference = &manifest.reference;
            let kind = reference.gvk.kind.as_str();
            let cluster_scoped = matches!(kind, "Namespace" | "ClusterSPIFFEID");
            assert_eq!(reference.namespace.is_none(), cluster_scoped, "{reference}");
        }
    }
}

fn read(directory: &Path, root: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().path();
        if file.is_dir() {
            read(&file, root, tree);
        } else {
            let relative = file.strip_prefix(root).unwrap().to_str().unwrap();
            tree.insert(path(relative), Entry::File(fs::read(&file).unwrap().into()));
        }
    }
}
