//! What is never delivered: forged, broken, empty, foreign and old bundles. The relationship that is there stays as
//! it is, to the byte.

use std::fs;

use serde_json::{Value, json};
use trustweave::{
    git::SigningKey,
    model::attestation::{Attestation, NAMESPACE, Serial},
    model::bundle::{Bundle, Digest},
};
use trustweave_testbed::{
    federation::{Federation, trust_domain},
    ssh_key,
};

use super::{
    ONE, TWO, condition, federated, held, holds_current_keys, own, plan, relationship, rotate,
    rules::{Rule, shows},
};

/// What stands on the branch of the second cluster, to be tampered with.
struct Standing {
    bundle: Vec<u8>,
    attestation: Attestation,
    key: SigningKey,
    branch: String,
}

impl Standing {
    async fn read(federation: &Federation) -> Self {
        let branch = format!("trustweave/{}", trust_domain(TWO));
        let git = &federation.testbed.git;
        let attestation = git.show(&branch, "bundle.attestation.json").await.unwrap();
        let key = fs::read_to_string(&federation.signer(TWO).unwrap().private).unwrap();
        Self {
            bundle: git.show(&branch, "bundle.json").await.unwrap().into_bytes(),
            attestation: serde_json::from_str(&attestation).unwrap(),
            key: SigningKey::from_openssh(&key).unwrap(),
            branch,
        }
    }

    /// The files of a publication of other bytes under another serial, signed with a key.
    fn files(&self, bundle: &[u8], serial: u64, key: &SigningKey) -> Vec<(&'static str, String)> {
        let mut attestation = self.attestation.clone();
        attestation.serial = Serial(serial);
        attestation.sha256 = Digest::of(bundle);
        let statement = attestation.to_bytes();
        let signature = key.sign(NAMESPACE, &statement).unwrap();
        vec![
            ("bundle.json", String::from_utf8(bundle.to_vec()).unwrap()),
            (
                "bundle.attestation.json",
                String::from_utf8(statement).unwrap(),
            ),
            ("bundle.attestation.json.sig", signature),
        ]
    }
}

