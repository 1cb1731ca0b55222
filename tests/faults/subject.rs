//! What is struck: an agent with its cluster, its SPIRE and its repository, and a peer that the test plays.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use trustweave::model::{
    attestation::Attestation,
    bundle::{Bundle, Digest},
    repository::publication as files,
};
use trustweave_testbed::{
    Cluster, Signal,
    authority::Authority,
    faulty_api::FaultyApi,
    faulty_way::FaultyWay,
    federation::{CLUSTERS, Federation, trust_domain},
    wait_until,
};

use super::{
    ONE, bundle,
    made_up::Publisher,
    matrix::Row,
    overlay::{self, NAMESPACE, config_map},
    publication,
};

/// How long anything may take on a busy machine, after all that was wrong is over.
const PATIENCE: Duration = Duration::from_mins(2);

/// The agent, all that it talks to, and what it is to carry.
pub(crate) struct Subject {
    pub(crate) federation: Federation,
    /// A way from the agent to the API server, for who asks through it.
    pub(crate) api: FaultyApi,
    /// The way from the agent to the git server.
    pub(crate) way: FaultyWay,
    publisher: Publisher,
    declared: Declared,
    peer: Peer,
    /// The relationship that was made first: no fault may end it.
    relationship: String,
    own: History,
}

/// What people declared last.
#[derive(Default)]
struct Declared {
    number: u64,
    commit: String,
    /// The `ConfigMap`s, by name, and their value.
    objects: BTreeMap<&'static str, String>,
}

/// What the peer published last.
struct Peer {
    serial: u64,
    /// The keys of its newest authority.
    newest: Vec<Value>,
    bundle: Bundle,
}

/// What was seen of the own branch.
#[derive(Default)]
struct History {
    commits: Vec<String>,
    serial: u64,
    bundle: Option<Bundle>,
    lost: usize,
    doubled: usize,
}

fn peer() -> String {
    trust_domain(CLUSTERS[1])
}

impl Subject {
    /// Starts all, and waits until the agent has done all that there is to do at first.
    pub(crate) async fn start() -> Self {
        let federation = overlay::prepared(0).await;
        let testbed = &federation.testbed;
        let identity = testbed.web_identity().unwrap();
        let cluster = testbed.cluster(ONE).unwrap();
        let api = FaultyApi::to(cluster, &identity).await.unwrap();
        let way = FaultyWay::to(testbed.git.port()).await.unwrap();
        let url = format!("git://127.0.0.1:{}/federation.git", way.port());
        federation
            .configure(ONE, |configuration| {
                configuration["git"]["url"] = url.into();
                configuration["applying"]["prunePercent"] = 100.into();
            })
            .unwrap();
        let publisher = Publisher::new(&federation);
        let (path, content) = publisher.declaration(&peer(), &json!("none"), &trust_domain(ONE));
        let files = [(path.as_str(), content.as_str())];
        let git = &federation.testbed.git;
        git.commit("main", &files, "Declare the peer")
            .await
            .unwrap();
        let mut subject = Self {
            federation,
            api,
            way,
            publisher,
            declared: Declared::default(),
            peer: Peer {
                serial: 0,
                newest: Vec::new(),
                bundle: Bundle::empty(),
            },
            relationship: String::new(),
            own: History::default(),
        };
        subject.declare().await;
        subject.rotate_peer().await;
        subject.federation.start_agent(ONE).unwrap();
        subject.settle().await;
        let relationships = subject.relationships().await.unwrap();
        subject.relationship = uid(&relationships[0]);
        subject
    }

    fn cluster(&self) -> &Cluster {
        self.federation.testbed.cluster(ONE).unwrap()
    }

    /// Where the agent keeps its mirror.
    pub(crate) fn state(&self) -> PathBuf {
        self.federation.testbed.directory().join("agent-0/state")
    }

    /// Kills the agent.
    pub(crate) fn kill(&self) {
        self.federation.agent(ONE).unwrap().kill().unwrap();
    }

