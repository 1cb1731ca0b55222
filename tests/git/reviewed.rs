//! What is taken from the reviewed branch: pins, signatures; and the mirror's own life.

use std::fs;

use trustweave::{
    git::{Error, Mirror, Pin, Policy, Repository, Settings},
    model::repository::Revision,
};
use trustweave_testbed::Testbed;

use super::{change, file, key, mirror, put, request, reviewed_text, settings, testbed, with_main};

fn plain(testbed: &Testbed, name: &str) -> Settings {
    settings(testbed, testbed.git.url(), name)
}

async fn main_of(mirror: &Mirror) -> Result<String, Error> {
    let main = mirror.fetch().await?.main;
    Ok(main
        .map(|main| main.as_str().to_owned())
        .unwrap_or_default())
}

#[tokio::test]
async fn a_tag_or_a_commit_is_pinned() {
    let testbed = testbed().await;
    let git = &testbed.git;
    let commit =
        async |branch: &str, text: &str| git.commit(branch, &[("x", text)], text).await.unwrap();
    let first = commit("main", "one").await;
    git.git(&["tag", "light", &first]).await.unwrap();
    let second = commit("main", "two").await;
    git.git(&["tag", "-m", "annotated", "v2", &second])
        .await
        .unwrap();
    let third = commit("main", "three").await;
    let aside = commit("aside", "never reviewed").await;

    let pinned = |name: &str, pin: Pin| {
        let mut settings = plain(&testbed, name);
        settings.pin = Some(pin);
        mirror(settings)
    };
    let tag = |tag: &str| Pin::Tag(tag.to_owned());
    let at = |commit: &str| Pin::Commit(Revision::parse(commit).unwrap());
    for (name, pin, expected, text) in [
        ("light", tag("light"), &first, "one"),
        ("annotated", tag("v2"), &second, "two"),
        ("older", at(&first), &first, "one"),
        ("tip", at(&third), &third, "three"),
    ] {
        let mirror = pinned(name, pin);
        assert_eq!(main_of(&mirror).await.unwrap(), *expected, "{name}");
        assert_eq!(reviewed_text(&mirror, "x").await, text, "{name}");
        // It stays there, whatever is pushed, and publications go on.
        commit("main", name).await;
        let to = request(&format!("trustweave/{name}.test"), "", &key());
        mirror.publish(to, put("1")).await.unwrap();
        let heads = mirror.fetch().await.unwrap();
        assert_eq!(heads.main.unwrap().as_str(), expected.as_str(), "{name}");
        let own = format!("{name}.test").parse().unwrap();
        assert!(heads.publications.contains_key(&own), "{name}");
    }
    // A tag that is moved is followed; whether backwards is not decided here.
    let moving = pinned("moving", tag("v2"));
    assert_eq!(main_of(&moving).await.unwrap(), second);
    git.git(&["tag", "-f", "v2", &first]).await.unwrap();
    assert_eq!(main_of(&moving).await.unwrap(), first);
    git.git(&["tag", "-d", "v2"]).await.unwrap();
    assert_eq!(main_of(&moving).await.unwrap(), "");

    let error = main_of(&pinned("aside", at(&aside))).await.unwrap_err();
    assert!(matches!(error, Error::NotReviewed { .. }), "{error}");
}

