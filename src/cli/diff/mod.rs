//! `trustweave diff`.

mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::{
    Answer, Connection, block_on,
    check::now,
    output::{self, Format},
    repository,
};
use crate::{
    cluster::{
        self, Cluster as _, Conflicts, KubeCluster, Mode, inventory,
        types::{self, GitSyncStatus, TrustPeerStatus},
    },
    federation::{
        impact::{self, Bundles, Change, Registrations},
        lifecycle::{LiveCftd, Phase},
        objects::{CFTD, SPIRE_API_VERSION},
        resolve::{Peers, Resolved, Standing},
    },
    git::LocalRepository,
    model::{
        attestation,
        declaration::TrustDomainSpec,
        declarations::Declarations,
        diagnostic::Diagnostic,
        manifest::{Gvk, Manifest, ObjectKey, ObjectRef},
        repository::Tree,
        trust_domain::{ClusterName, TrustDomain},
    },
    plan::{Action, diff::unified, prune},
    reconcile::desired,
};

/// How many dry runs are under way at once.
const CONCURRENCY: usize = 16;

/// Show what a change does to trust and to every cluster
///
/// With --base, compares two states of the repository and needs no cluster. The change of trust
/// comes first: keys that are taken back, changed signers and bundle endpoints, who will trust whom,
/// what still waits for whose consent, and which registrations gain or lose a peer. Then follows each cluster's changed
/// objects. Registrations are shown as they will be once SPIRE holds every peer's bundle.
///
/// With --live, asks a cluster's API server by dry run what applying the overlay would change now.
/// Nothing is written.
///
/// The values of Secrets are never shown.
///
/// Exit codes: 0 no change, 1 changes, 2 something could not be read, so that the answer is
/// incomplete.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave diff --base main                      what the files in this directory change
  trustweave diff --base main --head my-branch     what a branch changes
  trustweave diff --base \"$(git merge-base origin/main HEAD)\" --head HEAD
  trustweave diff --live                           what the cluster of the current context lacks
  trustweave diff --live --context admin@cluster-2")]
pub(super) struct Arguments {
    /// The repository's directory
    #[arg(long, value_name = "DIR", default_value = ".")]
    repo: PathBuf,

    /// Compare with this commit
    #[arg(
        long,
        value_name = "REF",
        required_unless_present = "live",
        conflicts_with = "live"
    )]
    base: Option<String>,

    /// Take this commit instead of the files in the directory
    #[arg(long, value_name = "REF")]
    head: Option<String>,

    /// Compare with what stands in a cluster
    #[arg(long)]
    live: bool,

    /// Only this cluster's objects; with --live, its overlay, if its GitSync does not tell
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,

    #[command(flatten)]
    connection: Connection,

    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What differs.
#[derive(Default)]
struct Report {
    /// `None` if declarations were not compared.
    trust: Option<Vec<Trust>>,
    clusters: BTreeMap<ClusterName, Vec<Object>>,
    /// How many things could not be read: what is reported is not everything.
    unread: usize,
}

/// A change of trust, with what it does to registrations.
struct Trust {
    change: Option<Change>,
    sentence: String,
    registrations: BTreeMap<ClusterName, Registrations>,
}

