//! Revocations in force: what the repository declares, and what a cluster remembers of it.
//!
//! **Invariant:** a revocation that was seen once is in force until its author lifts it. That an
//! entry, a file or a commit vanished lifts nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{declarations::Declarations, distrust::KeyId, trust_domain::TrustDomain};

/// A key that is no longer accepted, and who said so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revoked {
    /// The key.
    pub key: KeyId,
    /// Whose `distrust.yaml` says so: the key's own trust domain, or the one that trusted it.
    pub by: TrustDomain,
    /// Since when.
    pub time: Timestamp,
}

/// The revocations of a peer's keys that are in force for workloads of `own`, in a fixed order.
///
/// Two files count: the peer's own, which takes a key back from everybody, and `own`'s.
pub fn in_force(
    own: &TrustDomain,
    peer: &TrustDomain,
    declarations: &Declarations,
    remembered: impl IntoIterator<Item = Revoked>,
) -> Vec<Revoked> {
    let authors = [peer, own];
    let declared = authors.into_iter().flat_map(|by| {
        let file = declarations.distrust.get(by);
        let entries = file.into_iter().flat_map(|file| &file.revoked);
        entries
            .filter(|entry| entry.trust_domain == *peer)
            .map(|entry| Revoked {
                key: entry.key.clone(),
                by: by.clone(),
                time: entry.time,
            })
    });
    let mut latest: BTreeMap<(KeyId, TrustDomain), Timestamp> = BTreeMap::new();
    let remembered = remembered
        .into_iter()
        .filter(|revoked| authors.contains(&&revoked.by));
    for revoked in declared.chain(remembered) {
        let since = latest
            .entry((revoked.key, revoked.by))
            .or_insert(revoked.time);
        *since = revoked.time.max(*since);
    }
    latest
        .into_iter()
        .filter(|((key, by), time)| {
            let file = declarations.distrust.get(by);
            !file.is_some_and(|file| file.lifts(peer, key, *time))
        })
        .map(|((key, by), time)| Revoked { key, by, time })
        .collect()
}

/// Whether any of the revocations is of the key.
pub fn is_revoked(revoked: &[Revoked], key: &KeyId) -> bool {
    revoked.iter().any(|revoked| revoked.key == *key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::bundle::Digest;

    fn name(name: &str) -> TrustDomain {
        TrustDomain::parse(name).unwrap()
    }

    fn entry(time: u8) -> serde_json::Value {
        json!({
            "trustDomain": "b", "key": {"x509": Digest::of(b"key")}, "reason": "r",
            "time": format!("2026-01-0{time}T00:00:00Z"),
        })
    }

    /// Who revokes the one key of `b` for `a`, given entries as `(file, list, day)`.
    fn check(entries: &[(&str, &str, u8)], remembered: &[(&str, u8)], expected: &[&str]) {
        let mut declarations = Declarations::default();
        for (file, list, day) in entries {
            let spec = declarations.distrust.entry(name(file)).or_default();
            let entry = serde_json::from_value(entry(*day)).unwrap();
            match *list {
                "revoked" => spec.revoked.push(entry),
                _ => spec.unrevoked.push(entry),
            }
        }
        let remembered = remembered.iter().map(|(by, day)| Revoked {
            key: KeyId::X509(Digest::of(b"key")),
            by: name(by),
            time: format!("2026-01-0{day}T00:00:00Z").parse().unwrap(),
        });
        let found = in_force(&name("a"), &name("b"), &declarations, remembered);
        let found: Vec<_> = found.iter().map(|revoked| revoked.by.as_str()).collect();
        assert_eq!(found, expected, "{entries:?}");
    }

    #[test]
    fn its_own_trust_domain_and_ours_revoke_a_key_and_nobody_else() {
        check(&[], &[], &[]);
        check(&[("b", "revoked", 1)], &[], &["b"]);
        check(
            &[("a", "revoked", 1), ("b", "revoked", 1)],
            &[],
            &["a", "b"],
        );
        check(&[("c", "revoked", 1)], &[("c", 1)], &[]);
    }

    #[test]
    fn only_the_author_lifts_a_revocation_and_only_later() {
        check(&[], &[("b", 1)], &["b"]);
        check(&[("b", "unrevoked", 2)], &[("b", 1)], &[]);
        check(
            &[("b", "revoked", 1), ("b", "unrevoked", 2)],
            &[("b", 1)],
            &[],
        );
        check(&[("a", "unrevoked", 2)], &[("b", 1)], &["b"]);
        check(&[("b", "unrevoked", 1)], &[("b", 1)], &["b"]);
        // Revoked again after it was lifted.
        check(
            &[("b", "revoked", 3), ("b", "unrevoked", 2)],
            &[("b", 1)],
            &["b"],
        );
    }
}
