//! Every way to a repository, each against a real server.

use std::{fs, path::Path};

use trustweave::git::{
    Access, BasicAuth, Credentials, Error, Mirror, Proxy, Published, Repository, Settings,
};
use trustweave_testbed::{
    Testbed,
    git_https::{HttpsGit, Right},
    git_ssh::{Key, KeyKind, SshGit},
    proxy::HttpProxy,
};

use super::{change, file, key, mirror, put, request, reviewed_text, settings, told, with_main};

const KINDS: [KeyKind; 3] = [KeyKind::Ed25519, KeyKind::Ecdsa, KeyKind::Rsa];

fn with_key(testbed: &Testbed, server: &SshGit, name: &str, key: &Key) -> Settings {
    let known_hosts = server.known_hosts().unwrap();
    let mut settings = settings(testbed, server.url(), name);
    settings.access = Access {
        read: Some(Credentials::Key(key.file.clone())),
        known_hosts: Some(file(testbed, &format!("{name}-known-hosts"), &known_hosts)),
        ..Access::default()
    };
    settings
}

async fn publish(mirror: &Mirror, content: &str) -> Result<Published, Error> {
    let key = key();
    let request = request("trustweave/a.test", "", &key);
    mirror.publish(request, put(content)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_ssh_with_keys_of_every_kind() {
    let testbed = with_main("one").await;
    let keys: Vec<Key> = KINDS
        .iter()
        .enumerate()
        .map(|(number, kind)| {
            let file = testbed.directory().join(format!("key-{number}"));
            Key::generate(&file, *kind).unwrap()
        })
        .collect();
    let reader = Key::generate(&testbed.directory().join("reader"), KeyKind::Ed25519).unwrap();
    let stranger = Key::generate(&testbed.directory().join("stranger"), KeyKind::Ed25519).unwrap();
    let mut rights: Vec<_> = keys.iter().map(|key| (key, Right::Write)).collect();
    rights.push((&reader, Right::Read));
    let server = SshGit::start(&testbed, "ssh", &KINDS, &rights)
        .await
        .unwrap();

    for (number, key) in keys.iter().enumerate() {
        let name = format!("m{number}");
        let mirror = mirror(with_key(&testbed, &server, &name, key));
        assert_eq!(
            reviewed_text(&mirror, "x").await,
            "one",
            "{}",
            server.log().unwrap()
        );
        let published = publish(&mirror, &name).await;
        assert!(
            matches!(published, Ok(Published::Committed { .. })),
            "{published:?}"
        );
        let standing = testbed.git.show("trustweave/a.test", "bundle.json").await;
        assert_eq!(standing.unwrap(), name);
    }

    // A key that may read, and one that may push.
    let mut split = with_key(&testbed, &server, "split", &reader);
    let read_only = mirror(split.clone());
    assert_eq!(reviewed_text(&read_only, "x").await, "one");
    assert!(publish(&read_only, "refused").await.is_err());
    split.access.write = Some(Credentials::Key(keys[0].file.clone()));
    // A mirror of its own: the other one goes on in the former directory.
    split.directory.set_extension("write");
    let taken = publish(&mirror(split), "taken").await;
    assert!(taken.is_ok(), "{}", told(&taken.unwrap_err()));

    let unknown = mirror(with_key(&testbed, &server, "unknown", &stranger));
    let error = told(&unknown.fetch().await.unwrap_err());
    assert!(error.contains("refused the ssh key"), "{error}");

    // A key that is replaced in its file is used by the next connection.
    fs::copy(&keys[0].file, &stranger.file).unwrap();
    assert_eq!(reviewed_text(&unknown, "x").await, "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_ssh_only_to_a_host_that_is_known() {
    let testbed = with_main("one").await;
    let in_testbed = |name: &str| testbed.directory().join(name);
    let key = Key::generate(&in_testbed("key"), KeyKind::Ed25519).unwrap();
    let other = Key::generate(&in_testbed("other"), KeyKind::Ed25519).unwrap();
    let rights = [(&key, Right::Write)];
    let server = SshGit::start(&testbed, "ssh", &[KeyKind::Ed25519], &rights)
        .await
        .unwrap();
    let settings = with_key(&testbed, &server, "m", &key);
    let known_hosts = settings.access.known_hosts.clone().unwrap();
    let good = fs::read_to_string(&known_hosts).unwrap();
    let mirror = mirror(settings);
    let refused = async |content: &str, why: &str| {
        fs::write(&known_hosts, content).unwrap();
        for error in [
            mirror.fetch().await.unwrap_err(),
            publish(&mirror, "secret").await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::HostKey { .. }), "{}", told(&error));
            assert!(!error.is_retryable());
            let error = told(&error);
            assert!(error.contains(why), "{error}");
        }
    };
    refused("", "the host is not known: [127.0.0.1]:").await;
    let changed = server.known_by(&other).unwrap();
    refused(&changed, "has changed: it showed ssh-ed25519 SHA256:").await;
    let revoked = format!("{good}@revoked {good}");
    refused(&revoked, "which the known_hosts file revokes").await;
    // Nobody got as far as to prove who they are.
    let log = server.log().unwrap();
    assert!(!log.contains("Accepted publickey"), "{log}");

    // What is repaired is used by the next connection, hashed or not.
    fs::write(&known_hosts, &good).unwrap();
    assert_eq!(reviewed_text(&mirror, "x").await, "one");
    let hash = ["-q", "-H", "-f", known_hosts.to_str().unwrap()];
    testbed
        .run(Path::new("/usr/bin/ssh-keygen"), hash)
        .await
        .unwrap();
    assert!(
        !fs::read_to_string(&known_hosts)
            .unwrap()
            .contains("127.0.0.1")
    );
    assert_eq!(reviewed_text(&mirror, "x").await, "one");
    assert!(publish(&mirror, "1").await.is_ok());
}

fn with_token(testbed: &Testbed, url: &str, name: &str, token: &Path) -> Settings {
    let mut settings = settings(testbed, url, name);
    settings.access.read = Some(Credentials::Basic(BasicAuth {
        username: "agent".to_owned(),
        token_file: token.to_owned(),
    }));
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_https_with_a_token_an_own_authority_and_a_proxy() {
    let testbed = with_main("one").await;
    let rights = [("old", Right::Write), ("new", Right::Write)];
    let server = HttpsGit::start(
        testbed.git.path(),
        &testbed.web_identity().unwrap(),
        &rights,
    )
    .await
    .unwrap();
    let token = file(&testbed, "token", "old\n");

    // Nobody knows the authority yet.
    let mut settings = with_token(&testbed, server.url(), "m", &token);
    let untrusting = mirror(settings.clone());
    let error = told(&untrusting.fetch().await.unwrap_err());
    assert!(error.contains("SSL certificate is invalid"), "{error}");
    assert!(server.asked().is_empty());
    settings.access.authorities = Some(file(&testbed, "ca.pem", "nonsense"));
    let trusting = mirror(settings.clone());
    let error = told(&trusting.fetch().await.unwrap_err());
    assert!(
        error.contains("ca.pem` holds no certificate authority"),
        "{error}"
    );
    // As a Secret that is put right: no restart.
    fs::copy(testbed.web_authority(), testbed.directory().join("ca.pem")).unwrap();
    assert_eq!(reviewed_text(&trusting, "x").await, "one");
    assert!(publish(&trusting, "1").await.is_ok());

    // A token that is rotated in its file.
    fs::write(&token, "wrong").unwrap();
    let error = told(&trusting.fetch().await.unwrap_err());
    assert!(error.contains("the server refused the token"), "{error}");
    fs::write(&token, "new").unwrap();
    assert!(publish(&trusting, "2").await.is_ok());
    let shown = server
        .asked()
        .into_iter()
        .filter_map(|asked| asked.password);
    let mut shown: Vec<_> = shown.collect();
    shown.dedup();
    assert_eq!(shown, ["old", "wrong", "new"]);

    // Through a proxy that wants to know who asks.
    let proxy = HttpProxy::start("proxy", "pass").await.unwrap();
    let pass = file(&testbed, "proxy-token", "nobody");
    settings.access.proxy = Some(Proxy {
        url: proxy.url().to_owned(),
        auth: Some(BasicAuth {
            username: "proxy".to_owned(),
            token_file: pass.clone(),
        }),
    });
    let behind = mirror(settings);
    assert!(behind.fetch().await.is_err());
    assert!(proxy.connected().is_empty());
    fs::write(&pass, "pass\n").unwrap();
    assert_eq!(reviewed_text(&behind, "x").await, "one");
    assert!(publish(&behind, "3").await.is_ok());
    let connected = proxy.connected();
    assert!(!connected.is_empty());
    assert!(
        connected.iter().all(|to| server.url().contains(to)),
        "{connected:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_only_read() {
    let testbed = with_main("one").await;
    let url = format!("file://{}", testbed.git.path().display());
    let mirror = mirror(settings(&testbed, &url, "m"));
    assert_eq!(reviewed_text(&mirror, "x").await, "one");
    change(&testbed, "two").await;
    assert_eq!(reviewed_text(&mirror, "x").await, "two");
    let error = publish(&mirror, "1").await.unwrap_err();
    assert!(error.to_string().contains("only read"), "{error}");
    assert!(
        testbed
            .git
            .tip("trustweave/a.test")
            .await
            .unwrap()
            .is_none()
    );
}

/// A poll that finds nothing new asks for the references, once, and for nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_repository_costs_one_listing() {
    let testbed = with_main("one").await;
    let identity = testbed.web_identity().unwrap();
    let rights = [("token", Right::Read)];
    let server = HttpsGit::start(testbed.git.path(), &identity, &rights)
        .await
        .unwrap();
    let token = file(&testbed, "token", "token");
    let mut settings = with_token(&testbed, server.url(), "m", &token);
    settings.access.authorities = Some(testbed.web_authority().to_owned());
    let mirror = mirror(settings);
    let heads = mirror.fetch().await.unwrap();
    let answered = || {
        server
            .asked()
            .iter()
            .filter(|it| it.password.is_some())
            .count()
    };
    let before = answered();
    assert_eq!(mirror.fetch().await.unwrap(), heads);
    assert_eq!(answered() - before, 1, "{:?}", server.asked());
}
