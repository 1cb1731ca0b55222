//! Publications that people merge: a real repository behind `git daemon`, and stand-ins for the REST APIs of forges,
//! whose requests are about that repository.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Mutex};

use jiff::Timestamp;
use serde_json::json;
use trustweave::{
    cluster::lease::Fence,
    forge::{self, Address, Client, Kind},
    git::{self, Mirror, Published, Repository, SigningKey},
    model::{
        attestation::{self, Publication, Serial},
        bundle::Bundle,
        declaration::TrustDomainSpec,
        trust_domain::{ClusterName, TrustDomain},
    },
    reconcile::{
        desired::publication_on_main,
        proposal::{self, Outcome},
        publish::{Publisher, Target},
    },
    spire::{self, BundleSource},
};
use trustweave_testbed::{
    Testbed,
    authority::Authority,
    forge::{Dialect, Forge, PROJECT, State},
    proxy::HttpProxy,
};

use super::{file, key, mirror, settings, testbed, told};

const BRANCH: &str = "trustweave-proposals/a.test";

/// A SPIRE, as far as a publisher sees it.
struct Spire(Mutex<Bundle>);

impl BundleSource for Spire {
    async fn current(&self) -> Result<Bundle, spire::Error> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn changed(&self) {
        std::future::pending::<()>().await;
    }

    fn describe(&self) -> String {
        "a test".to_owned()
    }
}

/// A bundle with keys of its own.
fn bundle() -> Bundle {
    let bundle = Authority::new("a.test").unwrap().bundle();
    Bundle::parse(bundle.to_string().as_bytes()).unwrap()
}

/// A trust domain whose publications people merge.
struct World {
    testbed: Testbed,
    forge: Forge,
    forge_settings: forge::Settings,
    spire: Spire,
    key: SigningKey,
    publisher: Publisher,
    declaration: TrustDomainSpec,
}

/// One of its agents.
struct Agent {
    mirror: Mirror,
    forge: Client,
}

impl World {
    async fn new(dialect: Dialect) -> Self {
        let (testbed, key) = (testbed().await, key());
        let declared = [
            ("trust-domains/a.test/trust-domain.yaml", "declared"),
            ("topology.yaml", "declared"),
        ];
        testbed
            .git
            .commit("main", &declared, "Declare")
            .await
            .unwrap();
        let identity = testbed.web_identity().unwrap();
        let forge = Forge::start(dialect, testbed.git.path(), &identity, "secret-token")
            .await
            .unwrap();
        let kind = match dialect {
            Dialect::GitHub => Kind::GitHub,
            Dialect::GitLab => Kind::GitLab,
            Dialect::Gitea => Kind::Gitea,
        };
        let repository = git::parse_url(testbed.git.url()).unwrap();
        let address = Address::of(kind, &repository, Some(forge.url()), Some(PROJECT)).unwrap();
        let token = file(&testbed, "token", "secret-token\n");
        let mut forge_settings = forge::Settings::new(kind, address, token);
        forge_settings.authorities = Some(testbed.web_authority().to_owned());
        let trust_domain = TrustDomain::parse("a.test").unwrap();
        let declaration = serde_json::from_value(json!({
            "clusters": [{"name": "a"}], "signers": [key.public_key()],
            "spire": {"distribution": "custom", "namespace": "s", "className": "c"},
            "bundleEndpoint": "none",
        }));
        Self {
            testbed,
            forge,
            forge_settings,
            spire: Spire(Mutex::new(bundle())),
            key,
            publisher: Publisher {
                cluster: ClusterName::parse("a").unwrap(),
                cluster_uid: "uid".to_owned(),
                target: Target::directory_on("main", &trust_domain),
                trust_domain,
                email_domain: "trustweave.invalid",
                fence: Fence::open(),
            },
            declaration: declaration.unwrap(),
        }
    }

    fn agent(&self, name: &str) -> Agent {
        Agent {
            mirror: mirror(settings(&self.testbed, self.testbed.git.url(), name)),
            forge: Client::new(self.forge_settings.clone()),
        }
    }

    /// A pass of an agent that remembers what stands as published, as its cluster does.
    async fn pass(&self, agent: &Agent) -> Result<Outcome, proposal::Error> {
        let last = Serial(self.in_force(agent).await.map_or(0, |(serial, _)| serial));
        proposal::pass(
            (&agent.mirror, &agent.forge),
            &self.spire,
            &self.publisher,
            &self.key,
            &self.declaration,
            last,
            now(),
        )
        .await
    }

