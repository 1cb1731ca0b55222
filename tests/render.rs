//! What is rendered are the objects that real kustomize gives: of the example repository, of a corpus
//! of tricky cases, and of thousands of random overlays. What kustomize refuses is refused; what is
//! refused besides is listed in `docs/kustomize.md`.
//!
//! `TRUSTWEAVE_RENDER_OVERLAYS` (how many, 2,000 by default) and `TRUSTWEAVE_RENDER_SEED` (the first
//! one's seed, 1 by default) ask for other random overlays.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]
#![expect(
    clippy::print_stderr,
    reason = "a slow first build must be seen to progress"
)]

#[path = "render/kustomize.rs"]
mod kustomize;
#[path = "render/node.rs"]
mod node;
#[path = "render/objects.rs"]
mod objects;
#[path = "render/overlays.rs"]
mod overlays;
#[path = "render/random.rs"]
mod random;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::Write as _,
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
    },
    render::{Rendered, render},
};
use trustweave_testbed::binaries::{self, Binaries};

use self::{kustomize::Kustomize, overlays::Overlay};

/// The pinned kubectl, whose kustomize is the one that [`Kustomize`] runs.
fn kubectl() -> Command {
    // No SPIRE: only kubectl is asked for.
    static BINARIES: LazyLock<Binaries> =
        LazyLock::new(|| Binaries::ensure(&BTreeSet::new(), &|line| eprintln!("{line}")).unwrap());
    Command::new(BINARIES.kubectl())
}

fn start() -> Kustomize {
    static PROGRAM: LazyLock<PathBuf> =
        LazyLock::new(|| binaries::kustomize(&|line| eprintln!("{line}")).unwrap());
    Kustomize::start(&PROGRAM)
}

fn path(text: &str) -> RepoPath {
    RepoPath::parse(text).unwrap()
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

/// What the two say about an overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The same objects.
    Same,
    /// Both refuse it.
    Refused,
    /// Only kustomize renders it.
    Stricter,
    /// The objects differ, or only kustomize refuses it.
    Differs,
}

/// Renders the directory `overlay` both ways; gives the verdict, and what differs or what was said.
fn verdict(kustomize: &mut Kustomize, files: &[(String, String)]) -> (Verdict, String) {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), files);
    let rendered = render(&files.iter().cloned().collect::<Tree>(), &path("overlay"));
    let theirs = kustomize.build(&root.path().join("overlay"));
    let errors = errors(&rendered);
    match (errors.is_empty(), theirs) {
        (true, Ok((theirs, _))) => match same(objects(&rendered), theirs) {
            Ok(()) => (Verdict::Same, String::new()),
            Err(difference) => (Verdict::Differs, difference),
        },
        (true, Err(error)) => (Verdict::Differs, format!("kustomize refuses it: {error}")),
        (false, Err(_)) => (Verdict::Refused, errors.join("\n")),
        // An agent must not take that for a wish.
        (false, Ok((theirs, _))) if theirs.is_empty() => (Verdict::Same, String::new()),
        (false, Ok(_)) => (Verdict::Stricter, errors.join("\n")),
    }
}

/// Renders the directory `overlay` both ways: both give the same objects.
fn compare(kustomize: &mut Kustomize, text: &str) -> Result<(), String> {
    match verdict(kustomize, &files(text)) {
        (Verdict::Same, _) => Ok(()),
        (_, said) => Err(said),
    }
}

/// Both refuse it.
fn refused(kustomize: &mut Kustomize, name: &str, text: &str, code: Code) {
    let files = files(text);
    let (verdict, said) = verdict(kustomize, &files);
    assert_eq!(verdict, Verdict::Refused, "{name}: {said}");
    assert!(said.contains(&format!("error[{code}]")), "{name}: {said}");
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
    assert!(corpus.len() >= 60, "{} overlays", corpus.len());
    let mut kustomize = start();
    let differences: Vec<String> = corpus
        .iter()
        .filter_map(|(name, text)| {
            Some(format!("{name}: {}", compare(&mut kustomize, text).err()?))
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no arguments for whoever asks for more overlays"
)]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// What is refused here only, of all that docs/kustomize.md names under "Where Trustweave is stricter",
/// in random overlays.
const ON_PURPOSE: [&str; 3] = [
    "a patch changed its kind, and there is no hash for the new one",
    "is a boolean to kustomize here",
    "is no value for what is",
];

#[test]
fn random_overlays_render_as_with_kustomize() {
    let first = setting("TRUSTWEAVE_RENDER_SEED", 1);
    let count = setting("TRUSTWEAVE_RENDER_OVERLAYS", 2_000);
    let mut kustomize = start();
    let (mut same, mut refused, mut stricter, mut differing) = (0, 0, 0, 0);
    let mut found = Vec::new();
    for seed in first..first + count {
        let overlay = Overlay::random(seed);
        let (verdict, said) = verdict_of(&mut kustomize, &overlay);
        match verdict {
            Verdict::Same => same += 1,
            Verdict::Refused => refused += 1,
            Verdict::Stricter => stricter += 1,
            Verdict::Differs => differing += 1,
        }
        let on_purpose = ON_PURPOSE.iter().any(|reason| said.contains(reason));
        if verdict == Verdict::Stricter && on_purpose {
            continue;
        }
        if matches!(verdict, Verdict::Stricter | Verdict::Differs) && found.len() < 5 {
            let small = overlay.shrunk(|small| {
                let (now, why) = verdict_of(&mut kustomize, small);
                now == verdict && code(&why) == code(&said)
            });
            let (_, said) = verdict_of(&mut kustomize, &small);
            let mut files = String::new();
            for (path, text) in small.texts() {
                writeln!(files, "=== {path}\n{text}").unwrap();
            }
            found.push(format!("seed {seed}, {verdict:?}: {said}\n{files}"));
        }
    }
    // Not by the macro, whose output a test that passes hides.
    writeln!(
        std::io::stderr(),
        "{count} overlays compared, {differing} differ; {same} rendered by both, {refused} refused \
         by both, {stricter} refused here only"
    )
    .unwrap();
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

/// The first diagnostic's code, if a verdict has diagnostics.
fn code(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once("error[")?;
    Some(rest.split_once(']')?.0)
}

fn verdict_of(kustomize: &mut Kustomize, overlay: &Overlay) -> (Verdict, String) {
    verdict(kustomize, &overlay.texts())
}

#[test]
fn what_kustomize_refuses_is_refused() {
    const CONFIG: &str =
        "=== overlay/c.yaml\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let mut kustomize = start();
    let mut check = |kustomization: &str, rest: &str, code: Code| {
        let text = format!("=== overlay/kustomization.yaml\n{kustomization}\n{CONFIG}{rest}");
        refused(&mut kustomize, kustomization, &text, code);
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
    let mut patch = |patch: &str, code: Code| {
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
    let mut kustomize = start();
    for cluster in declarations.clusters() {
        let overlay = overlay_directory(cluster);
        let rendered = render(&tree, &overlay);
        assert_eq!(rendered.diagnostics, [], "{cluster}");
        let directory = root.join(overlay.as_str());
        let (theirs, _) = kustomize.build(&directory).unwrap();
        same(objects(&rendered), theirs.clone()).unwrap();
        let output = kubectl().arg("kustomize").arg(&directory).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        same(kustomize::objects(&printed), theirs).unwrap();
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
