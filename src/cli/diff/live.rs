//! The repository and what stands in a cluster.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, stream};
use serde_json::Value;

use super::{
    Arguments,
    report::{Changed, Object, Report, changed, errors},
    server,
};
use crate::{
    cli::output,
    cluster::{
        self, Cluster as _, Conflicts, KubeCluster, Mode, inventory,
        types::{self, GitSyncStatus, TrustPeerStatus},
    },
    federation::{
        lifecycle::{LiveCftd, Phase},
        objects::{CFTD, SPIRE_API_VERSION},
        resolve::{Peers, Standing},
    },
    model::{
        declaration::TrustDomainSpec,
        declarations::Declarations,
        manifest::{Gvk, Manifest, ObjectRef},
        repository::Tree,
        trust_domain::{ClusterName, TrustDomain},
    },
    plan::{Action, prune},
    reconcile::{desired, reported::find_git_sync},
};

/// How many dry runs are under way at once.
const CONCURRENCY: usize = 16;

impl Arguments {
    /// Compares an overlay with what stands in its cluster.
    pub(super) async fn against_cluster(&self, head: &Tree) -> anyhow::Result<Report> {
        let (declarations, mut diagnostics) = Declarations::load(head, None);
        let cluster = self.connection.connect().await?;
        let git_sync = find_git_sync(&cluster).await?;
        let name = self.cluster_name(git_sync.as_ref())?;
        let Some((trust_domain, declaration)) = declarations.trust_domain_of(&name) else {
            Report::default().tell(diagnostics, head);
            bail!("no trust domain declares the cluster `{name}`");
        };
        let peers = peers_now(&cluster, &declarations, trust_domain, declaration).await?;
        let resolved = desired::overlay(head, &declarations, &name, &peers);
        let complete = errors(&resolved.diagnostics) == 0;
        diagnostics.extend(resolved.diagnostics);
        let mut report = Report::default();
        report.tell(diagnostics, head);
        let mut objects = dry_run(&cluster, &resolved.manifests, &mut report.unread).await;
        if complete {
            let recorded = git_sync
                .as_ref()
                .map(inventory::group_kinds)
                .unwrap_or_default();
            objects.extend(pruned(&cluster, &resolved.manifests, recorded).await?);
        }
        let git_sync = git_sync.as_ref();
        let unread = &mut report.unread;
        objects
            .extend(server::changes(&cluster, &declarations, trust_domain, git_sync, unread).await);
        if !objects.is_empty() {
            let changed = Changed {
                objects,
                ..Changed::default()
            };
            report.clusters.insert(name, changed);
        }
        Ok(report)
    }

    /// Which cluster this is: what its agent says, which must not contradict what was asked for.
    fn cluster_name(&self, git_sync: Option<&Value>) -> anyhow::Result<ClusterName> {
        let status = GitSyncStatus::of(git_sync);
        match (&self.cluster, status.cluster.as_str()) {
            (Some(asked), told) if told.is_empty() || told == asked.as_str() => Ok(asked.clone()),
            (Some(asked), told) => {
                bail!("this is the cluster `{told}`, not `{asked}`: choose another --context")
            }
            (None, "") => {
                bail!("the cluster has no GitSync that tells its name: say --cluster NAME")
            }
            (None, told) => ClusterName::parse(told).context("the name that the GitSync tells"),
        }
    }
}

/// Lists objects; none of a kind that the cluster does not have.
async fn list(
    cluster: &KubeCluster,
    gvk: &Gvk,
    label: Option<(&str, &str)>,
) -> Result<Vec<Value>, cluster::Error> {
    match cluster.list(gvk, label).await {
        Err(cluster::Error::UnknownKind(_)) => Ok(Vec::new()),
        listed => listed,
    }
}

/// The peers as they stand in the cluster: one that is not federated yet is held back now.
async fn peers_now(
    cluster: &KubeCluster,
    declarations: &Declarations,
    trust_domain: &TrustDomain,
    declaration: &TrustDomainSpec,
) -> Result<Peers, cluster::Error> {
    let relationship = Gvk::new(SPIRE_API_VERSION, CFTD);
    let relationships = list(cluster, &relationship, None).await?;
    let mut peers = desired::settled_peers(declarations, trust_domain);
    let mut federated = BTreeSet::new();
    for object in list(cluster, &types::trust_peer_kind(), None).await? {
        let name = object["spec"]["trustDomain"].as_str().unwrap_or_default();
        let Ok(peer) = TrustDomain::parse(name) else {
            continue;
        };
        let status = object.get("status").cloned().unwrap_or_default();
        let status: TrustPeerStatus = serde_json::from_value(status).unwrap_or_default();
        if status.phase == Phase::Federated.as_str() {
            federated.insert(peer.clone());
        }
        peers.declared.entry(peer).or_insert(Standing::Leaving);
    }
    for (peer, standing) in &mut peers.declared {
        if *standing == Standing::Ready && !federated.contains(peer) {
            *standing = Standing::HeldBack;
        }
    }
    peers.foreign = relationships
        .iter()
        .filter_map(|object| LiveCftd::read(object, &declaration.spire.class_name))
        .map(|(peer, _)| peer)
        .filter(|peer| !peers.declared.contains_key(peer))
        .collect();
    Ok(peers)
}

