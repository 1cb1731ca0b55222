//! How the overlay's objects are applied: what differs between clusters, and is not in the repository.

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::Deserialize;

/// How the overlay's objects are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Applying {
    /// How long, in seconds, what a person changed in the cluster stays before it is put right.
    pub drift_grace_seconds: u32,
    /// The largest share of the overlay's objects, in percent, that one commit may delete without
    /// an acknowledgement.
    pub prune_percent: u8,
}

impl Default for Applying {
    fn default() -> Self {
        Self {
            drift_grace_seconds: 10,
            prune_percent: 30,
        }
    }
}

impl Applying {
    /// How long what a person changed stays.
    pub(super) fn drift_grace(self) -> SignedDuration {
        SignedDuration::from_secs(self.drift_grace_seconds.into())
    }
}
