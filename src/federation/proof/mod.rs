//! Whether a federation works, proven direction by direction: what an exporter's SPIRE holds is what it
//! publishes, what stands in the importer's relationship, and what the importer's workloads read back.
//!
//! Where [`checkup`](super::checkup) looks for causes, this looks for evidence: what could not be seen is
//! never taken for proven.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    checkup::{
        Answer, ClusterFacts, Federation, Polled, RepositoryFacts, Silence, polled, registered,
    },
    consent::{Consent, consent},
    installation::meaning::items,
};
use crate::model::{
    attestation::Publication,
    bundle::Bundle,
    bundle_endpoint::BundleEndpoint,
    distrust::{DistrustSpec, KeyId},
    topology::Edge,
    trust_domain::TrustDomain,
};

#[cfg(test)]
mod tests;

/// What is to be shown about one direction of trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// The exporter publishes, signed, what its SPIRE holds.
    Published,
    /// That stands in the importer's relationship.
    Delivered,
    /// Registrations of the importer's workloads name the exporter, and SPIRE accepts their entries.
    Named,
    /// A workload of the importer reads back exactly that.
    ReadBack,
    /// The exporter's bundle endpoint serves it, too.
    Served,
}

impl Claim {
    /// Its name for programs; it never changes.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Delivered => "delivered",
            Self::Named => "named",
            Self::ReadBack => "read-back",
            Self::Served => "served",
        }
    }

    /// Whether nothing is proven without it. Trust does not hang on an endpoint: git brings the keys.
    pub const fn is_needed(self) -> bool {
        !matches!(self, Self::Served)
    }
}

/// What the evidence says, each with a sentence without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It is so.
    For(String),
    /// It is not so.
    Against(String),
    /// It can't be seen.
    Missing(String),
}

/// A claim, and what the evidence says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The claim.
    pub claim: Claim,
    /// The evidence.
    pub evidence: Evidence,
}

/// What happened to the newest bundle on its way, and when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What, as a sentence without a full stop.
    pub what: String,
}

/// One direction of trust, in one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Who trusts.
    pub importer: TrustDomain,
    /// In which cluster, as people call it.
    pub cluster: String,
    /// Who is trusted.
    pub exporter: TrustDomain,
    /// Epoch and serial of what the exporter publishes, as `<epoch>.<serial>`.
    pub version: Option<String>,
    /// All claims, each once.
    pub steps: Vec<Step>,
    /// How the newest bundle came, the first event first.
    pub events: Vec<Event>,
}

impl Proof {
    /// Whether all that is needed is proven; without a view, what workloads read back is not needed.
    pub fn holds(&self, without_view: bool) -> bool {
        self.steps.iter().all(|step| match &step.evidence {
            Evidence::For(_) => true,
            Evidence::Against(_) => !step.claim.is_needed(),
            Evidence::Missing(_) => {
                !step.claim.is_needed() || (without_view && step.claim == Claim::ReadBack)
            }
        })
    }

    /// Whether the bundle arrived although no endpoint serves it: by git alone.
    pub fn is_by_git_alone(&self) -> bool {
        let is_for = |wanted: Claim| {
            let mut steps = self.steps.iter();
            steps.any(|it| it.claim == wanted && matches!(it.evidence, Evidence::For(_)))
        };
        is_for(Claim::Delivered) && !is_for(Claim::Served)
    }
}

/// Proves every active direction of trust into the clusters that were looked at; without a repository
/// nobody says which those are.
pub fn prove(clusters: &[ClusterFacts], repository: &RepositoryFacts) -> Vec<Proof> {
    let facts = Federation {
        clusters,
        repository: Some(repository),
    };
    let declarations = &repository.declarations;
    let active = declarations.topology.edges().into_iter();
    let active: Vec<Edge> = active
        .filter(|edge| consent(edge, declarations) == Consent::Given)
        .collect();
    let proofs = clusters.iter().flat_map(|cluster| {
        let of_cluster = active
            .iter()
            .filter(|edge| trust_domain(cluster).as_ref() == Some(&edge.importer));
        of_cluster.map(|edge| Direction::new(&facts, repository, cluster, edge).prove())
    });
    proofs.collect()
}

/// The trust domain of a cluster's SPIRE server; if no server is recognised, the one that the agent serves.
fn trust_domain(cluster: &ClusterFacts) -> Option<TrustDomain> {
    let served = || {
        let status = cluster.git_sync.as_ref()?.get("status")?;
        TrustDomain::parse(status["trustDomain"].as_str()?).ok()
    };
    cluster.trust_domain().cloned().or_else(served)
}

