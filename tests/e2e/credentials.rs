//! Each agent has its own way to the repository, its own credentials for reading and for pushing, and takes only what
//! is signed, if it is told so.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use trustweave::git::SigningKey;
use trustweave_testbed::{
    GitRemote,
    federation::{Federation, trust_domain},
    git_https::{HttpsGit, Right},
    git_ssh::{Key, KeyKind, SshGit},
};

use super::{ONE, TWO, condition, held, holds_current_keys, in_force, own, plan, progress, rotate};

/// Commits what stands on main once more, signed.
async fn sign(git: &GitRemote, key: &SigningKey, directory: PathBuf) -> String {
    let tip = git.tip("main").await.unwrap().unwrap();
    let tree = git.git(&["rev-parse", "main^{tree}"]).await.unwrap();
    let tree = tree.trim();
    let who = "Owner <owner@trustweave.dev> 1700000000 +0000";
    let head = format!("tree {tree}\nparent {tip}\nauthor {who}\ncommitter {who}\n");
    let message = "\nTake all that\n";
    let signature = key
        .sign("git", format!("{head}{message}").as_bytes())
        .unwrap();
    let signature = signature.trim_end().replace('\n', "\n ");
    let path = directory.join("signed");
    fs::write(&path, format!("{head}gpgsig {signature}\n{message}")).unwrap();
    let arguments = ["hash-object", "-t", "commit", "-w", path.to_str().unwrap()];
    let commit = git.git(&arguments).await.unwrap().trim().to_owned();
    git.git(&["update-ref", "refs/heads/main", &commit])
        .await
        .unwrap();
    commit
}

