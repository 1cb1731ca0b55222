//! Commits, and what is told of them.

use std::{fs, path::Path, time::Instant};

use serde_json::{Value, json};
use trustweave_testbed::federation::{
    CLASS_NAME, Federation, SPIRE_NAMESPACE, TOPOLOGY_PATH, declaration_path, trust_domain,
};

use crate::{ONE, TWO, progress};

/// A path and what is written there.
pub(super) type File = (String, String);

/// A commit of people to the reviewed branch.
pub(super) struct Commit {
    subject: &'static str,
    files: String,
    made: Instant,
}

impl Commit {
    pub(super) async fn make(
        federation: &Federation,
        subject: &'static str,
        files: &[File],
    ) -> Self {
        let borrowed: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, content)| (path.as_str(), content.as_str()))
            .collect();
        let git = &federation.testbed.git;
        let made = Instant::now();
        git.commit("main", &borrowed, subject).await.unwrap();
        let paths: Vec<&str> = borrowed.iter().map(|(path, _)| *path).collect();
        Self {
            subject,
            files: paths.join(", "),
            made,
        }
    }

    /// Tells which step of the document it replaces, now that its effect was seen.
    pub(super) fn replaces(&self, step: &str, by_hand: &str) {
        let Self { subject, files, .. } = self;
        let seconds = self.made.elapsed().as_secs_f64();
        progress(&format!(
            "seed {step}: {by_hand} -> commit \"{subject}\" ({files}) -> seen after {seconds:.1} s"
        ));
    }
}

/// The host that a cluster's endpoint has in the document.
pub(super) fn host(cluster: &str) -> String {
    format!(
        "spire-server-federation-{SPIRE_NAMESPACE}.{}",
        trust_domain(cluster)
    )
}

/// `bundleEndpoint` of a cluster's trust domain, at a host, kept by the agent.
pub(super) fn endpoint(cluster: &str, host: &str) -> Value {
    json!({
        "profile": "https_spiffe",
        "url": format!("https://{host}"),
        "spiffeID": format!("spiffe://{}/spire/server", trust_domain(cluster)),
        "refreshHint": 60,
        "manage": true,
        "expose": "route",
    })
}

/// The declaration of a cluster's trust domain, which consents to federate with peers.
pub(super) fn declaration(
    federation: &Federation,
    cluster: &str,
    endpoint: &Value,
    peers: &[&str],
) -> File {
    let mut declaration = federation.declaration(cluster).unwrap();
    declaration["spec"]["bundleEndpoint"] = endpoint.clone();
    declaration["spec"]["consent"] = json!({"import": peers, "export": peers});
    (declaration_path(cluster), format!("{declaration:#}\n"))
}

/// The topology with edges between pairs of trust domains.
pub(super) fn topology(edges: &[[&str; 2]]) -> File {
    let edges: Vec<Value> = edges.iter().map(|pair| json!({"between": pair})).collect();
    let topology = json!({
        "apiVersion": "trustweave.dev/v1alpha1", "kind": "Topology",
        "metadata": {"name": "topology"}, "spec": {"edges": edges},
    });
    (TOPOLOGY_PATH.to_owned(), format!("{topology:#}\n"))
}

/// The kustomization of a cluster.
pub(super) fn overlay(cluster: &str, resources: &[&str]) -> File {
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": resources,
    });
    let path = format!("clusters/{cluster}/kustomization.yaml");
    (path, format!("{kustomization:#}\n"))
}

/// The files of a directory of the example's.
pub(super) fn example(directory: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/repo-layout");
    let entries = fs::read_dir(root.join(directory)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.is_file()).map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let content = fs::read_to_string(&path).unwrap();
        (format!("{directory}/{name}"), content)
    });
    files.collect()
}

/// Where a workload's registration is kept.
pub(super) fn registration_path(cluster: &str) -> String {
    format!("clusters/{cluster}/cluster-spiffe-id.yaml")
}

/// A workload's registration, as the document has it.
pub(super) fn registration(cluster: &str, workload: &str, peers: &[&str]) -> String {
    let own = trust_domain(cluster);
    let peers = peers.iter().map(|peer| format!("  - \"{peer}\""));
    let peers = peers.collect::<Vec<_>>().join("\n");
    format!(
        r#"apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata:
  name: {workload}
spec:
  spiffeIDTemplate: "spiffe://{own}/ns/{{{{ .PodMeta.Namespace }}}}/sa/{{{{ .PodSpec.ServiceAccountName }}}}"
  podSelector:
    matchLabels:
      app: {workload}
  namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: federation-demo
  federatesWith:
{peers}
  className: {CLASS_NAME}
"#
    )
}

/// With whom a workload's entry in SPIRE federates; nothing if it has none.
pub(super) async fn federates_with(
    federation: &Federation,
    cluster: &str,
    workload: &str,
) -> anyhow::Result<Option<Vec<String>>> {
    let path = format!("/ns/federation-demo/sa/{workload}");
    let spire = &federation.testbed.cluster(cluster)?.spire;
    let entries = spire.entries().await?;
    let entry = entries.iter().find(|it| it["spiffe_id"]["path"] == path);
    Ok(entry.map(|entry| {
        let peers = entry["federates_with"].as_array().into_iter().flatten();
        let peers = peers.map(|peer| peer.as_str().unwrap().to_owned());
        peers.collect()
    }))
}

/// Waits until a workload's entry federates with exactly these trust domains.
pub(super) async fn until_federates_with(
    federation: &Federation,
    cluster: &str,
    workload: &str,
    peers: &[&str],
) {
    let what = format!("the entry of {workload} to federate with {peers:?}");
    federation
        .until(&what, async || {
            let found = federates_with(federation, cluster, workload).await?;
            anyhow::ensure!(
                found.as_ref().is_some_and(|found| found == peers),
                "{found:?}"
            );
            Ok(Some(()))
        })
        .await
        .unwrap();
}

/// Trust domains of the two clusters.
pub(super) fn trust_domains() -> [String; 2] {
    [ONE, TWO].map(trust_domain)
}
