//! Git → cluster: a pass that renders, decides about peers, plans, applies and reports.

mod applying;
mod deliver;
mod facts;
mod overlay;
mod pruning;
mod request;
pub(super) mod revision;
mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use serde_json::Value;
use thiserror::Error;

use self::{
    facts::{Live, foreign, undeclared},
    revision::Chosen,
};
use super::{desired, proposal::Proposed, report, settings::Applying};
use crate::{
    cluster::{
        self, Cluster, Conflicts, Mode, Watched, inventory,
        types::{self, GitSyncStatus, PublishedStatus},
    },
    federation::{
        lifecycle::{self, PeerState},
        objects::{
            CFTD, CLUSTER_SPIFFE_ID, CLUSTER_STATIC_ENTRY, Context, ProbePods, SPIRE_API_VERSION,
        },
        resolve::Peers,
    },
    git::{self, Heads, Repository},
    model::{
        attestation::Rejection,
        bundle::Bundle,
        declaration::{BundleEndpoint, Profile, TrustDomainSpec},
        declarations::Declarations,
        diagnostic::{Diagnostic, with_causes},
        manifest::{Gvk, Manifest, ObjectRef},
        repository::{Revision, Tree, trust_domain_path},
        trust_domain::{ClusterName, TrustDomain},
    },
    plan::{fight::Fights, settled::Settled},
    spire::endpoint::{self, Endpoint},
};

/// How many requests are under way at once: each is a connection, as the client speaks HTTP/1.1.
const CONCURRENCY: usize = 8;

/// Who the agent is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster that it serves.
    pub cluster: ClusterName,
    /// The trust domain of the cluster's SPIRE.
    pub trust_domain: TrustDomain,
    /// The pods by which probes see what SPIRE holds.
    pub probe: ProbePods,
    /// The public half of the signing key.
    pub signer: Option<String>,
}

/// What the other loop has to report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishReport {
    /// What stands in git by this agent.
    pub published: Option<PublishedStatus>,
    /// Where the own bundle is read, and why not elsewhere.
    pub source: Option<String>,
    /// What newer waits for people.
    pub proposed: Option<Proposed>,
    /// Why nothing newer does.
    pub failure: Option<String>,
}

/// What a pass is given besides the repository and the cluster.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// The remote's references.
    pub heads: &'a Heads,
    /// Why the remote can't be read at the moment: then its references are the last known ones.
    pub fetch_failure: Option<&'a str>,
    /// The roots that a workload holds, if there is such a view.
    pub observed: Option<&'a BTreeMap<TrustDomain, Vec<Vec<u8>>>>,
    /// What the agent itself saw at the endpoints that an [`Outcome`] asked it to look at.
    pub endpoints: &'a BTreeMap<TrustDomain, Bundle>,
    /// What the other loop has to report; `None` before its first pass.
    pub publish: Option<&'a PublishReport>,
    /// The time.
    pub now: Timestamp,
}

/// What a pass did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The commit in force.
    pub revision: Revision,
    /// All peers.
    pub peers: Vec<PeerState>,
    /// How many objects were created, updated or deleted; reports are not counted.
    pub writes: usize,
    /// What could not be applied, and why.
    pub failures: Vec<String>,
    /// Whether a failure may go away by itself.
    pub retry: bool,
    /// What is wrong with the repository.
    pub diagnostics: Vec<Diagnostic>,
    /// How many registrations are applied without a peer that they want.
    pub held_back: BTreeMap<TrustDomain, usize>,
    /// How many of the writes put back what somebody had changed.
    pub corrections: usize,
    /// How many objects somebody changes again and again.
    pub contested: usize,
    /// How many of the overlay's objects have failed, by the rules of kstatus.
    pub failed_objects: u64,
    /// When the next pass is to be made, even if nothing changes.
    pub wake: Option<Timestamp>,
    /// The endpoints that the agent should look at itself.
    pub looks: BTreeMap<TrustDomain, Endpoint>,
}

/// Why a pass could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The remote has no reviewed branch.
    #[error("the remote has no such branch yet")]
    NoBranch,
    /// The repository does not know this agent.
    #[error("no usable declaration says that cluster `{cluster}` belongs to `{trust_domain}`")]
    NotDeclared {
        /// The agent's cluster.
        cluster: ClusterName,
        /// The agent's trust domain.
        trust_domain: TrustDomain,
    },
    /// The reviewed branch was rewound or rewritten, and what was in force can't be read any more.
    #[error("{0}")]
    Rewound(String),
    /// The reviewed commit is not signed as the policy wants it, and nothing else is in force.
    #[error("{0}")]
    Unverified(String),
    /// The repository can't be read.
    #[error(transparent)]
    Git(#[from] git::Error),
    /// The cluster can't be read.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
}

