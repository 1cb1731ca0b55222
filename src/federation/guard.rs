//! The guard against going back: SPIRE accepts any older bundle, so memory of the newest is ours.

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use crate::model::{
    attestation::{Publication, Serial},
    bundle::Digest,
};

/// What all peers' bundles may sum to, in bytes: beyond 4 MiB SPIRE's controller manager can't list
/// its relationships and SPIRE's agents can't sync, so unrelated workloads lose their SVIDs.
pub const MAX_TOTAL_BYTES: usize = 3 << 20;

/// The annotations of a `ClusterFederatedTrustDomain` that hold its watermark.
mod annotation {
    pub(super) const EPOCH: &str = "trustweave.dev/epoch";
    pub(super) const SERIAL: &str = "trustweave.dev/serial";
    pub(super) const DIGEST: &str = "trustweave.dev/digest";
    pub(super) const REVOCATIONS: &str = "trustweave.dev/revocations";
    pub(super) const NONCE: &str = "trustweave.dev/nonce";
}

/// The newest delivery to a cluster: nothing below it is ever delivered again.
///
/// It lives in the annotations of the live `ClusterFederatedTrustDomain`, written by the apply that
/// carries the bundle, and is mirrored in the `TrustPeer`'s status; the larger of the two counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watermark {
    /// The epoch of the declaration.
    pub epoch: u64,
    /// The publisher's serial.
    pub serial: Serial,
    /// How many revocations were in force.
    pub revocations: u64,
    /// How often this very bundle was pushed again.
    pub nonce: u64,
    /// The digest of the published bundle.
    pub digest: Digest,
}

impl Watermark {
    /// Of a publication that is delivered for the first time.
    pub fn of(publication: &Publication) -> Self {
        Self {
            epoch: publication.attestation.epoch,
            serial: publication.attestation.serial,
            revocations: 0,
            nonce: 0,
            digest: publication.attestation.sha256.clone(),
        }
    }

    /// The same delivery, once more.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            nonce: self.nonce.saturating_add(1),
            ..self.clone()
        }
    }

    /// The fragment of the endpoint's URL. Any change of the URL makes SPIRE take the bundle that
    /// comes with it, and no client ever sends a fragment to a server.
    pub fn fragment(&self) -> String {
        format!(
            "{}.{}.{}.{}",
            self.epoch, self.serial, self.revocations, self.nonce
        )
    }

    /// As annotations of the `ClusterFederatedTrustDomain`.
    pub fn annotations(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            (annotation::EPOCH, self.epoch.to_string()),
            (annotation::SERIAL, self.serial.to_string()),
            (annotation::DIGEST, self.digest.to_string()),
            (annotation::REVOCATIONS, self.revocations.to_string()),
            (annotation::NONCE, self.nonce.to_string()),
        ])
    }

    /// From the annotations of a live object; `None` if they are not all there and well formed.
    pub fn from_annotations(annotations: &Value) -> Option<Self> {
        let text = |name: &str| annotations.get(name)?.as_str();
        let number = |name: &str| text(name)?.parse().ok();
        Some(Self {
            epoch: number(annotation::EPOCH)?,
            serial: Serial(number(annotation::SERIAL)?),
            revocations: number(annotation::REVOCATIONS)?,
            nonce: number(annotation::NONCE)?,
            digest: Digest::parse(text(annotation::DIGEST)?).ok()?,
        })
    }
}

/// What a publication is, compared with what was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was ever delivered: trust on the reviewed declaration alone.
    FirstUse,
    /// Newer than all that was delivered.
    Newer,
    /// What was delivered last.
    Same,
}

/// Why a verified publication is not delivered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Older than what was delivered: the branch was rewound, or an old state replayed.
    #[error(
        "epoch {epoch} serial {serial} is older than the delivered epoch {} serial {}",
        held.epoch, held.serial
    )]
    Rollback {
        /// Of the publication.
        epoch: u64,
        /// Of the publication.
        serial: Serial,
        /// The newest delivery.
        held: Box<Watermark>,
    },
    /// Two bundles under one serial: the publisher, or who has its key, tells different stories.
    #[error(
        "serial {serial} was delivered with digest {}, and is now published with {}",
        held.digest.short(), found.short()
    )]
    Equivocation {
        /// The serial that was used twice.
        serial: Serial,
        /// The digest of the publication.
        found: Digest,
        /// The newest delivery.
        held: Box<Watermark>,
    },
    /// All bundles together would be more than SPIRE can handle.
    #[error("the peers' bundles would sum to {0} bytes, more than {MAX_TOTAL_BYTES}")]
    TooMuch(usize),
}

impl Refusal {
    /// A stable, short name for metrics and conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Rollback { .. } => "Rollback",
            Self::Equivocation { .. } => "Equivocation",
            Self::TooMuch(_) => "TooManyBytes",
        }
    }
}

/// Compares a verified publication with the watermark.
pub fn judge(publication: &Publication, held: Option<&Watermark>) -> Result<Verdict, Refusal> {
    let Some(held) = held else {
        return Ok(Verdict::FirstUse);
    };
    let attestation = &publication.attestation;
    match (attestation.epoch, attestation.serial).cmp(&(held.epoch, held.serial)) {
        std::cmp::Ordering::Greater => Ok(Verdict::Newer),
        std::cmp::Ordering::Less => Err(Refusal::Rollback {
            epoch: attestation.epoch,
            serial: attestation.serial,
            held: Box::new(held.clone()),
        }),
        std::cmp::Ordering::Equal if attestation.sha256 == held.digest => Ok(Verdict::Same),
        std::cmp::Ordering::Equal => Err(Refusal::Equivocation {
            serial: attestation.serial,
            found: attestation.sha256.clone(),
            held: Box::new(held.clone()),
        }),
    }
}
