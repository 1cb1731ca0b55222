//! How fast an overlay gets into a cluster, and what it costs when nothing changed: the agent against
//! `kubectl apply --server-side` and against nothing but concurrent requests, in one run.
//!
//! `cargo bench --bench apply [-- OBJECTS…]`. It needs what `make demo LEVEL=1` needs.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

#[path = "../tests/e2e/made_up.rs"]
#[expect(
    clippy::unwrap_used,
    reason = "shared with the tests, for which a failed step is a failure"
)]
mod made_up;
#[path = "../tests/e2e/publication.rs"]
#[expect(
    clippy::unwrap_used,
    reason = "shared with the tests, for which a failed step is a failure"
)]
#[allow(dead_code, reason = "the tests tamper with publications, too")]
mod publication;

use std::{
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Client;
use made_up::Publisher;
use serde_json::{Value, json};
use trustweave::model::bundle::Bundle;
use trustweave_testbed::{
    authority::Authority,
    federation::{CLUSTERS, Federation, Plan, trust_domain},
    measure, wait_until,
};

/// How many requests are under way at once, as the agent's.
const CONCURRENCY: usize = 8;

/// How long any step may take.
const PATIENCE: Duration = Duration::from_mins(10);

/// How often each way is measured; they take turns.
const RUNS: usize = 3;

/// With how many peers the agent's memory is measured, too.
const PEERS: usize = 100;

/// How many objects there are, unless it is said.
const OBJECTS: [usize; 2] = [1_000, 5_000];

const KUSTOMIZATION: &str = "clusters/cluster-1/kustomization.yaml";

fn main() -> anyhow::Result<()> {
    let asked = std::env::args().skip(1);
    let mut objects: Vec<usize> = asked.filter_map(|it| it.parse().ok()).collect();
    if objects.is_empty() {
        objects.extend(OBJECTS);
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(&objects))
}

/// A cluster with an agent, and what is measured there.
struct Bench {
    federation: Federation,
    client: Client,
    objects: usize,
    /// The overlay's kustomization, without what is measured.
    base: String,
}

async fn run(sizes: &[usize]) -> anyhow::Result<()> {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_trustweave"), env!("CARGO_MANIFEST_DIR"));
    plan.poll = Duration::from_millis(300);
    // Nobody is trusted at first.
    let plan = plan.with_clusters(1).with_topology(json!({}));
    let mut federation = Federation::prepare(plan, &|line| println!("{line}")).await?;
    federation.grant_every_kind(CLUSTERS[0]).await?;
    let client = federation.testbed.cluster(CLUSTERS[0])?.client();
    federation.configure(CLUSTERS[0], |configuration| {
        configuration["applying"] = json!({"driftGraceSeconds": 0, "prunePercent": 100});
    })?;
    federation.start_agent(CLUSTERS[0])?;
    let base = federation.testbed.git.show("main", KUSTOMIZATION).await?;
    let mut bench = Bench {
        federation,
        client,
        objects: 0,
        base,
    };
    for (index, objects) in sizes.iter().enumerate() {
        bench.objects = *objects;
        bench.all().await?;
        if index == 0 {
            bench.peers().await?;
        }
    }
    Ok(())
}

/// What the publications of made-up peers are read by.
#[expect(clippy::unwrap_used, reason = "they are well-formed")]
fn bundle(document: &Value) -> Bundle {
    Bundle::parse(document.to_string().as_bytes()).unwrap()
}

impl Bench {
    async fn all(&self) -> anyhow::Result<()> {
        // The server's caches are warm for everybody.
        self.requests(&format!("warm-{}", self.objects)).await?;
        let (mut raw, mut kubectl, mut agent) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..RUNS {
            raw.push(
                self.requests(&format!("raw-{run}-{}", self.objects))
                    .await?,
            );
            kubectl.push(
                self.kubectl(&format!("kubectl-{run}-{}", self.objects))
                    .await?,
            );
            agent.push(self.agent(&format!("agent-{run}-{}", self.objects)).await?);
        }
        let before = self.asked().await?;
        let unchanged = self
            .commit(&[("notes.txt", "nothing of the overlay")], "A note")
            .await?;
        let asked = self.asked().await? - before;
        let drifted = self
            .drifted(&format!("agent-{}-{}", RUNS - 1, self.objects))
            .await?;
        let resident = measure::resident(self.federation.agent(CLUSTERS[0])?.id())?;

        println!("\n{} objects, {RUNS} runs each, by turns", self.objects);
        let [raw, kubectl, agent] = [raw, kubectl, agent].map(|mut times| {
            times.sort();
            times[times.len() / 2].as_secs_f32()
        });
        for (what, seconds) in [
            ("concurrent requests alone", raw),
            ("kubectl apply --server-side", kubectl),
            ("the agent, from the commit on", agent),
        ] {
            println!("{what:45} {seconds:>8.2} s (median)");
        }
        println!("{:45} {:>8.2}", "kubectl : the agent", kubectl / agent);
        println!(
            "{:45} {:>8.2}",
            "the agent : concurrent requests",
            agent / raw
        );
        println!(
            "{:45} {:>8.2} s",
            "commit that changes nothing of the overlay",
            unchanged.as_secs_f32()
        );
        println!("{:45} {asked:>8}", "writes and dry runs of that pass");
        println!(
            "{:45} {:>8.2} s",
            "one object changed by hand -> put back",
            drifted.as_secs_f32()
        );
        println!(
            "{:45} {:>8.1} MiB",
            "resident memory of the agent",
            f64::from(resident) / 1024.0
        );
        Ok(())
    }

    /// The memory of the agent once it has peers besides the objects.
    async fn peers(&mut self) -> anyhow::Result<()> {
        let hub = trust_domain(CLUSTERS[0]);
        let names: Vec<String> = (1..=PEERS)
            .map(|it| format!("spoke-{it:03}.test"))
            .collect();
        let topology = json!({"groups": [{"name": "all", "hub": hub, "spokes": names}]});
        let publisher = Publisher::new(&self.federation);
        let endpoint = json!("none");
        let mut files = Vec::new();
        for name in &names {
            let authority = Authority::new(name)?;
            publisher
                .publish(&self.federation, &authority, &endpoint)
                .await;
            files.push(publisher.declaration(name, &endpoint, &hub));
        }
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        self.commit(&files, "Declare them").await?;
        self.federation
            .set_topology(topology, "Federate with all of them")
            .await?;
        let all = format!("{PEERS}/{PEERS}");
        wait_until("all peers to be Federated", PATIENCE, async || {
            let status = self
                .federation
                .status(CLUSTERS[0], "gitsync", "trustweave")
                .await?;
            anyhow::ensure!(status["peers"] == all.as_str(), "{}", status["peers"]);
            Ok(Some(()))
        })
        .await?;
        let resident = measure::resident(self.federation.agent(CLUSTERS[0])?.id())?;
        println!(
            "{:45} {:>8.1} MiB",
            format!("the same with {PEERS} peers"),
            f64::from(resident) / 1024.0
        );
        Ok(())
    }

    fn object(&self, namespace: &str, index: usize) -> Value {
        let text = format!(
            "{index} of {}, with a few words as settings have",
            self.objects
        );
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": format!("settings-{index}"), "namespace": namespace,
                "labels": {"app.kubernetes.io/name": "bench", "app.kubernetes.io/part-of": namespace},
            },
            "data": {"text": text, "level": "info", "port": "8080"},
        })
    }

    async fn namespace(&self, name: &str) -> anyhow::Result<()> {
        let cluster = self.federation.testbed.cluster(CLUSTERS[0])?;
        cluster.kubectl(&["create", "namespace", name]).await?;
        Ok(())
    }

    /// Every object by one request of our own, several at once.
    async fn requests(&self, namespace: &str) -> anyhow::Result<Duration> {
        self.namespace(namespace).await?;
        let begun = Instant::now();
        stream::iter(0..self.objects)
            .map(|index| async move {
                let object = self.object(namespace, index);
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let request = http::Request::patch(format!(
                    "/api/v1/namespaces/{namespace}/configmaps/{name}?fieldManager=bench&force=true"
                ));
                let request = request.header("Content-Type", "application/apply-patch+yaml");
                let request = request.body(serde_json::to_vec(&object)?)?;
                self.client.request::<Value>(request).await?;
                anyhow::Ok(())
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(begun.elapsed())
    }

    fn documents(&self, namespace: &str) -> String {
        let mut text = String::new();
        for index in 0..self.objects {
            let _ = writeln!(text, "---\n{:#}", self.object(namespace, index));
        }
        text
    }

    async fn kubectl(&self, namespace: &str) -> anyhow::Result<Duration> {
        self.namespace(namespace).await?;
        let cluster = self.federation.testbed.cluster(CLUSTERS[0])?;
        let file = cluster.directory().join("objects.yaml");
        fs::write(&file, self.documents(namespace))?;
        let file = file.to_string_lossy().into_owned();
        let begun = Instant::now();
        cluster
            .kubectl(&["apply", "--server-side", "--filename", &file])
            .await?;
        Ok(begun.elapsed())
    }

    /// From the commit that declares them until the agent says that all stand.
    async fn agent(&self, namespace: &str) -> anyhow::Result<Duration> {
        self.namespace(namespace).await?;
        let path = format!("clusters/cluster-1/{namespace}.yaml");
        let documents = self.documents(namespace);
        // What the run before declared goes first, unmeasured.
        self.commit(&[(KUSTOMIZATION, &self.base)], "Declare nothing of it")
            .await?;
        let overlay = self.base.replacen(
            "resources:",
            &format!("resources:\n  - {namespace}.yaml"),
            1,
        );
        self.commit(
            &[(KUSTOMIZATION, &overlay), (&path, &documents)],
            "Declare the objects",
        )
        .await
    }

    /// Commits, and waits until that is in force and everything was written.
    async fn commit(&self, files: &[(&str, &str)], message: &str) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let commit = self
            .federation
            .testbed
            .git
            .commit("main", files, message)
            .await?;
        wait_until(
            &format!("`{message}` to be in force"),
            PATIENCE,
            async || {
                let request =
                    http::Request::get("/apis/trustweave.dev/v1alpha1/gitsyncs/trustweave");
                let found = self
                    .client
                    .request::<Value>(request.body(Vec::new())?)
                    .await?;
                let status = &found["status"];
                let failures = &status["failures"];
                anyhow::ensure!(
                    failures.is_null(),
                    "not everything could be written: {failures}"
                );
                Ok((status["revision"] == commit.as_str()).then_some(()))
            },
        )
        .await?;
        Ok(begun.elapsed())
    }

    /// How often the API server was asked to write the kind that is measured, dry runs among them.
    async fn asked(&self) -> anyhow::Result<u64> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let metrics = self.client.request_text(request).await?;
        let verbs = ["APPLY", "PATCH", "POST", "PUT", "DELETE"];
        let lines = metrics.lines().filter(|line| {
            line.starts_with("apiserver_request_total{")
                && line.contains("resource=\"configmaps\"")
                && verbs
                    .iter()
                    .any(|verb| line.contains(&format!("verb=\"{verb}\"")))
        });
        let counts = lines.map(|line| {
            let (_, count) = line.rsplit_once(' ').context("a metric without a value")?;
            Ok(count.parse::<u64>()?)
        });
        counts.sum()
    }

    async fn drifted(&self, namespace: &str) -> anyhow::Result<Duration> {
        let cluster = self.federation.testbed.cluster(CLUSTERS[0])?;
        let patch = "{\"data\": {\"level\": \"debug\"}}";
        let what = [
            "patch",
            "configmap",
            "settings-1",
            "--namespace",
            namespace,
            "--patch",
            patch,
        ];
        let begun = Instant::now();
        cluster.kubectl(&what).await?;
        let address = format!("/api/v1/namespaces/{namespace}/configmaps/settings-1");
        wait_until("the object to be put back", PATIENCE, async || {
            let request = http::Request::get(&address).body(Vec::new())?;
            let found = self.client.request::<Value>(request).await?;
            Ok((found["data"]["level"] == "info").then_some(()))
        })
        .await?;
        Ok(begun.elapsed())
    }
}