/// The files of a publication by name.
type Files = BTreeMap<String, Vec<u8>>;

/// The loop's memory: only what saves work. Losing it changes nothing that a pass decides.
pub struct Sync<R, C> {
    repository: Arc<R>,
    /// The cluster, with the agent's own rights: what decisions about peers need, what is delivered,
    /// and what is reported.
    cluster: Arc<C>,
    /// The same cluster, with the rights that users granted: the overlay's objects, nothing else.
    overlays: Arc<C>,
    identity: Identity,
    applying: Applying,
    /// The last usable reading of each declaration.
    good: Option<Declarations>,
    settled: Settled,
    fights: Fights,
    trees: BTreeMap<Revision, Arc<Tree>>,
    /// What stands on the branches of publications.
    publications: BTreeMap<Revision, Result<Files, Rejection>>,
}

/// The writes of a pass, and what came of them.
#[derive(Default)]
struct Writes {
    made: usize,
    failures: Vec<String>,
    retry: bool,
    /// What was put back, and what somebody had changed in it.
    corrected: Vec<String>,
}

/// What the overlay's part of a pass is given.
struct Scope<'a> {
    manifests: &'a [Manifest],
    tree: &'a Tree,
    live: &'a Live,
    /// False while the manifests are known not to be all.
    complete: bool,
    now: Timestamp,
}

impl Writes {
    fn failed(&mut self, error: &cluster::Error) {
        self.failed_with(with_causes(error), error.is_retryable());
    }

    fn failed_with(&mut self, text: String, retry: bool) {
        self.retry |= retry;
        self.failures.push(text);
    }
}

impl<R: Repository, C: Cluster> Sync<R, C> {
    /// A loop that has not seen anything yet. `cluster` has the agent's own rights, `overlays` those
    /// for the overlay's objects.
    pub fn new(
        repository: Arc<R>,
        cluster: Arc<C>,
        overlays: Arc<C>,
        identity: Identity,
        applying: Applying,
    ) -> Self {
        Self {
            repository,
            cluster,
            overlays,
            identity,
            applying,
            good: None,
            settled: Settled::default(),
            fights: Fights::default(),
            trees: BTreeMap::new(),
            publications: BTreeMap::new(),
        }
    }

    /// What the own trust domain's owners declare, as far as was ever readable.
    pub fn own_declaration(&self) -> Option<&TrustDomainSpec> {
        self.good
            .as_ref()?
            .trust_domains
            .get(&self.identity.trust_domain)
    }

    /// Reads a revision's declarations; what is broken keeps its last usable reading.
    pub async fn load(
        &mut self,
        revision: &Revision,
        heads: &Heads,
    ) -> Result<Vec<Diagnostic>, Error> {
        self.trees.retain(|kept, _| kept == revision);
        let wanted: BTreeSet<&Revision> = heads.publications.values().collect();
        self.publications.retain(|kept, _| wanted.contains(kept));
        let tree = self.tree(revision).await?;
        let (declarations, diagnostics) = Declarations::load(&tree, self.good.as_ref());
        self.good = Some(declarations);
        Ok(diagnostics)
    }

    /// Makes a pass. An error means that nothing could be decided; what could not be applied is
    /// part of the outcome.
    pub async fn pass(&mut self, inputs: Inputs<'_>) -> Result<Outcome, Error> {
        let outcome = self.reconcile(&inputs).await;
        if let Err(error) = &outcome {
            self.report_failure(&inputs, &with_causes(error)).await;
        }
        outcome
    }

    async fn tree(&mut self, revision: &Revision) -> Result<Arc<Tree>, git::Error> {
        if let Some(tree) = self.trees.get(revision) {
            return Ok(tree.clone());
        }
        let tree = Arc::new(self.repository.tree(revision).await?);
        self.trees.insert(revision.clone(), tree.clone());
        Ok(tree)
    }

