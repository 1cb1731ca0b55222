//! Whole renderings: what is wrong, and what is left out because of it.

use super::{Rendered, render};
use crate::model::{
    diagnostic::Code,
    repository::{Entry, RepoPath, Tree},
};

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
        "resources: [c.yaml]\nvars: [{name: A}]",
        "o/kustomization.yaml:2:1: error[unsupported-kustomization]: `vars` is not rendered by Trustweave (use `replacements`)",
    );
    check_one(
        "resources: [c.yaml]\npatches: [{target: {kind: ConfigMap, nam: a}, patch: '[]'}]",
        "o/kustomization.yaml:2:38: error[unknown-field]: unknown field `patches[0].target.nam` (did you mean `name`?)",
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
        "kind: Component\napiVersion: kustomize.config.k8s.io/v1beta1\nresources: [c.yaml]",
        "o/kustomization.yaml:2:13: error[wrong-kind]: `apiVersion` is \"kustomize.config.k8s.io/v1beta1\", not `kustomize.config.k8s.io/v1alpha1` (write `apiVersion: kustomize.config.k8s.io/v1alpha1`)",
    );
    check_one(
        "apiVersion: kustomize.config.k8s.io/v1\nresources: [c.yaml]",
        "o/kustomization.yaml:1:13: error[wrong-kind]: `apiVersion` is \"kustomize.config.k8s.io/v1\", not `kustomize.config.k8s.io/v1beta1` (write `apiVersion: kustomize.config.k8s.io/v1beta1`)",
    );
    check(
        &[(
            "o/kustomization.yaml",
            "crds: []\nhelmCharts: []\nresuorces: []",
        )],
        &[
            "o/kustomization.yaml:1:1: error[unsupported-kustomization]: `crds` is not rendered by Trustweave (remove it, list the CRD in `resources`, and follow names with `replacements`)",
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

/// A Pod that names a `ConfigMap`.
const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, envFrom: [{configMapRef: {name: g}}]}]}\n";

#[test]
fn nothing_names_what_could_not_be_rendered() {
    let broken = "resources: [c.yaml, pod.yaml]\nconfigMapGenerator:\n- name: g\n  files: [no.txt]";
    let kept = check(
        &[("o/kustomization.yaml", broken), ("o/pod.yaml", POD)],
        &[
            "o/kustomization.yaml:3:3: error[invalid-reference]: there is no file `o/no.txt`",
            "o/pod.yaml:1:1: error[invalid-reference]: Pod p is left out: it names `g`, which may be among what could not be rendered",
        ],
    );
    assert_eq!(kept, ["ConfigMap a"]);
}

#[test]
fn generators_and_what_follows_names_refuse_with_the_place() {
    check_one(
        "resources: [c.yaml]\nconfigMapGenerator: [{name: a, literals: [x=y]}]",
        "o/kustomization.yaml:2:22: error[duplicate-object]: ConfigMap a is there already (write `behavior: merge` or `behavior: replace`)",
    );
    check_one(
        "resources: [c.yaml]\nsecretGenerator: [{name: s, behavior: merge}]",
        "o/kustomization.yaml:2:19: error[invalid-reference]: there is no Secret s to merge with or to replace (remove `behavior`, or correct the name)",
    );
    check_one(
        "resources: [c.yaml]\nconfigMapGenerator: [{name: s, literals: [a=b, a=c]}]",
        "o/kustomization.yaml:2:22: error[invalid-value]: the key `a` is there twice",
    );
    check_one(
        "resources: [c.yaml]\nreplicas: [{name: a, count: 2}]",
        "o/kustomization.yaml:2:12: error[invalid-reference]: nothing with replicas is named `a` (correct `name`, or remove the entry)",
    );
    check_one(
        "resources: [c.yaml]\nreplacements: [{source: {kind: Secret}, targets: [{select: {kind: Pod}}]}]",
        "o/kustomization.yaml:2:16: error[invalid-reference]: the replacement can't be made: no object is its source",
    );
    check_one(
        "resources: [c.yaml]\nreplacements: [{source: {kind: ConfigMap}, targets: [{select: {kind: ConfigMap}, fieldPaths: [data.x]}]}]",
        "o/kustomization.yaml:2:16: error[invalid-reference]: the replacement can't be made: it has no `data.x`; 1 objects of o that it may change are left out",
    );
    check_one(
        "resources: [c.yaml]\nimages: [{name: '(', newTag: x}]",
        "o/kustomization.yaml:2:17: error[invalid-value]: `(` is not a regular expression; 1 objects of o that it may change are left out",
    );
    check_one(
        "resources: [c.yaml]\ncomponents: [../d]",
        "o/kustomization.yaml:2:14: error[invalid-reference]: there is no file or directory `d`; 1 objects of o that it may change are left out",
    );
}
