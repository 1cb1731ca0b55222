//! Level 2: clusters with nodes. SPIRE, the agents and the workloads run in pods, as they are installed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use trustweave_testbed::federation::{CLUSTERS, SPIRE_NAMESPACE, peer_of};
use trustweave_testbed::measure::{
    Measured as _, commit_to_applied, confirmed, rotation, rotation_without_git, same_keys,
    writes_of_a_pass_with_nothing_to_do,
};
use trustweave_testbed::nodes::federation::{Federation, Plan, SOURCES};
use trustweave_testbed::nodes::workloads::{CLIENT, SERVER, STRANGER};

use super::Arguments;
use super::figures::{Figures, headline, mebibytes, print_indented, quote};
use super::trust::{BY_GIT, history, verify_a_rotation, what_clusters_say, who_trusts_whom};

/// The clusters, by what runs in them.
const CLIENTS: &str = CLUSTERS[0];
const SERVERS: &str = CLUSTERS[1];

pub(super) async fn run(arguments: &Arguments, workloads: &Path) -> anyhow::Result<()> {
    let mut figures = Figures::default();
    headline("two clusters with a node each, SPIRE in pods, and one git server");
    let plan = Plan {
        trustweave: arguments.trustweave()?.to_owned(),
        workloads: workloads.to_owned(),
        project: arguments.project.clone(),
    };
    let begun = Instant::now();
    let federation = Federation::prepare(plan, &|line| println!("   {line}")).await?;
    figures.time("nodes and SPIRE up, repository committed", begun.elapsed());
    for (image, bytes) in federation.images()? {
        let kibibytes = u32::try_from(bytes.div_ceil(1024))?;
        figures.add(format!("size of the image {image}"), mebibytes(kibibytes));
    }

    if let Err(error) = story(&federation, arguments.trustweave()?, &mut figures).await {
        for cluster in CLUSTERS {
            headline(&format!("the end of the log of the agent of {cluster}"));
            print_indented(&federation.log(cluster).await.unwrap_or_default());
        }
        return Err(error);
    }
    headline("figures");
    figures.print();
    if arguments.once {
        headline("every check passed");
        return Ok(());
    }
    things_to_try(&federation)?;
    std::future::pending().await
}

/// What happens to the clusters, from the installation of the agents on.
async fn story(
    federation: &Federation,
    trustweave: &Path,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let federated = install(federation, figures).await?;
    headline("a client in cluster-1 calls a server in cluster-2 by mutual TLS");
    let calls = federation.calls().await?;
    quote(CLIENT, &calls.answered);
    println!("   the same from a client whose registration federates with nobody:");
    quote(STRANGER, &calls.refused);

    headline("a commit to main");
    figures.time("commit -> applied", commit_to_applied(federation).await?);
    sources(federation, figures).await?;
    headline("a commit that changes nothing for cluster-1");
    confirmed(federation).await?;
    let writes = writes_of_a_pass_with_nothing_to_do(federation).await?;
    ensure!(
        writes == 0,
        "a pass over what is in force made {writes} writes"
    );
    figures.add("writes of a pass with nothing to do", writes.to_string());

    headline("a key rotates while the git server is down: SPIRE polls the peer's endpoint itself");
    let polled = federation.unharmed(rotation_without_git(federation));
    figures.time(
        "for comparison: rotation -> SPIRE's own poll",
        polled.await?,
    );
    confirmed(federation).await?;
    headline("trustweave verify --rotation: proves every edge with the next key of cluster-2");
    verify_a_rotation(federation, trustweave).await?;
    headline("the same with cluster-2's endpoint cut off: git brings the key");
    federation.cut_endpoint(SERVERS).await?;
    let verified = federation.unharmed(verify_a_rotation(federation, trustweave));
    let text = verified.await?;
    ensure!(text.contains(BY_GIT), "no endpoint brought the key");
    federation.restore_endpoint(SERVERS).await?;
    confirmed(federation).await?;
    upgrade(federation, figures).await?;
    consent(federation, figures).await?;

    what_agents_need(federation, figures).await?;
    headline("what stands in git");
    history(federation).await?;
    what_clusters_say(federation).await?;
    headline("who trusts whom");
    who_trusts_whom(federation, federated).await
}

/// Installs the agents; how long they took from then on until both clusters were federated.
async fn install(federation: &Federation, figures: &mut Figures) -> anyhow::Result<Duration> {
    headline("kubectl apply -k deploy: an agent in each cluster; from here on, only commits");
    let begun = Instant::now();
    let start_up = federation.install().await?;
    let slowest = start_up.iter().map(|(_, took)| *took).max();
    figures.time(
        "start-up of an agent: process started -> ready, the slowest of all",
        slowest.unwrap_or_default(),
    );
    who_leads(federation).await?;

    headline("the agents have SPIRE serve its bundle to peers, as declared: `manage: true`");
    for cluster in CLUSTERS {
        println!("   {cluster}");
        for told in federation.bundle_served(cluster).await? {
            println!("   {told}");
        }
        let namespace = format!("--namespace={SPIRE_NAMESPACE}");
        let service = ["get", "service", "spire-server-federation", &namespace];
        print_indented(&federation.kubectl(cluster, &service).await?);
    }

    headline("and they deliver each other's bundles");
    federation.federated().await?;
    let federated = begun.elapsed();
    figures.time("agents applied -> both clusters federated", federated);
    for cluster in CLUSTERS {
        same_keys(federation, cluster, peer_of(cluster)).await?;
    }
    println!("   each SPIRE holds exactly the other's keys");
    confirmed(federation).await?;
    println!("   so do workloads, as each agent reads back from the Workload API: `Confirmed`");
    Ok(federated)
}

