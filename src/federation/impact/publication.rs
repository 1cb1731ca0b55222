//! What a trust domain has published, as far as it was looked at.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::sentence::{Sentence, named, sentence};
use crate::{
    federation::consent::{Consent, consent},
    model::{
        attestation::{Publication, Rejection},
        bundle::Bundle,
        declarations::Declarations,
        distrust::{DistrustSpec, KeyId, KeyStanding},
        topology::Edge,
        trust_domain::TrustDomain,
    },
};

/// What stands at the place of a trust domain's publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// Nothing.
    Nothing,
    /// A bundle that a declared signer signed.
    Usable(Box<Bundle>),
    /// What agents refuse.
    Refused(Rejection),
}

impl From<Result<Publication, Rejection>> for Published {
    fn from(verdict: Result<Publication, Rejection>) -> Self {
        match verdict {
            Ok(publication) => Self::Usable(Box::new(publication.bundle)),
            Err(Rejection::Unpublished) => Self::Nothing,
            Err(rejection) => Self::Refused(rejection),
        }
    }
}

impl Published {
    /// The form for programs.
    pub fn state(&self) -> PublicationState {
        match self {
            Self::Nothing => PublicationState::Nothing,
            Self::Usable(_) => PublicationState::Usable,
            Self::Refused(rejection) => PublicationState::Refused {
                reason: rejection.reason().to_owned(),
                message: rejection.to_string(),
            },
        }
    }

    fn bundle(&self) -> Option<&Bundle> {
        match self {
            Self::Usable(bundle) => Some(bundle),
            Self::Nothing | Self::Refused(_) => None,
        }
    }
}

/// Whether agents take what a trust domain has published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum PublicationState {
    /// It has published nothing yet.
    Nothing,
    /// A bundle that a declared signer signed.
    Usable,
    /// Agents refuse it, and keep the last good one.
    Refused {
        /// A stable, short name of the cause.
        reason: String,
        /// The cause in words.
        message: String,
    },
}

/// What becomes of a trust domain's publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublicationChange {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// What agents make of it before the change.
    pub before: PublicationState,
    /// What they make of it after the change.
    pub after: PublicationState,
    /// Who takes its bundles in.
    pub importers: BTreeSet<TrustDomain>,
}

impl PublicationChange {
    pub(super) fn sentence(&self) -> Sentence {
        let told = match &self.after {
            PublicationState::Refused { message, .. } => sentence!(
                "agents will refuse the bundle of ",
                &self.trust_domain,
                ": ",
                named(message),
            ),
            PublicationState::Nothing => sentence!(
                "the bundle of ",
                &self.trust_domain,
                " is removed from the repository",
            ),
            PublicationState::Usable => {
                return sentence!(
                    "agents will take the bundle of ",
                    &self.trust_domain,
                    " again, which they refuse now",
                );
            }
        };
        if self.importers.is_empty() {
            sentence!(told, "; nobody trusts it yet")
        } else {
            sentence!(
                told,
                "; until a good one is published, the workloads of ",
                Sentence::names(&self.importers),
                " stay with the last good one",
            )
        }
    }
}

/// A key that workloads come to trust, or no longer trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustedKey {
    /// The key.
    pub key: KeyId,
    /// When its certificate ends; a JWT key has no end of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub not_after: Option<Timestamp>,
}

impl TrustedKey {
    /// Keys in words, each with its end.
    pub(super) fn list(keys: &[Self]) -> Sentence {
        let one = |key: &Self| {
            let told = sentence!(&key.key);
            if let Some(ends) = key.not_after {
                sentence!(told, " (valid until ", ends, ")")
            } else {
                told
            }
        };
        Sentence::join(keys.iter().map(one), " and ")
    }
}

