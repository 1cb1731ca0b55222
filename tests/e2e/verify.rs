//! `trustweave verify`: a federation that works is proven, also while an endpoint is cut and its keys rotate; one that
//! does not work is not.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
};

use serde_json::{Value, json};
use trustweave_testbed::{
    Distribution, Installed, ServerObjects,
    federation::{Federation, trust_domain},
};

use super::{ONE, TWO, asking, federated, overlay::trustweave, plan, progress, rotate};

/// What it says, and its exit code.
fn verified(federation: &Federation, arguments: &[&str]) -> (Option<i32>, Value) {
    let run = asking(federation, "verify")
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&run.stderr);
    let answer = serde_json::from_slice(&run.stdout)
        .map_err(|_| errors)
        .unwrap();
    (run.status.code(), answer)
}

/// The proof of one direction.
fn proof(answer: &Value, importer: &str, exporter: &str) -> Value {
    let (importer, exporter) = (trust_domain(importer), trust_domain(exporter));
    let mut proofs = answer["proofs"].as_array().unwrap().iter();
    let found = proofs
        .find(|it| it["importer"] == importer.as_str() && it["exporter"] == exporter.as_str());
    found.cloned().ok_or_else(|| format!("{answer:#}")).unwrap()
}

fn status<'a>(proof: &'a Value, claim: &str) -> &'a Value {
    let mut claims = proof["claims"].as_array().unwrap().iter();
    &claims.find(|it| it["claim"] == claim).unwrap()["status"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_federation_is_proven_also_by_git_alone() {
    let mut objects = ServerObjects::new(Distribution::Custom);
    objects.bundle_endpoint = true;
    let mut plan = plan().with_installed(&Installed::Objects(objects));
    (plan.endpoints, plan.workloads) = (true, true);
    let federation = federated(plan).await;
    let waited = trustweave(&federation, &["status", "--wait=60", "--output=wide"]);
    assert_eq!(waited.status.code(), Some(0), "{waited:?}");
    let (code, answer) = verified(&federation, &["--timeout=60"]);
    assert_eq!(code, Some(0), "{answer:#}");
    for (importer, exporter) in [(ONE, TWO), (TWO, ONE)] {
        let proof = proof(&answer, importer, exporter);
        assert_eq!(proof["byGitAlone"], false, "{proof:#}");
        assert_eq!(status(&proof, "served"), "proven", "{proof:#}");
    }

    // The endpoint is cut, and the key rotates.
    let mut declaration = federation.declaration(TWO).unwrap();
    declaration["spec"]["bundleEndpoint"]["url"] = json!("https://127.0.0.1:1");
    federation
        .declare(TWO, &declaration, "Move the endpoint to where nothing is")
        .await
        .unwrap();
    federation
        .until("both to be proven without the endpoint", async || {
            let (code, answer) = verified(&federation, &[]);
            let is_alone = proof(&answer, ONE, TWO)["byGitAlone"] == true;
            Ok((code == Some(0) && is_alone).then_some(()))
        })
        .await
        .unwrap();
    let mut waiting = asking(&federation, "verify")
        .args(["--timeout=120", "--rotation", &trust_domain(TWO)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(waiting.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("waiting for the next bundle") {
        line.clear();
        assert_ne!(
            told.read_line(&mut line).unwrap(),
            0,
            "it ended before it waited"
        );
    }
    rotate(&federation, TWO).await;
    let mut text = String::new();
    waiting
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(0), "{text}");
    let rotated: Value = serde_json::from_str(&text).unwrap();
    let before = proof(&answer, ONE, TWO);
    let after = proof(&rotated, ONE, TWO);
    assert_ne!(after["version"], before["version"]);
    assert_eq!(after["byGitAlone"], true, "{after:#}");
    assert_eq!(after["timeline"].as_array().unwrap().len(), 4, "{after:#}");
    progress(&format!("{after:#}"));

    // Without its agent nothing new arrives, and nothing is proven.
    federation.agent(ONE).unwrap().kill().unwrap();
    rotate(&federation, TWO).await;
    federation
        .until(
            "the cluster without an agent not to be proven",
            async || {
                let (code, answer) = verified(&federation, &[]);
                let proof = proof(&answer, ONE, TWO);
                let is_refuted = status(&proof, "delivered") == "refuted";
                Ok(
                    (code == Some(1) && is_refuted && status(&proof, "published") == "proven")
                        .then_some(()),
                )
            },
        )
        .await
        .unwrap();
}
