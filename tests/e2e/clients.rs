//! What a workload's own software does when the bundle of a peer is empty, which is how a peer is distrusted:
//! `docs/empty-bundles.md` tells it to people.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use trustweave_testbed::{
    Cluster, ClusterSpec, SpireVersion, Testbed, authority::Authority, binaries::WorkloadClients,
    federation::cluster_spec, wait_until,
};

use super::{
    progress,
    rules::{Rule, shows},
};

const PEER: &str = "peer.test";

/// How long SPIRE's agent may take to show a workload what the server has.
const SOON: Duration = Duration::from_secs(40);

/// One SPIRE whose workload federates with a trust domain that exists as a bundle only.
struct Scene<'a> {
    testbed: &'a Testbed,
    cluster: &'a Cluster,
    clients: &'a WorkloadClients,
    /// A certificate of the peer.
    certificate: PathBuf,
    own: String,
}

impl Scene<'_> {
    /// Sets the peer's bundle, and waits until a workload has that many of its roots.
    async fn set_bundle(&self, bundle: &Value, roots: usize) {
        let spire = &self.cluster.spire;
        spire.set_federated_bundle(PEER, bundle).await.unwrap();
        let what = format!(
            "a workload of {} to have {roots} roots of the peer",
            self.own
        );
        wait_until(&what, SOON, async || {
            let view = spire.workload_view().await?;
            let seen = view.x509.get(PEER).map(BTreeSet::len);
            anyhow::ensure!(seen == Some(roots), "it has {seen:?}");
            Ok(Some(()))
        })
        .await
        .unwrap();
    }

    async fn json(&self, program: &Path, arguments: &[&str]) -> Value {
        let socket = self.cluster.spire.workload_socket();
        let mut all = vec!["-socket", socket.to_str().unwrap()];
        all.extend(arguments);
        let answer = self.testbed.run(program, all).await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    async fn go_spiffe(&self) -> Value {
        let certificate = self.certificate.to_str().unwrap();
        self.json(&self.clients.x509, &["-verify", certificate])
            .await
    }

    /// Envoy's questions: by its SPIFFE validator, or by plain roots.
    async fn secrets(&self, plain: bool) -> Value {
        let peer = format!("spiffe://{PEER}");
        let mut arguments = vec!["default", "ROOTCA", &peer, "ALL"];
        if plain {
            arguments.insert(0, "-plain");
        }
        self.json(&self.clients.sds, &arguments).await
    }

    /// How many certificates spiffe-helper writes: of the workload, and of all roots.
    async fn spiffe_helper(&self) -> (usize, usize) {
        let directory = self
            .testbed
            .directory()
            .join(format!("helper-{}", self.own));
        fs::create_dir_all(&directory).unwrap();
        let configuration = directory.join("helper.conf");
        let text = format!(
            "agent_address = \"{}\"\ncert_dir = \"{}\"\nsvid_file_name = \"svid.pem\"\n\
             svid_key_file_name = \"key.pem\"\nsvid_bundle_file_name = \"roots.pem\"\n\
             include_federated_domains = true\n",
            self.cluster.spire.workload_socket().display(),
            directory.display()
        );
        fs::write(&configuration, text).unwrap();
        let arguments = [
            "-daemon-mode=false",
            "-config",
            configuration.to_str().unwrap(),
        ];
        self.testbed
            .run(&self.clients.spiffe_helper, arguments)
            .await
            .unwrap();
        let count = |file: &str| {
            let text = fs::read_to_string(directory.join(file)).unwrap();
            text.matches("BEGIN CERTIFICATE").count()
        };
        (count("svid.pem"), count("roots.pem"))
    }

    async fn agent(&self, arguments: &[&str]) -> Result<String, String> {
        let mut all = vec!["api", "fetch", "x509", "-timeout", "5s"];
        all.extend(arguments);
        let answer = self.cluster.spire.agent(&all).await;
        answer.map_err(|error| format!("{error:#}"))
    }

    /// While the peer has a root, everybody has it and accepts its certificate.
    async fn trusting(&self) {
        let Self { own, .. } = self;
        let seen = self.go_spiffe().await;
        assert_eq!(seen["x509"], json!({own: 1, PEER: 1}));
        assert_eq!(seen["jwt"], json!({own: 1, PEER: 1}));
        assert_eq!(seen["verified"], format!("spiffe://{PEER}/client"));
        let secrets = self.secrets(false).await;
        assert_eq!(secrets["ALL"]["validator"], json!({own: 1, PEER: 1}));
        let secrets = self.secrets(true).await;
        assert_eq!(secrets[format!("spiffe://{PEER}")]["trustedCA"], 1);
        assert_eq!(self.spiffe_helper().await, (1, 2));
        self.agent(&[]).await.unwrap();
    }

    /// With the peer's bundle empty.
    async fn distrusting(&self) {
        let Self { own, .. } = self;
        let peer = format!("spiffe://{PEER}");

        // go-spiffe and the Rust crate: identity as before, the peer present with no roots and keys, and rejected.
        let seen = self.go_spiffe().await;
        assert_eq!(seen["svid"], self.cluster.spire.workload_id());
        assert_eq!(seen["x509"], json!({own: 1, PEER: 0}));
        assert_eq!(seen["jwt"], json!({own: 1, PEER: 0}));
        let rejected = seen["rejected"].as_str().unwrap();
        assert!(
            rejected.contains("certificate signed by unknown authority"),
            "{rejected}"
        );
        let view = self.cluster.spire.workload_view().await.unwrap();
        assert_eq!(view.spiffe_id, self.cluster.spire.workload_id());
        assert_eq!((view.x509[own].len(), view.x509[PEER].len()), (1, 0));
        assert_eq!((view.jwt[own].len(), view.jwt[PEER].len()), (1, 0));

        // spire-agent's own command fails as a whole, unless it is asked for JSON.
        let failed = format!("no certificates in bundle for federated domain {peer:?}");
        let error = self.agent(&[]).await.unwrap_err();
        assert!(error.contains(&failed), "{error}");
        let written = self.testbed.directory().join(format!("written-{own}"));
        fs::create_dir_all(&written).unwrap();
        let write = ["-write", written.to_str().unwrap()];
        let error = self.agent(&write).await.unwrap_err();
        assert!(error.contains(&failed), "{error}");
        assert_eq!(fs::read_dir(&written).unwrap().count(), 0);
        let answer = self.agent(&["-output", "json"]).await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["svids"].as_array().unwrap().len(), 1, "{answer}");
        assert_eq!(answer["federated_bundles"], json!({peer.as_str(): ""}));

        // spiffe-helper: identity as before, and the peer's root is gone from the file.
        assert_eq!(self.spiffe_helper().await, (1, 1));

        // What Envoy is given: its certificate, its own root, and the peer with nothing in it.
        let secrets = self.secrets(false).await;
        assert_eq!(secrets["default"]["certificates"], 1);
        assert_eq!(secrets["ROOTCA"]["validator"], json!({own: 1}));
        assert_eq!(secrets[&peer]["validator"], json!({PEER: 0}));
        assert_eq!(secrets["ALL"]["validator"], json!({own: 1, PEER: 0}));
        let secrets = self.secrets(true).await;
        assert_eq!(secrets["default"]["certificates"], 1);
        assert_eq!(secrets["ROOTCA"]["trustedCA"], 1);
        assert_eq!(secrets[&peer]["trustedCA"], 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_bundle_takes_no_identity_away_and_lets_no_peer_in() {
    let _shown = shows(&[Rule::Empty]);
    let clients = WorkloadClients::ensure(&progress).unwrap();
    let specs = SpireVersion::ALL.map(|version| ClusterSpec {
        spire_version: Some(version),
        ..cluster_spec(&format!("spire-{}", version.to_string().replace('.', "-")))
    });
    let testbed = Testbed::start(&specs, &progress).await.unwrap();
    let authority = Authority::new(PEER).unwrap();
    let certificate = testbed.directory().join("peer.pem");
    let svid = authority.svid("/client").unwrap();
    fs::write(&certificate, svid.certificate).unwrap();
    for cluster in testbed.clusters() {
        eprintln!("SPIRE {}", cluster.spire.version().await.unwrap());
        let scene = Scene {
            testbed: &testbed,
            cluster,
            clients: &clients,
            certificate: certificate.clone(),
            own: cluster.spire.trust_domain().to_owned(),
        };
        let bundle = authority.bundle();
        cluster.spire.start_agent().await.unwrap();
        cluster
            .spire
            .set_federated_bundle(PEER, &bundle)
            .await
            .unwrap();
        cluster.spire.workload_entry(&[PEER]).await.unwrap();
        scene.set_bundle(&bundle, 1).await;
        scene.trusting().await;
        let empty = json!({"keys": [], "spiffe_sequence": 2, "spiffe_refresh_hint": 60});
        scene.set_bundle(&empty, 0).await;
        scene.distrusting().await;
        // And back.
        scene.set_bundle(&bundle, 1).await;
        scene.trusting().await;
    }
}
