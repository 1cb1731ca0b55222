//! What is never delivered: forged, broken, empty, foreign and old bundles. The relationship that is there stays as
//! it is, to the byte.

use serde_json::{Value, json};
use trustweave::model::{
    attestation::Serial, bundle::Bundle, repository::publication, trust_domain::TrustDomain,
};
use trustweave_testbed::federation::{Federation, trust_domain};

use super::{
    ONE, TWO, condition, federated, held, holds_current_keys, own, plan,
    publication::{Publication, branch, commit, signing_key, stranger},
    relationship, rotate,
    rules::{Rule, shows},
};

/// The files of a publication by name.
type Files = Vec<(&'static str, Vec<u8>)>;

/// What somebody might put on the branch, and the reason for which it is refused.
fn forgeries(
    federation: &Federation,
    standing: &Publication,
    old: &Bundle,
    own_bundle: &Bundle,
) -> Vec<(&'static str, Files)> {
    let key = &signing_key(federation, TWO);
    let same = |serial, key| standing.of(standing.bundle.clone(), serial, key);
    let other = |bundle: &[u8], serial| standing.of(bundle.to_vec(), serial, key);
    let empty = b"{\"keys\": [], \"spiffe_sequence\": 9}\n".as_slice();
    let broken = b"{\"keys\": [{\"use\": \"x509-svid\"}]}\n".as_slice();
    let unsigned = {
        let mut files = files(&same(3, key));
        files.truncate(2);
        files
    };
    let mut tampered = same(3, key);
    tampered.bundle.push(b'\n');
    let name = TrustDomain::parse(&trust_domain(ONE)).unwrap();
    let other_td = standing.stating(key, |it| (it.trust_domain, it.serial) = (name, Serial(3)));
    let signed = [
        ("OtherDigest", tampered),
        ("UnknownSigner", same(3, &stranger(federation))),
        ("InvalidBundle", other(empty, 3)),
        ("OtherTrustDomain", other_td),
        ("InvalidBundle", other(broken, 3)),
        ("Rollback", other(&old.canonical(), 1)),
        ("InvalidBundle", other(&own_bundle.canonical(), 3)),
        ("Equivocation", other(&old.canonical(), 2)),
    ];
    let signed = signed.iter().map(|(reason, it)| (*reason, files(it)));
    std::iter::once(("MissingFile", unsigned))
        .chain(signed)
        .collect()
}

fn files(publication: &Publication) -> Files {
    let files = publication.files().into_iter();
    files
        .map(|(name, content)| (name, content.to_vec()))
        .collect()
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
    let standing = Publication::read(&federation, TWO).await;
    let newest = own(&federation, TWO).await;
    let before = relationship(&federation, ONE, TWO).await;
    let own_bundle = own(&federation, ONE).await;
    let cases = forgeries(&federation, &standing, &old, &own_bundle);
    let branch = branch(TWO);
    for (reason, files) in cases {
        let git = &federation.testbed.git;
        git.delete(&branch, &[publication::SIGNATURE], "Make room")
            .await
            .unwrap();
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(name, content)| (*name, content.as_slice()))
            .collect();
        commit(&federation, &branch, &files, reason).await;
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
    let branch = branch(TWO);
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