/// What is published by the trust domains that a change is about. One that was not looked at leaves
/// sentences shorter, and changes none.
#[derive(Clone, Debug, Default)]
pub struct Bundles {
    /// By the declarations before the change.
    pub before: BTreeMap<TrustDomain, Published>,
    /// By those after it.
    pub after: BTreeMap<TrustDomain, Published>,
    /// When it is asked: a key that has ended by then matters no more.
    pub now: Timestamp,
}

impl Bundles {
    /// The bundle that agents accept, before the change or after it.
    pub(super) fn usable<'b>(
        side: &'b BTreeMap<TrustDomain, Published>,
        trust_domain: &TrustDomain,
    ) -> Option<&'b Bundle> {
        side.get(trust_domain)?.bundle()
    }

    /// Until when an SVID may live that one of these keys signed.
    pub(super) fn live_until<'k>(
        &self,
        trust_domain: &TrustDomain,
        keys: impl IntoIterator<Item = &'k KeyId>,
    ) -> Option<Timestamp> {
        let keys: BTreeSet<_> = keys.into_iter().collect();
        let bundles = [&self.before, &self.after].map(|side| Self::usable(side, trust_domain));
        let authorities = bundles
            .into_iter()
            .flatten()
            .flat_map(|it| &it.x509_authorities);
        authorities
            .filter(|authority| keys.contains(&authority.id()))
            .map(|authority| authority.not_after)
            .filter(|ends| *ends > self.now)
            .max()
    }

    /// The keys by which `edge`'s importer trusts its exporter: those of the bundle that neither of
    /// them took back.
    pub(super) fn keys(
        side: &BTreeMap<TrustDomain, Published>,
        declarations: &Declarations,
        edge: &Edge,
    ) -> Vec<TrustedKey> {
        let Some(bundle) = Self::usable(side, &edge.exporter) else {
            return Vec::new();
        };
        let files: Vec<&DistrustSpec> = [&edge.exporter, &edge.importer]
            .into_iter()
            .filter_map(|owner| declarations.distrust.get(owner))
            .collect();
        let revoked = |key: &KeyId| {
            let mut files = files.iter();
            files.any(|file| file.standing(&edge.exporter, key) == KeyStanding::Revoked)
        };
        trusted(bundle)
            .into_iter()
            .filter(|trusted| !revoked(&trusted.key))
            .collect()
    }
}

/// Every key of a bundle, with its end.
pub(super) fn trusted(bundle: &Bundle) -> Vec<TrustedKey> {
    let x509 = bundle.x509_authorities.iter().map(|authority| TrustedKey {
        key: authority.id(),
        not_after: Some(authority.not_after),
    });
    let jwt = bundle.jwt_authorities.iter().map(|authority| TrustedKey {
        key: authority.id(),
        not_after: None,
    });
    x509.chain(jwt).collect()
}

/// Publications that agents come to refuse, or to take again.
pub(super) fn changes(after: &Declarations, bundles: &Bundles) -> Vec<PublicationChange> {
    let mut changes = Vec::new();
    for (trust_domain, new) in &bundles.after {
        let old = bundles
            .before
            .get(trust_domain)
            .unwrap_or(&Published::Nothing);
        let worth_telling = match (old, new) {
            (old, Published::Refused(_)) => old != new,
            (Published::Refused(_), _) | (Published::Usable(_), Published::Nothing) => true,
            (_, _) => false,
        };
        if worth_telling && after.trust_domains.contains_key(trust_domain) {
            changes.push(PublicationChange {
                trust_domain: trust_domain.clone(),
                before: old.state(),
                after: new.state(),
                importers: importers(after, trust_domain),
            });
        }
    }
    changes
}

/// Who takes a trust domain's bundles in, by the consent of both.
pub(super) fn importers(
    declarations: &Declarations,
    exporter: &TrustDomain,
) -> BTreeSet<TrustDomain> {
    let edges = declarations.topology.edges().into_iter();
    edges
        .filter(|edge| edge.exporter == *exporter)
        .filter(|edge| consent(edge, declarations) == Consent::Given)
        .map(|edge| edge.importer)
        .collect()
}
