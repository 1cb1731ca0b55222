//! Level 1: control planes without nodes, the agents as processes. No root is needed, and a cluster's start is quick.

use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use serde_json::json;
use trustweave_testbed::federation::{CLUSTERS, Federation, PATIENCE, Plan, peer_of, trust_domain};
use trustweave_testbed::measure::{
    commit_to_applied, confirmed, polling, resident, rotation, same_keys,
    writes_of_a_pass_with_nothing_to_do,
};
use trustweave_testbed::{Cluster, Distribution, Installed, ServerObjects, wait_until};

use super::Arguments;
use super::figures::{Figures, headline, mebibytes};
use super::trust::{BY_GIT, history, verify_a_rotation, what_clusters_say, who_trusts_whom};

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // As if SPIRE were installed by hand: what `verify` reads of it is there.
    let mut objects = ServerObjects::new(Distribution::Custom);
    objects.bundle_endpoint = true;
    let plan = Plan::new(arguments.trustweave()?, &arguments.project);
    let mut plan = plan.with_installed(&Installed::Objects(objects));
    (plan.endpoints, plan.workloads) = (true, true);
    headline("two clusters, SPIRE in each, one git server");
    let begun = Instant::now();
    let mut federation = Federation::prepare(plan, &|line| println!("   {line}")).await?;
    let mut figures = Figures::default();
    figures.time(
        "clusters up, SPIRE running, repository committed",
        begun.elapsed(),
    );

    headline("an agent in each cluster; from here on, only commits");
    let begun = Instant::now();
    for name in CLUSTERS {
        federation.start_agent(name)?;
    }
    federation.federated().await?;
    let federated = begun.elapsed();
    figures.time("agents started -> both Federated", federated);
    confirmed(&federation).await?;
    who_trusts_whom(&federation, federated).await?;
    for cluster in CLUSTERS {
        federates_with(&federation, cluster, peer_of(cluster)).await?;
        same_keys(&federation, cluster, peer_of(cluster)).await?;
    }
    println!("   each SPIRE holds exactly the other's keys, and has entries with FederatesWith");

    deeds(&mut federation, arguments.trustweave()?, &mut figures).await?;
    headline("what stands in git");
    history(&federation).await?;
    what_clusters_say(&federation).await?;
    headline("figures");
    figures.print();
    headline("who trusts whom");
    who_trusts_whom(&federation, federated).await?;
    if arguments.once {
        return Ok(());
    }
    things_to_try(&federation)?;
    std::future::pending().await
}

/// A commit, a rotation, and a rotation without us; each measured.
async fn deeds(
    federation: &mut Federation,
    trustweave: &Path,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    headline("a commit to main");
    figures.time("commit -> applied", commit_to_applied(federation).await?);

    headline("a key rotates in the SPIRE of cluster-2");
    let (published, delivered) = rotation(federation).await?;
    figures.time("rotation -> signed commit in git", published);
    figures.time("rotation -> the peer's SPIRE holds the new key", delivered);

    headline("a commit that changes nothing for cluster-1");
    confirmed(federation).await?;
    let writes = writes_of_a_pass_with_nothing_to_do(federation).await?;
    ensure!(
        writes == 0,
        "a pass over what is in force made {writes} writes"
    );
    figures.add("writes of a pass with nothing to do", writes.to_string());

    headline(
        "a rotation by SPIRE's own polling alone (refresh hint 60 s), the agent of cluster-1 stopped",
    );
    federation.agent(CLUSTERS[0])?.terminate(PATIENCE).await?;
    let polled = polling(federation).await?;
    federation.start_agent(CLUSTERS[0])?;
    figures.time("for comparison: rotation -> SPIRE's own poll", polled);
    confirmed(federation).await?;

    headline("trustweave verify --rotation: proves every edge with the next key of cluster-2");
    let text = verify_a_rotation(federation, trustweave).await?;
    ensure!(!text.contains(BY_GIT), "the endpoint serves the key too");
    headline("the same after cluster-2's endpoint is lost: git brings the key");
    let there = federation.declaration(CLUSTERS[1])?;
    let mut nowhere = there.clone();
    nowhere["spec"]["bundleEndpoint"]["url"] = json!("https://127.0.0.1:1");
    let message = "Move the endpoint to where nothing is";
    federation.declare(CLUSTERS[1], &nowhere, message).await?;
    confirmed(federation).await?;
    let text = verify_a_rotation(federation, trustweave).await?;
    ensure!(text.contains(BY_GIT), "no endpoint brought the key");
    let message = "Move the endpoint back";
    federation.declare(CLUSTERS[1], &there, message).await?;

    headline("what the agents need");
    for (name, what) in [
        (CLUSTERS[0], "memory of the agent of cluster-1 (RSS)"),
        (CLUSTERS[1], "memory of the agent of cluster-2 (RSS)"),
    ] {
        let kibibytes = resident(federation.agent(name)?.id())?;
        figures.add(what, mebibytes(kibibytes));
    }
    Ok(())
}

async fn federates_with(federation: &Federation, cluster: &str, peer: &str) -> anyhow::Result<()> {
    let spire = &federation.testbed.cluster(cluster)?.spire;
    let what = format!("entries of {cluster} that federate with {peer}");
    wait_until(&what, PATIENCE, async || {
        let entries = spire.entries().await?;
        let federating = entries.iter().any(|entry| {
            let path = entry["spiffe_id"]["path"].as_str().unwrap_or_default();
            path.starts_with("/ns/federation-demo/")
                && entry["federates_with"]
                    .to_string()
                    .contains(&trust_domain(peer))
        });
        Ok(federating.then_some(()))
    })
    .await
}

fn things_to_try(federation: &Federation) -> anyhow::Result<()> {
    headline("it stays up until Ctrl-C. Things to try");
    println!("   git clone {}", federation.testbed.git.url());
    for name in CLUSTERS {
        let cluster: &Cluster = federation.testbed.cluster(name)?;
        println!("\n   {name}");
        println!("   export KUBECONFIG={}", cluster.kubeconfig().display());
        println!("   trustweave status; kubectl get trustpeers,gitsyncs; kubectl get events");
        println!("   curl {}/metrics", federation.agent_url(name)?);
        println!("   less {}", federation.log(name)?.display());
    }
    let cut = |path: &Path| path.display().to_string();
    println!(
        "\n   Withdraw consent, break a file, delete a ClusterFederatedTrustDomain, kill an agent: commit to the"
    );
    println!(
        "   clone and push, and watch `kubectl get trustpeers --watch`. Logs of everything: {}/*/log",
        cut(federation.testbed.directory())
    );
    Ok(())
}
