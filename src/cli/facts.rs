//! Reading what checks and proofs take: a repository, a cluster, and its peers' bundle endpoints.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::Value;

use super::{Connection, installation, repository};
use crate::{
    cluster::{self, Cluster as _, KubeCluster, installation as live, types},
    federation::{
        checkup::{Answer, ClusterFacts, Polled, RepositoryFacts, Silence, polled},
        installation::{Candidate, candidates, read},
        objects::{CFTD, CLUSTER_SPIFFE_ID, CLUSTER_STATIC_ENTRY, SPIRE_API_VERSION},
    },
    git::LocalRepository,
    model::{attestation, bundle::Bundle, diagnostic::with_causes, manifest::Gvk},
    reconcile::{desired, reported},
    spire::endpoint::{self, Endpoint, Identity},
};

/// How many endpoints are asked at once.
const AT_ONCE: usize = 16;

/// What is looked at in a cluster, and when.
pub(super) struct Asked<'a> {
    pub(super) namespace: Option<&'a str>,
    pub(super) endpoints: bool,
    pub(super) now: Timestamp,
}

/// Reads the repository at a commit, and what is published on its branches.
pub(super) fn repository(
    directory: &Path,
    reference: &str,
    now: Timestamp,
) -> anyhow::Result<RepositoryFacts> {
    let repository = LocalRepository::open(directory)
        .with_context(|| format!("open the git repository in `{}`", directory.display()))?;
    let revision = repository.resolve(reference)?;
    let tree = repository.tree(&revision)?;
    let (declarations, diagnostics) = desired::check(&tree, now);
    let mut publications = BTreeMap::new();
    for (trust_domain, declaration) in &declarations.trust_domains {
        let mut found = repository::branches(&repository, trust_domain)?.into_iter();
        let files = match found.next() {
            Some(found) => found.files,
            None => desired::publication_on_main(&tree, trust_domain),
        };
        let verdict = attestation::verify(trust_domain, declaration, &files, now);
        publications.insert(trust_domain.clone(), verdict);
    }
    Ok(RepositoryFacts {
        now,
        declarations,
        diagnostics,
        publications,
    })
}

/// Reads everything that a cluster tells, as far as whoever asks may read it.
pub(super) async fn cluster(
    connection: &Connection,
    name: String,
    asked: &Asked<'_>,
) -> anyhow::Result<ClusterFacts> {
    let reading = async {
        let cluster = connection.connect().await?;
        facts(&cluster, name.clone(), asked).await
    };
    let mut facts = reading.await.with_context(|| format!("the {name}"))?;
    if asked.endpoints {
        facts.answers = answers(&facts).await;
    }
    Ok(facts)
}

async fn facts(
    cluster: &KubeCluster,
    name: String,
    asked: &Asked<'_>,
) -> Result<ClusterFacts, cluster::Error> {
    // The first question is one whose failure says that nothing can be asked.
    let git_sync = reported::find_git_sync(cluster).await?;
    // What people call it, if an agent says so.
    let name = match types::GitSyncStatus::of(git_sync.as_ref()).cluster {
        unsaid if unsaid.is_empty() => name,
        told => format!("cluster {told}"),
    };
    let mut missing_kinds = Vec::new();
    for kind in [CFTD, CLUSTER_SPIFFE_ID, CLUSTER_STATIC_ENTRY] {
        let kind_of_spire = Gvk::new(SPIRE_API_VERSION, kind).group_kind();
        if matches!(cluster.preferred(&kind_of_spire).await, Ok(None)) {
            missing_kinds.push(kind.to_owned());
        }
    }
    let mut objects = installation::objects(cluster).await;
    let mut found = candidates(&objects.stateful_sets);
    found.retain(|it| asked.namespace.is_none_or(|wanted| it.namespace == wanted));
    let number = found.len();
    let mut pods = Vec::new();
    let mut server = None;
    if let [candidate] = found.as_slice() {
        objects.config_maps = installation::config_maps(cluster, candidate, &mut objects).await;
        pods = self::pods(cluster, candidate, &mut objects.unread).await;
        server = Some((candidate.clone(), read(&objects, candidate)));
    }
    let peers = types::trust_peer_kind();
    let trust_peers = live::all(
        cluster,
        &peers.api_version(),
        &peers.kind,
        &mut objects.unread,
    )
    .await;
    Ok(ClusterFacts {
        name,
        now: asked.now,
        objects,
        server,
        candidates: number,
        pods,
        missing_kinds,
        git_sync,
        trust_peers,
        answers: BTreeMap::new(),
    })
}

/// The pods in the server's namespace that have one of its labels: others are nobody's business.
async fn pods(
    cluster: &KubeCluster,
    candidate: &Candidate,
    unread: &mut Vec<String>,
) -> Vec<Value> {
    let mut labels = candidate.pod_labels.as_object().into_iter().flatten();
    let label = labels.find_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    match cluster.list(&Gvk::new("v1", "Pod"), label).await {
        Ok(mut found) => {
            found.retain(|it| it["metadata"]["namespace"] == candidate.namespace.as_str());
            found
        }
        Err(error) => {
            unread.push(format!("not read: {}", with_causes(&error)));
            Vec::new()
        }
    }
}

/// Asks every endpoint that the cluster's SPIRE polls, as it does.
async fn answers(facts: &ClusterFacts) -> BTreeMap<String, Answer> {
    let relationships = polled(facts);
    // An endpoint may prove itself by an ID of another trust domain than the peer's.
    let bundles: BTreeMap<_, _> = relationships
        .iter()
        .filter_map(|it| Some((it.trust_domain.clone(), it.bundle.clone()?)))
        .collect();
    let asked = relationships.iter().map(|it| {
        let roots = it
            .spiffe_id
            .as_ref()
            .and_then(|id| bundles.get(&id.trust_domain()));
        async move { (it.name.clone(), answer(it, roots).await) }
    });
    stream::iter(asked)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

async fn answer(relationship: &Polled, roots: Option<&Bundle>) -> Answer {
    let identity = match (&relationship.spiffe_id, roots) {
        (None, _) => Identity::Web,
        (Some(id), Some(bundle)) => Identity::Spiffe {
            id: id.clone(),
            roots: bundle
                .x509_authorities
                .iter()
                .map(|it| it.certificate.clone())
                .collect(),
        },
        (Some(id), None) => {
            return Err(Silence::NotAsked(format!(
                "no bundle of `{}` stands here to verify it with",
                id.trust_domain()
            )));
        }
    };
    let endpoint = Endpoint {
        url: relationship.url.clone(),
        identity,
    };
    endpoint::fetch(&endpoint)
        .await
        .map_err(|error| match error {
            endpoint::Error::Identity { .. } => Silence::Unproven(error.to_string()),
            endpoint::Error::Bundle(_) | endpoint::Error::TooLarge => {
                Silence::NoBundle(error.to_string())
            }
            endpoint::Error::Roots(_) => Silence::NotAsked(error.to_string()),
            _ => Silence::Unreachable(error.to_string()),
        })
}
