//! Deletions that wait for somebody's word, and an overlay that is suspended.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc,
    thread,
};

use serde_json::{Value, json};
use trustweave_testbed::federation::{Federation, PATIENCE};

use super::{
    ONE, condition,
    overlay::{
        NAMESPACE, asked, config_map, declare, kubectl, live, prepared, ready, trustweave, until,
        value,
    },
};

/// `trustweave status --watch`, and what it shows.
struct Watching {
    program: Child,
    lines: mpsc::Receiver<String>,
}

impl Watching {
    fn start(federation: &Federation) -> Self {
        let mut program = asked(federation, &["status", "--watch", "--output=json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = BufReader::new(program.stdout.take().unwrap()).lines();
        let (told, lines) = mpsc::channel();
        thread::spawn(move || {
            shown
                .map_while(Result::ok)
                .try_for_each(|line| told.send(line))
        });
        Self { program, lines }
    }

    /// The next change.
    fn next(&self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(PATIENCE).unwrap()).unwrap()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.program.kill().unwrap();
        self.program.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_deletions_wait_for_a_word_and_a_suspended_overlay_stays_as_it_is() {
    let mut federation = prepared(0).await;
    federation.start_agent(ONE).unwrap();
    let names = ["one", "two", "three", "four", "kept"];
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"},
    })];
    objects.extend(names.map(|name| config_map(name, &json!({"a": "1"}))));
    objects[5]["metadata"]["annotations"] = json!({"trustweave.dev/prune": "disabled"});
    let commit = declare(&federation, &objects, &[], "Declare a shop").await;
    ready(&federation, &commit).await;

    // All of them at once, and a namespace: nothing goes until exactly this is acknowledged.
    let rest = [config_map("last", &json!({"a": "1"}))];
    declare(&federation, &rest, &[], "Close the shop").await;
    let status = until(&federation, "the deletions to wait", |status| {
        condition(status, "PruneAcknowledged")["status"] == "False"
    })
    .await;
    let told = condition(&status, "Ready")["message"].as_str().unwrap();
    assert!(told.contains("among them Namespace shop"), "{told}");
    let (_, words) = told.split_once("echo ").unwrap();
    let digest = words.split_whitespace().next().unwrap().to_owned();
    value(&federation, "one", "1").await;
    kubectl(&federation, &["get", "namespace", "shop"]).await;
    let path = "clusters/cluster-1/acknowledge.txt";
    let wrong = [(path, "0123456789ab\n")];
    let commit = declare(&federation, &rest, &wrong, "Acknowledge something else").await;
    until(&federation, "it to make no difference", |status| {
        status["revision"] == commit.as_str()
            && condition(status, "Ready")["reason"] == "PruneWaits"
    })
    .await;
    let line = format!("# The shop is closed.\n{digest} Ada\n");
    let commit = declare(&federation, &rest, &[(path, &line)], "Acknowledge").await;
    ready(&federation, &commit).await;
    let gone = [
        "get",
        "namespace",
        "shop",
        "--ignore-not-found",
        "--output=name",
    ];
    federation
        .until("the namespace to be gone", async || {
            Ok(kubectl(&federation, &gone).await.is_empty().then_some(()))
        })
        .await
        .unwrap();
    assert_eq!(live(&federation, "four").await, Value::Null);
    assert_eq!(live(&federation, "kept").await["data"]["a"], "1");

    // Whoever watches sees it come, one line for each change.
    let watching = Watching::start(&federation);
    let ready = watching.next();
    assert_eq!(condition(&ready["gitSync"], "Ready")["status"], "True");

    // Suspended: nothing is applied, and everybody is told why.
    let done = trustweave(&federation, &["suspend", "--reason", "the shop is counted"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    until(&federation, "the suspension to be told", |status| {
        let ready = condition(status, "Ready");
        ready["reason"] == "Suspended" && ready.to_string().contains("the shop is counted")
    })
    .await;
    while condition(&watching.next()["gitSync"], "Ready")["reason"] != "Suspended" {}
    drop(watching);
    let refused = trustweave(&federation, &["sync", "--wait"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let changed = [config_map("last", &json!({"a": "2"}))];
    let commit = declare(&federation, &changed, &[], "Change it").await;
    let edited = "{\"data\": {\"a\": \"by hand\"}}";
    let what = ["patch", "configmap", "last", "--namespace", NAMESPACE];
    kubectl(
        &federation,
        &[what.as_slice(), &["--patch", edited]].concat(),
    )
    .await;
    until(&federation, "the commit to be seen", |status| {
        status["revision"] == commit.as_str()
    })
    .await;
    assert_eq!(live(&federation, "last").await["data"]["a"], "by hand");

    // Resumed: a requested pass looks at the remote itself, and tells what came of it.
    let done = trustweave(&federation, &["resume"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let newest = [config_map("last", &json!({"a": "3"}))];
    let commit = declare(&federation, &newest, &[], "Change it again").await;
    let done = trustweave(&federation, &["sync", "--wait", "--output=json"]);
    let told = String::from_utf8_lossy(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{told} {done:?}");
    let status: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(status["revision"], commit.as_str());
    assert_eq!(live(&federation, "last").await["data"]["a"], "3");
}