/// What is known of one direction.
struct Direction<'a> {
    edge: &'a Edge,
    cluster: &'a ClusterFacts,
    publication: Result<&'a Publication, String>,
    /// What the exporter's SPIRE holds, if one of its clusters was looked at.
    own: Option<Bundle>,
    relationship: Option<Polled>,
    answer: Option<&'a Answer>,
    endpoint: Option<&'a BundleEndpoint>,
    peer: Option<&'a Value>,
    distrusted: BTreeSet<&'a KeyId>,
}

impl<'a> Direction<'a> {
    fn new(
        facts: &Federation<'a>,
        repository: &'a RepositoryFacts,
        cluster: &'a ClusterFacts,
        edge: &'a Edge,
    ) -> Self {
        let exporter = &edge.exporter;
        let publication = match repository.publications.get(exporter) {
            Some(Ok(publication)) => Ok(publication),
            Some(Err(rejection)) => Err(rejection.to_string()),
            None => Err("nothing is published yet".to_owned()),
        };
        let mut exporters = facts.clusters.iter();
        let exporters = exporters.find(|it| trust_domain(it).as_ref() == Some(exporter));
        let relationship = polled(cluster)
            .into_iter()
            .find(|it| it.trust_domain == *exporter);
        let answer = relationship
            .as_ref()
            .and_then(|it| cluster.answers.get(&it.name));
        let distrust = repository.declarations.distrust.values();
        let declaration = repository.declarations.trust_domains.get(exporter);
        Self {
            edge,
            cluster,
            publication,
            own: exporters.and_then(ClusterFacts::own_bundle),
            relationship,
            answer,
            endpoint: declaration.map(|it| &it.bundle_endpoint),
            peer: cluster
                .trust_peers
                .iter()
                .find(|it| it["spec"]["trustDomain"] == exporter.as_str()),
            distrusted: distrust
                .flat_map(DistrustSpec::keys)
                .map(|(_, key)| key)
                .collect(),
        }
    }

    fn prove(&self) -> Proof {
        let claims = [
            (Claim::Published, self.published()),
            (Claim::Delivered, self.delivered()),
            (Claim::Named, self.named()),
            (Claim::ReadBack, self.read_back()),
            (Claim::Served, self.served()),
        ];
        let steps = claims.map(|(claim, evidence)| Step { claim, evidence });
        Proof {
            importer: self.edge.importer.clone(),
            cluster: self.cluster.name.clone(),
            exporter: self.edge.exporter.clone(),
            version: self.publication.as_ref().ok().map(|it| version(it)),
            steps: steps.into(),
            events: self.events(),
        }
    }

    /// Whether a bundle holds what is published, but for keys that somebody distrusts.
    fn is_published(&self, bundle: &Bundle) -> bool {
        let trusted = |bundle: &Bundle| bundle.clone().without(|key| self.distrusted.contains(key));
        let published = self.publication.as_ref();
        published.is_ok_and(|it| trusted(&it.bundle).same_keys(&trusted(bundle)))
    }

    fn published(&self) -> Evidence {
        let publication = match &self.publication {
            Ok(publication) => *publication,
            Err(reason) => return Evidence::Against(reason.clone()),
        };
        let version = version(publication);
        if let Some(own) = &self.own {
            return if self.is_published(own) {
                Evidence::For(format!(
                    "{version}, signed, has the keys that its SPIRE holds"
                ))
            } else {
                Evidence::Against(format!("its SPIRE holds other keys than {version} has"))
            };
        }
        match self.answer {
            Some(Ok(answer)) if self.is_published(answer) => Evidence::For(format!(
                "{version}, signed, has the keys that its endpoint serves"
            )),
            Some(Ok(_)) => {
                Evidence::Against(format!("its endpoint serves other keys than {version} has"))
            }
            _ => Evidence::Missing(format!(
                "{version} is signed; whether its SPIRE holds that was not seen: add its cluster by --context"
            )),
        }
    }

    fn delivered(&self) -> Evidence {
        let Some(relationship) = &self.relationship else {
            return Evidence::Against("there is no relationship with it".to_owned());
        };
        match &relationship.bundle {
            None => Evidence::Against("the relationship has no bundle that can be read".to_owned()),
            Some(bundle) if bundle.x509_authorities.is_empty() => {
                Evidence::Against("an empty bundle stands in the relationship".to_owned())
            }
            Some(bundle) if self.is_published(bundle) => {
                Evidence::For("the relationship holds exactly these keys".to_owned())
            }
            Some(_) => {
                let last = match self.status("version").as_str() {
                    Some(version) => format!("; {version} was delivered last"),
                    None => String::new(),
                };
                Evidence::Against(format!("the relationship holds other keys{last}"))
            }
        }
    }

