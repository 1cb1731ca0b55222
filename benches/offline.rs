//! How long people and pipelines wait: `trustweave check` and `trustweave diff` of repositories with a hundred and
//! with a thousand trust domains, in one run.
//!
//! `cargo bench --bench offline [-- RUNS]`. It needs git.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use trustweave_testbed::ssh_key;

/// How many trust domains the repositories have.
const SIZES: [usize; 2] = [100, 1_000];

const API_VERSION: &str = "trustweave.dev/v1alpha1";

fn main() -> anyhow::Result<()> {
    let runs = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(5);
    println!(
        "{:45} {:>5} {:>10} {:>10}",
        "MILLISECONDS", "RUNS", "MIN", "MEDIAN"
    );
    for size in SIZES {
        let directory = tempfile::tempdir()?;
        let repository = directory.path();
        build(repository, size)?;
        for (what, arguments) in [
            ("check", &["check"][..]),
            ("diff of an edge that goes", &["diff", "--base", "HEAD~1"]),
            (
                "diff -o markdown",
                &["diff", "--base", "HEAD~1", "--output", "markdown"],
            ),
        ] {
            let mut times = Vec::new();
            for _ in 0..runs {
                let begun = Instant::now();
                let output = Command::new(env!("CARGO_BIN_EXE_trustweave"))
                    .args(arguments)
                    .current_dir(repository)
                    .output()?;
                times.push(begun.elapsed());
                // 1 says that there is a difference.
                let done = matches!(output.status.code(), Some(0 | 1));
                ensure!(done, "{what}: {}", String::from_utf8_lossy(&output.stderr));
                ensure!(!output.stdout.is_empty(), "{what} says nothing");
            }
            times.sort();
            let milliseconds =
                |time: Option<&Duration>| time.map_or(0.0, |it| it.as_secs_f64() * 1e3);
            println!(
                "{:45} {runs:>5} {:>10.1} {:>10.1}",
                format!("{size} trust domains: {what}"),
                milliseconds(times.first()),
                milliseconds(times.get(times.len() / 2)),
            );
        }
    }
    Ok(())
}

/// A hub with spokes; a commit, and one on it that takes the last spoke out.
fn build(repository: &Path, size: usize) -> anyhow::Result<()> {
    let key = ssh_key(repository, "signer")?;
    let names: Vec<String> = (0..size)
        .map(|number| format!("td-{number:04}.test"))
        .collect();
    let (hub, spokes) = names.split_first().context("no trust domain")?;
    for (number, name) in names.iter().enumerate() {
        let peers = if number == 0 {
            spokes
        } else {
            std::slice::from_ref(hub)
        };
        let cluster = format!("cluster-{number:04}");
        let declaration = json!({
            "apiVersion": API_VERSION, "kind": "TrustDomain", "metadata": {"name": name},
            "spec": {
                "clusters": [{"name": cluster}],
                "spire": {"distribution": "custom", "namespace": "spire", "className": "spire"},
                "bundleEndpoint": "none",
                "signers": [key.public],
                "consent": {"import": peers, "export": peers},
            },
        });
        write(
            repository,
            &format!("trust-domains/{name}/trust-domain.yaml"),
            &declaration,
        )?;
        let kustomization = json!({"resources": ["registration.yaml"]});
        write(
            repository,
            &format!("clusters/{cluster}/kustomization.yaml"),
            &kustomization,
        )?;
        let registration = json!({
            "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID",
            "metadata": {
                "name": "workload",
                "annotations": {"trustweave.dev/federates-with": "all"},
            },
            "spec": {
                "className": "spire",
                "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}",
                "podSelector": {"matchLabels": {"app": "workload"}},
            },
        });
        write(
            repository,
            &format!("clusters/{cluster}/registration.yaml"),
            &registration,
        )?;
    }
    topology(repository, hub, spokes)?;
    git(repository, &["init", "--quiet", "--initial-branch=main"])?;
    fs::write(repository.join(".gitignore"), "signer*\n")?;
    commit(repository, "Federate with all")?;
    topology(repository, hub, &spokes[..spokes.len() - 1])?;
    commit(repository, "Let the last one go")
}

fn topology(repository: &Path, hub: &str, spokes: &[String]) -> anyhow::Result<()> {
    let topology = json!({
        "apiVersion": API_VERSION, "kind": "Topology", "metadata": {"name": "topology"},
        "spec": {"groups": [{"name": "all", "hub": hub, "spokes": spokes}]},
    });
    write(repository, "topology.yaml", &topology)
}

/// JSON is YAML.
fn write(repository: &Path, path: &str, content: &Value) -> anyhow::Result<()> {
    let path = repository.join(path);
    fs::create_dir_all(path.parent().context("a file has a directory")?)?;
    fs::write(path, format!("{content:#}\n"))?;
    Ok(())
}

fn commit(repository: &Path, message: &str) -> anyhow::Result<()> {
    git(repository, &["add", "--all"])?;
    git(repository, &["commit", "--quiet", "--message", message])?;
    Ok(())
}

fn git(repository: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=bench",
            "-c",
            "user.email=bench@trustweave.dev",
        ])
        .args(arguments)
        .current_dir(repository)
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {arguments:?}: {errors}");
    Ok(output)
}
