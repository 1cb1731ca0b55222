//! What `deploy/` holds agrees with the program, and with a real API server.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]
#![expect(
    clippy::print_stderr,
    reason = "a slow first build must be seen to progress"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use trustweave::{
    agent::config,
    federation::lifecycle::Phase,
    git::worktree,
    model::{diagnostic::Diagnostic, repository::RepoPath, yaml},
    render::render,
};
use trustweave_testbed::{
    Cluster, Testbed, binaries::Binaries, federation::cluster_spec, wait_until,
};

#[path = "deploy/metrics.rs"]
mod metrics;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where there is a `kustomization.yaml` of a kind, as the part of the path below `deploy/`.
fn kustomizations(kind: &str) -> Vec<String> {
    let root = deploy();
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.ends_with("kustomization.yaml") {
                let text = fs::read_to_string(&path).unwrap();
                if text.lines().any(|line| line == format!("kind: {kind}")) {
                    let below = directory.strip_prefix(&root).unwrap();
                    found.push(below.to_str().unwrap().to_owned());
                }
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {kind} in {}", root.display());
    found
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn documents(text: &str) -> Vec<Value> {
    let path = RepoPath::parse("text.yaml").unwrap();
    let documents = yaml::parse(&path, text).unwrap().into_iter();
    documents
        .map(|document| document.value)
        .filter(|value| !value.is_null())
        .collect()
}

/// Objects by what they are called.
fn named_objects(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let name = |object: &Value| {
        let metadata = &object["metadata"];
        let (namespace, name) = (&metadata["namespace"], &metadata["name"]);
        format!("{} {namespace} {name}", object["kind"])
    };
    objects.into_iter().map(|it| (name(&it), it)).collect()
}

/// A copy of `deploy/`, and next to it a cluster's own kustomization with some of its components.
fn site(components: &[String]) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let (path, name) = entry.map(|it| (it.path(), it.file_name())).unwrap();
            if path.is_dir() {
                copy(&path, &to.join(name));
            } else {
                fs::copy(&path, to.join(name)).unwrap();
            }
        }
    }
    let root = tempfile::tempdir().unwrap();
    copy(&deploy(), &root.path().join("deploy"));
    let site = root.path().join("site");
    fs::create_dir_all(&site).unwrap();
    let components = components.iter().map(|it| format!("../deploy/{it}"));
    // JSON is YAML.
    let text = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": ["../deploy"], "components": components.collect::<Vec<_>>(),
    });
    fs::write(site.join("kustomization.yaml"), text.to_string()).unwrap();
    root
}

/// Each component alone, and all at once.
fn sites() -> Vec<Vec<String>> {
    let all = kustomizations("Component");
    let alone = all.iter().map(|component| vec![component.clone()]);
    alone.chain([all.clone()]).collect()
}

#[test]
fn the_definitions_are_the_programs_own() {
    let output = Command::new(env!("CARGO_BIN_EXE_trustweave"))
        .args(["schema", "crds"])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let written = fs::read_to_string(deploy().join("crds.yaml")).unwrap();
    let (comment, definitions) = written.split_once('\n').unwrap();
    assert!(comment.starts_with('#'), "{comment}");
    assert!(
        definitions == printed,
        "deploy/crds.yaml is stale: `make crds` writes it anew"
    );
}

#[test]
fn every_kustomization_builds_here_and_with_kubectl() {
    let binaries = Binaries::ensure(&BTreeSet::new(), &|line| eprintln!("{line}")).unwrap();
    let kustomize = |directory: &Path| {
        let output = Command::new(binaries.kubectl())
            .arg("kustomize")
            .arg(directory)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {error}", directory.display());
        documents(&String::from_utf8(output.stdout).unwrap())
    };
    let tree = worktree::read(&deploy()).unwrap();
    for below in kustomizations("Kustomization") {
        let rendered = render(&tree, &RepoPath::parse(&below).unwrap());
        let errors = rendered.diagnostics.iter().filter(|it| it.is_error());
        let errors: Vec<_> = errors.map(Diagnostic::to_string).collect();
        assert!(errors.is_empty(), "{below}: {errors:?}");
        let ours = rendered.manifests.into_iter().map(|it| it.object).collect();
        let theirs = kustomize(&deploy().join(&below));
        let (ours, theirs) = (named_objects(ours), named_objects(theirs));
        let differs = |name: &&String| ours.get(*name) != theirs.get(*name);
        let differing: Vec<_> = ours.keys().chain(theirs.keys()).filter(differs).collect();
        assert!(differing.is_empty(), "deploy/{below}: {differing:?}");
    }
    let base = kustomize(&deploy());
    for components in sites() {
        let root = site(&components);
        let built = kustomize(&root.path().join("site"));
        assert_ne!(built, base, "{components:?} change nothing");
    }
}