/// What somebody might put on the branch, and the reason for which it is refused.
fn forgeries(
    federation: &Federation,
    standing: &Standing,
    old: &Bundle,
    own_bundle: &Bundle,
) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let stranger = ssh_key(federation.testbed.directory(), "stranger").unwrap();
    let stranger = fs::read_to_string(stranger.private).unwrap();
    let stranger = SigningKey::from_openssh(&stranger).unwrap();
    let key = &standing.key;
    let empty = b"{\"keys\": [], \"spiffe_sequence\": 9}\n".as_slice();
    let broken = b"{\"keys\": [{\"use\": \"x509-svid\"}]}\n".as_slice();
    let own_bundle = own_bundle.canonical();
    let unsigned = {
        let mut files = standing.files(&standing.bundle, 3, key);
        files.truncate(2);
        files
    };
    let tampered = {
        let mut files = standing.files(&standing.bundle, 3, key);
        files[0].1.push('\n');
        files
    };
    let other_td = {
        let mut other: Value = serde_json::from_slice(&standing.attestation.to_bytes()).unwrap();
        other["trustDomain"] = json!(trust_domain(ONE));
        other["serial"] = json!(3);
        let statement = format!("{other:#}\n");
        let signature = key.sign(NAMESPACE, statement.as_bytes()).unwrap();
        vec![
            (
                "bundle.json",
                String::from_utf8(standing.bundle.clone()).unwrap(),
            ),
            ("bundle.attestation.json", statement),
            ("bundle.attestation.json.sig", signature),
        ]
    };
    vec![
        ("MissingFile", unsigned),
        ("OtherDigest", tampered),
        (
            "UnknownSigner",
            standing.files(&standing.bundle, 3, &stranger),
        ),
        ("InvalidBundle", standing.files(empty, 3, key)),
        ("OtherTrustDomain", other_td),
        ("InvalidBundle", standing.files(broken, 3, key)),
        ("Rollback", standing.files(&old.canonical(), 1, key)),
        ("InvalidBundle", standing.files(&own_bundle, 3, key)),
        ("Equivocation", standing.files(&old.canonical(), 2, key)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_is_not_the_peers_newest_is_never_delivered() {
    let _shown = shows(&[Rule::Watermark, Rule::Refusal]);
    let federation = federated(plan()).await;
    // The second delivery makes the first one old.
    let old = own(&federation, TWO).await;
    rotate(&federation, TWO).await;
    holds_current_keys(&federation, ONE, TWO).await;
    federation
        .peer_until(ONE, TWO, "serial 2 to be reported", |status| {
            status["version"] == "0.2"
        })
        .await
        .unwrap();

    // From here on somebody else writes the branch: the agent would repair it.
    federation.agent(TWO).unwrap().kill().unwrap();
    let standing = Standing::read(&federation).await;
    let newest = own(&federation, TWO).await;
    let before = relationship(&federation, ONE, TWO).await;
    let own_bundle = own(&federation, ONE).await;
    let cases = forgeries(&federation, &standing, &old, &own_bundle);
    for (reason, files) in cases {
        let git = &federation.testbed.git;
        git.delete(
            &standing.branch,
            &["bundle.attestation.json.sig"],
            "Make room",
        )
        .await
        .unwrap();
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(name, content)| (*name, content.as_str()))
            .collect();
        git.commit(&standing.branch, &files, reason).await.unwrap();
        federation
            .peer_until(ONE, TWO, &format!("the reason {reason}"), |status| {
                let accepted = condition(status, "BundleAccepted");
                accepted["status"] == "False" && accepted["reason"] == reason
            })
            .await
            .unwrap();
        let after = relationship(&federation, ONE, TWO).await;
        assert_eq!(after, before, "{reason}");
        let held = held(&federation, ONE, TWO).await.unwrap();
        assert!(held.same_keys(&newest), "{reason}: SPIRE holds other keys");
        let status = federation
            .status(ONE, "trustpeer", &trust_domain(TWO))
            .await
            .unwrap();
        assert_eq!(status["phase"], "Federated", "{reason}");
    }

    // The agent comes back, replaces what is not its own, and trust goes on under a higher serial.
    let mut federation = federation;
    federation.start_agent(TWO).unwrap();
    federation
        .peer_until(ONE, TWO, "the bundle to be accepted again", |status| {
            condition(status, "BundleAccepted")["status"] == "True"
        })
        .await
        .unwrap();
    holds_current_keys(&federation, ONE, TWO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_a_hook_refuses_is_reported_in_the_servers_words() {
    let _shown = shows(&[Rule::OwnBranch]);
    let federation = federated(plan()).await;
    let git = &federation.testbed.git;
    git.pre_receive_hook("echo 'bundles are frozen today' >&2; exit 1")
        .unwrap();
    rotate(&federation, TWO).await;
    federation
        .until("the refusal to be reported", async || {
            let status = federation.status(TWO, "gitsync", "trustweave").await?;
            let published = condition(&status, "Published");
            let told = published["message"].as_str().unwrap_or_default();
            Ok(
                (published["status"] == "False" && told.contains("bundles are frozen today"))
                    .then_some(()),
            )
        })
        .await
        .unwrap();
    let branch = format!("trustweave/{}", trust_domain(TWO));
    assert_eq!(git.log(&branch).await.unwrap().len(), 1);
    let status = federation
        .status(TWO, "gitsync", "trustweave")
        .await
        .unwrap();
    assert_eq!(status["published"]["serial"], 1);

    // Nobody has to do anything but lift the refusal.
    git.remove_hook().unwrap();
    holds_current_keys(&federation, ONE, TWO).await;
    federation
        .until("the success to be reported", async || {
            let status = federation.status(TWO, "gitsync", "trustweave").await?;
            let published = status["published"]["serial"] == 2;
            Ok((published && condition(&status, "Published")["status"] == "True").then_some(()))
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_consent_nothing_is_delivered_and_the_status_says_whose_move_it_is() {
    let _shown = shows(&[Rule::Consent, Rule::Held]);
    let mut federation = Federation::prepare(plan(), &super::progress).await.unwrap();
    let mut declaration = federation.declaration(TWO).unwrap();
    declaration["spec"]["consent"]["export"] = json!([]);
    federation
        .declare(TWO, &declaration, "Export to nobody")
        .await
        .unwrap();
    for name in [ONE, TWO] {
        federation.start_agent(name).unwrap();
    }
    let status = federation
        .peer_until(ONE, TWO, "the missing consent to be reported", |status| {
            condition(status, "Consented")["status"] == "False"
        })
        .await
        .unwrap();
    assert_eq!(status["phase"], "Pending");
    let message = status["message"].as_str().unwrap();
    let expected = format!(
        "the owners of `{}` must add `{}` to consent.export",
        trust_domain(TWO),
        trust_domain(ONE)
    );
    assert_eq!(message, expected);
    // The other direction is nobody's loss.
    federation
        .peer_until(TWO, ONE, "the other direction to be Federated", |status| {
            status["phase"] == "Federated"
        })
        .await
        .unwrap();
    assert!(held(&federation, ONE, TWO).await.is_none());
    // The workload that wants the peer keeps its identity without it.
    let frontend = federation
        .testbed
        .cluster(ONE)
        .unwrap()
        .kubectl(&["get", "clusterspiffeid", "frontend-client", "--output=json"])
        .await
        .unwrap();
    let frontend: Value = serde_json::from_str(&frontend).unwrap();
    assert_eq!(
        frontend["spec"]
            .get("federatesWith")
            .cloned()
            .unwrap_or(json!([])),
        json!([])
    );

    let agreed = federation.declaration(TWO).unwrap();
    federation
        .declare(TWO, &agreed, "Export to the first cluster")
        .await
        .unwrap();
    federation.federated().await.unwrap();
    holds_current_keys(&federation, ONE, TWO).await;
}
