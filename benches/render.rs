//! How fast an overlay is rendered: in-process, against real kustomize in a running process and
//! against `kubectl kustomize`, in one run.
//!
//! `cargo bench --bench render [-- RUNS]`. It needs the testbed's kubectl and Go.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

#[path = "../tests/render/kustomize.rs"]
#[expect(
    clippy::unwrap_used,
    reason = "shared with the tests, for which a failed step is a failure"
)]
mod kustomize;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use trustweave::{
    model::repository::{RepoPath, Tree},
    render::render,
};
use trustweave_testbed::binaries::{self, Binaries};

/// Each application has a Deployment, a Service, a `ServiceAccount` and a generated `ConfigMap`.
const APPLICATIONS: usize = 50;

fn main() -> anyhow::Result<()> {
    let runs = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(20);
    let progress = |line: &str| println!("{line}");
    let kubectl = Binaries::ensure(&BTreeSet::new(), &progress)?.kubectl();
    let mut real = kustomize::Kustomize::start(&binaries::kustomize(&progress)?);

    let files = overlay();
    let root = tempfile::tempdir()?;
    for (name, content) in &files {
        let file = root.path().join(name);
        fs::create_dir_all(file.parent().context("a file has a directory")?)?;
        fs::write(file, content)?;
    }
    let directory = root.path().join("overlay");
    let tree: Tree = files.into_iter().collect();
    let path = RepoPath::parse("overlay")?;

    let rendered = render(&tree, &path);
    ensure!(
        rendered.diagnostics.is_empty(),
        "{:?}",
        rendered.diagnostics
    );
    let (theirs, _) = real.build(&directory).map_err(anyhow::Error::msg)?;
    ensure!(
        rendered.manifests.len() == theirs.len(),
        "{} objects here, {} there",
        rendered.manifests.len(),
        theirs.len()
    );

    let (mut ours, mut running, mut started) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let start = Instant::now();
        drop(std::hint::black_box(render(&tree, &path)));
        ours.push(start.elapsed());
        running.push(real.build(&directory).map_err(anyhow::Error::msg)?.1);
        started.push(kubectl_kustomize(&kubectl, &directory)?);
    }
    println!(
        "\n{:45} {:>4} {:>10} {:>10} {:>8}",
        format!("MILLISECONDS, {} OBJECTS", theirs.len()),
        "RUNS",
        "MIN",
        "MEDIAN",
        "RATIO"
    );
    ours.sort();
    let base = median(&ours);
    for (what, times) in [
        ("trustweave, in-process", &mut ours),
        ("kustomize, in a running process", &mut running),
        ("kubectl kustomize", &mut started),
    ] {
        times.sort();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{what:45} {:>4} {:>10.2} {:>10.2} {:>7.1}x",
            times.len(),
            times.first().copied().map_or(0.0, milliseconds),
            milliseconds(median(times)),
            median(times).as_secs_f64() / base.as_secs_f64(),
        );
    }
    Ok(())
}

fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn kubectl_kustomize(kubectl: &Path, directory: &Path) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let output = Command::new(kubectl)
        .arg("kustomize")
        .arg(directory)
        .output()?;
    ensure!(output.status.success(), "kubectl kustomize failed");
    Ok(start.elapsed())
}

/// An overlay with most of what overlays do: names, labels, images, patches, generated objects.
fn overlay() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut base = "resources:\n".to_owned();
    let mut generators = "configMapGenerator:\n".to_owned();
    for index in 0..APPLICATIONS {
        let _ = writeln!(base, "- app-{index}.yaml");
        let _ = writeln!(
            generators,
            "- name: app-{index}\n  literals: [level=info, index={index}]"
        );
        files.push((format!("base/app-{index}.yaml"), application(index)));
    }
    files.push(("base/kustomization.yaml".to_owned(), base + &generators));
    files.push((
        "overlay/kustomization.yaml".to_owned(),
        "namespace: demo\n\
         namePrefix: eu-\n\
         resources: [../base]\n\
         labels:\n- pairs: {team: red}\n  includeTemplates: true\n\
         images:\n- {name: registry.test/app, newTag: v2}\n\
         patches:\n\
         - target: {kind: Deployment}\n  patch: '- {op: add, path: /spec/minReadySeconds, value: 5}'\n\
         - path: app-7.yaml\n"
            .to_owned(),
    ));
    files.push((
        "overlay/app-7.yaml".to_owned(),
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: app-7}\n\
         spec: {template: {spec: {containers: [{name: app, env: [{name: EXTRA, value: '1'}]}]}}}\n"
            .to_owned(),
    ));
    files
}

fn application(index: usize) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: app-{index}
  labels: {{app: app-{index}}}
spec:
  replicas: 2
  selector:
    matchLabels: {{app: app-{index}}}
  template:
    metadata:
      labels: {{app: app-{index}}}
    spec:
      serviceAccountName: app-{index}
      containers:
      - name: app
        image: registry.test/app:v1
        args: [--listen, ':8080']
        env:
        - {{name: NAME, value: app-{index}}}
        envFrom:
        - configMapRef: {{name: app-{index}}}
        ports:
        - {{containerPort: 8080, name: http}}
        resources:
          requests: {{cpu: 100m, memory: 64Mi}}
        volumeMounts:
        - {{name: config, mountPath: /etc/app}}
      volumes:
      - name: config
        configMap: {{name: app-{index}}}
---
apiVersion: v1
kind: Service
metadata:
  name: app-{index}
spec:
  selector: {{app: app-{index}}}
  ports:
  - {{port: 80, targetPort: http}}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: app-{index}
"
    )
}