/// Asks the API server what each object would become. What it refuses is told, and counted.
async fn dry_run(
    cluster: &KubeCluster,
    manifests: &[Manifest],
    refused: &mut usize,
) -> Vec<Object> {
    let foundations = Foundations::of(manifests);
    let foundations = &foundations;
    let requests = manifests.iter().map(|manifest| async move {
        compare(cluster, manifest, foundations)
            .await
            .with_context(|| manifest.origin.path.to_string())
    });
    let results: Vec<_> = stream::iter(requests).buffered(CONCURRENCY).collect().await;
    let mut objects = Vec::new();
    for result in results {
        match result {
            Ok(object) => objects.extend(object),
            Err(error) => {
                output::error(&error);
                *refused += 1;
            }
        }
    }
    objects
}

/// What the overlay itself brings, so that its absence in the cluster is no failure.
struct Foundations {
    kinds: BTreeSet<String>,
    namespaces: BTreeSet<String>,
}

impl Foundations {
    fn of(manifests: &[Manifest]) -> Self {
        let of_kind = |kind: &'static str| {
            manifests
                .iter()
                .filter(move |manifest| manifest.reference.gvk.kind == kind)
        };
        let group_kind = |manifest: &Manifest| {
            let spec = &manifest.object["spec"];
            let (kind, group) = (spec["names"]["kind"].as_str()?, spec["group"].as_str()?);
            Some(format!("{kind}.{group}"))
        };
        Self {
            kinds: of_kind("CustomResourceDefinition")
                .filter_map(group_kind)
                .collect(),
            namespaces: of_kind("Namespace")
                .map(|one| one.reference.name.clone())
                .collect(),
        }
    }
}

async fn compare(
    cluster: &KubeCluster,
    manifest: &Manifest,
    foundations: &Foundations,
) -> anyhow::Result<Option<Object>> {
    let mut object = manifest.object.clone();
    inventory::enrol(&mut object);
    match cluster.locate(&mut object).await {
        Err(cluster::Error::UnknownKind(kind))
            if foundations.kinds.contains(&kind.group_kind()) =>
        {
            return Ok(changed(
                Action::Create,
                &manifest.reference,
                None,
                Some(&object),
            ));
        }
        located => located?,
    }
    let reference = ObjectRef::of(&object).context("an object lost its identity")?;
    let live = cluster.get(&reference).await?;
    let mut conflicts = Vec::new();
    let result = match cluster
        .apply(&object, Conflicts::Report, Mode::DryRun)
        .await
    {
        // What it would be if the agent took the fields, with those whose they are.
        Err(cluster::Error::Conflict { fields, .. }) => {
            conflicts = fields;
            cluster
                .apply(&object, Conflicts::Take, Mode::DryRun)
                .await?
        }
        // The namespace comes with the overlay, too.
        Err(error)
            if error.is_not_found()
                && live.is_none()
                && reference
                    .namespace
                    .as_ref()
                    .is_some_and(|namespace| foundations.namespaces.contains(namespace)) =>
        {
            object
        }
        result => result?,
    };
    let action = if live.is_some() {
        Action::Update
    } else {
        Action::Create
    };
    let mut found = changed(action, &reference, live.as_ref(), Some(&result));
    if let Some(object) = &mut found {
        object.conflicts = conflicts;
    }
    Ok(found)
}

/// The members of the agent's set that the overlay no longer has. Those that stay are told.
async fn pruned(
    cluster: &KubeCluster,
    manifests: &[Manifest],
    recorded: BTreeSet<String>,
) -> anyhow::Result<Vec<Object>> {
    let mut kinds: BTreeMap<String, Gvk> = BTreeMap::new();
    let mut declared = BTreeSet::new();
    for manifest in manifests {
        let gvk = &manifest.reference.gvk;
        kinds.insert(gvk.group_kind(), gvk.clone());
        let mut object = manifest.object.clone();
        if cluster.locate(&mut object).await.is_ok() {
            declared.extend(ObjectRef::of(&object).map(|reference| reference.key()));
        }
    }
    for former in recorded {
        if !kinds.contains_key(&former)
            && let Some(gvk) = cluster.preferred(&former).await?
        {
            kinds.insert(former, gvk);
        }
    }
    let id = inventory::id();
    let mut objects = Vec::new();
    for gvk in kinds.values() {
        for member in list(cluster, gvk, Some((inventory::PART_OF, &id))).await? {
            let Some(reference) = ObjectRef::of(&member) else {
                continue;
            };
            if declared.contains(&reference.key()) {
                continue;
            }
            match prune::may_delete(&reference, &member, true) {
                Ok(()) => objects.extend(changed(Action::Delete, &reference, Some(&member), None)),
                Err(why) => output::note(&format!("note: {reference} stays: {why}")),
            }
        }
    }
    Ok(objects)
}
