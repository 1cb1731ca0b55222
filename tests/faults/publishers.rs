//! Publishing under fire: whatever the server, the way to it or others do, what an agent was told to
//! have published stands in the history, and stands there once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use trustweave::git::{Mirror, Published, Repository, SigningKey};
use trustweave_testbed::{
    GitRemote, Testbed,
    faulty_way::{Fault, FaultyWay},
    wait_until,
};

use super::{
    matrix::{Matrix, Row},
    setup::{key, mirror, put, request, settings, testbed},
};

/// What is struck here.
const WHERE: &str = "publishing";

/// How long everything of one round may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(5);

/// Where publishers write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Each its own branch.
    Own,
    /// Each its directory, all on one branch.
    Main,
}

/// Those who publish, each with a mirror of its own.
struct Publishers {
    testbed: Arc<Testbed>,
    place: Place,
    mirrors: Vec<Arc<Mirror>>,
    key: SigningKey,
    /// How many versions each was told to publish until now.
    versions: usize,
    /// How often one had to try again.
    again: Arc<AtomicUsize>,
}

/// What stands at the server at the end of a round.
struct Found {
    lost: usize,
    doubled: usize,
}

impl Publishers {
    fn new(testbed: &Arc<Testbed>, name: &str, place: Place, count: usize, url: &str) -> Self {
        let seconds = if count > 10 { 60 } else { 3 };
        let mirrors = (0..count).map(|number| {
            let mut settings = settings(testbed, url, &format!("{name}-{number}"));
            settings.deadline = Duration::from_secs(seconds);
            Arc::new(mirror(settings))
        });
        Self {
            testbed: Arc::clone(testbed),
            place,
            mirrors: mirrors.collect(),
            key: key(),
            versions: 0,
            again: Arc::default(),
        }
    }

    fn target(&self, number: usize) -> (String, String) {
        match self.place {
            Place::Own => (format!("trustweave/td{number}.test"), String::new()),
            Place::Main => ("main".to_owned(), format!("trust-domains/td{number}.test")),
        }
    }

