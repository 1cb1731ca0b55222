//! The port on a real `git daemon`. (Shallow fetches do not work over `file://`.)

use std::{fs, path::PathBuf};

use ssh_key::{Algorithm, LineEnding, PrivateKey, rand_core::OsRng};
use tokio::runtime::Handle;
use trustweave_testbed::Testbed;

use super::*;
use crate::model::repository::Entry;

/// A bare repository served over the network, gone when dropped.
struct Remote(Testbed);

impl Remote {
    async fn start() -> Self {
        Self(Testbed::start(&[], &|_| ()).await.unwrap())
    }

    /// A path for files of the test's own.
    fn path(&self, name: &str) -> PathBuf {
        self.0.directory().join(name)
    }

    async fn git(&self, arguments: &[&str]) -> String {
        let output = self.0.git.git(arguments).await.unwrap();
        output.trim().to_owned()
    }

    /// Commits a file on a branch, behind the back of everybody.
    async fn commit(&self, branch: &str, path: &str, content: &str) -> String {
        let files = [(path, content)];
        self.0.git.commit(branch, &files, content).await.unwrap()
    }

    fn mirror(&self, name: &str) -> Mirror {
        Mirror::new(Settings::new(self.0.git.url(), "main", self.path(name))).unwrap()
    }
}

fn key() -> SigningKey {
    let key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap();
    SigningKey::from_openssh(&key.to_openssh(LineEnding::LF).unwrap()).unwrap()
}

fn request(branch: &str, directory: &str, key: &SigningKey) -> Publish {
    Publish {
        branch: branch.to_owned(),
        directory: RepoPath::parse(directory).unwrap(),
        author: Author {
            name: "agent".to_owned(),
            email: "agent@example.com".to_owned(),
            seconds: 1_700_000_000,
        },
        key: key.clone(),
    }
}

fn draft(content: &str) -> Draft {
    let files = BTreeMap::from([("bundle.json".to_owned(), content.as_bytes().to_vec())]);
    Draft {
        files,
        message: format!("publish {content}\n"),
    }
}

/// Writes the content, unless it stands there already.
fn put(content: &str) -> impl FnMut(&Tip) -> Option<Draft> + Send {
    move |tip| {
        let standing = tip.files.get("bundle.json").map(Vec::as_slice);
        (standing != Some(content.as_bytes())).then(|| draft(content))
    }
}

#[tokio::test]
async fn follows_the_remote() {
    let remote = Remote::start().await;
    let mirror = remote.mirror("m");
    assert_eq!(mirror.fetch().await.unwrap(), Heads::default());

    let first = remote.commit("main", "a/x.yaml", "one").await;
    remote
        .commit("trustweave/b.test", "bundle.json", "{}")
        .await;
    remote.commit("other", "y", "y").await;
    let heads = mirror.fetch().await.unwrap();
    assert_eq!(heads.main.as_ref().unwrap().as_str(), first);
    assert_eq!(heads.publications.len(), 1);
    assert_eq!(mirror.fetch().await.unwrap(), heads);

    remote.commit("main", "a/link", "two").await;
    let heads = mirror.fetch().await.unwrap();
    let tree = mirror.tree(heads.main.as_ref().unwrap()).await.unwrap();
    assert_eq!(
        tree.text(&RepoPath::parse("a/x.yaml").unwrap()).unwrap(),
        "one"
    );
    assert_eq!(
        tree.text(&RepoPath::parse("a/link").unwrap()).unwrap(),
        "two"
    );

    // A branch that is rewritten is followed, one that is removed is forgotten.
    remote.git(&["update-ref", "refs/heads/main", &first]).await;
    remote
        .git(&["update-ref", "-d", "refs/heads/trustweave/b.test"])
        .await;
    let heads = mirror.fetch().await.unwrap();
    assert_eq!(heads.main.unwrap().as_str(), first);
    assert!(heads.publications.is_empty());
}

#[tokio::test]
async fn symbolic_links_are_seen_but_not_followed() {
    let remote = Remote::start().await;
    let work = remote.path("work");
    fs::create_dir(&work).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", work.join("link.yaml")).unwrap();
    let commit = remote.0.git.commit_directory("main", &work, "link");
    commit.await.unwrap();
    let mirror = remote.mirror("m");
    let main = mirror.fetch().await.unwrap().main.unwrap();
    let tree = mirror.tree(&main).await.unwrap();
    assert_eq!(
        tree.get(&RepoPath::parse("link.yaml").unwrap()),
        Some(&Entry::Symlink)
    );
}