#[tokio::test]
async fn only_a_signed_tip_is_taken() {
    let testbed = testbed().await;
    let (owner, other) = (key(), key());
    let signers = file(
        &testbed,
        "signers",
        &format!("owner@x {}\n", owner.public_key()),
    );
    let mut verified = plain(&testbed, "m");
    verified.policy = Policy::Head(signers.clone());
    let mirror = mirror(verified);
    let judgement = async || mirror.fetch().await.unwrap().unverified;

    // The mirror's own publications are signed: by them, somebody commits to the reviewed branch.
    let commit = async |key, text: &str| {
        let committed = mirror.publish(request("main", "", key), put(text)).await;
        committed.unwrap();
    };
    commit(&owner, "one").await;
    assert_eq!(judgement().await, None);
    commit(&other, "two").await;
    let unknown = judgement().await.unwrap();
    assert!(
        unknown.contains("not among the allowed signers"),
        "{unknown}"
    );
    commit(&owner, "three").await;
    assert_eq!(judgement().await, None);
    testbed
        .git
        .commit("main", &[("x", "x")], "unsigned")
        .await
        .unwrap();
    assert_eq!(judgement().await.unwrap(), "it is not signed");

    // A signature that was made for another commit.
    let signed = testbed
        .git
        .git(&["cat-file", "commit", "main~1"])
        .await
        .unwrap();
    let forged = file(
        &testbed,
        "forged",
        &signed.replace("publish three", "publish forty"),
    );
    let forged = [
        "hash-object",
        "-t",
        "commit",
        "-w",
        forged.to_str().unwrap(),
    ];
    let forged = testbed.git.git(&forged).await.unwrap();
    testbed
        .git
        .git(&["update-ref", "refs/heads/main", forged.trim()])
        .await
        .unwrap();
    let wrong = judgement().await.unwrap();
    assert!(wrong.contains("does not fit"), "{wrong}");

    // Another signer is allowed, and nobody any more, without a restart.
    commit(&other, "four").await;
    assert!(judgement().await.is_some());
    fs::write(&signers, format!("other@x {}\n", other.public_key())).unwrap();
    assert_eq!(judgement().await, None);
    fs::remove_file(&signers).unwrap();
    let nobody = judgement().await.unwrap();
    assert!(nobody.contains("allowed signers can't be read"), "{nobody}");

    // What is not taken can be read all the same, to see what is in force.
    assert!(mirror.fetch().await.unwrap().main.is_some());
}

#[tokio::test]
async fn a_mirror_that_has_grown_is_made_anew() {
    let testbed = with_main("0").await;
    let mut small = plain(&testbed, "m");
    small.max_files = 40;
    let directory = small.directory.clone();
    let mirror = mirror(small);
    mirror.fetch().await.unwrap();
    let packs = || {
        let packs = fs::read_dir(directory.join("objects/pack")).unwrap();
        packs.count()
    };
    let mut most = 0;
    for number in 1..=40 {
        let text = number.to_string();
        change(&testbed, &text).await;
        assert_eq!(reviewed_text(&mirror, "x").await, text);
        most = most.max(packs());
    }
    assert!((20..=44).contains(&most), "{most}");
    assert!(packs() < most, "{}", packs());
    assert!(!directory.with_added_extension("new").exists());
    // What was pushed from it, and what it was pushed onto, are whole.
    let to = request("trustweave/a.test", "", &key());
    mirror.publish(to, put("1")).await.unwrap();
    testbed.git.git(&["fsck", "--strict"]).await.unwrap();
}

/// What can happen to a pack.
type Damage = fn(&std::path::Path);

#[tokio::test]
async fn a_mirror_whose_packs_are_broken_is_made_anew() {
    let testbed = with_main("one").await;
    let settings = plain(&testbed, "m");
    let directory = settings.directory.clone();
    mirror(settings.clone()).fetch().await.unwrap();
    let truncate: Damage = |pack| {
        let file = fs::OpenOptions::new().write(true).open(pack).unwrap();
        file.set_len(30).unwrap();
    };
    let garble: Damage = |pack| {
        let mut content = fs::read(pack).unwrap();
        let end = content.len() - 20;
        content[12..end].fill(0xff);
        fs::write(pack, content).unwrap();
    };
    let remove: Damage = |pack| fs::remove_file(pack).unwrap();
    for (number, damage) in [truncate, garble, remove].into_iter().enumerate() {
        let text = format!("after damage {number}");
        change(&testbed, &text).await;
        mirror(settings.clone()).fetch().await.unwrap();
        for entry in fs::read_dir(directory.join("objects/pack")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "pack") {
                let mut permissions = fs::metadata(&path).unwrap().permissions();
                std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
                fs::set_permissions(&path, permissions).unwrap();
                damage(&path);
            }
        }
        // As after a restart: the first try may fail, the next one does not.
        let again = mirror(settings.clone());
        let mut found = None;
        for _ in 0..3 {
            let Ok(heads) = again.fetch().await else {
                continue;
            };
            if again.tree(heads.main.as_ref().unwrap()).await.is_ok() {
                found = Some(reviewed_text(&again, "x").await);
                break;
            }
        }
        assert_eq!(found.as_deref(), Some(text.as_str()), "{number}");
    }
}
