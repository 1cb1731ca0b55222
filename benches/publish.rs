//! A hundred agents that publish at once, against as many `git push` of the same, in one run.
//!
//! `cargo bench --bench publish [-- PUBLISHERS]`.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::{process::Command, task::JoinSet};
use trustweave::{
    git::{Author, Draft, Mirror, Publish, Published, Repository as _, Settings, SigningKey, Tip},
    model::repository::RepoPath,
};
use trustweave_testbed::{Testbed, ssh_key};

/// How long one publisher may take, beside all others on a small machine.
const PATIENCE: Duration = Duration::from_mins(5);

/// How large a file is, in bytes: a bundle with two X.509 authorities and two JWT keys has about as many.
const SIZE: usize = 4_000;

fn main() -> anyhow::Result<()> {
    let publishers = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok());
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(publishers.unwrap_or(100)))
}

async fn run(publishers: usize) -> anyhow::Result<()> {
    let testbed = Testbed::start(&[], &|line| println!("{line}")).await?;
    let git = &testbed.git;
    git.commit("main", &[("README", "what people write")], "Begin")
        .await?;
    let key = ssh_key(testbed.directory(), "publisher")?;
    let key = std::fs::read_to_string(&key.private)?;
    let bench = Bench {
        key: SigningKey::from_openssh(&key)?,
        url: git.url().to_owned(),
        directory: testbed.directory().to_owned(),
        publishers,
    };
    println!("\n{publishers} publishers at once, a signed commit of {SIZE} bytes each");
    println!(
        "{:45} {:>8} {:>8} {:>5} {:>8}",
        "", "SECONDS", "COMMITS", "LOST", "DOUBLED"
    );
    for (what, place) in [
        ("agents, each its own branch", Place::Own),
        ("agents, all one branch", Place::Main),
    ] {
        let took = bench.agents(place).await?;
        let (mut commits, mut lost, mut doubled) = (0, 0, 0);
        for publisher in 0..publishers {
            let (branch, directory) = place.of(publisher);
            let path = Path::new(&directory).join("bundle.json");
            let range = format!("refs/heads/{branch}");
            let path = path.to_string_lossy().into_owned();
            let log = git
                .git(&["log", "--format=%H", &range, "--", &path])
                .await?;
            let count = log.lines().count();
            commits += count;
            lost += usize::from(count == 0);
            doubled += count.saturating_sub(1);
        }
        line(what, took, commits, lost, doubled);
        ensure!(
            lost + doubled == 0,
            "not every publication stands there once"
        );
    }
    let took = bench.pushes(&testbed).await?;
    let branches = git.git(&["branch", "--list", "pushed/*"]).await?;
    let count = branches.lines().count();
    line(
        "git push, each its own branch",
        took,
        count,
        publishers - count,
        0,
    );
    Ok(())
}

fn line(what: &str, took: Duration, commits: usize, lost: usize, doubled: usize) {
    let seconds = took.as_secs_f32();
    println!("{what:45} {seconds:>8.2} {commits:>8} {lost:>5} {doubled:>8}");
}

/// Where publishers write.
#[derive(Clone, Copy)]
enum Place {
    Own,
    Main,
}

impl Place {
    fn of(self, publisher: usize) -> (String, String) {
        match self {
            Self::Own => (format!("trustweave/td{publisher}.test"), String::new()),
            Self::Main => (
                "main".to_owned(),
                format!("trust-domains/td{publisher}.test"),
            ),
        }
    }
}

struct Bench {
    key: SigningKey,
    url: String,
    directory: PathBuf,
    publishers: usize,
}