#[tokio::test]
async fn publishes_signed_and_only_what_is_new() {
    let remote = Remote::start().await;
    let (mirror, key) = (remote.mirror("m"), key());
    let to = |directory| request("trustweave/a.test", directory, &key);
    let first = mirror.publish(to(""), put("1")).await.unwrap();
    assert!(matches!(first, Published::Committed { attempts: 1, .. }));
    assert_eq!(
        mirror.publish(to(""), put("1")).await.unwrap(),
        Published::Unchanged
    );
    mirror.publish(to(""), put("2")).await.unwrap();
    assert_eq!(
        remote
            .git(&["rev-list", "--count", "trustweave/a.test"])
            .await,
        "2"
    );
    assert_eq!(
        remote.git(&["show", "trustweave/a.test:bundle.json"]).await,
        "2"
    );

    remote.git(&["fsck", "--strict"]).await;
    let commit = remote
        .git(&["cat-file", "commit", "trustweave/a.test"])
        .await;
    assert!(
        commit.contains("gpgsig -----BEGIN SSH SIGNATURE-----"),
        "{commit}"
    );
    let signers = remote.path("signers");
    fs::write(
        &signers,
        format!("agent@example.com {}\n", key.public_key()),
    )
    .unwrap();
    let signers = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    remote
        .git(&["-c", &signers, "verify-commit", "trustweave/a.test"])
        .await;
}

