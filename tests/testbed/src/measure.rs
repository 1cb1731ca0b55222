//! What a federation is measured by: how long things take, and what they cost.
//!
//! Times are from the deed (a commit, a rotation that SPIRE has made) to its effect as a client sees it, asked for
//! every 50 ms and more.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::federation::{CLUSTERS, Federation, PATIENCE, peer_of, sum, trust_domain};
use crate::git::GitRemote;
use crate::nodes;
use crate::server_commands::ServerCommands;
use crate::wait_until;

/// The example's two clusters, wherever their agents run.
pub trait Measured {
    /// The git server.
    fn git(&self) -> &GitRemote;

    /// The SPIRE server of a cluster.
    fn server(&self, cluster: &str) -> anyhow::Result<&ServerCommands>;

    /// The public half of the key of a cluster's agent.
    fn signer(&self, cluster: &str) -> anyhow::Result<&str>;

    /// The kubeconfig of a cluster's administrator.
    fn kubeconfig(&self, cluster: &str) -> anyhow::Result<&Path>;

    /// A directory for one's own files.
    fn directory(&self) -> &Path;

    /// The value of a metric of the agent that leads in a cluster: the sum over its labels.
    fn metric(&self, cluster: &str, metric: &str) -> impl Future<Output = anyhow::Result<f64>>;

    /// Runs kubectl in a cluster with all rights, and returns its stdout.
    fn kubectl(
        &self,
        cluster: &str,
        arguments: &[&str],
    ) -> impl Future<Output = anyhow::Result<String>>;

    /// The status of an object of the agent's kinds.
    fn status(
        &self,
        cluster: &str,
        kind: &str,
        name: &str,
    ) -> impl Future<Output = anyhow::Result<Value>> {
        async move {
            let get = ["get", kind, name, "--output=json"];
            let object: Value = serde_json::from_str(&self.kubectl(cluster, &get).await?)?;
            Ok(object["status"].clone())
        }
    }

    /// Waits until what a cluster knows of the other satisfies.
    fn until_peer(
        &self,
        cluster: &str,
        what: &str,
        satisfies: impl Fn(&Value) -> bool,
    ) -> impl Future<Output = anyhow::Result<()>> {
        async move {
            let peer = trust_domain(peer_of(cluster));
            let what = format!("{what}, in {cluster} about {peer}");
            wait_until(&what, PATIENCE, async || {
                let status = self.status(cluster, "trustpeer", &peer).await?;
                ensure!(satisfies(&status), "its status is {status:#}");
                Ok(Some(()))
            })
            .await
        }
    }

    /// Waits until a commit of main is what a cluster goes by.
    fn in_force(&self, cluster: &str, commit: &str) -> impl Future<Output = anyhow::Result<()>> {
        async move {
            let what = format!("{commit} to be in force in {cluster}");
            wait_until(&what, PATIENCE, async || {
                let status = self.status(cluster, "gitsync", "trustweave").await?;
                Ok((status["revision"] == commit).then_some(()))
            })
            .await
        }
    }
}

/// The keys of a bundle document in a comparable form.
fn keys(bundle: &Value) -> Vec<String> {
    let mut keys: Vec<_> = bundle["keys"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|key| format!("{} {} {} {}", key["use"], key["kid"], key["x5c"], key["x"]))
        .collect();
    keys.sort();
    keys
}

/// Waits until a cluster's SPIRE holds exactly the keys that the peer's SPIRE has now.
pub async fn same_keys(measured: &impl Measured, cluster: &str, peer: &str) -> anyhow::Result<()> {
    let expected = keys(&measured.server(peer)?.own_bundle().await?);
    let what = format!("SPIRE of {cluster} to hold the keys of {peer}");
    let server = measured.server(cluster)?;
    wait_until(&what, PATIENCE, async || {
        let held = server.federated_bundle(&trust_domain(peer)).await?;
        Ok(held.filter(|held| keys(held) == expected).map(drop))
    })
    .await
}

/// A commit to main until the object that it adds is in cluster-1.
pub async fn commit_to_applied(measured: &impl Measured) -> anyhow::Result<Duration> {
    let git = measured.git();
    let overlay = "clusters/cluster-1/kustomization.yaml";
    let before = git.show("main", overlay).await?;
    let name = format!("note-{}", git.log("main").await?.len());
    let after = before.replacen("resources:", &format!("resources:\n  - {name}.yaml"), 1);
    ensure!(
        before != after,
        "the overlay of cluster-1 has no `resources:`"
    );
    let account = format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n  namespace: federation-demo\n"
    );
    let path = format!("clusters/cluster-1/{name}.yaml");
    let begun = Instant::now();
    let files = [(overlay, after.as_str()), (path.as_str(), account.as_str())];
    git.commit("main", &files, "Add a service account to cluster-1")
        .await?;
    let get = [
        "get",
        "serviceaccount",
        name.as_str(),
        "--namespace=federation-demo",
    ];
    wait_until("the commit to be applied", PATIENCE, async || {
        Ok(measured
            .kubectl(CLUSTERS[0], &get)
            .await
            .is_ok()
            .then_some(()))
    })
    .await?;
    Ok(begun.elapsed())
}

