//! The kind `Distrust`: keys that a trust domain no longer accepts, its own or a peer's.
//!
//! Its own it takes back from everybody; a peer's only for its own workloads.

use std::{collections::BTreeSet, fmt};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{bundle::Digest, trust_domain::TrustDomain};

/// The `kind` of `distrust.yaml`.
pub const KIND: &str = "Distrust";

/// Keys that a trust domain no longer accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DistrustSpec {
    /// Keys that are no longer accepted. An entry that vanishes lifts nothing: clusters remember it.
    #[serde(default)]
    pub revoked: Vec<Revocation>,
    /// Keys that are accepted again: each lifts what the same trust domain revoked before its time.
    #[serde(default)]
    pub unrevoked: Vec<Revocation>,
}

impl DistrustSpec {
    /// Whether this file lifts a revocation of a trust domain's key that was made at `time`.
    pub fn lifts(&self, of: &TrustDomain, key: &KeyId, time: Timestamp) -> bool {
        self.unrevoked
            .iter()
            .any(|entry| entry.trust_domain == *of && entry.key == *key && entry.time > time)
    }

    /// How this file leaves the key of a trust domain.
    pub fn standing(&self, trust_domain: &TrustDomain, key: &KeyId) -> KeyStanding {
        let latest = |entries: &[Revocation]| {
            let about =
                |entry: &&Revocation| entry.trust_domain == *trust_domain && entry.key == *key;
            entries.iter().filter(about).map(|entry| entry.time).max()
        };
        match (latest(&self.revoked), latest(&self.unrevoked)) {
            (None, None) => KeyStanding::Unmentioned,
            (Some(revoked), lifted) if lifted.is_none_or(|lifted| lifted <= revoked) => {
                KeyStanding::Revoked
            }
            (_, _) => KeyStanding::Lifted,
        }
    }

    /// Every key that the file names, with its trust domain.
    pub fn keys(&self) -> BTreeSet<(&TrustDomain, &KeyId)> {
        let entries = self.revoked.iter().chain(&self.unrevoked);
        entries
            .map(|entry| (&entry.trust_domain, &entry.key))
            .collect()
    }
}

/// How a file leaves a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyStanding {
    /// The file does not name it.
    Unmentioned,
    /// No longer accepted.
    Revoked,
    /// Accepted again, whatever was revoked before.
    Lifted,
}

/// One key, and why it is no longer accepted, or is again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revocation {
    /// Whose key it is.
    pub trust_domain: TrustDomain,
    /// The key.
    pub key: KeyId,
    /// Why, in a sentence for the people who read it later.
    pub reason: String,
    /// Since when (RFC 3339).
    #[schemars(with = "String")]
    pub time: Timestamp,
}

/// What identifies a key for good, in whatever certificate or document it appears.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum KeyId {
    /// The key of an X.509 authority: SHA-256 of its `SubjectPublicKeyInfo`, hexadecimal.
    X509(Digest),
    /// A JWT authority.
    Jwt(JwtKeyId),
}

/// What identifies a JWT authority. The thumbprint decides: the same key under another `kid` is the
/// same key, another key under the same `kid` is not.
#[derive(Clone, Debug, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtKeyId {
    /// The `kid`, by which people find the key in a bundle.
    pub kid: String,
    /// The key's thumbprint (RFC 7638, SHA-256), base64url without padding.
    pub thumbprint: String,
}

impl PartialEq for JwtKeyId {
    fn eq(&self, other: &Self) -> bool {
        self.thumbprint == other.thumbprint
    }
}

impl PartialOrd for JwtKeyId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for JwtKeyId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.thumbprint.cmp(&other.thumbprint)
    }
}

impl std::hash::Hash for JwtKeyId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.thumbprint.hash(state);
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X509(digest) => write!(f, "X.509 key {}", digest.short()),
            Self::Jwt(jwt) => write!(f, "JWT key {}", jwt.kid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_entry_decides_about_a_key() {
        let trust_domain = TrustDomain::parse("b.test").unwrap();
        let key = KeyId::X509(Digest::of(b"key"));
        let entry = |hour: i64| Revocation {
            trust_domain: trust_domain.clone(),
            key: key.clone(),
            reason: "r".to_owned(),
            time: Timestamp::from_second(hour * 3600).unwrap(),
        };
        for (revoked, unrevoked, expected) in [
            (&[][..], &[][..], KeyStanding::Unmentioned),
            (&[1], &[], KeyStanding::Revoked),
            (&[1], &[2], KeyStanding::Lifted),
            (&[2], &[2], KeyStanding::Revoked),
            (&[1, 3], &[2], KeyStanding::Revoked),
            (&[], &[2], KeyStanding::Lifted),
        ] {
            let spec = DistrustSpec {
                revoked: revoked.iter().copied().map(entry).collect(),
                unrevoked: unrevoked.iter().copied().map(entry).collect(),
            };
            assert_eq!(spec.standing(&trust_domain, &key), expected);
            let other = TrustDomain::parse("c.test").unwrap();
            assert_eq!(spec.standing(&other, &key), KeyStanding::Unmentioned);
        }
    }
}