#[tokio::test]
async fn a_refusal_is_told_in_the_servers_words_and_never_taken_for_success() {
    let remote = Remote::start().await;
    let (mirror, key) = (remote.mirror("m"), key());
    let hook = "echo 'bundles are frozen today' >&2; exit 1";
    remote.0.git.pre_receive_hook(hook).unwrap();
    let error = mirror
        .publish(request("trustweave/a.test", "", &key), put("1"))
        .await
        .unwrap_err();
    assert!(!error.is_retryable());
    assert!(
        error.to_string().contains("bundles are frozen today"),
        "{error}"
    );
    assert!(remote.git(&["for-each-ref"]).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_that_loses_the_race_is_composed_anew() {
    let remote = Remote::start().await;
    remote
        .commit("main", "trust-domains/a.test/trust-domain.yaml", "declared")
        .await;
    let (mirror, key) = (remote.mirror("m"), key());
    let mut tips = Vec::new();
    let outcome = mirror
        .publish(request("main", "trust-domains/a.test", &key), |tip| {
            if tips.is_empty() {
                let commit = remote.commit("main", "elsewhere", "meanwhile");
                tokio::task::block_in_place(|| Handle::current().block_on(commit));
            }
            tips.push(tip.revision.clone());
            Some(draft("1"))
        })
        .await
        .unwrap();
    assert!(
        matches!(outcome, Published::Committed { attempts: 2, .. }),
        "{outcome:?}"
    );
    assert_ne!(tips[0], tips[1]);
    assert_eq!(remote.git(&["show", "main:elsewhere"]).await, "meanwhile");
    assert_eq!(
        remote
            .git(&["show", "main:trust-domains/a.test/trust-domain.yaml"])
            .await,
        "declared"
    );
    assert_eq!(
        remote
            .git(&["show", "main:trust-domains/a.test/bundle.json"])
            .await,
        "1"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_agents_on_one_branch_lose_nothing() {
    let remote = Remote::start().await;
    remote.commit("main", "topology.yaml", "declared").await;
    let key = key();
    let mut agents = tokio::task::JoinSet::new();
    for agent in 0..10 {
        let mirror = remote.mirror(&format!("m{agent}"));
        let request = request("main", &format!("trust-domains/td{agent}"), &key);
        agents.spawn(async move { mirror.publish(request, put("1")).await });
    }
    while let Some(outcome) = agents.join_next().await {
        assert!(matches!(
            outcome.unwrap().unwrap(),
            Published::Committed { .. }
        ));
    }
    assert_eq!(remote.git(&["rev-list", "--count", "main"]).await, "11");
    for agent in 0..10 {
        assert_eq!(
            remote
                .git(&["show", &format!("main:trust-domains/td{agent}/bundle.json")])
                .await,
            "1"
        );
    }
}

#[tokio::test]
async fn a_remote_that_is_down_is_no_reason_to_give_up() {
    let remote = Remote::start().await;
    remote.commit("main", "x", "x").await;
    let mirror = remote.mirror("m");
    let main = mirror.fetch().await.unwrap().main.unwrap();
    remote.0.git.stop().await.unwrap();
    let error = mirror.fetch().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(mirror.tree(&main).await.is_ok());
}

#[tokio::test]
async fn a_mirror_that_is_broken_is_made_anew() {
    let remote = Remote::start().await;
    remote.commit("main", "x", "x").await;
    let directory = remote.path("m");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("HEAD"), "nonsense").unwrap();
    assert!(remote.mirror("m").fetch().await.unwrap().main.is_some());
}

#[tokio::test]
async fn a_first_fetch_that_was_cut_off_is_made_again() {
    let remote = Remote::start().await;
    for content in ["one", "two"] {
        remote.commit("main", "x", content).await;
    }
    let (directory, key) = (remote.path("m"), key());
    assert!(remote.mirror("m").fetch().await.unwrap().main.is_some());
    // A killed process: the objects are there, the boundary of the shallow history is not.
    fs::remove_file(directory.join("shallow")).unwrap();
    let kept = fs::read_to_string(directory.join("config")).unwrap();
    let unfinished: Vec<_> = kept
        .lines()
        .filter(|line| !line.contains("mirrors"))
        .collect();
    fs::write(directory.join("config"), unfinished.join("\n")).unwrap();
    let outcome = remote
        .mirror("m")
        .publish(request("trustweave/a.test", "", &key), put("1"))
        .await;
    assert!(
        matches!(outcome, Ok(Published::Committed { .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_mirror_that_lost_objects_is_made_anew_by_the_next_try() {
    let remote = Remote::start().await;
    for content in ["one", "two"] {
        remote.commit("main", "x", content).await;
    }
    let (mirror, key) = (remote.mirror("m"), key());
    mirror.fetch().await.unwrap();
    fs::remove_file(remote.path("m").join("shallow")).unwrap();
    let mirror_again = remote.mirror("m");
    let publish = async || {
        mirror_again
            .publish(request("trustweave/a.test", "", &key), put("1"))
            .await
    };
    let first = publish().await;
    assert!(first.as_ref().is_err_and(Error::is_retryable), "{first:?}");
    let second = publish().await;
    assert!(
        matches!(second, Ok(Published::Committed { .. })),
        "{second:?}"
    );
}

/// What a mirror has of the branch of `a.test`.
async fn published(mirror: &Mirror) -> Result<BTreeMap<String, Entry>, Error> {
    let heads = mirror.fetch().await.unwrap();
    assert!(heads.main.is_some());
    mirror
        .publication(&heads.publications[&"a.test".parse().unwrap()])
        .await
}

#[tokio::test]
async fn what_is_pushed_to_a_publications_branch_stops_nothing_else() {
    let remote = Remote::start().await;
    let git = &remote.0.git;
    let branch = "trustweave/a.test";
    let main = remote.commit("main", "x", "x").await;
    let (mirror, key) = (remote.mirror("m"), key());
    let honest = remote.commit(branch, "bundle.json", "1").await;
    let expected = BTreeMap::from([(
        "bundle.json".to_owned(),
        Entry::File(b"1".as_slice().into()),
    )]);
    assert_eq!(published(&mirror).await.unwrap(), expected);

    // More files than any tree is read with, and names that are no text.
    let names: Vec<String> = (0..60_000).map(|n| format!("{n}/{n}")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    git.commit(branch, &files, "many").await.unwrap();
    assert_eq!(published(&mirror).await.unwrap(), expected);

    let large = "x".repeat(3 << 20);
    remote.commit(branch, "bundle.json", &large).await;
    let found = published(&mirror).await.unwrap();
    assert_eq!(found["bundle.json"], Entry::TooLarge(3 << 20));

    // A commit that only git can read.
    let tree = remote
        .git(&["rev-parse", &format!("{honest}^{{tree}}")])
        .await;
    let path = remote.path("commit");
    fs::write(
        &path,
        format!("tree {tree}\nauthor nobody\n\nno committer\n"),
    )
    .unwrap();
    let arguments = ["hash-object", "-t", "commit", "-w", "--literally"];
    let path = path.to_str().unwrap();
    let broken = remote.git(&[&arguments[..], &[path]].concat()).await;
    remote
        .git(&["update-ref", &format!("refs/heads/{branch}"), &broken])
        .await;
    assert!(published(&mirror).await.is_err());
    assert_eq!(
        mirror
            .tree(&Revision::parse(&main).unwrap())
            .await
            .unwrap()
            .iter()
            .count(),
        1
    );
    let newer = remote.commit("main", "y", "y").await;
    let heads = mirror.fetch().await.unwrap();
    assert_eq!(heads.main.unwrap().as_str(), newer);

    let other = mirror.publish(request("trustweave/b.test", "", &key), put("1"));
    assert!(other.await.is_ok());
    assert!(
        mirror
            .publish(request(branch, "", &key), put("2"))
            .await
            .is_ok()
    );
    let found = published(&mirror).await.unwrap();
    assert_eq!(found["bundle.json"], Entry::File(b"2".as_slice().into()));

    // A branch below the name: git has room for one of them only.
    remote
        .git(&["update-ref", "-d", &format!("refs/heads/{branch}")])
        .await;
    remote
        .commit("trustweave/a.test/x", "bundle.json", "2")
        .await;
    let heads = mirror.fetch().await.unwrap();
    assert!(heads.publications.keys().all(|it| it.as_str() == "b.test"));
    let request = request(branch, "", &key);
    assert!(mirror.publish(request.clone(), put("3")).await.is_err());
    remote
        .git(&["update-ref", "-d", "refs/heads/trustweave/a.test/x"])
        .await;
    assert!(mirror.publish(request, put("3")).await.is_ok());
}
