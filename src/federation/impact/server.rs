//! What is done to SPIRE servers.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Change, clusters};
use crate::{
    federation::server::Wanted,
    model::{declaration::Distribution, declarations::Declarations, trust_domain::TrustDomain},
};

/// What is done to a SPIRE server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Work {
    /// Its configuration is written, and it is restarted.
    Configure,
    /// Its former configuration comes back, with a restart.
    GiveBack,
    /// Only what leads to its endpoint changes.
    Expose,
}

/// The changes of SPIRE servers, by trust domain.
pub(super) fn changes(before: &Declarations, after: &Declarations) -> Vec<Change> {
    let names = before
        .trust_domains
        .keys()
        .chain(after.trust_domains.keys());
    let names: BTreeSet<&TrustDomain> = names.collect();
    let changes = names.into_iter().filter_map(|name| {
        let (old, new) = (Wanted::of(before, name), Wanted::of(after, name));
        let work = match (&old, &new) {
            (None, None) => return None,
            (None, Some(_)) => Work::Configure,
            (Some(_), None) => Work::GiveBack,
            (Some(old), Some(new)) if old == new => return None,
            (Some(old), Some(new)) if old.configures_as(new) => {
                if old.endpoint.expose == new.endpoint.expose
                    && old.endpoint.url == new.endpoint.url
                {
                    return None;
                }
                Work::Expose
            }
            (Some(_), Some(_)) => Work::Configure,
        };
        let operator = |it: &&Wanted| it.installation.distribution == Distribution::Ztwim;
        let declared = after
            .trust_domains
            .get(name)
            .or_else(|| before.trust_domains.get(name))?;
        Some(Change::Server {
            trust_domain: name.clone(),
            clusters: clusters(declared),
            work,
            irreversible: old.is_none() && new.as_ref().filter(operator).is_some(),
        })
    });
    changes.collect()
}
