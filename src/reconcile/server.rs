//! What a decision about the cluster's SPIRE server needs is read, and the decision made.

use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    cluster::{self, Cluster, types::GitSyncStatus},
    federation::server::{self, Decision, Facts, Live, Memory, RESUME, TLS_ROUTE, Wanted},
    model::{
        declarations::Declarations, diagnostic::with_causes, manifest::ObjectRef,
        trust_domain::TrustDomain,
    },
};

/// How many objects are read at once.
const CONCURRENCY: usize = 8;

/// What was read, and what follows from it.
#[derive(Debug)]
pub struct Examined {
    /// The objects that were looked at.
    pub references: Vec<ObjectRef>,
    /// Those of them that are there.
    pub live: Live,
    /// What is to be done and told.
    pub decision: Decision,
}

/// The server's objects could not be read.
#[derive(Debug)]
pub struct Unreadable {
    /// What is remembered.
    pub memory: Memory,
    /// The objects that were looked at, as far as it went.
    pub references: Vec<ObjectRef>,
    /// Why.
    pub error: cluster::Error,
}

/// What a `GitSync` remembers.
pub fn remembered(git_sync: Option<&Value>) -> Memory {
    let status = GitSyncStatus::of(git_sync);
    status.server.as_ref().map(Memory::from).unwrap_or_default()
}

/// Looks at the SPIRE server of the trust domain `own`, of nobody if the repository has dismissed this
/// cluster. `None` if the agent neither manages the server nor did.
pub async fn examine<C: Cluster>(
    cluster: &C,
    declarations: &Declarations,
    own: Option<&TrustDomain>,
    git_sync: Option<&Value>,
    now: Timestamp,
) -> Result<Option<Examined>, Box<Unreadable>> {
    let mut memory = remembered(git_sync);
    let mut wanted = own.and_then(|own| Wanted::of(declarations, own));
    if wanted.is_none() && memory.installation.is_none() {
        return Ok(None);
    }
    let annotations = git_sync.map(|it| &it["metadata"]["annotations"]);
    memory.resume(annotations.and_then(|it| it[RESUME].as_str()));
    let mut references = Vec::new();
    let live = read(cluster, &mut wanted, &memory, &mut references).await;
    let live = match live {
        Ok(live) => live,
        Err(error) => {
            return Err(Box::new(Unreadable {
                memory,
                references,
                error,
            }));
        }
    };
    let declared = own.and_then(|own| declarations.trust_domains.get(own));
    let endpoint = declared.and_then(|spec| spec.bundle_endpoint.served());
    let decision = server::decide(&Facts {
        wanted: wanted.as_ref(),
        live: &live,
        memory: &memory,
        accept_data_loss: endpoint.is_some_and(|it| it.accept_data_loss),
        now,
    });
    Ok(Some(Examined {
        references,
        live,
        decision,
    }))
}

/// Reads what a decision needs, and what that in turn asks for.
async fn read<C: Cluster>(
    cluster: &C,
    wanted: &mut Option<Wanted>,
    memory: &Memory,
    references: &mut Vec<ObjectRef>,
) -> Result<Live, cluster::Error> {
    if let Some(wanted) = wanted.as_mut().filter(|wanted| wanted.needs_tls_route()) {
        wanted.tls_route = cluster.preferred(TLS_ROUTE).await?;
    }
    let mut live = Live::default();
    loop {
        let mut asked = server::reads(wanted.as_ref(), memory, &live);
        asked.retain(|reference| !references.contains(reference));
        if asked.is_empty() {
            return Ok(live);
        }
        let begun = references.len();
        references.extend(asked);
        read_objects(cluster, &references[begun..], &mut live).await?;
    }
}

/// Reads objects. A pod only tells more about the others.
async fn read_objects<C: Cluster>(
    cluster: &C,
    references: &[ObjectRef],
    live: &mut Live,
) -> Result<(), cluster::Error> {
    let mut reads = Vec::new();
    for reference in references {
        reads.push(async move { (reference, cluster.get(reference).await) });
    }
    let found: Vec<_> = stream::iter(reads)
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    for (reference, result) in found {
        match result {
            Ok(Some(object)) => live.insert(reference, object),
            Ok(None) => {}
            Err(cluster::Error::UnknownKind(gvk)) => live.lacks(&gvk),
            Err(error) if reference.gvk.kind == "Pod" => {
                tracing::debug!(%reference, error = %with_causes(&error), "not read");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
