//! The keys that sign: made by the agent itself, and replaced by others.

use std::{fs, process::Command};

use serde_json::{Value, json};
use trustweave::{git::SigningKey, model::attestation};
use trustweave_testbed::federation::{Federation, trust_domain};

use super::{
    ONE, TWO, condition, federated, holds_current_keys, in_force, plan, progress, publication,
    rules::{Rule, shows},
};

/// The public key that the agent of a cluster reports.
async fn reported(federation: &Federation, cluster: &str) -> String {
    federation
        .until("the signer in the status", async || {
            let status = federation.status(cluster, "gitsync", "trustweave").await?;
            Ok(status["signer"].as_str().map(str::to_owned))
        })
        .await
        .unwrap()
}

/// Declares these signers for a cluster's trust domain.
async fn declare(federation: &Federation, cluster: &str, signers: &[&str]) -> String {
    let mut declaration = federation.declaration(cluster).unwrap();
    declaration["spec"]["signers"] = json!(signers);
    federation
        .declare(cluster, &declaration, "Change the signers")
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_makes_its_key_once_and_keeps_it() {
    let _shown = shows(&[Rule::Signers]);
    let mut plan = plan();
    plan.signing_secret = true;
    let mut federation = Federation::start(plan, &progress).await.unwrap();
    // What to declare is read from the status.
    let mut keys = Vec::new();
    for cluster in [ONE, TWO] {
        let key = reported(&federation, cluster).await;
        declare(&federation, cluster, &[&key]).await;
        keys.push(key);
    }
    federation.federated().await.unwrap();
    holds_current_keys(&federation, ONE, TWO).await;

    let secret: Value = {
        let cluster = federation.testbed.cluster(ONE).unwrap();
        let arguments = ["get", "secret", "trustweave-signing", "--output=json"];
        let namespace = ["--namespace=trustweave-system"];
        let object = cluster
            .kubectl(&[&arguments[..], &namespace[..]].concat())
            .await
            .unwrap();
        serde_json::from_str(&object).unwrap()
    };
    let data = secret["data"].as_object().unwrap();
    assert!(
        data.keys().eq(["id_ed25519", "id_ed25519.pub"]),
        "{:?}",
        data.keys()
    );

    // The command line proposes it, too.
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let proposed = Command::new(env!("CARGO_BIN_EXE_trustweave"))
        .args(["init", "--from-cluster", "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .output()
        .unwrap();
    let text = String::from_utf8(proposed.stdout).unwrap();
    assert!(text.contains(&format!("    - {}\n", keys[0])), "{text}");
    assert!(text.contains(&trust_domain(ONE)), "{text}");
    let notes = String::from_utf8(proposed.stderr).unwrap();
    assert!(!notes.contains("the signer is not known"), "{notes}");

    // Neither a restart nor the loss of the status changes it.
    let agent = federation.agent(ONE).unwrap();
    agent
        .terminate(std::time::Duration::from_secs(30))
        .await
        .unwrap();
    let cluster = federation.testbed.cluster(ONE).unwrap();
    cluster
        .kubectl(&["delete", "gitsync", "trustweave"])
        .await
        .unwrap();
    federation.start_agent(ONE).unwrap();
    assert_eq!(reported(&federation, ONE).await, keys[0]);
    let branch = publication::branch(ONE);
    assert_eq!(federation.testbed.git.log(&branch).await.unwrap().len(), 1);

    // The private half is in no log.
    let log = fs::read_to_string(federation.log(ONE).unwrap()).unwrap();
    assert!(log.contains("made a signing key"), "{log}");
    assert!(!log.contains("PRIVATE KEY"));
    assert!(!log.contains(data["id_ed25519"].as_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_secret_is_taken_up_without_a_restart() {
    let _shown = shows(&[Rule::Signers]);
    let mut plan = plan();
    plan.signing_secret = true;
    let federation = Federation::start(plan, &progress).await.unwrap();
    let first = reported(&federation, ONE).await;
    let other = SigningKey::generate("other").unwrap();
    let patch = json!({"stringData": {"id_ed25519": other.to_openssh().unwrap().as_str()}});
    let cluster = federation.testbed.cluster(ONE).unwrap();
    cluster
        .kubectl(&[
            "patch",
            "secret",
            "trustweave-signing",
            "--namespace=trustweave-system",
            &format!("--patch={patch}"),
        ])
        .await
        .unwrap();
    federation
        .until("the other key to be reported", async || {
            let signer = reported(&federation, ONE).await;
            Ok((signer == other.public_key()).then_some(()))
        })
        .await
        .unwrap();
    assert_ne!(first, other.public_key());
    assert!(federation.agent(ONE).unwrap().is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_of_signing_keys_in_the_documented_order_is_never_refused() {
    let _shown = shows(&[Rule::Signers]);
    let federation = federated(plan()).await;
    let git = &federation.testbed.git;
    let branch = publication::branch(TWO);
    let signer = federation.signer(TWO).unwrap();
    let (old, file) = (signer.public.clone(), signer.private.clone());
    let new = SigningKey::generate("new").unwrap();

    // 1. Both keys are declared.
    let commit = declare(&federation, TWO, &[&old, &new.public_key()]).await;
    in_force(&federation, ONE, &commit).await;
    in_force(&federation, TWO, &commit).await;
    assert_eq!(git.log(&branch).await.unwrap().len(), 1);

    // 2. The agent signs with the new one: what stands is signed again, once, and taken.
    fs::write(&file, new.to_openssh().unwrap().as_bytes()).unwrap();
    federation
        .until("the publication to be signed by the new key", async || {
            let signature = git.show(&branch, "bundle.attestation.json.sig").await?;
            let files = [("bundle.attestation.json.sig".to_owned(), signature.into())];
            let signer = attestation::signer(&files.into());
            Ok(signer.filter(|signer| new.is(signer)).map(drop))
        })
        .await
        .unwrap();
    let delivered = |version: &str| {
        let version = version.to_owned();
        move |status: &Value| {
            status["version"] == version.as_str()
                && status["phase"] == "Federated"
                && condition(status, "BundleAccepted")["status"] == "True"
        }
    };
    federation
        .peer_until(ONE, TWO, "the second serial", delivered("0.2"))
        .await
        .unwrap();

    // 3. The old one is gone from the declaration: that changes nothing.
    let commit = declare(&federation, TWO, &[&new.public_key()]).await;
    in_force(&federation, ONE, &commit).await;
    in_force(&federation, TWO, &commit).await;
    federation
        .peer_until(ONE, TWO, "the second serial still", delivered("0.2"))
        .await
        .unwrap();
    assert_eq!(git.log(&branch).await.unwrap().len(), 2);
    holds_current_keys(&federation, ONE, TWO).await;

    // A refusal would be a change of a condition, and so an event.
    let cluster = federation.testbed.cluster(ONE).unwrap();
    let events = cluster
        .kubectl(&["get", "events", "--all-namespaces", "--output=json"])
        .await
        .unwrap();
    assert!(!events.contains("UnknownSigner"), "{events}");
    let log = fs::read_to_string(federation.log(ONE).unwrap()).unwrap();
    assert!(!log.contains("not among the declared signers"), "{log}");
}
