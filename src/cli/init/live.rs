//! Reading a cluster: what its agent reports, and the SPIRE that is installed in it.

use super::super::installation;
use crate::{
    cluster::{
        KubeCluster,
        secret::{SecretKey as _, SecretValue},
        types::GitSyncStatus,
    },
    federation::installation::{Candidate, Found, Installation, candidates, read},
    model::{
        bundle_endpoint::Profile,
        declaration::{Distribution, Signer},
        trust_domain::{ClusterName, TrustDomain},
    },
    reconcile::reported::find_git_sync,
};

/// Where `deploy/` has the agent keep its key, and its public half beside it.
const SECRET: (&str, &str, &str) = ("trustweave-system", "trustweave-signing", "id_ed25519.pub");

/// What is known of a cluster; what is not is empty.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) cluster: Option<Found<ClusterName>>,
    pub(super) trust_domain: Option<Found<TrustDomain>>,
    pub(super) signer: Option<Found<String>>,
    pub(super) installation: Option<Installation>,
    /// How SPIRE is installed, if somebody said it instead.
    pub(super) said: Option<Said>,
    /// How and where peers reach the bundle endpoint, if somebody said it.
    pub(super) endpoint: Option<Found<(Profile, String)>>,
    /// The namespaces of several servers, of which nobody said which one is meant.
    pub(super) servers: Vec<String>,
    /// What can't be known, and what is odd.
    pub(super) notes: Vec<String>,
}

/// How SPIRE is installed, as somebody said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) distribution: Distribution,
    pub(super) namespace: String,
    pub(super) class_name: String,
    /// Where that is from.
    pub(super) place: &'static str,
}

/// Reads everything that a cluster tells. Where several SPIRE servers run, `namespace` says which.
pub(super) async fn known(
    cluster: &KubeCluster,
    namespace: Option<&str>,
) -> Result<Known, crate::cluster::Error> {
    let mut known = reported(cluster).await?;
    let mut objects = installation::objects(cluster).await;
    let mut found = candidates(&objects.stateful_sets);
    found.retain(|it| namespace.is_none_or(|wanted| it.namespace == wanted));
    let [candidate] = found.as_slice() else {
        known.notes.append(&mut objects.unread);
        known.notes.push(which(&found, namespace));
        known.servers = found.into_iter().map(|it| it.namespace).collect();
        return Ok(known);
    };
    objects.config_maps = installation::config_maps(cluster, candidate, &mut objects).await;
    let mut installation = read(&objects, candidate);
    known.notes.append(&mut installation.notes);
    if known.trust_domain.is_none() {
        known.trust_domain.clone_from(&installation.trust_domain);
    }
    if known.cluster.is_none()
        && let Some(found) = &installation.cluster_name
        && let Ok(name) = ClusterName::parse(&found.value)
    {
        known.cluster = Some(Found::new(name, format!("clusterName in {}", found.place)));
    }
    known.installation = Some(installation);
    Ok(known)
}

/// What there is instead of one server.
fn which(found: &[Candidate], namespace: Option<&str>) -> String {
    let place = namespace.map_or_else(String::new, |namespace| format!(" in {namespace}"));
    if found.is_empty() {
        return format!(
            "no SPIRE server was found{place}: no StatefulSet has a container with the image or the name \
             spire-server"
        );
    }
    let found = found.iter();
    let names: Vec<_> = found
        .map(|it| format!("{}/{}", it.namespace, it.stateful_set))
        .collect();
    format!(
        "several SPIRE servers were found{place} ({}): say which with --namespace",
        names.join(", ")
    )
}

/// What the cluster's agent reports, if one runs or ran there.
async fn reported(cluster: &KubeCluster) -> Result<Known, crate::cluster::Error> {
    let git_sync = find_git_sync(cluster).await?;
    let status = GitSyncStatus::of(git_sync.as_ref());
    let place = "the status of the GitSync";
    let signer = match status.signer {
        Some(signer) => Some(Found::new(signer, place)),
        None => kept(cluster).await,
    };
    let parsed = (
        ClusterName::parse(&status.cluster).ok(),
        TrustDomain::parse(&status.trust_domain).ok(),
    );
    Ok(Known {
        cluster: parsed.0.map(|name| Found::new(name, place)),
        trust_domain: parsed.1.map(|name| Found::new(name, place)),
        signer,
        ..Known::default()
    })
}

/// The public half that the agent put beside its key, if there is one that may be read.
async fn kept(cluster: &KubeCluster) -> Option<Found<String>> {
    let (namespace, name, key) = SECRET;
    let secret = cluster.secret_key(Some(namespace), name, key);
    let SecretValue::Bytes(line) = secret.read().await.ok()? else {
        return None;
    };
    let signer = Signer::parse(std::str::from_utf8(&line).ok()?).ok()?;
    Some(Found::new(
        signer.into(),
        format!("Secret {namespace}/{name}"),
    ))
}
