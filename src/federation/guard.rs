//! The guard against going back: SPIRE accepts any older bundle, so memory of the newest is ours.

use thiserror::Error;

use crate::model::{
    attestation::{Publication, Serial},
    bundle::Digest,
    repository::RepoPath,
};

/// What all peers' bundles may sum to, in bytes: beyond 4 MiB SPIRE's controller manager can't list
/// its relationships and SPIRE's agents can't sync, so unrelated workloads lose their SVIDs.
pub const MAX_TOTAL_BYTES: usize = 3 << 20;

/// The newest delivery to a cluster: nothing below it is ever delivered again.
///
/// It lives in the [record](super::record::Record) of the live `ClusterFederatedTrustDomain`, written
/// by the apply that carries the bundle, and is mirrored in the `TrustPeer`'s status; the larger of
/// the two counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watermark {
    /// The epoch of the declaration.
    pub epoch: u64,
    /// The publisher's serial.
    pub serial: Serial,
    /// How often the set of revoked keys changed.
    pub revocations: u64,
    /// How often this very bundle was pushed again.
    pub nonce: u64,
    /// The digest of the published bundle.
    pub digest: Digest,
    /// SPIRE's own counter of the published bundle: data, not an order, as it starts again when
    /// SPIRE's datastore is lost.
    pub sequence: Option<u64>,
}

impl Watermark {
    /// Of a publication that is delivered for the first time, under as many changes of the set of
    /// revoked keys.
    pub fn of(publication: &Publication, revocations: u64) -> Self {
        let attestation = &publication.attestation;
        Self {
            epoch: attestation.epoch,
            serial: attestation.serial,
            revocations,
            nonce: 0,
            digest: attestation.sha256.clone(),
            sequence: attestation.spiffe_sequence,
        }
    }

    /// The same delivery, under another set of revoked keys.
    #[must_use]
    pub fn revoking(&self) -> Self {
        Self {
            revocations: self.revocations.saturating_add(1),
            nonce: 0,
            ..self.clone()
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
    /// The first bundle of a peer, while revocations that nobody remembers yet can't be read.
    #[error("{0} can't be read, and so whether the first bundle holds a revoked key")]
    DistrustUnknown(RepoPath),
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
            Self::DistrustUnknown(_) => "DistrustUnknown",
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
