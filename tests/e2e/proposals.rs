//! An agent that asks people to merge what it publishes.

use std::fs;

use serde_json::{Value, json};
use trustweave_testbed::{
    federation::{Federation, trust_domain},
    forge::{Dialect, Forge, PROJECT, State},
};

use super::{ONE, TWO, condition, holds_current_keys, plan, progress, publication, rotate};

/// Waits until the condition `Published` of the first cluster has a reason; its message.
async fn published(federation: &Federation, reason: &str) -> String {
    federation
        .until(&format!("{reason} in {ONE}"), async || {
            let status = federation.status(ONE, "gitsync", "trustweave").await?;
            let told: &Value = condition(&status, "Published");
            anyhow::ensure!(told["reason"] == reason, "it says {told}");
            Ok(told["message"].as_str().map(str::to_owned))
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_merge_is_delivered_and_nothing_before() {
    let mut federation = Federation::prepare(plan(), &progress).await.unwrap();
    let testbed = &federation.testbed;
    let identity = testbed.web_identity().unwrap();
    let forge = Forge::start(Dialect::GitLab, testbed.git.path(), &identity, "glpat");
    let forge = forge.await.unwrap();
    let token = testbed.directory().join("forge-token");
    fs::write(&token, "glpat\n").unwrap();
    let authority = testbed.web_authority().to_owned();
    federation
        .configure(ONE, |configuration| {
            configuration["git"]["caFile"] = json!(authority);
            configuration["publish"] = json!({
                "branch": "pullRequest",
                "pullRequest": {
                    "forge": "gitlab", "apiUrl": forge.url(), "project": PROJECT, "tokenFile": token,
                },
            });
        })
        .unwrap();
    for name in [ONE, TWO] {
        federation.start_agent(name).unwrap();
    }
    let message = published(&federation, "ProposalOpen").await;
    let url = format!("https://forge.test/{PROJECT}/1");
    assert_eq!(
        message,
        format!("serial 1 waits to be merged in {url}; nothing stands yet")
    );
    let own = publication::branch(ONE);
    assert_eq!(federation.testbed.git.tip(&own).await.unwrap(), None);
    let peer = trust_domain(ONE);
    federation
        .until(
            &format!("{ONE} to wait for its publication in {TWO}"),
            async || {
                let status = federation.status(TWO, "trustpeer", &peer).await?;
                let accepted = condition(&status, "BundleAccepted");
                anyhow::ensure!(accepted["reason"] == "Unpublished", "it says {accepted}");
                Ok((status["phase"] == "Pending").then_some(()))
            },
        )
        .await
        .unwrap();

    forge.merge(1).await.unwrap();
    holds_current_keys(&federation, TWO, ONE).await;
    let message = published(&federation, "Published").await;
    assert_eq!(message, "serial 1 stands on main");
    federation.federated().await.unwrap();

    // A rotation waits again, and what stood stays in force.
    rotate(&federation, ONE).await;
    let message = published(&federation, "ProposalOpen").await;
    assert!(
        message.ends_with("/2; serial 1 stands on main"),
        "{message}"
    );
    forge.decline(2).unwrap();
    // Whoever starts again asks the forge, and does not ask people twice.
    let agent = federation.agent(ONE).unwrap();
    let patience = std::time::Duration::from_secs(30);
    agent.terminate(patience).await.unwrap();
    federation.start_agent(ONE).unwrap();
    published(&federation, "ProposalDeclined").await;
    let requests = forge.requests().await.unwrap();
    let states: Vec<State> = requests.iter().map(|it| it.state).collect();
    assert_eq!(states, [State::Merged, State::Closed]);
    forge.reopen(2);
    forge.merge(2).await.unwrap();
    holds_current_keys(&federation, TWO, ONE).await;
    published(&federation, "Published").await;
}
