//! Reading and pushing have credentials of their own.

use serde_json::json;
use trustweave_testbed::{
    federation::Federation,
    git_https::{HttpsGit, Right},
};

use super::{ONE, holds_current_keys, plan, progress, rotate};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pushes_show_the_token_that_may_push() {
    let mut federation = Federation::prepare(plan(), &progress).await.unwrap();
    let testbed = &federation.testbed;
    let server = HttpsGit::start(
        testbed.git.path(),
        &testbed.web_identity().unwrap(),
        &[("may-read", Right::Read), ("may-push", Right::Write)],
    )
    .await
    .unwrap();
    let authority = testbed.web_authority().display().to_string();
    let token = |name: &str| {
        let path = testbed.directory().join(name);
        std::fs::write(&path, format!("{name}\n")).unwrap();
        json!({"username": "agent", "tokenFile": path})
    };
    let (read, push) = (token("may-read"), token("may-push"));
    federation
        .configure(ONE, |configuration| {
            configuration["git"]["url"] = server.url().into();
            configuration["git"]["basicAuth"] = read;
            configuration["publish"]["basicAuth"] = push;
        })
        .unwrap();
    federation.environment = vec![("SSL_CERT_FILE".to_owned(), authority)];
    for name in federation.names() {
        federation.start_agent(&name).unwrap();
    }
    federation.federated().await.unwrap();
    rotate(&federation, ONE).await;
    holds_current_keys(&federation, super::TWO, ONE).await;

    let asked = server.asked();
    let shown = |push: bool| {
        let of_them = asked.iter().filter(move |it| it.push == push);
        of_them
            .filter_map(|it| it.password.as_deref())
            .collect::<Vec<_>>()
    };
    let (reads, pushes) = (shown(false), shown(true));
    assert!(!reads.is_empty() && !pushes.is_empty(), "{asked:?}");
    assert!(reads.iter().all(|it| *it == "may-read"), "{reads:?}");
    assert!(pushes.iter().all(|it| *it == "may-push"), "{pushes:?}");
}
