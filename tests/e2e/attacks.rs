//! What an attacker can do, and what not: the keys that SPIRE holds are the honest ones throughout, the attack is
//! told, and the honest flow goes on afterwards.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use futures::StreamExt as _;
use kube::{
    ResourceExt as _,
    api::{Api, ApiResource, DynamicObject, GroupVersionKind, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use trustweave::model::{
    attestation::{Attestation, Serial},
    bundle::Bundle,
    declaration::BundleEndpoint,
    repository::publication,
};
use trustweave_testbed::{
    federation::{Federation, PATIENCE, trust_domain},
    measure,
};

use super::{
    ONE, TWO, condition, federated, held, holds_current_keys, own, plan,
    publication::{Publication, branch, signing_key, stranger},
    relationship, rotate,
    rules::{Rule, shows},
};

/// Mode, path as fast-import reads it between quotes, and content (a commit's name for a submodule).
type Entry = (&'static str, String, Vec<u8>);

/// A publication as entries of a tree.
fn entries(publication: &Publication) -> Vec<Entry> {
    let files = publication.files().into_iter();
    files
        .map(|(name, content)| ("100644", name.to_owned(), content.to_vec()))
        .collect()
}

/// Puts a new root commit with these entries on a branch, whatever is there.
fn force_push(federation: &Federation, branch: &str, entries: &[Entry]) {
    let mut stream = format!(
        "commit refs/heads/{branch}\ncommitter Mallory <m@example.com> now\ndata 1\nx\ndeleteall\n"
    )
    .into_bytes();
    for (mode, path, content) in entries {
        if *mode == "160000" {
            let commit = String::from_utf8(content.clone()).unwrap();
            stream.extend_from_slice(format!("M {mode} {commit} \"{path}\"\n").as_bytes());
            continue;
        }
        let head = format!("M {mode} inline \"{path}\"\ndata {}\n", content.len());
        stream.extend_from_slice(head.as_bytes());
        stream.extend_from_slice(content);
        stream.push(b'\n');
    }
    stream.extend_from_slice(b"done\n");
    let mut git = Command::new("git")
        .arg("--git-dir")
        .arg(federation.testbed.git.path())
        .args(["fast-import", "--quiet", "--force", "--done"])
        .arg("--date-format=now")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    git.stdin.take().unwrap().write_all(&stream).unwrap();
    assert!(git.wait().unwrap().success());
}

async fn point(federation: &Federation, branch: &str, commit: Option<&str>) {
    let name = format!("refs/heads/{branch}");
    let arguments = match commit {
        Some(commit) => vec!["update-ref", &name, commit],
        None => vec!["update-ref", "-d", &name],
    };
    federation.testbed.git.git(&arguments).await.unwrap();
}

/// Waits until a cluster has a commit in force that was made after all that is in git now.
async fn caught_up(federation: &Federation, cluster: &str) {
    let git = &federation.testbed.git;
    let count = git.log("main").await.unwrap().len().to_string();
    let commit = git
        .commit("main", &[("docs/note.md", &count)], "Add a note")
        .await
        .unwrap();
    federation
        .until("a harmless commit to be in force", async || {
            let status = federation.status(cluster, "gitsync", "trustweave").await?;
            anyhow::ensure!(status["revision"] == commit.as_str(), "{status:#}");
            Ok(Some(()))
        })
        .await
        .unwrap();
}

/// Everything that a cluster's events say.
async fn events(federation: &Federation, cluster: &str) -> String {
    let cluster = federation.testbed.cluster(cluster).unwrap();
    cluster
        .kubectl(&["get", "events", "--all-namespaces", "--output=json"])
        .await
        .unwrap()
}

/// What the first cluster trusts of the second must not change.
struct Victim {
    honest: Bundle,
    relationship: Value,
}

impl Victim {
    async fn of(federation: &Federation) -> Self {
        Self {
            honest: own(federation, TWO).await,
            relationship: relationship(federation, ONE, TWO).await,
        }
    }

    /// Waits until the attack was seen, and checks that it came to nothing.
    async fn withstands(&self, federation: &Federation, attack: &str, reason: &str) {
        caught_up(federation, ONE).await;
        let status = federation
            .peer_until(ONE, TWO, &format!("{attack}: {reason}"), |status| {
                condition(status, "BundleAccepted")["reason"] == reason
            })
            .await
            .unwrap();
        assert_eq!(status["phase"], "Federated", "{attack}");
        let after = relationship(federation, ONE, TWO).await;
        assert_eq!(after, self.relationship, "{attack}");
        let held = held(federation, ONE, TWO).await.unwrap();
        assert!(
            held.same_keys(&self.honest),
            "{attack}: SPIRE holds other keys"
        );
        let told = reason == "Verified"
            || reason == "Unpublished"
            || events(federation, ONE).await.contains(reason);
        assert!(told, "{attack}: no event says {reason}");
    }
}

/// Two deliveries, so that the first is old; then the second cluster's agent is gone. The commit of the first.
async fn besieged() -> (Federation, String) {
    let federation = federated(plan()).await;
    let git = &federation.testbed.git;
    let first = git.tip(&branch(TWO)).await.unwrap().unwrap();
    rotate(&federation, TWO).await;
    holds_current_keys(&federation, ONE, TWO).await;
    federation
        .peer_until(ONE, TWO, "serial 2 to be reported", |status| {
            status["version"] == "0.2"
        })
        .await
        .unwrap();
    // It would repair its branch.
    federation.agent(TWO).unwrap().kill().unwrap();
    (federation, first)
}

/// The second cluster's agent comes back, and a rotation gets through.
async fn goes_on(federation: &mut Federation) {
    federation.start_agent(TWO).unwrap();
    rotate(federation, TWO).await;
    holds_current_keys(federation, ONE, TWO).await;
    let verified = |status: &Value| condition(status, "BundleAccepted")["status"] == "True";
    federation
        .peer_until(ONE, TWO, "the bundle to be accepted again", verified)
        .await
        .unwrap();
}

/// A commit that git takes from anybody, and libgit2 can't read.
async fn malformed_commit(federation: &Federation) -> String {
    let git = &federation.testbed.git;
    let tree = git.git(&["rev-parse", "main^{tree}"]).await.unwrap();
    let path = federation.testbed.directory().join("commit");
    let text = format!("tree {}\nauthor nobody\n\nno committer\n", tree.trim());
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let written = git
        .git(&["hash-object", "-t", "commit", "-w", "--literally", path])
        .await
        .unwrap();
    written.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_push_to_every_branch_without_a_key_moves_nothing() {
    let _shown = shows(&[Rule::Attack, Rule::Refusal, Rule::Watermark]);
    let (mut federation, first) = besieged().await;
    let target = branch(TWO);
    let victim = Victim::of(&federation).await;
    let standing = Publication::read(&federation, TWO).await;
    let stranger = stranger(&federation);

    let forged = Publication {
        bundle: own(&federation, ONE).await.canonical(),
        ..standing.clone()
    };
    let truncated = Publication {
        signature: standing.signature[..standing.signature.len() / 2].to_owned(),
        ..standing.clone()
    };
    let with = |more: Vec<Entry>| [entries(&standing), more].concat();
    let links = |mode: &'static str, content: &str| -> Vec<Entry> {
        let entries = entries(&standing).into_iter();
        entries
            .map(|(_, path, _)| (mode, path, content.as_bytes().to_vec()))
            .collect()
    };
    let many = (0..60_000).map(|n| ("100644", format!("many/{n}/{n}"), Vec::new()));
    let unreadable = ("100644", "\\377\\376/\\200".to_owned(), b"x".to_vec());
    let swapped = Publication::read(&federation, ONE).await;
    let jump = standing.stating(&stranger, |it| it.serial = Serial::LAST);
    let garbage = ("100644", "README.md".to_owned(), b"garbage".to_vec());
    let trees: Vec<(&str, &str, Vec<Entry>)> = vec![
        ("a forged bundle", "OtherDigest", entries(&forged)),
        (
            "a truncated signature",
            "UnreadableSignature",
            entries(&truncated),
        ),
        ("garbage", "MissingFile", vec![garbage]),
        (
            "symbolic links",
            "MissingFile",
            links("120000", "/etc/passwd"),
        ),
        ("submodules", "MissingFile", links("160000", &first)),
        ("another's publication", "UnknownSigner", entries(&swapped)),
        ("more files than are read", "Verified", with(many.collect())),
        ("names that are no text", "Verified", with(vec![unreadable])),
    ];
    for (attack, reason, entries) in trees {
        force_push(&federation, &target, &entries);
        victim.withstands(&federation, attack, reason).await;
    }
    point(&federation, &target, Some(&first)).await;
    victim
        .withstands(&federation, "a replayed commit", "Rollback")
        .await;
    let malformed = malformed_commit(&federation).await;
    point(&federation, &target, Some(&malformed)).await;
    victim
        .withstands(&federation, "a malformed commit", "UnreadableBranch")
        .await;
    point(&federation, &target, None).await;
    victim
        .withstands(&federation, "a deleted branch", "Unpublished")
        .await;
    let below = format!("{target}/x");
    force_push(&federation, &below, &entries(&standing));
    victim
        .withstands(&federation, "a branch below the name", "Unpublished")
        .await;
    point(&federation, &below, None).await;
    // Nor does it decide what the agent publishes next.
    force_push(&federation, &target, &entries(&jump));
    victim
        .withstands(
            &federation,
            "the last serial, by a stranger",
            "UnknownSigner",
        )
        .await;
    goes_on(&mut federation).await;
    let status = federation
        .status(ONE, "trustpeer", &trust_domain(TWO))
        .await
        .unwrap();
    let serial = status["watermark"]["serial"].as_u64().unwrap();
    assert!((3..=4).contains(&serial), "{status:#}");
}

/// Waits until a cluster's agent says why it does not publish.
async fn does_not_publish(federation: &Federation, cluster: &str, why: &str) {
    federation
        .until(&format!("{cluster} to say `{why}`"), async || {
            let status = federation.status(cluster, "gitsync", "trustweave").await?;
            let published = condition(&status, "Published");
            let told = published["message"].as_str().unwrap_or_default();
            anyhow::ensure!(
                published["status"] == "False" && told.contains(why),
                "{published}"
            );
            Ok(Some(()))
        })
        .await
        .unwrap();
}

/// Raises the epoch of a cluster's trust domain by review.
async fn raise_epoch(federation: &Federation, cluster: &str, epoch: u64) {
    let mut declaration = federation.declaration(cluster).unwrap();
    declaration["spec"]["epoch"] = json!(epoch);
    federation
        .declare(cluster, &declaration, "Raise the epoch")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_one_trust_domains_key_speaks_for_no_other_one() {
    let _shown = shows(&[Rule::Attack, Rule::Watermark, Rule::OwnBranch]);
    let (mut federation, _) = besieged().await;
    let target = branch(TWO);
    let victim = Victim::of(&federation).await;
    let standing = Publication::read(&federation, TWO).await;
    let key = signing_key(&federation, TWO);
    let mut mixed = own(&federation, TWO).await;
    let stolen = own(&federation, ONE).await;
    mixed.x509_authorities.extend(stolen.x509_authorities);
    let old = own(&federation, TWO).await;
    let first_key = old.keys().next().unwrap();
    let other = old.without(|key| *key == first_key);
    let served = json!({
        "profile": "https_spiffe", "url": "https://mallory.example/",
        "spiffeID": format!("spiffe://{}/spire/server", trust_domain(TWO)),
    });
    let served: BundleEndpoint = serde_json::from_value(served).unwrap();
    let name = trust_domain(ONE).parse().unwrap();
    let cases = vec![
        (
            "about another trust domain",
            "OtherTrustDomain",
            standing.stating(&key, |it| (it.trust_domain, it.serial) = (name, Serial(3))),
        ),
        (
            "the victim's own CA",
            "InvalidBundle",
            standing.of(mixed.canonical(), 3, &key),
        ),
        (
            "two bundles under one serial",
            "Equivocation",
            standing.of(other.canonical(), 2, &key),
        ),
        (
            "another endpoint",
            "OtherEndpoint",
            standing.stating(&key, |it| (it.endpoint, it.serial) = (served, Serial(3))),
        ),
        (
            "an epoch that nobody reviewed",
            "OtherEpoch",
            standing.stating(&key, |it| (it.epoch, it.serial) = (1, Serial(3))),
        ),
        (
            "a serial that no cluster could remember",
            "UnreadableAttestation",
            standing.stating(&key, |it| it.serial = Serial(u64::MAX)),
        ),
    ];
    for (attack, reason, publication) in cases {
        force_push(&federation, &target, &entries(&publication));
        victim.withstands(&federation, attack, reason).await;
    }

    // The last serial is a serial: it is taken, and its owner is stuck until people step in.
    let last = standing.stating(&key, |it| it.serial = Serial::LAST);
    force_push(&federation, &target, &entries(&last));
    let version = format!("0.{}", Serial::LAST);
    federation
        .peer_until(ONE, TWO, "the last serial", |status| {
            status["version"] == version.as_str()
        })
        .await
        .unwrap();
    federation.start_agent(TWO).unwrap();
    rotate(&federation, TWO).await;
    does_not_publish(&federation, TWO, "raise `epoch`").await;
    let held_now = held(&federation, ONE, TWO).await.unwrap();
    assert!(held_now.same_keys(&victim.honest));
    raise_epoch(&federation, TWO, 1).await;
    holds_current_keys(&federation, ONE, TWO).await;

    // A clone of the cluster has its key, and another UID.
    federation
        .peer_until(ONE, TWO, "epoch 1", |status| status["version"] == "1.1")
        .await
        .unwrap();
    let standing = Publication::read(&federation, TWO).await;
    let clone = standing.stating(&key, |it| {
        "5e5a1b06-clone".clone_into(&mut it.cluster_uid);
        it.serial = Serial(2);
    });
    force_push(&federation, &target, &entries(&clone));
    does_not_publish(&federation, TWO, "cluster UID 5e5a1b06-clone").await;
    raise_epoch(&federation, TWO, 2).await;
    rotate(&federation, TWO).await;
    holds_current_keys(&federation, ONE, TWO).await;
}

/// The most memory of its own that a process has, as seen from now on. What it maps of files is not
/// counted: the kernel takes that back when it needs room.
struct Memory {
    over: Arc<AtomicBool>,
    most: thread::JoinHandle<u64>,
}

impl Memory {
    fn of(process: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let most = thread::spawn(move || {
            let mut most = 0;
            while !ends.load(Ordering::Relaxed) {
                most = most.max(anonymous(process));
                thread::yield_now();
            }
            most
        });
        Self { over, most }
    }

    /// In MiB.
    fn most(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.most.join().unwrap()
    }
}

/// Resident memory of a process that is no file's, in MiB.
fn anonymous(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap() >> 10
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_bundle_is_refused_and_costs_little_memory() {
    let _shown = shows(&[Rule::Attack, Rule::Refusal]);
    let (mut federation, _) = besieged().await;
    let victim = Victim::of(&federation).await;
    let standing = Publication::read(&federation, TWO).await;
    let key = signing_key(&federation, TWO);
    let agent = federation.agent(ONE).unwrap().id();
    let before = measure::resident(agent).unwrap() >> 10;
    let document: Value = serde_json::from_slice(&standing.bundle).unwrap();
    let keys = vec![document["keys"][0].clone(); 10_000];
    let many = json!({"keys": keys, "spiffe_sequence": 3}).to_string();
    for (attack, bundle) in [
        ("10,000 keys", many.into_bytes()),
        ("100 MiB", noise(100 << 20)),
    ] {
        let publication = standing.of(bundle, 3, &key);
        let memory = Memory::of(agent);
        force_push(&federation, &branch(TWO), &entries(&publication));
        victim
            .withstands(&federation, attack, "InvalidBundle")
            .await;
        let (now, most) = (measure::resident(agent).unwrap() >> 10, memory.most());
        super::progress(&format!(
            "{attack}: {before} MiB before, {now} MiB after, {most} MiB of its own at most meanwhile"
        ));
        // The limit of the pod.
        assert!(now < 64 && most < 64, "{attack}: {now} MiB, {most} MiB");
    }
    // What the victim publishes gets out, and what the peer's agent repairs gets in.
    goes_on(&mut federation).await;
    rotate(&federation, ONE).await;
    holds_current_keys(&federation, TWO, ONE).await;
}

/// Waits until a condition of a cluster's `GitSync` has a reason; its message.
async fn sync_says(federation: &Federation, cluster: &str, kind: &str, reason: &str) -> String {
    federation
        .until(&format!("{cluster} to say {kind}: {reason}"), async || {
            let status = federation.status(cluster, "gitsync", "trustweave").await?;
            let found = condition(&status, kind);
            anyhow::ensure!(found["reason"] == reason, "{status:#}");
            Ok(found["message"].as_str().map(str::to_owned))
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewritten_main_is_not_followed_and_rotations_go_on() {
    let _shown = shows(&[Rule::NoRewind]);
    let mut federation = federated(plan()).await;
    let git = &federation.testbed.git;
    let before = git.tip("main").await.unwrap().unwrap();
    // Everything of main, but without its history, and with a topology in which nobody trusts anybody.
    let empty = "apiVersion: trustweave.dev/v1alpha1\nkind: Topology\nmetadata: {name: topology}\nspec: {edges: []}\n";
    let file = (
        "100644",
        "topology.yaml".to_owned(),
        empty.as_bytes().to_vec(),
    );
    force_push(&federation, "main", &[file]);
    let rewritten = git.tip("main").await.unwrap().unwrap();
    for cluster in [ONE, TWO] {
        let message = sync_says(&federation, cluster, "Ready", "Rewound").await;
        assert!(message.contains(&rewritten), "{message}");
    }
    rotate(&federation, TWO).await;
    holds_current_keys(&federation, ONE, TWO).await;

    // A restart changes nothing.
    federation.agent(ONE).unwrap().kill().unwrap();
    rotate(&federation, TWO).await;
    federation.start_agent(ONE).unwrap();
    holds_current_keys(&federation, ONE, TWO).await;
    sync_says(&federation, ONE, "Ready", "Rewound").await;

    // Without its mirror, the agent can't read the commit in force: it says so, and leaves all as it is.
    federation.agent(ONE).unwrap().kill().unwrap();
    let victim = Victim::of(&federation).await;
    fs::remove_dir_all(federation.testbed.directory().join("agent-0/state")).unwrap();
    federation.start_agent(ONE).unwrap();
    let message = sync_says(&federation, ONE, "Ready", "PassFailed").await;
    assert!(message.contains(&before), "{message}");
    assert!(message.contains("acceptRewind"), "{message}");
    let status = federation
        .status(ONE, "trustpeer", &trust_domain(TWO))
        .await
        .unwrap();
    assert_eq!(status["phase"], "Federated");
    let after = relationship(&federation, ONE, TWO).await;
    assert_eq!(after, victim.relationship);
    let held = held(&federation, ONE, TWO).await.unwrap();
    assert!(held.same_keys(&victim.honest));

    // The history comes back: all goes on.
    point(&federation, "main", Some(&before)).await;
    sync_says(&federation, ONE, "Ready", "InForce").await;
    rotate(&federation, TWO).await;
    holds_current_keys(&federation, ONE, TWO).await;
}

/// Lowers by hand what a cluster remembers of the other, to serial 1 with a digest.
async fn lower(federation: &Federation, place: &str, digest: &str) {
    let peer = trust_domain(TWO);
    let one = federation.testbed.cluster(ONE).unwrap();
    let digest_annotation = format!("trustweave.dev/digest={digest}");
    let watermark = json!({"serial": 1, "digest": digest});
    let patch = json!({"status": {"version": "0.1", "watermark": watermark}});
    let patch = format!("--patch={patch}");
    let arguments = match place {
        "the relationship" => vec![
            "annotate",
            "clusterfederatedtrustdomain",
            &peer,
            "--overwrite",
            "trustweave.dev/serial=1",
            &digest_annotation,
        ],
        _ => vec![
            "patch",
            "trustpeer",
            &peer,
            "--subresource=status",
            "--type=merge",
            &patch,
        ],
    };
    one.kubectl(&arguments).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watermark_that_is_lowered_in_one_place_counts_as_the_other_has_it() {
    let _shown = shows(&[Rule::Watermark]);
    let (mut federation, first) = besieged().await;
    let git = &federation.testbed.git;
    let second = git.tip(&branch(TWO)).await.unwrap().unwrap();
    let statement = git.show(&first, publication::ATTESTATION).await.unwrap();
    let old: Attestation = serde_json::from_str(&statement).unwrap();
    let honest = own(&federation, TWO).await;
    for place in ["the relationship", "the TrustPeer"] {
        let says = |reason: &'static str| {
            move |status: &Value| {
                condition(status, "BundleAccepted")["reason"] == reason
                    && status["version"] == "0.2"
            }
        };
        point(&federation, &branch(TWO), Some(&first)).await;
        federation
            .peer_until(ONE, TWO, "the replay to be refused", says("Rollback"))
            .await
            .unwrap();
        lower(&federation, place, old.sha256.as_str()).await;
        caught_up(&federation, ONE).await;
        let status = federation
            .peer_until(ONE, TWO, &format!("{place} not to count"), says("Rollback"))
            .await
            .unwrap();
        assert_eq!(status["phase"], "Federated", "{place}");
        let held = held(&federation, ONE, TWO).await.unwrap();
        assert!(held.same_keys(&honest), "{place}");
        // With the honest publication back, both places say the same again.
        point(&federation, &branch(TWO), Some(&second)).await;
        federation
            .peer_until(ONE, TWO, "the honest bundle", says("Verified"))
            .await
            .unwrap();
        let now = relationship(&federation, ONE, TWO).await;
        let serial = &now["metadata"]["annotations"]["trustweave.dev/serial"];
        assert_eq!(serial, "2", "{place}");
    }
    goes_on(&mut federation).await;
}

/// The registration of the overlay that names the peer.
const REGISTRATION: &str = "frontend-client";

/// Watches the registration, and sees every state that it is in.
struct Watch {
    states: tokio::task::JoinHandle<Vec<Value>>,
    /// What ends it: so it is known to have seen all that came before.
    end: String,
}

impl Watch {
    /// Begins with the state that it is in now.
    async fn begin(federation: &Federation) -> Self {
        let client = federation.testbed.cluster(ONE).unwrap().client();
        let kind = GroupVersionKind::gvk("spire.spiffe.io", "v1alpha1", "ClusterSPIFFEID");
        let api: Api<DynamicObject> = Api::all_with(client, &ApiResource::from_gvk(&kind));
        let now = api.get(REGISTRATION).await.unwrap();
        let version = now.resource_version().unwrap();
        let parameters = WatchParams::default()
            .fields(&format!("metadata.name={REGISTRATION}"))
            .timeout(290);
        let mut events = api.watch(&parameters, &version).await.unwrap().boxed();
        let (end, ends) = (format!("after-{version}"), format!("after-{version}"));
        let states = tokio::spawn(async move {
            let mut states = vec![now.data["spec"]["federatesWith"].clone()];
            loop {
                // A watch that ends too early is no witness.
                match events.next().await.unwrap().unwrap() {
                    WatchEvent::Added(it) | WatchEvent::Modified(it) => {
                        states.push(it.data["spec"]["federatesWith"].clone());
                        if it.annotations().get("testbed/end") == Some(&ends) {
                            return states;
                        }
                    }
                    WatchEvent::Deleted(_) => states.push(Value::Null),
                    _ => {}
                }
            }
        });
        Self { states, end }
    }

    /// Asserts that the registration named the peer all the time.
    async fn never_lost_the_peer(self, federation: &Federation, during: &str) {
        let one = federation.testbed.cluster(ONE).unwrap();
        let end = format!("testbed/end={}", self.end);
        one.kubectl(&[
            "annotate",
            "clusterspiffeid",
            REGISTRATION,
            "--overwrite",
            &end,
        ])
        .await
        .unwrap();
        let states = tokio::time::timeout(PATIENCE, self.states).await;
        let states = states.unwrap().unwrap();
        let peer = json!([trust_domain(TWO)]);
        assert!(states.iter().all(|it| *it == peer), "{during}: {states:?}");
        super::progress(&format!(
            "{during}: {} states, all with the peer",
            states.len()
        ));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_restarts_nor_a_failed_batch_take_a_ready_peer_out() {
    let _shown = shows(&[Rule::Held, Rule::Restart]);
    let mut federation = federated(plan()).await;
    let watch = Watch::begin(&federation).await;
    federation.agent(ONE).unwrap().kill().unwrap();
    federation.start_agent(ONE).unwrap();
    caught_up(&federation, ONE).await;
    watch
        .never_lost_the_peer(&federation, "an agent that was killed")
        .await;

    let watch = Watch::begin(&federation).await;
    let spire = &federation.testbed.cluster(ONE).unwrap().spire;
    spire.stop_controller_manager().await.unwrap();
    rotate(&federation, TWO).await;
    federation
        .peer_until(ONE, TWO, "serial 2", |status| status["version"] == "0.2")
        .await
        .unwrap();
    spire.start_controller_manager().await.unwrap();
    holds_current_keys(&federation, ONE, TWO).await;
    watch
        .never_lost_the_peer(&federation, "a controller manager that was restarted")
        .await;

    let watch = Watch::begin(&federation).await;
    let git = &federation.testbed.git;
    let overlay = "clusters/cluster-1/kustomization.yaml";
    let good = git.show("main", overlay).await.unwrap();
    let bad = good.replacen("resources:", "resources:\n  - bad.yaml", 1);
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: Not_A_Name\n  namespace: federation-demo\n";
    let files = [
        (overlay, bad.as_str()),
        ("clusters/cluster-1/bad.yaml", account),
    ];
    git.commit("main", &files, "Add what no API server takes")
        .await
        .unwrap();
    let message = sync_says(&federation, ONE, "Ready", "WritesFailed").await;
    assert!(message.contains("Not_A_Name"), "{message}");
    rotate(&federation, TWO).await;
    holds_current_keys(&federation, ONE, TWO).await;
    git.commit("main", &[(overlay, &good)], "Take it away again")
        .await
        .unwrap();
    sync_says(&federation, ONE, "Ready", "InForce").await;
    watch
        .never_lost_the_peer(&federation, "a batch that failed")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_agents_kinds_remembered_is_remembered_by_the_relationship_too() {
    let _shown = shows(&[Rule::Watermark, Rule::Held]);
    let (mut federation, first) = besieged().await;
    let git = &federation.testbed.git;
    let second = git.tip(&branch(TWO)).await.unwrap().unwrap();
    point(&federation, &branch(TWO), Some(&first)).await;
    let victim = Victim::of(&federation).await;
    victim.withstands(&federation, "a replay", "Rollback").await;

    // A publication's branch that is gone comes back under a higher serial.
    point(&federation, &branch(ONE), None).await;
    federation
        .until("the branch to be published again", async || {
            let Some(tip) = git.tip(&branch(ONE)).await? else {
                return Ok(None);
            };
            let statement = git.show(&tip, publication::ATTESTATION).await?;
            let statement: Attestation = serde_json::from_str(&statement)?;
            anyhow::ensure!(statement.serial == Serial(2), "{}", statement.serial);
            Ok(Some(()))
        })
        .await
        .unwrap();

    let watch = Watch::begin(&federation).await;
    let one = federation.testbed.cluster(ONE).unwrap();
    one.kubectl(&[
        "delete",
        "crd",
        "gitsyncs.trustweave.dev",
        "trustpeers.trustweave.dev",
    ])
    .await
    .unwrap();
    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
    one.kubectl(&["apply", "--server-side", "--kustomize", deploy])
        .await
        .unwrap();
    federation.agent(ONE).unwrap().kill().unwrap();
    federation.start_agent(ONE).unwrap();
    victim
        .withstands(&federation, "a replay after the loss of memory", "Rollback")
        .await;
    watch
        .never_lost_the_peer(&federation, "the loss of the agent's kinds")
        .await;
    point(&federation, &branch(TWO), Some(&second)).await;
    goes_on(&mut federation).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_datastore_of_spire_is_told_and_gets_over_by_itself() {
    let mut shown = shows(&[Rule::Restart]);
    let federation = federated(plan()).await;
    rotate(&federation, ONE).await;
    holds_current_keys(&federation, TWO, ONE).await;
    let former = own(&federation, ONE).await;
    let spire = &federation.testbed.cluster(ONE).unwrap().spire;
    let configuration = spire.configuration().unwrap();
    let path = |pointer: &str| {
        configuration
            .pointer(pointer)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    spire.stop_server().await.unwrap();
    let store = path("/plugins/DataStore/0/sql/plugin_data/connection_string");
    for lost in [
        store.clone(),
        format!("{store}-wal"),
        format!("{store}-shm"),
        path("/plugins/KeyManager/0/disk/plugin_data/keys_path"),
    ] {
        // The journal is there only while it is needed.
        drop(fs::remove_file(lost));
    }
    let begun = std::time::Instant::now();
    spire.start_server().await.unwrap();
    assert!(held(&federation, ONE, TWO).await.is_none());
    assert!(!own(&federation, ONE).await.same_keys(&former));
    holds_current_keys(&federation, TWO, ONE).await;
    shown.measured(
        "SPIRE's datastore lost -> the peer holds the new keys",
        begun.elapsed(),
    );
    federation
        .until("the alarm", async || {
            Ok(events(&federation, TWO)
                .await
                .contains("SequenceFell")
                .then_some(()))
        })
        .await
        .unwrap();
    holds_current_keys(&federation, ONE, TWO).await;
    super::progress(&format!(
        "the own row of the peer: {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    federation.federated().await.unwrap();
}