    /// Sends the agent a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let agent = self.federation.agent(ONE).unwrap();
        agent.signal(signal).unwrap();
    }

    /// Kills the agent and starts it as it always is.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.federation.start_agent(ONE).unwrap();
    }

    /// People declare other objects: one changes, and one comes or goes.
    pub(crate) async fn declare(&mut self) {
        self.declared.number += 1;
        let value = self.declared.number.to_string();
        let mut objects = BTreeMap::from([("same", "same".to_owned()), ("other", value.clone())]);
        if self.declared.number % 2 == 1 {
            objects.insert("odd", value.clone());
        }
        let written: Vec<_> = objects
            .iter()
            .map(|(name, value)| config_map(name, &json!({"a": value})))
            .collect();
        self.declared.objects = objects;
        let message = format!("Declare {value}");
        self.declared.commit = overlay::declare(&self.federation, &written, &[], &message).await;
    }

    /// The peer publishes a new authority besides its newest.
    pub(crate) async fn rotate_peer(&mut self) {
        let name = peer();
        let newest = Authority::new(&name).unwrap().bundle()["keys"].take();
        let newest = newest.as_array().unwrap().clone();
        let keys = std::mem::replace(&mut self.peer.newest, newest.clone());
        let keys: Vec<_> = keys.into_iter().chain(newest).collect();
        self.peer.serial += 1;
        let serial = self.peer.serial;
        self.peer.bundle =
            bundle(&json!({"keys": keys, "spiffe_sequence": serial, "spiffe_refresh_hint": 60}));
        let endpoint = json!("none");
        self.publisher
            .publish_bundle(
                &self.federation,
                &name,
                &self.peer.bundle,
                serial,
                &endpoint,
            )
            .await;
    }

    /// The cluster's own SPIRE prepares a new authority.
    pub(crate) async fn rotate(&self) {
        self.cluster().spire.rotate_x509().await.unwrap();
    }

    /// Everything changes that the agent has to carry.
    pub(crate) async fn change_all(&mut self) {
        self.declare().await;
        self.rotate_peer().await;
        self.rotate().await;
    }

    /// Waits until everything is as declared and published; how long that took.
    pub(crate) async fn settle(&self) -> Duration {
        let begun = Instant::now();
        let what = "everything to be as declared";
        self.until(what, async || {
            self.is_applied().await?;
            self.is_delivered().await?;
            self.is_published().await?;
            Ok(Some(()))
        })
        .await;
        begun.elapsed()
    }

    /// Waits; at the deadline it shows the end of the agent's log.
    pub(crate) async fn until<F>(&self, what: &str, probe: impl FnMut() -> F)
    where
        F: Future<Output = anyhow::Result<Option<()>>>,
    {
        let waited = wait_until(what, PATIENCE, probe).await;
        let lines = || self.federation.agent(ONE).unwrap().last_lines();
        waited.map_err(|error| error.context(lines())).unwrap();
    }

    /// How often the agent logged these words.
    pub(crate) fn logged(&self, words: &str) -> usize {
        self.log().matches(words).count()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.federation.log(ONE).unwrap()).unwrap_or_default()
    }

    /// Waits until the agent has logged these words more often.
    pub(crate) async fn until_logged(&self, words: &str, before: usize) {
        let what = format!("`{words}` in the agent's log");
        self.until(&what, async || {
            Ok((self.logged(words) > before).then_some(()))
        })
        .await;
    }

    /// A fault strikes so many times, and each time everything settles.
    pub(crate) async fn struck(
        &mut self,
        fault: (&'static str, &'static str),
        rounds: usize,
        strike: impl AsyncFn(&mut Self) -> usize,
    ) -> Row {
        let (mut times, mut settled) = (0, Vec::new());
        for _ in 0..rounds {
            times += strike(self).await;
            settled.push(self.settle().await);
        }
        self.row(fault, times, settled).await
    }

    /// What came of a fault.
    pub(crate) async fn row(
        &mut self,
        fault: (&'static str, &'static str),
        times: usize,
        settled: Vec<Duration>,
    ) -> Row {
        let (lost, doubled) = self.judge().await.unwrap();
        Row {
            fault,
            times,
            lost,
            doubled,
            settled,
        }
    }

    /// Objects of the cluster, by the path of their kind.
    async fn objects(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let request = http::Request::get(path).body(Vec::new())?;
        let mut list: Value = self.cluster().client().request(request).await?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            other => anyhow::bail!("no list: {other}"),
        }
    }

    pub(crate) async fn relationships(&self) -> anyhow::Result<Vec<Value>> {
        self.objects("/apis/spire.spiffe.io/v1alpha1/clusterfederatedtrustdomains")
            .await
    }

    async fn peers(&self) -> anyhow::Result<Vec<Value>> {
        self.objects("/apis/trustweave.dev/v1alpha1/trustpeers")
            .await
    }

    pub(crate) async fn git_sync(&self) -> anyhow::Result<Value> {
        let all = self.objects("/apis/trustweave.dev/v1alpha1/gitsyncs");
        let mut all = all.await?.into_iter();
        Ok(all.next().context("no GitSync")?["status"].take())
    }

    /// What people declared is in force, exactly.
    pub(crate) async fn is_applied(&self) -> anyhow::Result<()> {
        let status = self.git_sync().await?;
        ensure!(
            status["revision"] == self.declared.commit.as_str(),
            "in force is {status:#}"
        );
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
        let found = self.objects(&path).await?;
        let found: BTreeMap<_, _> = found
            .iter()
            .filter(|it| it["metadata"]["name"] != "kube-root-ca.crt")
            .map(|it| (text(&it["metadata"]["name"]), text(&it["data"]["a"])))
            .collect();
        let declared = self.declared.objects.iter();
        let declared: BTreeMap<_, _> = declared
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        ensure!(found == declared, "{found:?} is not {declared:?}");
        Ok(())
    }

    /// What the peer published last is what SPIRE trusts, and what is remembered.
    async fn is_delivered(&self) -> anyhow::Result<()> {
        let relationships = self.relationships().await?;
        let relationship = relationships.first().context("no relationship")?;
        let written = text(&relationship["spec"]["trustDomainBundle"]);
        let written = Bundle::parse(written.as_bytes())?;
        ensure!(
            written.same_keys(&self.peer.bundle),
            "other keys are written"
        );
        let peers = self.peers().await?;
        let status = &peers.first().context("no peer")?["status"];
        ensure!(
            status["watermark"]["serial"] == self.peer.serial && status["phase"] == "Federated",
            "not {}: {status:#}",
            self.peer.serial
        );
        let held = self.cluster().spire.federated_bundle(&peer()).await?;
        let held = bundle(&held.context("SPIRE holds nothing")?);
        ensure!(held.same_keys(&self.peer.bundle), "SPIRE holds other keys");
        Ok(())
    }

    /// What SPIRE has is on the own branch.
    async fn is_published(&self) -> anyhow::Result<()> {
        let git = &self.federation.testbed.git;
        let branch = publication::branch(ONE);
        let published = git.show(&branch, files::BUNDLE).await?;
        let published = Bundle::parse(published.as_bytes())?;
        let own = bundle(&self.cluster().spire.own_bundle().await?);
        ensure!(published.same_keys(&own), "other keys are published");
        let stated = git.show(&branch, files::ATTESTATION).await?;
        let stated: Attestation = serde_json::from_str(&stated)?;
        let status = self.git_sync().await?;
        ensure!(
            status["published"]["serial"] == stated.serial.0,
            "{} stands there, and not {}",
            stated.serial,
            status["published"]
        );
        Ok(())
    }

    /// What was lost or doubled since the last time, of what does not show in how things are now.
    async fn judge(&mut self) -> anyhow::Result<(usize, usize)> {
        self.read_history().await?;
        let mut lost = std::mem::take(&mut self.own.lost);
        let mut doubled = std::mem::take(&mut self.own.doubled);
        let known: BTreeSet<_> = self.own.commits.iter().map(String::as_str).collect();
        let told = told_as_published(&self.log());
        lost += told
            .iter()
            .filter(|it| !known.contains(it.as_str()))
            .count();
        // One that was made anew was gone.
        let relationships = self.relationships().await?;
        lost += usize::from(relationships.iter().all(|it| uid(it) != self.relationship));
        doubled += relationships.len().saturating_sub(1);
        doubled += self.peers().await?.len().saturating_sub(1);
        let registrations = "/apis/spire.spiffe.io/v1alpha1/clusterspiffeids";
        let registrations = self.objects(registrations).await?;
        let names = registrations.iter().map(|it| text(&it["metadata"]["name"]));
        let probes = names.filter(|name| name.starts_with("trustweave-probe-"));
        doubled += probes.count().saturating_sub(1);
        Ok((lost, doubled))
    }

    /// Reads what was added to the own branch: each publication has the serial after the one before, and
    /// says something else.
    async fn read_history(&mut self) -> anyhow::Result<()> {
        let git = &self.federation.testbed.git;
        let branch = publication::branch(ONE);
        let commits = git.git(&["rev-list", "--reverse", &branch]).await?;
        let commits: Vec<_> = commits.lines().map(str::to_owned).collect();
        // What stood there once stands there for ever.
        if !commits.starts_with(&self.own.commits) {
            self.own.lost += 1;
            self.own = History {
                lost: self.own.lost,
                ..History::default()
            };
        }
        for commit in &commits[self.own.commits.len()..] {
            let content = git.show(commit, files::BUNDLE).await?.into_bytes();
            let stated = git.show(commit, files::ATTESTATION).await?;
            let stated: Attestation = serde_json::from_str(&stated)?;
            let bundle = Bundle::parse(&content)?;
            let serial = stated.serial.0;
            let skipped = serial.saturating_sub(self.own.serial + 1);
            let again = self.own.bundle.as_ref().is_some_and(|before| {
                before.same_keys(&bundle) && before.sequence == bundle.sequence
            });
            self.own.lost += usize::try_from(skipped)?;
            self.own.lost += usize::from(stated.sha256 != Digest::of(&content));
            self.own.doubled += usize::from(serial <= self.own.serial || again);
            self.own.serial = serial;
            self.own.bundle = Some(bundle);
        }
        self.own.commits = commits;
        Ok(())
    }
}

/// The commits that an agent's log tells to be published.
fn told_as_published(log: &str) -> Vec<String> {
    let lines = log
        .lines()
        .filter(|line| line.contains("published the own bundle"));
    let revisions = lines.filter_map(|line| line.split("revision=").nth(1)?.split(' ').next());
    revisions
        .map(|it| it.trim_matches('"').to_owned())
        .collect()
}

fn uid(object: &Value) -> String {
    text(&object["metadata"]["uid"]).to_owned()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// All files below a directory whose names end so.
pub(crate) fn files_below(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path, suffix));
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found
}