    /// All publish another version at once, and try again as long as they fail, as an agent does.
    async fn publish(&mut self) {
        self.versions += 1;
        let mut tasks = JoinSet::new();
        for (number, mirror) in self.mirrors.iter().enumerate() {
            let (branch, directory) = self.target(number);
            let to = request(&branch, &directory, &self.key);
            let (mirror, again) = (Arc::clone(mirror), Arc::clone(&self.again));
            let content = content(number, self.versions);
            tasks.spawn(async move {
                wait_until(
                    &format!("{content} to be published"),
                    PATIENCE,
                    async || {
                        let done = mirror.publish(to.clone(), put(&content)).await;
                        match &done {
                            Ok(Published::Committed { attempts, .. }) => {
                                again.fetch_add(*attempts as usize - 1, Ordering::Relaxed);
                            }
                            Ok(Published::Unchanged) => {}
                            Err(_) => drop(again.fetch_add(1, Ordering::Relaxed)),
                        }
                        Ok(done.map(Some)?)
                    },
                )
                .await
                .unwrap();
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    }

    /// Counts what is missing, or there more than once, in the server's history.
    async fn find(&self) -> Found {
        let mut found = Found {
            lost: 0,
            doubled: 0,
        };
        let branches: BTreeSet<_> = (0..self.mirrors.len())
            .map(|it| self.target(it).0)
            .collect();
        let mut times = BTreeMap::<String, usize>::new();
        for branch in branches {
            for subject in self.testbed.git.log(&branch).await.unwrap() {
                *times.entry(subject).or_default() += 1;
            }
        }
        for number in 0..self.mirrors.len() {
            for version in 1..=self.versions {
                let subject = format!("publish {}", content(number, version));
                match times.remove(&subject).unwrap_or_default() {
                    0 => found.lost += 1,
                    count => found.doubled += count - 1,
                }
            }
            let (branch, directory) = self.target(number);
            let path = format!("{directory}/bundle.json");
            let standing = self
                .testbed
                .git
                .show(&branch, path.trim_start_matches('/'))
                .await;
            assert_eq!(standing.unwrap(), content(number, self.versions));
        }
        found
    }
}

fn content(number: usize, version: usize) -> String {
    format!("td{number} version {version}")
}

/// Adds what became of a fault that struck so often, and after which all was published so soon.
async fn add(
    matrix: &mut Matrix,
    fault: &'static str,
    (times, settled): (usize, Duration),
    publishers: &Publishers,
) {
    let Found { lost, doubled } = publishers.find().await;
    matrix.add(Row {
        fault: (WHERE, fault),
        times,
        lost,
        doubled,
        settled: vec![settled],
    });
}

/// Lets all publish, with trouble at the same time; what the trouble came to, and how long it took from
/// its end until all was published.
async fn disturbed<T>(
    publishers: &mut Publishers,
    trouble: impl Future<Output = T>,
) -> (T, Duration) {
    let trouble = async { (trouble.await, Instant::now()) };
    let ((), (came_to, over)) = tokio::join!(publishers.publish(), trouble);
    (came_to, over.elapsed())
}

/// Lets all publish; how long that took.
async fn timed(publishers: &mut Publishers) -> Duration {
    disturbed(publishers, std::future::ready(())).await.1
}

/// Many at once.
async fn crowds(testbed: &Arc<Testbed>, matrix: &mut Matrix) {
    let direct = testbed.git.url();
    let mut hundred = Publishers::new(testbed, "own", Place::Own, 100, direct);
    let took = timed(&mut hundred).await;
    let fault = "100 publishers at once, own branches";
    add(matrix, fault, (100, took), &hundred).await;
    drop(hundred);

    let mut crowd = Publishers::new(testbed, "main", Place::Main, 20, direct);
    let took = timed(&mut crowd).await;
    let fault = "20 publishers at once, one branch";
    let again = crowd.again.load(Ordering::Relaxed);
    add(matrix, fault, (again, took), &crowd).await;
}

/// A way to the server that fails.
async fn failing_ways(way: &FaultyWay, few: &mut Publishers, matrix: &mut Matrix) {
    for (name, fault) in [
        (
            "the server's answer is lost after a push",
            Fault::AnswerLost(600),
        ),
        ("the connection is cut in an answer", Fault::Cut(250)),
        (
            "the connection is half open in an answer",
            Fault::HalfOpen(250),
        ),
        ("a pack is broken on its way", Fault::BrokenPack),
        ("the server is silent", Fault::Silent),
        ("the server is slow", Fault::Slow),
    ] {
        way.set(fault);
        let struck = disturbed(few, async {
            // It meets every one of them at least once.
            let met = "the fault to strike";
            let met = wait_until(
                met,
                PATIENCE,
                async || Ok((way.struck() >= 4).then_some(())),
            );
            met.await.unwrap();
            way.set(Fault::None)
        })
        .await;
        add(matrix, name, struck, few).await;
    }
}

/// A server that is not there all the time.
async fn restarts(git: &GitRemote, few: &mut Publishers, matrix: &mut Matrix) {
    let restarts = disturbed(few, async {
        let mut restarts = 0;
        while restarts < 5 {
            let before = git.tip("main").await.unwrap();
            git.stop().await.unwrap();
            git.start().await.unwrap();
            restarts += 1;
            // In the middle of whatever comes next.
            let moves = wait_until("the branch to move", Duration::from_secs(1), async || {
                Ok((git.tip("main").await? != before).then_some(()))
            });
            drop(moves.await);
        }
        restarts
    })
    .await;
    let fault = "the server restarts in the middle";
    add(matrix, fault, restarts, few).await;
}

/// A server, and people, that do not want what is published.
async fn refusals(git: &GitRemote, few: &mut Publishers, matrix: &mut Matrix) {
    // A hook that refuses every other push.
    let refusals = git.path().join("refusals");
    git.pre_receive_hook(
        "if mkdir refused 2>/dev/null; then echo x >> refusals; echo 'not now' >&2; exit 1; fi; \
         rmdir refused; exit 0",
    )
    .unwrap();
    let took = timed(few).await;
    git.remove_hook().unwrap();
    let refused = std::fs::read_to_string(refusals).unwrap().lines().count();
    add(
        matrix,
        "a hook refuses every other push",
        (refused, took),
        few,
    )
    .await;

    // A protected branch, until somebody lets the agent push.
    let refusals = git.path().join("protected");
    git.pre_receive_hook(
        "while read old new ref; do \
         [ $ref != refs/heads/main ] || { echo x >> protected; exit 1; }; done",
    )
    .unwrap();
    let protected = disturbed(few, async {
        let refused = || {
            let lines = std::fs::read_to_string(&refusals).unwrap_or_default();
            lines.lines().count()
        };
        let met = "every one to be refused";
        let met = wait_until(met, PATIENCE, async || Ok((refused() >= 4).then_some(())));
        met.await.unwrap();
        git.remove_hook().unwrap();
        refused()
    })
    .await;
    add(
        matrix,
        "the branch is protected for a while",
        protected,
        few,
    )
    .await;

    // Somebody rewrites the branch under everybody's feet: what was there is written again.
    let before = git.tip("main").await.unwrap().unwrap();
    few.publish().await;
    git.git(&["update-ref", "refs/heads/main", &before])
        .await
        .unwrap();
    few.versions -= 1;
    let took = timed(few).await;
    add(matrix, "the branch is rewound by force", (1, took), few).await;
}

/// All faults that publishing meets.
pub(crate) async fn under_fire() -> Matrix {
    let testbed = Arc::new(testbed().await);
    let git = &testbed.git;
    let declare = async || {
        let files = [("topology.yaml", "declared")];
        git.commit("main", &files, "declare").await.unwrap();
    };
    declare().await;
    let mut matrix = Matrix::default();
    crowds(&testbed, &mut matrix).await;

    // The few that follow write their directories on a new branch.
    let main = ["update-ref", "-d", "refs/heads/main"];
    git.git(&main).await.unwrap();
    declare().await;
    let way = FaultyWay::to(git.port()).await.unwrap();
    let url = format!("git://127.0.0.1:{}/federation.git", way.port());
    let mut few = Publishers::new(&testbed, "few", Place::Main, 4, &url);
    few.publish().await;
    failing_ways(&way, &mut few, &mut matrix).await;
    restarts(git, &mut few, &mut matrix).await;
    refusals(git, &mut few, &mut matrix).await;
    matrix
}