    async fn reconcile(&mut self, inputs: &Inputs<'_>) -> Result<Outcome, Error> {
        let live = self.read().await?;
        let looked = self.look_if_requested(&live, inputs).await;
        let inputs = &looked.inputs(inputs);
        let Chosen { revision, held } = self.choose(inputs.heads, &live).await?;
        let subject = self.subject(&revision, &live).await;
        let mut diagnostics = self.load(&revision, inputs.heads).await?;
        let tree = self.tree(&revision).await?;
        let declarations = self.good.clone().unwrap_or_default();
        let (context, retired) = self.context(&declarations, &tree, &live)?;
        let facts = self
            .facts(inputs, &tree, &declarations, &context, retired, &live)
            .await?;
        let foreign = foreign(&live, &context, &facts);
        let mut states = lifecycle::decide(&context, inputs.now, &facts);
        let declared = states.iter().map(|s| (s.peer.clone(), s.standing));
        let peers = Peers {
            declared: declared.collect(),
            foreign,
            undeclared: undeclared(&live, &context, &facts),
        };
        let resolved = desired::overlay(&tree, &declarations, &self.identity.cluster, &peers);
        let complete = !resolved.diagnostics.iter().any(Diagnostic::is_error);
        diagnostics.extend(resolved.diagnostics.iter().cloned());

        let mut writes = Writes::default();
        self.deliver(&context, &mut states, &live, inputs.now, &mut writes)
            .await;
        let suspended = live
            .git_sync
            .as_ref()
            .is_some_and(|sync| sync["spec"]["suspend"] == true);
        let failures = writes.failures.len();
        let manifests = self.members(resolved.manifests.clone(), &mut writes).await;
        // What could not be looked up is declared all the same, and must not be pruned.
        let complete = complete && writes.failures.len() == failures;
        let scope = Scope {
            manifests: &manifests,
            tree: &tree,
            live: &live,
            complete,
            now: inputs.now,
        };
        let overlay = self.keep_overlay(&scope, &states, suspended, &mut writes);
        let overlay = overlay.await?;
        // Last: no peer waits for the own server.
        let server = self
            .keep_server(
                inputs,
                &declarations,
                retired,
                suspended,
                &live,
                &mut writes,
            )
            .await;
        self.watch(&manifests, &server.watched);

        let former = GitSyncStatus::of(live.git_sync.as_ref());
        let handled_request = request::of(live.git_sync.as_ref()).or(former.handled_request);
        let told = report::Pass {
            identity: &self.identity,
            revision: &revision,
            subject,
            states: &states,
            resolved: &resolved,
            objects: manifests.len(),
            writes: writes.made,
            failures: &writes.failures,
            overlay: &overlay,
            diagnostics: &diagnostics,
            suspended: suspended.then(|| live.suspend_reason()),
            handled_request: handled_request.as_deref(),
            held: held.as_ref(),
            retired,
            server: &server.told,
            inputs,
        };
        self.report(&told, &live).await?;
        Ok(Outcome {
            held_back: resolved
                .held_back
                .iter()
                .map(|(peer, registrations)| (peer.clone(), registrations.len()))
                .collect(),
            corrections: writes.corrected.len(),
            contested: overlay.contested.len(),
            failed_objects: overlay.health.failed,
            wake: states
                .iter()
                .filter_map(|state| state.wake)
                .chain(overlay.wake)
                .min(),
            looks: looks(&states, &declarations),
            revision,
            peers: states,
            writes: writes.made,
            failures: writes.failures,
            retry: writes.retry,
            diagnostics,
        })
    }

    /// What all peers' objects have in common, and whether the repository has dismissed this agent:
    /// its trust domain or its cluster is gone from it, and nothing names them any more.
    fn context(
        &self,
        declarations: &Declarations,
        tree: &Tree,
        live: &Live,
    ) -> Result<(Context, bool), Error> {
        let (own, cluster) = (&self.identity.trust_domain, &self.identity.cluster);
        let declared = declarations.trust_domains.get(own);
        let member =
            declared.is_some_and(|spec| spec.clusters.iter().any(|it| it.name == *cluster));
        let retired = match declared {
            Some(_) => !member,
            None => {
                !declarations.topology_unknown
                    && tree.get(&trust_domain_path(own)).is_none()
                    && !declarations.topology.names(own)
            }
        };
        // Who was dismissed still has to take away what it delivered.
        let class_name = match declared {
            Some(spec) => Some(spec.spire.class_name.clone()),
            None if retired => live.class_name(),
            None => None,
        };
        let class_name = class_name.ok_or_else(|| Error::NotDeclared {
            cluster: cluster.clone(),
            trust_domain: own.clone(),
        })?;
        let context = Context {
            trust_domain: own.clone(),
            class_name,
            probe: self.identity.probe.clone(),
        };
        Ok((context, retired))
    }

    /// Watches our members, the SPIRE server's objects, and everything that decisions about peers
    /// need.
    fn watch(&self, manifests: &[Manifest], server: &[ObjectRef]) {
        let members = manifests.iter().map(|manifest| {
            let gvk = manifest.reference.gvk.clone();
            Watched::labelled(gvk, inventory::PART_OF, inventory::id())
        });
        self.overlays.watch(&members.collect());
        let mut watched: BTreeSet<_> = server.iter().map(Watched::one).collect();
        for gvk in [
            Gvk::new(SPIRE_API_VERSION, CFTD),
            Gvk::new(SPIRE_API_VERSION, CLUSTER_SPIFFE_ID),
            Gvk::new(SPIRE_API_VERSION, CLUSTER_STATIC_ENTRY),
            types::trust_peer_kind(),
            types::git_sync_kind(),
        ] {
            watched.insert(Watched::all(gvk));
        }
        self.cluster.watch(&watched);
    }

