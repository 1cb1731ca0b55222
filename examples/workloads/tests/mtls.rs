//! The workloads under real SPIRE: two trust domains, an agent in each, and mutual TLS between them.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]
#![expect(
    clippy::print_stderr,
    reason = "a slow first build must be seen to progress"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use trustweave_testbed::{Process, Spire, Testbed, federation::cluster_spec, wait_until};

/// How long SPIRE's agents may take to show workloads what the servers have.
const SOON: Duration = Duration::from_secs(40);

struct Scene {
    testbed: Testbed,
}

impl Scene {
    fn server(&self) -> &Spire {
        &self.testbed.cluster("server").unwrap().spire
    }

    fn client(&self) -> &Spire {
        &self.testbed.cluster("client").unwrap().spire
    }

    /// Starts a workload in front of a SPIRE's agent.
    fn start(&self, name: &str, spire: &Spire, arguments: &[&str]) -> Process {
        let socket = format!("unix://{}", spire.workload_socket().display());
        let environment = [("SPIFFE_ENDPOINT_SOCKET", socket.as_str())];
        let program = Path::new(env!("CARGO_BIN_EXE_example-workloads"));
        let log = self.log(name);
        self.testbed
            .spawn(name, program, arguments, environment, &log)
            .unwrap()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.testbed.directory().join(format!("{name}.log"))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    /// Waits for a line of a workload.
    async fn printed(&self, name: &str, text: &str) -> String {
        self.printed_after(0, name, text).await
    }

    /// Waits for a line that is not there yet.
    async fn prints(&self, name: &str, text: &str) -> String {
        self.printed_after(self.read(name).len(), name, text).await
    }

    async fn printed_after(&self, position: usize, name: &str, text: &str) -> String {
        let what = format!("{name} to print `{text}`");
        let line = wait_until(&what, SOON, async || {
            let log = self.read(name);
            let line = log[position..].lines().find(|line| line.contains(text));
            anyhow::ensure!(line.is_some(), "it printed:\n{log}");
            Ok(line.map(str::to_owned))
        });
        line.await.unwrap()
    }

    /// Gives one SPIRE the other's current bundle.
    async fn carry(&self, from: &Spire, to: &Spire) {
        let bundle = from.own_bundle().await.unwrap();
        to.set_federated_bundle(from.trust_domain(), &bundle)
            .await
            .unwrap();
    }

    /// Replaces the authority of the server's trust domain, step by step as people do, until nothing is left of the
    /// old one.
    async fn rotate(&self) {
        let (server, client) = (self.server(), self.client());
        let shown = server.server(&["localauthority", "x509", "show", "-output", "json"]);
        let shown: Value = serde_json::from_str(&shown.await.unwrap()).unwrap();
        let old = shown["active"]["authority_id"].as_str().unwrap();
        let step = async |verb| {
            let arguments = ["localauthority", "x509", verb, "-authorityID", old];
            server.server(&arguments).await.unwrap();
        };
        server.rotate_x509().await.unwrap();
        self.carry(server, client).await;
        self.have_roots(2).await;
        server.activate_prepared_x509().await.unwrap();
        let before = certificate(server).await.unwrap();
        step("taint").await;
        let replaced = wait_until("the agent to replace the certificate", SOON, async || {
            Ok((certificate(server).await? != before).then_some(()))
        });
        replaced.await.unwrap();
        step("revoke").await;
        self.carry(server, client).await;
        self.have_roots(1).await;
    }

    /// Waits until workloads on both sides have that many roots of the server's trust domain.
    async fn have_roots(&self, number: usize) {
        let trust_domain = self.server().trust_domain();
        for spire in [self.server(), self.client()] {
            let what = format!("a workload to have {number} roots of {trust_domain}");
            let seen = wait_until(&what, SOON, async || {
                let view = spire.workload_view().await?;
                let seen = view.x509.get(trust_domain).map(BTreeSet::len);
                anyhow::ensure!(seen == Some(number), "it has {seen:?}");
                Ok(Some(()))
            });
            seen.await.unwrap();
        }
    }
}

/// A workload's certificate.
async fn certificate(spire: &Spire) -> anyhow::Result<Value> {
    let answer = spire.agent(&["api", "fetch", "x509", "-output", "json"]);
    let answer: Value = serde_json::from_str(&answer.await?)?;
    Ok(answer["svids"][0]["x509_svid"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_and_client_know_each_other_across_trust_domains() {
    let specs = ["server", "client"].map(cluster_spec);
    let testbed = Testbed::start(&specs, &|line| eprintln!("{line}"));
    let scene = Scene {
        testbed: testbed.await.unwrap(),
    };
    let (server, client) = (scene.server(), scene.client());
    for (one, other) in [(server, client), (client, server)] {
        one.start_agent().await.unwrap();
        scene.carry(one, other).await;
    }

    // Without a registration there is no identity, and nobody is served.
    let arguments = ["backend-server", "--listen=127.0.0.1:0"];
    let running = scene.start("server", server, &arguments);
    scene
        .printed("server", "no registration matches this workload (yet)")
        .await;
    server
        .workload_entry(&[client.trust_domain()])
        .await
        .unwrap();
    let line = scene.printed("server", "listening on ").await;
    let url = format!("https://{}/", line.trim_start_matches("listening on "));

    // A client whose registration does not federate trusts nobody there, and says so.
    client.workload_entry(&[]).await.unwrap();
    let url = format!("--url={url}");
    let expected = format!("--server={}", server.workload_id());
    let arguments = ["frontend-client", &url, &expected, "--every=1"];
    let calling = scene.start("client", client, &arguments);
    let untrusted = format!("{} is not trusted here", server.trust_domain());
    scene.prints("client", &untrusted).await;

    // Federated, it is answered, without a restart; each knows who the other is.
    client
        .workload_entry(&[server.trust_domain()])
        .await
        .unwrap();
    let line = scene.prints("client", "ok ").await;
    assert!(line.contains(&server.workload_id()), "{line}");
    assert!(
        line.contains(&format!("hello {}", client.workload_id())),
        "{line}"
    );
    scene
        .printed("server", &format!("answered {}", client.workload_id()))
        .await;

    // All keys of the server's trust domain are replaced, and not one call fails.
    let before = scene.read("client").len();
    scene.rotate().await;
    scene.prints("client", "ok ").await;
    let meanwhile = scene.read("client")[before..].to_owned();
    assert!(!meanwhile.contains("failed"), "{meanwhile}");

    // Another server than the one that was asked for is nobody.
    let other = format!("--server=spiffe://{}/other", server.trust_domain());
    let once = scene.start("once", client, &["frontend-client", &url, &other, "--once"]);
    scene
        .printed(
            "once",
            &format!("is {}, which is not allowed", server.workload_id()),
        )
        .await;
    assert!(!once.wait(SOON).await.unwrap().success());

    // A server whose trust domain does not trust the client's lets it not in, and both say why.
    let empty = json!({"keys": []});
    server
        .set_federated_bundle(client.trust_domain(), &empty)
        .await
        .unwrap();
    let untrusted = format!("{} is not trusted here", client.trust_domain());
    scene.prints("server", &untrusted).await;
    scene
        .prints("client", "the other side refused this workload")
        .await;
    scene.carry(client, server).await;
    scene.prints("client", "ok ").await;

    for process in [calling, running] {
        let ended = process.terminate(Duration::from_secs(5)).await.unwrap();
        assert!(ended.success(), "{ended}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_names_its_clients_lets_nobody_else_in() {
    let specs = [cluster_spec("server")];
    let testbed = Testbed::start(&specs, &|line| eprintln!("{line}"));
    let scene = Scene {
        testbed: testbed.await.unwrap(),
    };
    let spire = scene.server();
    spire.start_agent().await.unwrap();
    spire.workload_entry(&[]).await.unwrap();
    for (name, allowed, answered) in [
        (
            "other",
            "spiffe://apps.server.devcluster.openshift.com/other",
            false,
        ),
        ("foreign", "foreign.test", false),
        (
            "own",
            "foreign.test,apps.server.devcluster.openshift.com",
            true,
        ),
    ] {
        let allow = format!("--allow={allowed}");
        let _server = scene.start(
            name,
            spire,
            &["backend-server", "--listen=127.0.0.1:0", &allow],
        );
        let line = scene.printed(name, "listening on ").await;
        let url = format!(
            "--url=https://{}/",
            line.trim_start_matches("listening on ")
        );
        let expected = format!("--server={}", spire.workload_id());
        let arguments = ["frontend-client", &url, &expected, "--once"];
        let client = format!("client-of-{name}");
        let once = scene.start(&client, spire, &arguments);
        let code = once.wait(SOON).await.unwrap();
        let (said, refused) = (scene.read(&client), scene.read(name));
        assert_eq!(code.success(), answered, "{said}");
        let why = format!(
            "the other side is {}, which is not allowed",
            spire.workload_id()
        );
        assert_eq!(refused.contains(&why), !answered, "{refused}");
    }
}