/// A rotation in the SPIRE of cluster-2: until its commit is in git, and until the SPIRE of cluster-1 holds the key.
pub async fn rotation(measured: &impl Measured) -> anyhow::Result<(Duration, Duration)> {
    let branch = format!("trustweave/{}", trust_domain(CLUSTERS[1]));
    let git = measured.git();
    let commits = git.log(&branch).await?.len();
    let spire = measured.server(CLUSTERS[1])?;
    spire.rotate_x509().await?;
    let begun = Instant::now();
    let published = async {
        wait_until("the rotation to be published", PATIENCE, async || {
            Ok((git.log(&branch).await?.len() > commits).then_some(()))
        })
        .await?;
        anyhow::Ok(begun.elapsed())
    };
    let delivered = async {
        same_keys(measured, CLUSTERS[0], CLUSTERS[1]).await?;
        anyhow::Ok(begun.elapsed())
    };
    let times = tokio::try_join!(published, delivered)?;
    let made = git.log(&branch).await?.len() - commits;
    ensure!(made == 1, "{made} commits for one rotation");
    Ok(times)
}

/// The same while the git server is down, so that no agent can do anything: until SPIRE's own poll of the peer's bundle
/// endpoint has brought the key. Ends when the key is published, too.
pub async fn rotation_without_git(measured: &impl Measured) -> anyhow::Result<Duration> {
    let branch = format!("trustweave/{}", trust_domain(CLUSTERS[1]));
    let git = measured.git();
    let commits = git.log(&branch).await?.len();
    git.stop().await?;
    let polled = polling(measured).await;
    git.start().await?;
    wait_until("the rotation to be published", PATIENCE, async || {
        Ok((git.log(&branch).await?.len() > commits).then_some(()))
    })
    .await?;
    polled
}

/// The same without an agent in cluster-1: until SPIRE's own poll has brought the key.
pub async fn polling(measured: &impl Measured) -> anyhow::Result<Duration> {
    let spire = measured.server(CLUSTERS[1])?;
    spire.rotate_x509().await?;
    let begun = Instant::now();
    same_keys(measured, CLUSTERS[0], CLUSTERS[1]).await?;
    Ok(begun.elapsed())
}

/// How many writes a pass makes over a commit that changes nothing for cluster-1.
pub async fn writes_of_a_pass_with_nothing_to_do(measured: &impl Measured) -> anyhow::Result<u64> {
    let metric = "trustweave_writes_total";
    let before = measured.metric(CLUSTERS[0], metric).await?;
    let files = [("docs/note.md", "nothing that a cluster applies\n")];
    let commit = measured.git().commit("main", &files, "Add a note").await?;
    measured.in_force(CLUSTERS[0], &commit).await?;
    let after = measured.metric(CLUSTERS[0], metric).await?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    Ok((after - before).max(0.0) as u64)
}

/// Waits until a workload of each cluster holds exactly what the other's agent published last.
pub async fn confirmed(measured: &impl Measured) -> anyhow::Result<()> {
    for cluster in CLUSTERS {
        let branch = format!("trustweave/{}", trust_domain(peer_of(cluster)));
        // Not what the other cluster tells: its status follows the commit.
        let published = measured.git().show(&branch, "bundle.attestation.json");
        let published: Value = serde_json::from_str(&published.await?)?;
        let version = format!("{}.{}", published["epoch"], published["serial"]);
        let confirmed = |status: &Value| {
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let mut conditions = conditions.filter(|condition| condition["type"] == "Confirmed");
            status["version"] == version.as_str()
                && conditions.any(|condition| condition["status"] == "True")
        };
        measured.until_peer(cluster, "Confirmed", confirmed).await?;
    }
    Ok(())
}

impl Measured for Federation {
    fn git(&self) -> &GitRemote {
        &self.testbed.git
    }

    fn server(&self, cluster: &str) -> anyhow::Result<&ServerCommands> {
        Ok(&self.testbed.cluster(cluster)?.spire)
    }

    fn signer(&self, cluster: &str) -> anyhow::Result<&str> {
        Ok(&self.signer(cluster)?.public)
    }

    fn kubeconfig(&self, cluster: &str) -> anyhow::Result<&Path> {
        Ok(self.testbed.cluster(cluster)?.kubeconfig())
    }

    fn directory(&self) -> &Path {
        self.testbed.directory()
    }

    async fn metric(&self, cluster: &str, metric: &str) -> anyhow::Result<f64> {
        self.metric(cluster, metric).await
    }

    async fn kubectl(&self, cluster: &str, arguments: &[&str]) -> anyhow::Result<String> {
        self.testbed.cluster(cluster)?.kubectl(arguments).await
    }
}

impl Measured for nodes::federation::Federation {
    fn git(&self) -> &GitRemote {
        &self.nodes.git
    }

    fn server(&self, cluster: &str) -> anyhow::Result<&ServerCommands> {
        Ok(&self.nodes.cluster(cluster)?.spire)
    }

    fn signer(&self, cluster: &str) -> anyhow::Result<&str> {
        self.signer(cluster)
    }

    fn kubeconfig(&self, cluster: &str) -> anyhow::Result<&Path> {
        Ok(self.nodes.cluster(cluster)?.kubeconfig())
    }

    fn directory(&self) -> &Path {
        self.nodes.directory()
    }

    async fn metric(&self, cluster: &str, metric: &str) -> anyhow::Result<f64> {
        let leader = self.leader(cluster).await?;
        Ok(sum(
            &self.http_get(cluster, &leader, "/metrics").await?,
            metric,
        ))
    }

    async fn kubectl(&self, cluster: &str, arguments: &[&str]) -> anyhow::Result<String> {
        self.nodes.cluster(cluster)?.kubectl(arguments).await
    }
}

/// Resident memory of a process in KiB.
pub fn resident(process: u32) -> anyhow::Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))
        .context("read the memory of the agent")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.context("the memory of the agent is not told")
}