/// A kind that is somebody else's, as far as an API server has to know it: anything goes.
fn stranger(group: &str, kind: &str) -> String {
    let (singular, plural) = (kind.to_lowercase(), format!("{}s", kind.to_lowercase()));
    format!(
        "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, \
          metadata: {{name: {plural}.{group}}}, spec: {{group: {group}, scope: Namespaced, \
          names: {{kind: {kind}, plural: {plural}, singular: {singular}}}, \
          versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: \
          {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}]}}}}"
    )
}

/// Defines a kind of somebody else's, and waits until it is served.
async fn define(cluster: &Cluster, group: &str, kind: &str) {
    cluster.kubectl_apply(&stranger(group, kind)).await.unwrap();
    let what = format!("{}s.{group}", kind.to_lowercase());
    wait_until(&format!("{what} to be served"), PATIENCE, async || {
        let get = ["get", &what, "--all-namespaces"];
        cluster.kubectl(&get).await.map(Some)
    })
    .await
    .unwrap();
}

/// Applies a kustomization or a file for real: every field of every object has to be known.
async fn apply(cluster: &Cluster, what: &str, path: &Path) {
    let arguments = ["apply", "--server-side", "--validate=strict", what];
    let path = [path.to_str().unwrap()];
    cluster
        .kubectl(&[arguments.as_slice(), &path].concat())
        .await
        .unwrap();
}