    /// What peers go by: its serial, and whether it is what SPIRE has now.
    async fn in_force(&self, agent: &Agent) -> Option<(u64, bool)> {
        let heads = agent.mirror.fetch().await.unwrap();
        assert!(heads.publications.is_empty(), "{heads:?}");
        let tree = agent.mirror.tree(&heads.main.unwrap()).await.unwrap();
        let trust_domain = &self.publisher.trust_domain;
        let files = publication_on_main(&tree, trust_domain);
        let verified = attestation::verify(trust_domain, &self.declaration, &files, now());
        let Publication {
            bundle,
            attestation,
        } = verified.ok()?;
        Some((
            attestation.serial.0,
            bundle == *self.spire.0.lock().unwrap(),
        ))
    }

    fn rotate(&self) {
        *self.spire.0.lock().unwrap() = bundle();
    }

    async fn git(&self, arguments: &[&str]) -> String {
        let output = self.testbed.git.git(arguments).await.unwrap();
        output.trim().to_owned()
    }

    /// The commit that is proposed.
    async fn tip(&self) -> Option<String> {
        self.testbed.git.tip(BRANCH).await.unwrap()
    }

    /// Numbers, states and serials of all requests.
    async fn requests(&self) -> Vec<(u64, State, u64)> {
        let requests = self.forge.requests().await.unwrap().into_iter();
        let serial = |title: String| {
            let title = title.strip_prefix("Publish the bundle of a.test: serial ");
            title.unwrap().parse().unwrap()
        };
        requests
            .map(|it| (it.number, it.state, serial(it.title)))
            .collect()
    }
}

fn now() -> Timestamp {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::UNIX_EPOCH + since
}

fn was_pushed(outcome: &Outcome) -> bool {
    matches!(outcome.pushed, Published::Committed { .. })
}

/// Serial and whether it was declined, of what waits.
fn waits(outcome: &Outcome) -> Option<(u64, bool)> {
    let proposed = outcome.proposed.as_ref()?;
    Some((proposed.serial.0, proposed.declined))
}

