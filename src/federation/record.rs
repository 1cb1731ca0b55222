//! What a peer's `ClusterFederatedTrustDomain` remembers in its annotations: written by the very
//! apply that carries the bundle, it outlives the agent, its kinds and the repository.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{guard::Watermark, revocation::Revoked};
use crate::model::{attestation::Serial, bundle::Digest};

/// The annotations' names. Their documentation is what docs/reference/annotations.md says.
mod annotation {
    /// The agent's, on a `ClusterFederatedTrustDomain`: the epoch of the newest delivery.
    pub(super) const EPOCH: &str = "trustweave.dev/epoch";
    /// The agent's, on a `ClusterFederatedTrustDomain`: the serial of the newest delivery.
    pub(super) const SERIAL: &str = "trustweave.dev/serial";
    /// The agent's, on a `ClusterFederatedTrustDomain`: SHA-256 of the bundle that was published then.
    pub(super) const DIGEST: &str = "trustweave.dev/digest";
    /// The agent's, on a `ClusterFederatedTrustDomain`: SPIRE's own counter of that bundle.
    pub(super) const SEQUENCE: &str = "trustweave.dev/spiffe-sequence";
    /// The agent's, on a `ClusterFederatedTrustDomain`: how often the set of revoked keys changed.
    pub(super) const REVOCATIONS: &str = "trustweave.dev/revocations";
    /// The agent's, on a `ClusterFederatedTrustDomain`: how often this very bundle was pushed again.
    pub(super) const NONCE: &str = "trustweave.dev/nonce";
    /// The agent's, on a `ClusterFederatedTrustDomain`: the keys that are revoked here, as JSON.
    pub(super) const REVOKED: &str = "trustweave.dev/revoked";
    /// The agent's, on a `ClusterFederatedTrustDomain`: when the last of all roots ends that were ever
    /// delivered.
    pub(super) const TRUSTED_UNTIL: &str = "trustweave.dev/trusted-until";
    /// The agent's, on a `ClusterFederatedTrustDomain`: when what takes keys away is pushed once more.
    pub(super) const PUSH_AGAIN_AT: &str = "trustweave.dev/push-again-at";
    /// The agent's, on a `ClusterFederatedTrustDomain`: how often that was done.
    pub(super) const PUSHED_AGAIN: &str = "trustweave.dev/pushed-again";
}

/// What was delivered, and what must not be forgotten about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The newest delivery.
    pub watermark: Watermark,
    /// The revocations that the delivered bundle was filtered by.
    pub revoked: Vec<Revoked>,
    /// When the last of all X.509 roots ends that were ever delivered.
    pub trusted_until: Option<Timestamp>,
    /// Until a key that was taken away is known to be gone: when to push once more, as a poll that
    /// was under way could have written it back.
    pub again: Option<Again>,
}

/// The next push of what was pushed already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// When.
    pub at: Timestamp,
    /// How often it was done.
    pub count: u32,
}

impl Again {
    /// The first repetition, a `period` from now.
    pub fn first(now: Timestamp, period: SignedDuration) -> Self {
        Self {
            at: now.saturating_add(period).unwrap_or(Timestamp::MAX),
            count: 0,
        }
    }

    /// The repetition after this one: each time twice as long, up to 64 periods.
    #[must_use]
    pub fn next(self, now: Timestamp, period: SignedDuration) -> Self {
        let count = self.count.saturating_add(1);
        Self {
            count,
            ..Self::first(now, period * (1 << count.min(6)))
        }
    }
}

impl Record {
    /// As annotations of the `ClusterFederatedTrustDomain`.
    pub fn annotations(&self) -> BTreeMap<&'static str, String> {
        let watermark = &self.watermark;
        let mut annotations = BTreeMap::from([
            (annotation::EPOCH, watermark.epoch.to_string()),
            (annotation::SERIAL, watermark.serial.to_string()),
            (annotation::DIGEST, watermark.digest.to_string()),
            (annotation::REVOCATIONS, watermark.revocations.to_string()),
            (annotation::NONCE, watermark.nonce.to_string()),
        ]);
        if let Some(sequence) = watermark.sequence {
            annotations.insert(annotation::SEQUENCE, sequence.to_string());
        }
        if !self.revoked.is_empty() {
            let revoked = serde_json::to_string(&self.revoked).unwrap_or_default();
            annotations.insert(annotation::REVOKED, revoked);
        }
        if let Some(until) = self.trusted_until {
            annotations.insert(annotation::TRUSTED_UNTIL, until.to_string());
        }
        if let Some(again) = self.again {
            annotations.insert(annotation::PUSH_AGAIN_AT, again.at.to_string());
            annotations.insert(annotation::PUSHED_AGAIN, again.count.to_string());
        }
        annotations
    }

    /// From the annotations of a live object; `None` if what makes up the watermark is not all
    /// there and well formed.
    pub fn from_annotations(annotations: &Value) -> Option<Self> {
        let text = |name: &str| annotations.get(name)?.as_str();
        let number = |name: &str| text(name)?.parse().ok();
        let time = |name: &str| text(name)?.parse().ok();
        Some(Self {
            watermark: Watermark {
                epoch: number(annotation::EPOCH)?,
                serial: Serial(number(annotation::SERIAL)?),
                revocations: number(annotation::REVOCATIONS)?,
                nonce: number(annotation::NONCE)?,
                digest: Digest::parse(text(annotation::DIGEST)?).ok()?,
                sequence: number(annotation::SEQUENCE),
            },
            revoked: text(annotation::REVOKED)
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default(),
            trusted_until: time(annotation::TRUSTED_UNTIL),
            again: time(annotation::PUSH_AGAIN_AT).map(|at| Again {
                at,
                count: number(annotation::PUSHED_AGAIN)
                    .and_then(|count| u32::try_from(count).ok())
                    .unwrap_or(0),
            }),
        })
    }
}