/// A changed object.
struct Object {
    action: Action,
    reference: ObjectRef,
    diff: String,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let head = repository::tree(&self.repo, self.head.as_deref())?;
        let report = match &self.base {
            Some(base) => {
                let base = repository::tree(&self.repo, Some(base))?;
                self.offline(&base, &head)?
            }
            None => block_on(self.against_cluster(&head))??,
        };
        match self.output {
            Format::Text => output::data(&report.text())?,
            Format::Json => output::json(&report.json())?,
        }
        match report.unread {
            0 if report.is_empty() => Ok(Answer::Yes),
            0 => Ok(Answer::No),
            count => bail!(
                "{}: the answer is incomplete",
                output::plural(count, "problem")
            ),
        }
    }

    /// Compares two states of the repository.
    fn offline(&self, base: &Tree, head: &Tree) -> anyhow::Result<Report> {
        let (before, former) = Declarations::load(base, None);
        // As the agents do: what can't be read any more stays as it was.
        let (after, mut diagnostics) = Declarations::load(head, Some(&before));
        let mut former = errors(&former);
        if let Some(cluster) = &self.cluster
            && before
                .trust_domain_of(cluster)
                .or(after.trust_domain_of(cluster))
                .is_none()
        {
            bail!("no trust domain declares the cluster `{cluster}`");
        }
        let mut report = Report::default();
        let mut registrations: BTreeMap<(TrustDomain, TrustDomain), BTreeMap<_, _>> =
            BTreeMap::new();
        for cluster in after.clusters() {
            let Some((trust_domain, _)) = after.trust_domain_of(cluster) else {
                continue;
            };
            let old = settled_overlay(base, &before, cluster);
            let new = settled_overlay(head, &after, cluster);
            for (peer, change) in impact::registrations(&old, &new) {
                let direction = (trust_domain.clone(), peer);
                registrations
                    .entry(direction)
                    .or_default()
                    .insert(cluster.clone(), change);
            }
            if self.cluster.as_ref().is_none_or(|only| only == cluster) {
                // What an unreadable file declares is not there, but not gone either.
                let complete = errors(&new.diagnostics) == 0;
                let objects = changed_objects(&old.manifests, &new.manifests, complete);
                if !objects.is_empty() {
                    report.clusters.insert(cluster.clone(), objects);
                }
            }
            former += errors(&old.diagnostics);
            diagnostics.extend(new.diagnostics);
        }
        let bundles = self.bundles((base, &before), (head, &after))?;
        let changes = impact::impact(&before, &after, &bundles);
        report.trust = Some(trust(changes, registrations));
        report.unread = tell(diagnostics, head);
        if former > 0 {
            output::note(&format!(
                "note: the base has {}: what it declares there is taken as absent",
                output::plural(former, "error")
            ));
        }
        Ok(report)
    }

    /// The verified bundles that make sentences more precise: of trust domains whose keys are talked
    /// about, or whose publication on the reviewed branch differs.
    fn bundles(
        &self,
        base: (&Tree, &Declarations),
        head: (&Tree, &Declarations),
    ) -> anyhow::Result<Bundles> {
        let mut names = impact::talked_about(base.1, head.1);
        let differs = |name: &&TrustDomain| {
            let files = |tree: &Tree| desired::publication_on_main(tree, name);
            files(base.0) != files(head.0)
        };
        let declared = head.1.trust_domains.keys();
        names.extend(declared.filter(differs).cloned());
        let mut bundles = Bundles {
            now: now(),
            ..Bundles::default()
        };
        if names.is_empty() {
            return Ok(bundles);
        }
        let repository = LocalRepository::open(&self.repo)?;
        for name in names {
            let branch = repository::branches(&repository, &name)?.into_iter().next();
            let verified = |(tree, declarations): (&Tree, &Declarations)| {
                let declaration = declarations.trust_domains.get(&name)?;
                let files = match &branch {
                    Some(found) => found.files.clone(),
                    None => desired::publication_on_main(tree, &name),
                };
                let verdict = attestation::verify(&name, declaration, &files, bundles.now);
                verdict.ok().map(|publication| publication.bundle)
            };
            let (before, after) = (verified(base), verified(head));
            bundles
                .before
                .extend(before.map(|bundle| (name.clone(), bundle)));
            bundles
                .after
                .extend(after.map(|bundle| (name.clone(), bundle)));
        }
        Ok(bundles)
    }

    /// Compares an overlay with what stands in its cluster.
    async fn against_cluster(&self, head: &Tree) -> anyhow::Result<Report> {
        let (declarations, mut diagnostics) = Declarations::load(head, None);
        let cluster = self.connection.connect().await?;
        let git_sync = match cluster.get(&types::git_sync_reference()).await {
            Err(cluster::Error::UnknownKind(_)) => None,
            found => found?,
        };
        let name = self.cluster_name(git_sync.as_ref())?;
        let Some((trust_domain, declaration)) = declarations.trust_domain_of(&name) else {
            tell(diagnostics, head);
            bail!("no trust domain declares the cluster `{name}`");
        };
        let peers = peers_now(&cluster, &declarations, trust_domain, declaration).await?;
        let resolved = desired::overlay(head, &declarations, &name, &peers);
        let complete = errors(&resolved.diagnostics) == 0;
        diagnostics.extend(resolved.diagnostics);
        let mut report = Report {
            unread: tell(diagnostics, head),
            ..Report::default()
        };
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
            report.clusters.insert(name, objects);
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

fn errors(diagnostics: &[Diagnostic]) -> usize {
    diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .count()
}

/// Writes diagnostics, each once, and counts the errors.
fn tell(mut diagnostics: Vec<Diagnostic>, tree: &Tree) -> usize {
    diagnostics.sort_by(|a, b| (&a.path, a.position).cmp(&(&b.path, b.position)));
    diagnostics.dedup();
    output::diagnostics(&diagnostics, tree);
    errors(&diagnostics)
}

/// A cluster's overlay as it will be in the end; empty if nobody declares the cluster.
fn settled_overlay(tree: &Tree, declarations: &Declarations, cluster: &ClusterName) -> Resolved {
    match declarations.trust_domain_of(cluster) {
        Some((trust_domain, _)) => {
            let peers = desired::settled_peers(declarations, trust_domain);
            desired::overlay(tree, declarations, cluster, &peers)
        }
        None => Resolved::default(),
    }
}

/// Joins each new or lost direction of trust with what it does to registrations; what happens to
/// registrations besides comes last.
fn trust(
    changes: Vec<Change>,
    mut registrations: BTreeMap<(TrustDomain, TrustDomain), BTreeMap<ClusterName, Registrations>>,
) -> Vec<Trust> {
    let mut trust: Vec<Trust> = Vec::new();
    for change in changes {
        let concerned = match &change {
            Change::Edge {
                importer, exporter, ..
            } => registrations.remove(&(importer.clone(), exporter.clone())),
            _ => None,
        };
        let concerned = concerned.unwrap_or_default();
        let mut all = Registrations::default();
        concerned.values().cloned().for_each(|one| all.extend(one));
        let sentences = [vec![change.to_string()], all.sentences("it")].concat();
        trust.push(Trust {
            change: Some(change),
            sentence: sentences.join("; "),
            registrations: concerned,
        });
    }
    for ((importer, exporter), concerned) in registrations {
        for (cluster, one) in concerned {
            let sentences = one.sentences(exporter.as_str()).join("; ");
            trust.push(Trust {
                change: None,
                sentence: format!("{importer}: in {cluster}, {sentences}"),
                registrations: BTreeMap::from([(cluster, one)]),
            });
        }
    }
    trust
}

fn changed_objects(old: &[Manifest], new: &[Manifest], complete: bool) -> Vec<Object> {
    let by_key = |manifests: &[Manifest]| -> BTreeMap<ObjectKey, Manifest> {
        manifests
            .iter()
            .map(|one| (one.reference.key(), one.clone()))
            .collect()
    };
    let (old, new) = (by_key(old), by_key(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter_map(|key| {
            let (old, new) = (old.get(key), new.get(key));
            let action = match (old, new) {
                (None, _) => Action::Create,
                (Some(_), Some(_)) => Action::Update,
                (Some(_), None) if complete => Action::Delete,
                (Some(_), None) => return None,
            };
            let reference = &new.or(old)?.reference;
            let object = |side: Option<&'_ Manifest>| side.map(|one| one.object.clone());
            changed(
                action,
                reference,
                object(old).as_ref(),
                object(new).as_ref(),
            )
        })
        .collect()
}

fn changed(
    action: Action,
    reference: &ObjectRef,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Option<Object> {
    let diff = unified(reference, before, after);
    (!diff.is_empty()).then(|| Object {
        action,
        reference: reference.clone(),
        diff,
    })
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
    let result = match cluster
        .apply(&object, Conflicts::Report, Mode::DryRun)
        .await
    {
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
    Ok(changed(action, &reference, live.as_ref(), Some(&result)))
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

impl Report {
    fn trust(&self) -> &[Trust] {
        self.trust.as_deref().unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.trust().is_empty() && self.clusters.is_empty()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.trust().is_empty() {
            text.push_str("Trust:\n");
            for trust in self.trust() {
                let _ = writeln!(text, "  {}", trust.sentence);
            }
            text.push('\n');
        }
        for (cluster, objects) in &self.clusters {
            let _ = writeln!(text, "Cluster {cluster}:");
            for object in objects {
                text.push_str(&object.diff);
            }
            text.push('\n');
        }
        text.push_str(&self.summary());
        text.push('\n');
        text
    }

    fn summary(&self) -> String {
        match self.unread {
            0 if self.is_empty() => return "no change".to_owned(),
            _ if self.is_empty() => return "no change in what could be read".to_owned(),
            _ => {}
        }
        let count = |action: Action| {
            let objects = self.clusters.values().flatten();
            objects.filter(|object| object.action == action).count()
        };
        let verbs = [Action::Create, Action::Update, Action::Delete].into_iter();
        let objects: Vec<_> = verbs
            .map(|action| (count(action), action.as_str()))
            .filter(|(count, _)| *count > 0)
            .map(|(count, verb)| format!("{} to {verb}", output::plural(count, "object")))
            .collect();
        let mut parts = Vec::new();
        match self.trust.as_deref() {
            None => {}
            Some([]) => parts.push("no change of trust".to_owned()),
            Some(trust) => parts.push(output::plural(trust.len(), "change") + " of trust"),
        }
        if objects.is_empty() {
            parts.push("no object changes".to_owned());
        } else {
            let clusters = output::plural(self.clusters.len(), "cluster");
            parts.push(format!("in {clusters}: {}", objects.join(", ")));
        }
        parts.join("; ")
    }

    fn json(&self) -> Value {
        let names = |references: &[ObjectRef]| -> Value {
            references.iter().map(ToString::to_string).collect()
        };
        let trust = |trust: &Trust| {
            let registrations: serde_json::Map<_, _> = trust
                .registrations
                .iter()
                .map(|(cluster, one)| {
                    let lists = json!({
                        "gain": names(&one.gain),
                        "lose": names(&one.lose),
                        "wait": names(&one.wait),
                    });
                    (cluster.to_string(), lists)
                })
                .collect();
            json!({
                "sentence": trust.sentence,
                "change": trust.change,
                "registrations": registrations,
            })
        };
        let objects = |objects: &Vec<Object>| -> Value {
            let one = |object: &Object| {
                json!({
                    "action": object.action.as_str(),
                    "object": object.reference.to_string(),
                    "diff": object.diff,
                })
            };
            objects.iter().map(one).collect()
        };
        let clusters: serde_json::Map<_, _> = self
            .clusters
            .iter()
            .map(|(cluster, changed)| (cluster.to_string(), objects(changed)))
            .collect();
        json!({
            "trust": self.trust().iter().map(trust).collect::<Vec<_>>(),
            "clusters": clusters,
        })
    }
}