/// From the first proposal over a rotation, a merge and a decline to the next merge.
async fn a_life(dialect: Dialect) {
    let world = World::new(dialect).await;
    let agent = world.agent("m");
    let first = world.pass(&agent).await.unwrap();
    assert!(was_pushed(&first) && first.standing.is_none(), "{first:?}");
    assert_eq!(waits(&first), Some((1, false)));
    let url = &first.proposed.as_ref().unwrap().url;
    assert_eq!(url, &format!("https://forge.test/{PROJECT}/1"));
    assert_eq!(world.in_force(&agent).await, None);
    let changed = world.git(&["diff", "--name-only", "main", BRANCH]).await;
    let changed: BTreeSet<_> = changed.lines().collect();
    let expected = [
        "bundle.attestation.json",
        "bundle.attestation.json.sig",
        "bundle.json",
    ]
    .map(|name| format!("trust-domains/a.test/{name}"));
    let expected = expected.iter().map(String::as_str);
    assert_eq!(changed, expected.collect::<BTreeSet<_>>());

    // The same again, also after a restart, and when main goes on elsewhere: nothing is written.
    let (tip, written) = (world.tip().await, world.forge.written());
    let elsewhere = [("topology.yaml", "changed")];
    world
        .testbed
        .git
        .commit("main", &elsewhere, "x")
        .await
        .unwrap();
    for agent in [&agent, &world.agent("restarted")] {
        let again = world.pass(agent).await.unwrap();
        assert!(!was_pushed(&again), "{again:?}");
        assert_eq!(waits(&again), Some((1, false)));
    }
    assert_eq!((world.tip().await, world.forge.written()), (tip, written));

    // A rotation replaces the commit; the request stays the one.
    world.rotate();
    let rotated = world.pass(&agent).await.unwrap();
    assert!(was_pushed(&rotated));
    assert_eq!(waits(&rotated), Some((2, false)));
    assert_eq!(world.requests().await, [(1, State::Open, 2)]);
    assert_eq!(
        world
            .git(&["rev-list", "--count", &format!("main..{BRANCH}")])
            .await,
        "1"
    );

    // Merged: in force, and nothing is left behind.
    world.forge.merge(1).await.unwrap();
    assert_eq!(world.in_force(&agent).await, Some((2, true)));
    let merged = world.pass(&agent).await.unwrap();
    assert_eq!((waits(&merged), was_pushed(&merged)), (None, false));
    assert_eq!(merged.standing.unwrap().serial, 2);
    assert_eq!(world.tip().await, None);
    assert_eq!(world.requests().await, [(1, State::Merged, 2)]);
    assert_eq!(world.git(&["show", "main:topology.yaml"]).await, "changed");

    // Declined: told, and not asked again, whatever becomes of the branch, until it is reopened.
    world.rotate();
    assert_eq!(waits(&world.pass(&agent).await.unwrap()), Some((3, false)));
    world.forge.decline(2).unwrap();
    let branch = format!("refs/heads/{BRANCH}");
    let proposed = world.tip().await.unwrap();
    for removed in [false, true] {
        if removed {
            world.git(&["update-ref", "-d", &branch]).await;
        }
        let declined = world
            .pass(&world.agent(&format!("m{removed}")))
            .await
            .unwrap();
        assert_eq!(
            (waits(&declined), was_pushed(&declined)),
            (Some((3, true)), false)
        );
        assert_eq!(declined.standing.unwrap().serial, 2);
    }
    assert_eq!(world.requests().await[1..], [(2, State::Closed, 3)]);
    world.git(&["update-ref", &branch, &proposed]).await;
    world.forge.reopen(2);
    let reopened = world.pass(&agent).await.unwrap();
    assert_eq!(
        (waits(&reopened), was_pushed(&reopened)),
        (Some((3, false)), false)
    );

    // What is newer than what was declined is another question.
    world.forge.decline(2).unwrap();
    world.rotate();
    assert_eq!(waits(&world.pass(&agent).await.unwrap()), Some((4, false)));
    assert_eq!(
        world.requests().await[1..],
        [(2, State::Closed, 3), (3, State::Open, 4)]
    );
    world.forge.merge(3).await.unwrap();
    assert_eq!(world.in_force(&agent).await, Some((4, true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_decide_on_github() {
    a_life(Dialect::GitHub).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_decide_on_gitlab() {
    a_life(Dialect::GitLab).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_decide_on_gitea() {
    a_life(Dialect::Gitea).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forge_that_is_down_is_asked_later() {
    let world = World::new(Dialect::GitHub).await;
    let agent = world.agent("m");
    world.forge.set_down(true);
    for _ in 0..2 {
        let error = told(&world.pass(&agent).await.unwrap_err());
        assert!(
            error.contains("is proposed on `trustweave-proposals/a.test`"),
            "{error}"
        );
        assert!(error.contains("502"), "{error}");
    }
    let tip = world.tip().await;
    assert!(tip.is_some());
    world.forge.set_down(false);
    let asked = world.pass(&agent).await.unwrap();
    assert_eq!(
        (waits(&asked), was_pushed(&asked)),
        (Some((1, false)), false)
    );
    assert_eq!(world.tip().await, tip);
    assert_eq!(world.requests().await, [(1, State::Open, 1)]);

    // Merged while the forge does not answer: in force all the same, and cleared away later.
    world.forge.merge(1).await.unwrap();
    world.forge.set_down(true);
    assert_eq!(waits(&world.pass(&agent).await.unwrap()), None);
    assert_eq!(world.tip().await, tip);
    world.forge.set_down(false);
    world.pass(&agent).await.unwrap();
    assert_eq!(world.tip().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_at_once_ask_once() {
    for dialect in [Dialect::GitHub, Dialect::GitLab, Dialect::Gitea] {
        let world = World::new(dialect).await;
        let agents = ["one", "two", "three"].map(|name| world.agent(name));
        let passes = agents.iter().map(|agent| world.pass(agent));
        for outcome in futures::future::join_all(passes).await {
            assert_eq!(waits(&outcome.unwrap()), Some((1, false)));
        }
        assert_eq!(world.requests().await, [(1, State::Open, 1)], "{dialect:?}");
        // Each has the next bundle to put in the place of the first.
        world.rotate();
        let passes = agents.iter().map(|agent| world.pass(agent));
        for outcome in futures::future::join_all(passes).await {
            assert_eq!(waits(&outcome.unwrap()), Some((2, false)));
        }
        assert_eq!(world.requests().await, [(1, State::Open, 2)], "{dialect:?}");
        // A forge that took two: the first one stays.
        world.forge.double(1).unwrap();
        world.pass(&agents[0]).await.unwrap();
        let expected = [(1, State::Open, 2), (2, State::Closed, 2)];
        assert_eq!(world.requests().await, expected, "{dialect:?}");
        // What closing it says is not that this content was declined: the other one is open.
        assert_eq!(
            waits(&world.pass(&agents[1]).await.unwrap()),
            Some((2, false))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_push_to_the_proposals_branch_is_replaced() {
    let world = World::new(Dialect::GitHub).await;
    let agent = world.agent("m");
    world.pass(&agent).await.unwrap();
    let git = &world.testbed.git;

    // More than the publication on the branch, below or besides it.
    for path in [
        "clusters/a/evil.yaml",
        "trust-domains/a.test/trust-domain.yaml",
    ] {
        git.commit(BRANCH, &[(path, "evil")], "evil").await.unwrap();
        let replaced = world.pass(&agent).await.unwrap();
        assert!(was_pushed(&replaced), "{path}");
        let changed = world.git(&["diff", "--name-only", "main", BRANCH]).await;
        assert_eq!(changed.lines().count(), 3, "{changed}");
    }
    let before = waits(&world.pass(&agent).await.unwrap()).unwrap().0;

    // Somebody else's bundle in its place: its signature is none.
    let forged = [("trust-domains/a.test/bundle.json", "{}")];
    git.commit(BRANCH, &forged, "forged").await.unwrap();
    let replaced = world.pass(&agent).await.unwrap();
    assert!(waits(&replaced).unwrap().0 > before);

    // Merged by way of the branch, main has other files there now: a new commit on top of them.
    world.forge.merge(1).await.unwrap();
    world.rotate();
    world.pass(&agent).await.unwrap();
    let rewound = [("trust-domains/a.test/bundle.json", "{}")];
    git.commit("main", &rewound, "broken by hand")
        .await
        .unwrap();
    assert!(was_pushed(&world.pass(&agent).await.unwrap()));
    let open = world.requests().await.last().copied().unwrap();
    world.forge.merge(open.0).await.unwrap();
    assert_eq!(world.in_force(&agent).await, Some((open.2, true)));
    assert!(
        world
            .requests()
            .await
            .iter()
            .all(|it| it.1 == State::Merged)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_rotated_in_its_file_and_never_told() {
    let mut world = World::new(Dialect::GitHub).await;
    let (token, agent) = (world.forge_settings.token_file.clone(), world.agent("m"));
    let refused = async |agent: &Agent, content: &str, why: &str| {
        fs::write(&token, content).unwrap();
        let error = told(&world.pass(agent).await.unwrap_err());
        assert!(error.contains(why), "{error}");
        assert!(!error.contains("wrong-token"), "{error}");
    };
    refused(&agent, "wrong-token", "401").await;
    refused(&agent, "", "holds no token").await;
    refused(&agent, "wrong-token\nwrong-token", "holds no token").await;
    fs::write(&token, "secret-token").unwrap();
    assert_eq!(waits(&world.pass(&agent).await.unwrap()), Some((1, false)));

    // Whose authority is not known is shown nothing.
    let authorities = world.forge_settings.authorities.take();
    let error = told(&world.pass(&world.agent("untrusting")).await.unwrap_err());
    let untrusted = ["connect to 127.0.0.1", "no certificate authorities"];
    assert!(untrusted.iter().any(|it| error.contains(it)), "{error}");
    world.forge_settings.authorities = authorities;

    // Through a proxy that wants to know who asks.
    let proxy = HttpProxy::start("proxy", "pass").await.unwrap();
    let pass: PathBuf = file(&world.testbed, "proxy-token", "nobody");
    world.forge_settings.proxy = Some(forge::Proxy {
        url: proxy.url().to_owned(),
        auth: Some(("proxy".to_owned(), pass.clone())),
    });
    let behind = world.agent("behind");
    let error = told(&world.pass(&behind).await.unwrap_err());
    assert!(error.contains("the proxy answered 407"), "{error}");
    fs::write(&pass, "pass\n").unwrap();
    assert_eq!(waits(&world.pass(&behind).await.unwrap()), Some((1, false)));
    let connected = proxy.connected();
    assert!(!connected.is_empty());
    assert!(connected.iter().all(|to| world.forge.url().contains(to)));
}
