//! What a change means for the SPIRE servers of a trust domain's clusters.

use schemars::JsonSchema;
use serde::Serialize;

use super::sentence::{Sentence, sentence};
use crate::{
    federation::server::Wanted,
    model::{
        declaration::{Distribution, Profile},
        declarations::Declarations,
        trust_domain::{ClusterName, TrustDomain},
    },
};

/// The agents of a trust domain come to manage its SPIRE servers otherwise, or no longer do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
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
    /// Whether only what leads to their endpoint changes.
    pub exposure_only: bool,
    /// Whether the servers are restarted.
    pub restart: bool,
    /// Whether something is written that nobody can take back.
    pub irreversible: bool,
}

/// How agents manage SPIRE servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Management {
    /// By the way of this distribution.
    pub distribution: Distribution,
    /// The profile of the endpoint.
    pub profile: Profile,
    /// Whether they may do what can't be taken back.
    pub accept_irreversible: bool,
}

impl From<&Wanted> for Management {
    fn from(wanted: &Wanted) -> Self {
        Self {
            distribution: wanted.installation.distribution,
            profile: wanted.endpoint.profile,
            accept_irreversible: wanted.endpoint.accept_irreversible,
        }
    }
}

impl Management {
    fn by_operator(&self) -> bool {
        self.distribution == Distribution::Ztwim
    }

    /// Whether what `self` lets agents do was not allowed before.
    fn goes_further(&self, before: &Self) -> bool {
        self.distribution != before.distribution
            || (self.by_operator() && self.accept_irreversible && !before.accept_irreversible)
    }
}

/// What differs for the servers of a trust domain between two readings of the declarations.
pub(super) fn server(
    trust_domain: &TrustDomain,
    before: &Declarations,
    after: &Declarations,
) -> Option<ServerChange> {
    let declared = |side: &Declarations| side.trust_domains.get(trust_domain).map(super::clusters);
    let clusters = declared(after).or_else(|| declared(before))?;
    let (old, new) = (
        Wanted::of(before, trust_domain),
        Wanted::of(after, trust_domain),
    );
    let sides = old.as_ref().zip(new.as_ref());
    let configured_alike = sides.is_some_and(|(old, new)| old.configures_as(new));
    let exposed_alike = sides.is_some_and(|(old, new)| old.exposes_as(new));
    let (before, after) = (
        old.as_ref().map(Management::from),
        new.as_ref().map(Management::from),
    );
    let further = before
        .as_ref()
        .zip(after.as_ref())
        .is_some_and(|(before, after)| after.goes_further(before));
    let same = configured_alike && exposed_alike && !further;
    // The operator restarts its server when its own object changes; whether it has to is its matter.
    let exposure_only = configured_alike && !further;
    let irreversible = after
        .as_ref()
        .is_some_and(|after| after.by_operator() && after.accept_irreversible)
        && before
            .as_ref()
            .is_none_or(|before| !(before.by_operator() && before.accept_irreversible));
    let written = match (&before, &after) {
        // The operator lets nobody take its field back.
        (Some(before), None) => !before.by_operator(),
        (_, Some(after)) => !after.by_operator() || after.accept_irreversible,
        (None, None) => false,
    };
    ((old.is_some() || new.is_some()) && !same).then(|| ServerChange {
        trust_domain: trust_domain.clone(),
        clusters,
        before,
        after,
        exposure_only,
        restart: !exposure_only && written,
        irreversible,
    })
}

impl ServerChange {
    pub(super) fn sentence(&self) -> Sentence {
        let clusters = Sentence::names(&self.clusters);
        let server = sentence!(
            &self.trust_domain,
            ": the SPIRE server of ",
            clusters,
            " will "
        );
        let Some(after) = &self.after else {
            let former = self.before.as_ref().map(|it| it.distribution);
            return if former == Some(Distribution::Ztwim) {
                sentence!(
                    server,
                    "no longer be managed, but `spec.federation` of its SpireServer stays: its \
                     operator lets nobody remove it",
                )
            } else {
                sentence!(
                    server,
                    "no longer be managed: what was there before comes back, with a restart",
                )
            };
        };
        if self.exposure_only {
            return sentence!(server, "be exposed otherwise, without a restart");
        }
        let before = self.before.as_ref();
        if before.is_some_and(|before| !after.goes_further(before)) {
            return sentence!(server, "be reconfigured and restarted");
        }
        match (after.distribution, after.accept_irreversible) {
            (Distribution::Custom | Distribution::Helm, _) => sentence!(
                server,
                "be configured to serve its bundle, and restarted for that",
            ),
            (Distribution::Ztwim, true) => sentence!(
                server,
                "serve its bundle by `spec.federation` of its SpireServer, which can't be taken \
                 back: once that is set, nobody can remove it, nor change its profile, ",
                after.profile.as_str(),
            ),
            (Distribution::Ztwim, false) => sentence!(
                server,
                "be managed, but `spec.federation` of its SpireServer can't be taken back: it is \
                 set only with `acceptIrreversible: true`",
            ),
        }
    }
}