/// The status of the answer to a webhook as GitLab sends it.
async fn webhook(port: u16, token: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!(
        "POST /webhook HTTP/1.1\r\nhost: agent\r\nconnection: close\r\ncontent-length: 2\r\n\
         x-gitlab-token: {token}\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

/// Waits until an agent says why it is not ready; in which commit it is.
async fn says(federation: &Federation, reason: &str, message: &str) -> Value {
    federation
        .until(&format!("{ONE} to say {reason}"), async || {
            let status = federation.status(ONE, "gitsync", "trustweave").await?;
            let ready = condition(&status, "Ready");
            let told = ready["message"].as_str().unwrap_or_default();
            let said = ready["reason"] == reason && told.contains(message);
            anyhow::ensure!(said, "{status:#}");
            Ok(Some(status["revision"].clone()))
        })
        .await
        .unwrap()
}

/// The servers that the agents reach main by, and what they know of them.
struct Ways {
    https: HttpsGit,
    /// Ends with it.
    _ssh: SshGit,
    owner: SigningKey,
    read_token: PathBuf,
    /// Where ONE hears webhooks.
    port: u16,
}

/// ONE reads by https only what is signed, and only when it is told to; TWO reads by ssh.
async fn configure(federation: &Federation) -> Ways {
    let testbed = &federation.testbed;
    let file = |name: &str, content: &str| {
        let path = testbed.directory().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let rights = [
        ("may-read", Right::Read),
        ("reads-later", Right::Read),
        ("may-push", Right::Write),
    ];
    let identity = testbed.web_identity().unwrap();
    let https = HttpsGit::start(testbed.git.path(), &identity, &rights)
        .await
        .unwrap();
    let ssh_key =
        |name: &str| Key::generate(&testbed.directory().join(name), KeyKind::Ed25519).unwrap();
    let (reader, writer) = (ssh_key("reader"), ssh_key("writer"));
    let rights = [(&reader, Right::Read), (&writer, Right::Write)];
    let ssh = SshGit::start(testbed, "ssh", &[KeyKind::Ed25519], &rights)
        .await
        .unwrap();
    let owner = SigningKey::generate("owner").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);

    let read_token = file("read-token", "may-read\n");
    let push_token = file("push-token", "may-push\n");
    let signers = file("signers", &format!("owner@x {}\n", owner.public_key()));
    let secret = file("secret", "hook\n");
    federation
        .configure(ONE, |configuration| {
            let git = &mut configuration["git"];
            git["url"] = https.url().into();
            git["caFile"] = json!(testbed.web_authority());
            git["basicAuth"] = json!({"username": "agent", "tokenFile": read_token});
            git["verify"] = json!({"mode": "head", "allowedSignersFile": signers});
            git["pollMilliseconds"] = json!(3_600_000);
            let token = json!({"username": "agent", "tokenFile": push_token});
            configuration["publish"]["basicAuth"] = token;
            let listen = format!("127.0.0.1:{port}");
            configuration["webhook"] = json!({"listen": listen, "secretFile": secret});
        })
        .unwrap();
    let known_hosts = file("known_hosts", &ssh.known_hosts().unwrap());
    federation
        .configure(TWO, |configuration| {
            configuration["git"]["url"] = ssh.url().into();
            configuration["git"]["ssh"] =
                json!({"keyFile": reader.file, "knownHostsFile": known_hosts});
            configuration["publish"]["ssh"] = json!({"keyFile": writer.file});
        })
        .unwrap();
    Ways {
        https,
        _ssh: ssh,
        owner,
        read_token,
        port,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_agent_has_its_own_way_in_and_takes_only_what_is_signed() {
    let mut federation = Federation::prepare(plan(), &progress).await.unwrap();
    let ways = configure(&federation).await;
    let (port, owner) = (ways.port, &ways.owner);
    for name in federation.names() {
        federation.start_agent(&name).unwrap();
    }

    // Nothing is in force yet, and nothing is signed.
    says(&federation, "PassFailed", "it is not signed").await;
    let git = &federation.testbed.git;
    let signed = sign(git, owner, federation.testbed.directory().to_owned()).await;
    in_force(&federation, TWO, &signed).await;
    assert_eq!(webhook(port, "nobody").await, "401");
    assert_eq!(webhook(port, "hook").await, "202");
    in_force(&federation, ONE, &signed).await;
    // What the other published meanwhile.
    federation
        .until("the other's first publication to arrive", async || {
            webhook(port, "hook").await;
            let peer = federation
                .status(ONE, "trustpeer", &trust_domain(TWO))
                .await?;
            Ok((peer["phase"] == "Federated").then_some(()))
        })
        .await
        .unwrap();
    federation.federated().await.unwrap();
    rotate(&federation, ONE).await;
    holds_current_keys(&federation, TWO, ONE).await;

    // Somebody who may push, but not sign: what was in force stays, and publications get in.
    let unsigned = git
        .commit("main", &[("README.md", "unsigned")], "not signed")
        .await
        .unwrap();
    in_force(&federation, TWO, &unsigned).await;
    assert_eq!(webhook(port, "hook").await, "202");
    assert_eq!(says(&federation, "Unverified", &unsigned).await, *signed);
    rotate(&federation, TWO).await;
    let keys = own(&federation, TWO).await;
    federation
        .until("the other's next publication to arrive", async || {
            webhook(port, "hook").await;
            let held = held(&federation, ONE, TWO).await;
            Ok(held.filter(|held| held.same_keys(&keys)).map(drop))
        })
        .await
        .unwrap();
    let signed = sign(git, owner, federation.testbed.directory().to_owned()).await;

    // A rotated token is used at once, and leads to a look.
    fs::write(&ways.read_token, "reads-later\n").unwrap();
    in_force(&federation, ONE, &signed).await;
    let asked = ways.https.asked();
    let shown = |push: bool| {
        let of_them = asked.iter().filter(move |it| it.push == push);
        let mut shown: Vec<_> = of_them.filter_map(|it| it.password.as_deref()).collect();
        shown.dedup();
        shown
    };
    assert_eq!(shown(false), ["may-read", "reads-later"]);
    assert_eq!(shown(true), ["may-push"]);
}