impl Bench {
    /// Agents that know the repository as it was, as after a quiet night.
    async fn agents(&self, place: Place) -> anyhow::Result<Duration> {
        let mut mirrors = Vec::new();
        for publisher in 0..self.publishers {
            let (branch, directory) = place.of(publisher);
            let name = format!("{}-{publisher}", branch.replace('/', "-"));
            let mut settings = Settings::new(&self.url, "main", self.directory.join(name));
            settings.deadline = PATIENCE;
            let mirror = Mirror::new(settings)?;
            mirror.fetch().await?;
            let request = Publish {
                branch,
                directory: RepoPath::parse(&directory).unwrap_or(RepoPath::ROOT),
                author: Author {
                    name: format!("trustweave {publisher}"),
                    email: "agent@trustweave.dev".to_owned(),
                    seconds: 1_700_000_000,
                },
                key: self.key.clone(),
            };
            mirrors.push((Arc::new(mirror), request));
        }
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for (publisher, (mirror, request)) in mirrors.into_iter().enumerate() {
            tasks.spawn(async move { publish(&mirror, &request, publisher).await });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(begun.elapsed())
    }

    /// The same commits made and pushed by git, each from a clone of its own.
    async fn pushes(&self, testbed: &Testbed) -> anyhow::Result<Duration> {
        let mut clones = Vec::new();
        for publisher in 0..self.publishers {
            let clone = self.directory.join(format!("clone-{publisher}"));
            let source = testbed.git.path().to_string_lossy().into_owned();
            let target = clone.to_string_lossy().into_owned();
            git(
                &self.directory,
                &[
                    "clone",
                    "--quiet",
                    "--bare",
                    "--depth=1",
                    &format!("file://{source}"),
                    &target,
                ],
            )
            .await?;
            clones.push(clone);
        }
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for (publisher, clone) in clones.into_iter().enumerate() {
            let (key, url) = (self.directory.join("publisher"), self.url.clone());
            tasks.spawn(async move {
                let file = clone.join("content");
                std::fs::write(&file, content(publisher))?;
                let file = file.to_string_lossy().into_owned();
                let blob = git(&clone, &["hash-object", "-w", &file]).await?;
                let tree = format!("100644 blob {}\tbundle.json\n", blob.trim());
                let tree = with_input(&clone, &["mktree"], tree).await?;
                let key = format!("user.signingKey={}", key.display());
                let sign = [
                    "-c",
                    "gpg.format=ssh",
                    "-c",
                    &key,
                    "commit-tree",
                    "-S",
                    "-m",
                    "Publish",
                    tree.trim(),
                ];
                let commit = git(&clone, &sign).await?;
                let refspec = format!("{}:refs/heads/pushed/{publisher}", commit.trim());
                git(&clone, &["push", "--quiet", &url, &refspec]).await?;
                anyhow::Ok(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(begun.elapsed())
    }
}

/// As an agent does: again until it stands there.
async fn publish(mirror: &Mirror, request: &Publish, publisher: usize) -> anyhow::Result<()> {
    let compose = |tip: &Tip| {
        let (name, content) = ("bundle.json".to_owned(), content(publisher));
        (tip.files.get(&name) != Some(&content)).then(|| Draft {
            files: BTreeMap::from([(name, content)]),
            message: format!("Publish the bundle of {publisher}"),
        })
    };
    let end = Instant::now() + PATIENCE;
    loop {
        match mirror.publish(request.clone(), compose).await {
            Ok(Published::Committed { .. } | Published::Unchanged) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error.into()),
            Err(_) => {}
        }
    }
}

fn content(publisher: usize) -> Vec<u8> {
    let text = format!("{publisher} ");
    text.bytes().cycle().take(SIZE).collect()
}

async fn git(directory: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    with_input(directory, arguments, String::new()).await
}

async fn with_input(directory: &Path, arguments: &[&str], input: String) -> anyhow::Result<String> {
    use tokio::io::AsyncWriteExt as _;
    let mut child = Command::new("git")
        .args([
            "-c",
            "user.name=bench",
            "-c",
            "user.email=bench@trustweave.dev",
        ])
        .args(arguments)
        .current_dir(directory)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no input")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {arguments:?}: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}