    /// Writes the status objects that differ from what stands there.
    async fn report(&self, pass: &report::Pass<'_>, live: &Live) -> Result<(), Error> {
        for state in pass.states {
            let former = live.peers.get(&state.peer);
            let object = report::trust_peer(state);
            let name = object["metadata"]["name"].clone();
            if report::is_forgettable(state) {
                if let Some((former, _)) = former {
                    self.cluster.delete(former).await?;
                }
                continue;
            }
            let status = report::trust_peer_status(pass, state, former.map(|(_, status)| status));
            let standing = match former {
                Some((standing, _)) => standing.clone(),
                None => {
                    self.cluster
                        .apply(&object, Conflicts::Take, Mode::Persist)
                        .await?
                }
            };
            self.write_status(&types::trust_peer_kind(), &name, &status, &standing)
                .await?;
            let before = former.map(|(_, status)| status);
            for happening in report::happenings(state, &status, before, &standing) {
                self.cluster.announce(happening).await;
            }
        }
        let standing = match &live.git_sync {
            Some(standing) => standing.clone(),
            None => self
                .cluster
                .get(&types::git_sync_reference())
                .await?
                .unwrap_or_default(),
        };
        let former = GitSyncStatus::of(Some(&standing));
        let status = report::git_sync_status(pass, &former);
        self.write_status(
            &types::git_sync_kind(),
            &types::GIT_SYNC_NAME.into(),
            &status,
            &standing,
        )
        .await?;
        let server = pass.server;
        let of_server = report::server_happenings(server, &former, &status, &standing);
        let overlay = pass.overlay;
        let of_overlay = overlay.happenings(&self.identity.cluster, &former, &standing);
        for happening in of_server.into_iter().chain(of_overlay) {
            self.cluster.announce(happening).await;
        }
        Ok(())
    }

    async fn write_status(
        &self,
        gvk: &Gvk,
        name: &Value,
        status: &impl serde::Serialize,
        standing: &Value,
    ) -> Result<(), Error> {
        let status = serde_json::to_value(status).unwrap_or_default();
        if standing.get("status") == Some(&status) {
            return Ok(());
        }
        let object = serde_json::json!({
            "apiVersion": gvk.api_version(), "kind": gvk.kind,
            "metadata": {"name": name}, "status": status,
        });
        self.cluster.apply_status(&object).await?;
        Ok(())
    }

    /// Says in the `GitSync` that nothing could be decided, as far as the cluster can be reached.
    async fn report_failure(&self, inputs: &Inputs<'_>, message: &str) {
        let report = async {
            let reference = types::git_sync_reference();
            let standing = if let Some(standing) = self.cluster.get(&reference).await? {
                standing
            } else {
                let parent = inventory::parent(&BTreeSet::new(), &BTreeSet::new());
                self.cluster
                    .apply(&parent, Conflicts::Take, Mode::Persist)
                    .await?
            };
            let former = GitSyncStatus::of(Some(&standing));
            let mut status = report::failed(&self.identity, message, inputs, &former);
            status.handled_request = request::of(Some(&standing)).or(former.handled_request);
            self.write_status(&reference.gvk, &reference.name.into(), &status, &standing)
                .await
        };
        if let Err(error) = report.await {
            tracing::debug!(error = %with_causes(&error), "the failure could not be reported");
        }
    }
}

/// The endpoints that the agent should look at, with what is needed to know them.
fn looks(states: &[PeerState], declarations: &Declarations) -> BTreeMap<TrustDomain, Endpoint> {
    let roots = |of: &TrustDomain| -> Vec<Vec<u8>> {
        let state = states.iter().find(|state| state.peer == *of);
        let bundle = state.and_then(|state| state.bundle.as_ref());
        let roots = bundle.into_iter().flat_map(|it| &it.x509_authorities);
        roots.map(|root| root.certificate.clone()).collect()
    };
    let wanted = states.iter().filter(|state| state.look_at_endpoint);
    wanted
        .filter_map(|state| {
            let declaration = declarations.trust_domains.get(&state.peer)?;
            let BundleEndpoint::Served(served) = &declaration.bundle_endpoint else {
                return None;
            };
            let identity = match (served.profile, &served.spiffe_id) {
                (Profile::HttpsSpiffe, Some(id)) => endpoint::Identity::Spiffe {
                    id: id.clone(),
                    roots: roots(&id.trust_domain()),
                },
                (Profile::HttpsSpiffe, None) => return None,
                (Profile::HttpsWeb, _) => endpoint::Identity::Web,
            };
            let url = served.url.clone();
            Some((state.peer.clone(), Endpoint { url, identity }))
        })
        .collect()
}