    fn named(&self) -> Evidence {
        let exporter = self.edge.exporter.as_str();
        let naming: Vec<&Value> = registered(self.cluster)
            .filter(|it| items(&it["spec"]["federatesWith"]).any(|it| it == exporter))
            .collect();
        if naming.is_empty() {
            return Evidence::Against("no registration names it: no workload trusts it".to_owned());
        }
        let sum = |key: &str| {
            let stats = naming.iter().map(|it| &it["status"]["stats"][key]);
            stats.filter_map(Value::as_u64).sum::<u64>()
        };
        let fixed = naming.iter().filter(|it| it["status"]["set"] == true);
        let entries = sum("entriesToSet") + fixed.count() as u64;
        let refused = sum("entryFailures");
        let of = format!("{entries}, by {} registration(s)", naming.len());
        if refused > 0 {
            Evidence::Against(format!("SPIRE refused {refused} of the entries: {of}"))
        } else if naming.iter().all(|it| it["status"].is_null()) {
            Evidence::Missing(
                "SPIRE's controller manager has not said what became of them".to_owned(),
            )
        } else if entries == 0 {
            Evidence::Against("the registrations that name it yield no entry".to_owned())
        } else {
            Evidence::For(format!("entries that federate with it: {of}"))
        }
    }

    fn read_back(&self) -> Evidence {
        let Some(peer) = self.peer else {
            return Evidence::Missing("no agent reports about it in this cluster".to_owned());
        };
        let mut conditions = items(&peer["status"]["conditions"]);
        let confirmed = conditions.find(|it| it["type"] == "Confirmed");
        let message = confirmed.and_then(|it| it["message"].as_str());
        let message = message
            .unwrap_or("the agent has not reported yet")
            .to_owned();
        match confirmed.and_then(|it| it["status"].as_str()) {
            // Of an older delivery, it says nothing about this one.
            Some("True") if !self.is_newest() => {
                Evidence::Against(format!("{message}, but of an older delivery"))
            }
            Some("True") => Evidence::For(message),
            Some("False") => Evidence::Against(message),
            _ => Evidence::Missing(message),
        }
    }

    /// Whether the newest delivery that the agent reports is what is published.
    fn is_newest(&self) -> bool {
        let published = self.publication.as_ref();
        published.is_ok_and(|it| self.status("version").as_str() == Some(&version(it)))
    }

    fn served(&self) -> Evidence {
        if self.endpoint == Some(&BundleEndpoint::None) {
            return Evidence::Missing("it has no endpoint: git alone brings its keys".to_owned());
        }
        match self.answer {
            Some(Ok(answer)) if self.is_published(answer) => {
                Evidence::For("its endpoint serves the same keys".to_owned())
            }
            Some(Ok(_)) => Evidence::Against("its endpoint serves other keys".to_owned()),
            Some(Err(
                Silence::Unreachable(why) | Silence::Unproven(why) | Silence::NoBundle(why),
            )) => Evidence::Against(format!("its endpoint does not answer from here: {why}")),
            Some(Err(Silence::NotAsked(why))) => Evidence::Missing(why.clone()),
            None => Evidence::Missing("its endpoint was not asked".to_owned()),
        }
    }

    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let exporter = &self.edge.exporter;
        if let Ok(publication) = &self.publication {
            let authorities = publication.bundle.x509_authorities.iter();
            if let Some(newest) = authorities.max_by_key(|it| it.not_before) {
                let what = format!(
                    "the newest key of {exporter} begins: {}",
                    newest.key.short()
                );
                events.push(Event {
                    at: newest.not_before,
                    what,
                });
            }
            let at = publication.attestation.issued_at;
            let what = format!("{exporter} signs {}", version(publication));
            events.push(Event { at, what });
        }
        let time = |value: &Value| {
            value
                .as_str()
                .and_then(|text| text.parse::<Timestamp>().ok())
        };
        let delivered = time(self.status("lastDelivered"));
        if let Some(at) = delivered {
            let version = self.status("version").as_str().unwrap_or("it");
            let what = format!("{} hands {version} to SPIRE", self.cluster.name);
            events.push(Event { at, what });
        }
        let mut conditions = items(self.status("conditions"));
        let confirmed = conditions.find(|it| it["type"] == "Confirmed" && it["status"] == "True");
        let confirmed = confirmed.and_then(|it| time(&it["lastTransitionTime"]));
        // Before, it was about an older delivery.
        if let Some(at) = confirmed.filter(|at| delivered.is_some_and(|it| it <= *at)) {
            let what = format!(
                "a workload of {} holds what was handed over",
                self.cluster.name
            );
            events.push(Event { at, what });
        }
        events.sort();
        events
    }

    /// A field of what the agent reports about the exporter.
    fn status(&self, field: &str) -> &Value {
        self.peer.map_or(&Value::Null, |it| &it["status"][field])
    }
}

fn version(publication: &Publication) -> String {
    let attestation = &publication.attestation;
    format!("{}.{}", attestation.epoch, attestation.serial)
}
