//! What a change means for the SPIRE servers of a trust domain's clusters.

use std::fmt;

use serde::Serialize;

use super::words::list;
use crate::model::{
    declaration::{Distribution, Profile, TrustDomainSpec},
    trust_domain::{ClusterName, TrustDomain},
};

/// The agents of a trust domain come to manage its SPIRE servers, or no longer do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerChange {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The clusters that the servers are in.
    pub clusters: Vec<ClusterName>,
    /// How they were managed.
    pub before: Option<Management>,
    /// How they will be.
    pub after: Option<Management>,
}

/// How agents manage SPIRE servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Management {
    /// By the way of this distribution.
    pub distribution: Distribution,
    /// The profile of the endpoint.
    pub profile: Profile,
    /// Whether they may do what can't be taken back.
    pub accept_irreversible: bool,
}

impl Management {
    fn of(spec: &TrustDomainSpec) -> Option<Self> {
        let endpoint = spec.bundle_endpoint.managed()?;
        Some(Self {
            distribution: spec.spire.distribution,
            profile: endpoint.profile,
            accept_irreversible: endpoint.accept_irreversible,
        })
    }

    /// Whether what `self` lets agents do was not allowed before.
    fn goes_further(&self, before: &Self) -> bool {
        let by_operator = self.distribution == Distribution::Ztwim;
        self.distribution != before.distribution
            || (by_operator && self.accept_irreversible && !before.accept_irreversible)
    }
}

/// What differs between two declarations of a trust domain.
pub(super) fn server(
    trust_domain: &TrustDomain,
    before: Option<&TrustDomainSpec>,
    after: Option<&TrustDomainSpec>,
) -> Option<ServerChange> {
    let clusters = after.or(before).map(super::clusters)?;
    let (before, after) = (
        before.and_then(Management::of),
        after.and_then(Management::of),
    );
    let differs = match (&before, &after) {
        (None, None) => false,
        (Some(before), Some(after)) => after.goes_further(before),
        _ => true,
    };
    differs.then(|| ServerChange {
        trust_domain: trust_domain.clone(),
        clusters,
        before,
        after,
    })
}

impl fmt::Display for ServerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trust_domain, clusters) = (&self.trust_domain, list(&self.clusters));
        write!(f, "{trust_domain}: the SPIRE server of {clusters} will ")?;
        let Some(after) = &self.after else {
            let former = self.before.as_ref().map(|it| it.distribution);
            return f.write_str(if former == Some(Distribution::Ztwim) {
                "no longer be managed, but `spec.federation` of its SpireServer stays: its operator \
                 lets nobody remove it"
            } else {
                "no longer be managed: what was there before comes back"
            });
        };
        match (after.distribution, after.accept_irreversible) {
            (Distribution::Custom | Distribution::Helm, _) => {
                f.write_str("be configured to serve its bundle, and restarted for that")
            }
            (Distribution::Ztwim, true) => write!(
                f,
                "serve its bundle by `spec.federation` of its SpireServer, which can't be taken back: \
                 once that is set, nobody can remove it, nor change its profile, {}",
                after.profile.as_str()
            ),
            (Distribution::Ztwim, false) => f.write_str(
                "be managed, but `spec.federation` of its SpireServer can't be taken back: it is \
                 set only with `acceptIrreversible: true`",
            ),
        }
    }
}