async fn who_leads(federation: &Federation) -> anyhow::Result<()> {
    for cluster in CLUSTERS {
        println!("   {cluster}: of two agents, one writes");
        for (pod, ready) in federation.one_leads(cluster).await? {
            println!("   {pod}  /readyz: {ready}");
        }
    }
    Ok(())
}

/// The bundle of cluster-2 comes by each source in turn; a commit says by which. Each brings a rotation.
async fn sources(federation: &Federation, figures: &mut Figures) -> anyhow::Result<()> {
    for source in SOURCES {
        headline(&format!(
            "a commit: the bundle of cluster-2 is read by `{source}`; then a key rotates there"
        ));
        let read = federation.read_by(SERVERS, source).await?;
        println!("   it is read by: {read}");
        let (published, delivered) = federation.unharmed(rotation(federation)).await?;
        figures.time(
            format!("rotation, read by {source} -> signed commit in git"),
            published,
        );
        figures.time(
            format!("rotation, read by {source} -> the peer's SPIRE holds the new key"),
            delivered,
        );
        if delivered < published {
            println!("   SPIRE's own poll of the peer's endpoint was faster than git");
        }
        println!("   every call was answered meanwhile");
    }
    Ok(())
}

/// Both agents are upgraded while a key rotates.
async fn upgrade(federation: &Federation, figures: &mut Figures) -> anyhow::Result<()> {
    headline(
        "kubectl apply -k with another tag of the agent's image in both clusters, while a key rotates",
    );
    let begun = Instant::now();
    let upgrade = async {
        federation.upgrade("upgraded").await?;
        Ok(begun.elapsed())
    };
    let deeds = async { tokio::try_join!(upgrade, rotation(federation)) };
    let (upgraded, (_, delivered)) = federation.unharmed(deeds).await?;
    figures.time("upgrade of both clusters' agents", upgraded);
    figures.time(
        "rotation during the upgrade -> the peer's SPIRE holds the new key",
        delivered,
    );
    println!(
        "   one commit for the rotation, every call answered, no registration without its peer"
    );
    who_leads(federation).await
}

/// Who no longer trusts the client's trust domain does not let the client in; a commit brings it back.
async fn consent(federation: &Federation, figures: &mut Figures) -> anyhow::Result<()> {
    headline("a commit: cluster-2 no longer consents to trust cluster-1");
    let begun = Instant::now();
    let message = "Withdraw the consent to trust cluster-1";
    let withdraw = |spec: &mut serde_json::Value| spec["consent"]["import"] = json!([]);
    federation.declare(SERVERS, message, withdraw).await?;
    let refused = tokio::try_join!(
        federation.prints(SERVERS, SERVER, "is not trusted here"),
        federation.prints(CLIENTS, CLIENT, "failed"),
    )?;
    figures.time(
        "consent withdrawn -> the client is refused",
        begun.elapsed(),
    );
    quote(SERVER, &refused.0);
    quote(CLIENT, &refused.1);

    headline("a commit: it consents again");
    let begun = Instant::now();
    let message = "Consent to trust cluster-1 again";
    federation.declare(SERVERS, message, |_| ()).await?;
    let answered = federation.prints(CLIENTS, CLIENT, "ok ").await?;
    figures.time("consent given -> the client is answered", begun.elapsed());
    quote(CLIENT, &answered);
    federation.federated().await
}

async fn what_agents_need(federation: &Federation, figures: &mut Figures) -> anyhow::Result<()> {
    headline("what the agents need");
    for cluster in CLUSTERS {
        for (index, (pod, kibibytes)) in federation.resident(cluster).await?.iter().enumerate() {
            let role = if index == 0 { "leads" } else { "stands by" };
            let what = format!("memory of {pod}, which {role} in {cluster} (RSS)");
            figures.add(what, mebibytes(*kibibytes));
        }
        let passes = federation.metric(cluster, "trustweave_sync_duration_seconds_count");
        let seconds = federation.metric(cluster, "trustweave_sync_duration_seconds_sum");
        let (passes, seconds) = tokio::try_join!(passes, seconds)?;
        ensure!(passes > 0.0, "the agent of {cluster} made no pass");
        figures.add(
            format!("passes of the agent that leads in {cluster} since the upgrade"),
            format!(
                "{passes}, of {:.0} ms on average",
                1000.0 * seconds / passes
            ),
        );
    }
    Ok(())
}

fn things_to_try(federation: &Federation) -> anyhow::Result<()> {
    headline("it stays up until Ctrl-C. Things to try");
    println!("   git clone {}", federation.nodes.git.url());
    for name in CLUSTERS {
        let cluster = federation.nodes.cluster(name)?;
        println!("\n   {name}");
        println!("   export KUBECONFIG={}", cluster.kubeconfig().display());
        println!("   kubectl get trustpeers,gitsyncs; kubectl get pods --all-namespaces");
        println!(
            "   kubectl -n trustweave-system get lease trustweave   # which of the two agents leads"
        );
        println!(
            "   kubectl -n trustweave-system logs --selector app.kubernetes.io/name=trustweave --prefix --follow"
        );
    }
    println!("\n   The client prints a line for each call, in cluster-1:");
    println!("   kubectl -n federation-demo logs deployment/{CLIENT} --follow");
    println!(
        "\n   Withdraw consent, break a file, delete a ClusterFederatedTrustDomain or an agent's pod: commit to the"
    );
    println!("   clone and push, and watch `kubectl get trustpeers --watch`.");
    Ok(())
}
