//! Level 2: clusters with nodes. SPIRE, the agents and the workloads run in pods, as they are installed.

use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use serde_json::{Value, json};
use trustweave_testbed::federation::{
    CLUSTERS, PATIENCE, SPIRE_NAMESPACE, declaration_path, peer_of, trust_domain,
};
use trustweave_testbed::measure::{Measured, commit_to_applied, rotation, same_keys};
use trustweave_testbed::nodes::federation::{Federation, Plan};
use trustweave_testbed::nodes::workloads::{CLIENT, SERVER, STRANGER};
use trustweave_testbed::wait_until;

use super::Arguments;
use super::figures::{Figures, headline, mebibytes, print_indented};

/// The clusters, by what runs in them.
const CLIENTS: &str = CLUSTERS[0];
const SERVERS: &str = CLUSTERS[1];

/// The port at which a cluster serves its bundle to others: the example's server has 443.
const BUNDLE_ENDPOINT: u16 = 8443;

pub(super) async fn run(arguments: &Arguments, workloads: &Path) -> anyhow::Result<()> {
    let mut figures = Figures::default();
    headline("two nodes, SPIRE in pods, one git server");
    let mut plan = Plan::new(arguments.trustweave()?, &arguments.project);
    plan.workloads = Some(workloads.to_owned());
    plan.parts
        .extend(["bundle-source-endpoint", "bundle-source-exec"]);
    for cluster in &mut plan.clusters {
        cluster.bundle_endpoint = true;
    }
    let begun = Instant::now();
    let progress = |line: &str| println!("   {line}");
    let federation = Federation::prepare(plan, &progress).await?;
    expose_bundles(&federation).await?;
    federation.connect_workloads().await?;
    figures.time("nodes and SPIRE up, repository committed", begun.elapsed());
    for image in ["trustweave", "example-workloads"] {
        let archive = federation.nodes.directory().join(format!("{image}.tar"));
        let kibibytes = std::fs::metadata(archive)?.len().div_ceil(1024);
        let size = mebibytes(u32::try_from(kibibytes)?);
        figures.add(format!("size of the image {image}"), size);
    }

    if let Err(error) = story(&federation, &mut figures).await {
        for cluster in CLUSTERS {
            headline(&format!("the end of the log of the agent of {cluster}"));
            print_indented(&federation.log(cluster).await.unwrap_or_default());
        }
        return Err(error);
    }
    headline("figures");
    figures.print();
    if arguments.once {
        return Ok(());
    }
    things_to_try(&federation)?;
    std::future::pending().await
}

/// What happens to the clusters, from the installation of the agents on.
async fn story(federation: &Federation, figures: &mut Figures) -> anyhow::Result<()> {
    headline("kubectl apply -k deploy: an agent in each cluster; from here on, only commits");
    let begun = Instant::now();
    let ready = federation.install().await?;
    figures.time("an agent's pod created -> ready", ready);
    federation.federated().await?;
    figures.time("agents applied -> both Federated", begun.elapsed());
    for cluster in CLUSTERS {
        same_keys(federation, cluster, peer_of(cluster)).await?;
    }
    println!("   each SPIRE holds exactly the other's keys");

    headline("a client in cluster-1 calls a server in cluster-2 by mutual TLS");
    calls(federation).await?;
    deeds(federation, figures).await?;
    sources(federation, figures).await?;
    consent(federation, figures).await?;

    headline("what the agents need");
    for cluster in CLUSTERS {
        let kibibytes = federation.resident(cluster).await?;
        let what = format!("memory of the agent in its pod in {cluster} (RSS)");
        figures.add(what, mebibytes(kibibytes));
    }
    headline("what the clusters say");
    for name in CLUSTERS {
        println!("   {name}");
        for kind in ["gitsyncs", "trustpeers"] {
            print_indented(&federation.kubectl(name, &["get", kind]).await?);
        }
    }
    Ok(())
}

/// Leads to the bundle endpoints, and declares them.
async fn expose_bundles(federation: &Federation) -> anyhow::Result<()> {
    for name in CLUSTERS {
        let cluster = federation.nodes.cluster(name)?;
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "spire-server-federation", "namespace": SPIRE_NAMESPACE},
            "spec": {
                "selector": {"app.kubernetes.io/name": "spire-server"},
                // Where a router would listen.
                "externalIPs": [cluster.address()],
                "ports": [{"name": "federation", "port": BUNDLE_ENDPOINT, "targetPort": 8443}],
            },
        });
        cluster.kubectl_apply(&service.to_string()).await?;
        let declaration = declaration(federation, name)?;
        let message = format!("Declare the bundle endpoint of {name}");
        declare(federation, name, &declaration, &message).await?;
    }
    Ok(())
}

/// The declaration of a cluster's trust domain, with its endpoint and the `ConfigMap` as its bundle's source.
fn declaration(federation: &Federation, cluster: &str) -> anyhow::Result<Value> {
    let mut declaration = federation.declaration(cluster)?;
    let own = trust_domain(cluster);
    declaration["spec"]["bundleEndpoint"] = json!({
        "profile": "https_spiffe",
        "url": format!("https://spire-server-federation-{SPIRE_NAMESPACE}.{own}:{BUNDLE_ENDPOINT}"),
        "spiffeID": format!("spiffe://{own}/spire/server"),
        "refreshHint": 60,
    });
    declaration["spec"]["spire"]["bundleSource"] = json!({"configMap": {}});
    Ok(declaration)
}