/// Waits until pods of the Deployment as it is now were created: admission took them.
async fn pods_are_admitted(cluster: &Cluster, what: &str) {
    let get = [
        "get",
        "deployment",
        "trustweave",
        "--namespace=trustweave-system",
        "--output=json",
    ];
    wait_until(
        &format!("pods of {what} to be created"),
        PATIENCE,
        async || {
            let deployment: Value = serde_json::from_str(&cluster.kubectl(&get).await?)?;
            let status = &deployment["status"];
            let current = status["observedGeneration"] == deployment["metadata"]["generation"];
            let updated = status["updatedReplicas"].as_u64().unwrap_or_default();
            anyhow::ensure!(current && updated > 0, "its status is {status:#}");
            Ok(Some(()))
        },
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_takes_every_object_and_admits_the_pods() {
    let testbed = Testbed::start(&[cluster_spec("cluster-1")], &|line| eprintln!("{line}"))
        .await
        .unwrap();
    let cluster = testbed.cluster("cluster-1").unwrap();
    for kind in ["ServiceMonitor", "PrometheusRule"] {
        define(cluster, "monitoring.coreos.com", kind).await;
    }
    for below in kustomizations("Kustomization") {
        apply(cluster, "--kustomize", &deploy().join(below)).await;
    }
    let rights = deploy().join("overlay-rights.yaml");
    apply(cluster, "--filename", &rights).await;
    pods_are_admitted(cluster, "the base").await;
    for components in sites() {
        let root = site(&components);
        apply(cluster, "--kustomize", &root.path().join("site")).await;
        pods_are_admitted(cluster, &components.join(", ")).await;
    }
    // Admission is at work in that namespace: another pod is not let in.
    let run = ["run", "x", "--image=x", "--namespace=trustweave-system"];
    let refused = cluster.kubectl(&run).await.unwrap_err();
    let refused = format!("{refused:#}");
    assert!(refused.contains("restricted"), "{refused}");
}

/// The metrics that an expression names, each with the labels and values that it asks for.
fn named(expression: &str) -> Vec<(String, Vec<(String, String)>)> {
    let parts: Vec<_> = expression.match_indices("trustweave_").collect();
    let mut found = Vec::new();
    for (start, _) in parts {
        let text = &expression[start..];
        let end = text
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(text.len());
        let matchers = text[end..]
            .strip_prefix('{')
            .and_then(|it| it.split_once('}'));
        let matchers = matchers.map_or("", |(inside, _)| inside).split(',');
        let matchers = matchers.filter_map(|matcher| matcher.split_once(['=', '!']));
        let clean = |value: &str| value.trim_matches(['=', '~', '"']).to_owned();
        let matchers = matchers.map(|(label, value)| (label.to_owned(), clean(value)));
        found.push((text[..end].to_owned(), matchers.collect()));
    }
    found
}

fn check(place: &str, expression: &str, metrics: &BTreeMap<String, BTreeSet<String>>) {
    let named = named(expression);
    assert!(
        !named.is_empty(),
        "{place} asks for no metric: {expression}"
    );
    let phases = Phase::ALL.map(Phase::as_str);
    for (metric, matchers) in named {
        let labels = metrics.get(&metric);
        let labels = labels
            .ok_or_else(|| format!("{place}: there is no metric {metric}: {expression}"))
            .unwrap();
        for (label, value) in matchers {
            // What Prometheus adds to every sample.
            let known = labels.contains(&label) || ["namespace", "pod"].contains(&label.as_str());
            assert!(
                known,
                "{place}: {metric} has no label {label}: {expression}"
            );
            if label == "phase" {
                let mut asked = value.split('|');
                assert!(asked.all(|it| phases.contains(&it)), "{place}: {value}");
            }
        }
    }
}

#[test]
fn alarms_and_dashboard_ask_for_metrics_that_there_are() {
    let metrics = metrics::labels();
    let read = |name: &str| {
        let text = fs::read_to_string(deploy().join("monitoring").join(name)).unwrap();
        documents(&text).remove(0)
    };
    let rules = read("prometheusrule.yaml");
    let groups = rules["spec"]["groups"].as_array().unwrap();
    let mut names = BTreeSet::new();
    for rule in groups.iter().flat_map(|it| it["rules"].as_array().unwrap()) {
        let name = rule["alert"].as_str().unwrap();
        assert!(names.insert(name), "{name} is there twice");
        check(name, rule["expr"].as_str().unwrap(), &metrics);
        for part in ["summary", "description", "runbook"] {
            let text = rule["annotations"][part].as_str();
            assert!(text.is_some_and(|it| !it.is_empty()), "{name}: no {part}");
        }
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&severity), "{name}");
    }
    let dashboard = read("dashboard.yaml");
    let dashboard = dashboard["data"]["trustweave.json"].as_str().unwrap();
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            check(&panel["title"].to_string(), expression, &metrics);
        }
    }
}

#[test]
fn a_metric_that_is_not_there_is_found() {
    let metrics = metrics::labels();
    check(
        "x",
        "sum(trustweave_passes_total{result=\"failure\"})",
        &metrics,
    );
    for wrong in [
        "trustweave_passes",
        "trustweave_leader{loop=\"sync\"}",
        "trustweave_peer_phase{phase=~\"Federated|Gnoe\"}",
        "up",
    ] {
        let found = std::panic::catch_unwind(|| check("x", wrong, &metrics));
        assert!(found.is_err(), "{wrong} passes");
    }
}

#[test]
fn the_readme_says_of_every_part_what_it_is_for() {
    let readme = fs::read_to_string(deploy().join("README.md")).unwrap();
    let parts = ["Kustomization", "Component"].map(kustomizations).concat();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let row = format!("| `{part}/` |");
        let told = readme.lines().any(|line| line.starts_with(&row));
        assert!(told, "deploy/README.md has no row for `{part}/`");
    }
}

#[test]
fn the_configuration_that_the_readme_shows_is_one() {
    let readme = fs::read_to_string(deploy().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("  config.yaml: |\n").unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    let shown = config::parse("config.yaml", block).unwrap();
    assert_eq!(shown.cluster.as_str(), "cluster-1");
    // With all that is commented out, too. Of the two keys, one can be in force.
    let lines = block.lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with("keyFile:"));
    let lines = lines.map(|line| match line.trim_start().strip_prefix("# ") {
        Some(_) => line.replacen("# ", "", 1),
        None => line.to_owned(),
    });
    let all = config::parse("config.yaml", &lines.collect::<Vec<_>>().join("\n")).unwrap();
    assert_eq!(all.leader_election.enabled, Some(true));
}