async fn declare(
    federation: &Federation,
    cluster: &str,
    declaration: &Value,
    message: &str,
) -> anyhow::Result<()> {
    let (path, content) = (declaration_path(cluster), format!("{declaration:#}\n"));
    let files = [(path.as_str(), content.as_str())];
    federation.git().commit("main", &files, message).await?;
    Ok(())
}

/// The client is answered, and a stranger is not.
async fn calls(federation: &Federation) -> anyhow::Result<()> {
    println!(
        "   {CLIENT}  {}",
        federation.prints(CLIENTS, CLIENT, "ok ").await?
    );
    let refused = federation.prints(CLIENTS, STRANGER, "failed").await?;
    ensure!(
        refused.contains("is not trusted here"),
        "the stranger prints `{refused}`"
    );
    println!("   {STRANGER}         {refused}");
    let served = federation.printed(SERVERS, SERVER).await?;
    let stranger = format!("/sa/{STRANGER}");
    ensure!(
        !served.contains(&stranger),
        "the stranger was served:\n{served}"
    );
    Ok(())
}

/// A commit and a rotation, each measured.
async fn deeds(federation: &Federation, figures: &mut Figures) -> anyhow::Result<()> {
    headline("a commit to main");
    figures.time("commit -> applied", commit_to_applied(federation).await?);

    headline("a key rotates in the SPIRE of cluster-2, and every call is answered meanwhile");
    let before = failures(federation).await?;
    let (published, delivered) = rotation(federation).await?;
    figures.time("rotation -> signed commit in git", published);
    figures.time("rotation -> the peer's SPIRE holds the new key", delivered);
    println!(
        "   {CLIENT}  {}",
        federation.prints(CLIENTS, CLIENT, "ok ").await?
    );
    let after = failures(federation).await?;
    ensure!(after == before, "{} calls failed", after - before);
    Ok(())
}

async fn failures(federation: &Federation) -> anyhow::Result<usize> {
    let printed = federation.printed(CLIENTS, CLIENT).await?;
    Ok(printed
        .lines()
        .filter(|line| line.starts_with("failed"))
        .count())
}

/// The bundle of cluster-2 comes by each source in turn; a commit says by which.
async fn sources(federation: &Federation, figures: &mut Figures) -> anyhow::Result<()> {
    for source in ["endpoint", "exec"] {
        headline(&format!(
            "a commit: the bundle of cluster-2 comes by `{source}`"
        ));
        let mut declaration = declaration(federation, SERVERS)?;
        declaration["spec"]["spire"]["bundleSource"] = json!({source: {}});
        let message = format!("Read the bundle of cluster-2 by {source}");
        declare(federation, SERVERS, &declaration, &message).await?;
        let what = format!("the agent to read the bundle by {source}");
        let read = wait_until(&what, PATIENCE, async || {
            let status = federation.status(SERVERS, "gitsync", "trustweave").await?;
            let read = status["bundleSource"].as_str().unwrap_or_default();
            ensure!(read.contains(source), "it reads `{read}`");
            Ok(Some(read.to_owned()))
        });
        println!("   {}", read.await?);
        let (_, delivered) = rotation(federation).await?;
        let what = format!("rotation -> the peer's SPIRE holds the new key, by {source}");
        figures.time(what, delivered);
    }
    Ok(())
}

/// Who no longer trusts the client's trust domain does not let the client in; a commit brings it back.
async fn consent(federation: &Federation, figures: &mut Figures) -> anyhow::Result<()> {
    headline("a commit: cluster-2 no longer consents to trust cluster-1");
    let trusting = declaration(federation, SERVERS)?;
    let mut withdrawn = trusting.clone();
    withdrawn["spec"]["consent"]["import"] = json!([]);
    let begun = Instant::now();
    let message = "Withdraw the consent to trust cluster-1";
    declare(federation, SERVERS, &withdrawn, message).await?;
    let refused = tokio::try_join!(
        federation.prints(SERVERS, SERVER, "is not trusted here"),
        federation.prints(CLIENTS, CLIENT, "failed"),
    )?;
    figures.time(
        "consent withdrawn -> the client is refused",
        begun.elapsed(),
    );
    println!("   {SERVER}   {}", refused.0);
    println!("   {CLIENT}  {}", refused.1);

    headline("a commit: it consents again");
    let begun = Instant::now();
    let message = "Consent to trust cluster-1 again";
    declare(federation, SERVERS, &trusting, message).await?;
    let answered = federation.prints(CLIENTS, CLIENT, "ok ").await?;
    figures.time("consent given -> the client is answered", begun.elapsed());
    println!("   {CLIENT}  {answered}");
    federation.federated().await
}

fn things_to_try(federation: &Federation) -> anyhow::Result<()> {
    headline("it stays up until Ctrl-C. Things to try");
    println!("   git clone {}", federation.git().url());
    for name in CLUSTERS {
        let cluster = federation.nodes.cluster(name)?;
        println!("\n   {name}");
        println!("   export KUBECONFIG={}", cluster.kubeconfig().display());
        println!("   kubectl get trustpeers,gitsyncs; kubectl get pods --all-namespaces");
        println!("   kubectl -n trustweave-system logs deployment/trustweave --follow");
    }
    println!("\n   The client prints a line for each call, in cluster-1:");
    println!("   kubectl -n federation-demo logs deployment/{CLIENT} --follow");
    println!(
        "\n   Withdraw consent, break a file, delete a ClusterFederatedTrustDomain or an agent's pod: commit to the"
    );
    println!("   clone and push, and watch `kubectl get trustpeers --watch`.");
    Ok(())
}
