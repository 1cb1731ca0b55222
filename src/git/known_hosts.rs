//! Which key an ssh server has to show: one that the `known_hosts` file names for it. There is no
//! trust on first use.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use ssh_key::{
    HashAlg, PublicKey,
    known_hosts::{HostPatterns, KnownHosts, Marker},
};
use thiserror::Error;

/// Why the key that a server showed is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HostKeyMismatch {
    /// The server showed something that is no key.
    #[error("the key that {0} showed can't be read")]
    Unreadable(String),
    /// The file has no key of this host.
    #[error(
        "the host is not known: {host} showed {shown}, and the known_hosts file has no key of it; compare it with what the host's owners publish, and add it"
    )]
    Unknown {
        /// The host, as the file would name it.
        host: String,
        /// The key: its type and fingerprint.
        shown: String,
    },
    /// The file knows the host by keys of other types.
    #[error(
        "{host} showed {shown}, but the known_hosts file knows it by {known} only; add its keys of all types (`ssh-keyscan` lists them), after comparing them"
    )]
    OtherType {
        /// The host.
        host: String,
        /// The key that it showed.
        shown: String,
        /// The keys in the file.
        known: String,
    },
    /// The file has another key of the same type.
    #[error(
        "the key of {host} has changed: it showed {shown}, but the known_hosts file has {known}; somebody may be in between: nothing was sent"
    )]
    Changed {
        /// The host.
        host: String,
        /// The key that it showed.
        shown: String,
        /// The keys in the file.
        known: String,
    },
    /// The file revokes this key.
    #[error("{host} showed {shown}, which the known_hosts file revokes")]
    Revoked {
        /// The host.
        host: String,
        /// The key that it showed.
        shown: String,
    },
}

/// Checks the key (as in RFC 4253) that a host showed at a port against a `known_hosts` file's text.
/// A line that can't be read, or names a certificate authority, counts for nothing.
pub(super) fn check(text: &str, host: &str, port: u16, key: &[u8]) -> Result<(), HostKeyMismatch> {
    let name = match port {
        22 => host.to_owned(),
        port => format!("[{host}]:{port}"),
    };
    let Ok(shown) = PublicKey::from_bytes(key) else {
        return Err(HostKeyMismatch::Unreadable(name));
    };
    let entries: Vec<_> = KnownHosts::new(text)
        .flatten()
        .filter(|entry| matches(entry.host_patterns(), &name))
        .collect();
    let is_shown = |key: &PublicKey| key.key_data() == shown.key_data();
    let revoked = |marker: Option<&Marker>| marker == Some(&Marker::Revoked);
    if entries
        .iter()
        .any(|entry| revoked(entry.marker()) && is_shown(entry.public_key()))
    {
        return Err(HostKeyMismatch::Revoked {
            host: name,
            shown: described(&shown),
        });
    }
    let known: Vec<_> = entries
        .iter()
        .filter(|entry| entry.marker().is_none())
        .map(ssh_key::known_hosts::Entry::public_key)
        .collect();
    if known.iter().any(|key| is_shown(key)) {
        return Ok(());
    }
    let same_type = known.iter().any(|it| it.algorithm() == shown.algorithm());
    let listed: Vec<_> = known.iter().map(|key| described(key)).collect();
    let (host, shown, known) = (name, described(&shown), listed.join(", "));
    Err(match (listed.is_empty(), same_type) {
        (true, _) => HostKeyMismatch::Unknown { host, shown },
        (false, true) => HostKeyMismatch::Changed { host, shown, known },
        (false, false) => HostKeyMismatch::OtherType { host, shown, known },
    })
}

fn described(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

/// Whether a line's patterns are for a host, named as in the file.
fn matches(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => {
            let Ok(mut mac) = <Hmac<Sha1> as KeyInit>::new_from_slice(salt) else {
                return false;
            };
            mac.update(name.as_bytes());
            mac.verify_slice(hash).is_ok()
        }
        HostPatterns::Patterns(patterns) => {
            let mut found = false;
            for pattern in patterns {
                match pattern.strip_prefix('!') {
                    Some(excluded) if is_like(excluded, name) => return false,
                    Some(_) => {}
                    None => found |= is_like(pattern, name),
                }
            }
            found
        }
    }
}

/// Whether a name is like a pattern, in which `*` stands for any text and `?` for one character.
/// Hosts know no case.
fn is_like(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_lowercase(), name.to_lowercase());
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where the last `*` is, and how much of the name it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, covered)) = star else {
                    return false;
                };
                star = Some((at, covered + 1));
                p = at + 1;
                n = covered + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICFYOS8fuQTlxt23vVjaKF2ZlAQsmGq7DoJdW1JXIvF9";
    const TWO: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGaqKh8HNuvOg3LB1l2UFvIpS6Ofh54ZZnPH2BEvOpTU";
    const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBPhwgC/Jk6YC6+dIy00r0kwxZcywWOtrFEGw9vWgCjz1DRhppIVZC/Xr7DyVuY/zyM228Qmc3jkGOBPjHvt2aqo=";

    fn verdict(text: &str, host: &str, port: u16, key: &str) -> &'static str {
        let key: PublicKey = key.parse().unwrap();
        match check(text, host, port, &key.to_bytes().unwrap()) {
            Ok(()) => "ok",
            Err(HostKeyMismatch::Unreadable(_)) => "unreadable",
            Err(HostKeyMismatch::Unknown { .. }) => "unknown",
            Err(HostKeyMismatch::OtherType { .. }) => "other type",
            Err(HostKeyMismatch::Changed { .. }) => "changed",
            Err(HostKeyMismatch::Revoked { .. }) => "revoked",
        }
    }

    #[test]
    fn only_a_named_key_of_the_host_is_taken() {
        let plain = format!("git.test {ONE}\n");
        for (text, host, port, key, expected) in [
            ("", "git.test", 22, ONE, "unknown"),
            ("# nothing\n\nnonsense\n", "git.test", 22, ONE, "unknown"),
            (plain.as_str(), "git.test", 22, ONE, "ok"),
            (plain.as_str(), "GIT.test", 22, ONE, "ok"),
            (plain.as_str(), "git.test", 2222, ONE, "unknown"),
            (plain.as_str(), "other.test", 22, ONE, "unknown"),
            (plain.as_str(), "git.test", 22, TWO, "changed"),
            (plain.as_str(), "git.test", 22, ECDSA, "other type"),
        ] {
            assert_eq!(
                verdict(text, host, port, key),
                expected,
                "{text} {host}:{port}"
            );
        }
        for (patterns, host, port, expected) in [
            ("a.test,git.test", "git.test", 22, "ok"),
            ("[git.test]:2222", "git.test", 2222, "ok"),
            ("[git.test]:2222", "git.test", 22, "unknown"),
            ("*.test", "git.test", 22, "ok"),
            ("g?t.*", "git.test", 22, "ok"),
            ("*.test,!git.test", "git.test", 22, "unknown"),
            ("!git.test", "git.test", 22, "unknown"),
            ("[*]:2222", "git.test", 2222, "ok"),
            ("*", "git.test", 22, "ok"),
            ("*git", "git.test", 22, "unknown"),
        ] {
            let text = format!("{patterns} {ONE} comment\n");
            assert_eq!(verdict(&text, host, port, ONE), expected, "{patterns}");
        }
    }

    #[test]
    fn a_hashed_name_is_known() {
        // As `ssh-keygen -H` writes `git.test`.
        let text = format!("{HASHED} {ONE}\n");
        assert_eq!(verdict(&text, "git.test", 22, ONE), "ok");
        assert_eq!(verdict(&text, "other.test", 22, ONE), "unknown");
    }

    const HASHED: &str = "|1|y9Dr7CmwtVPqfF/g+h5HqG+f724=|5cCecuCNgYEW1n1rwYr1G970Mak=";

    #[test]
    fn a_revoked_key_is_never_taken() {
        let text = format!("git.test {ONE}\n@revoked * {ONE}\n");
        assert_eq!(verdict(&text, "git.test", 22, ONE), "revoked");
        // An authority is not a host's key.
        let text = format!("@cert-authority git.test {ONE}\n");
        assert_eq!(verdict(&text, "git.test", 22, ONE), "unknown");
        let error = check(&text, "git.test", 22, b"nonsense").unwrap_err();
        assert_eq!(error, HostKeyMismatch::Unreadable("git.test".to_owned()));
    }

    proptest! {
        #[test]
        fn nobody_is_known_by_chance(text: String, pattern in "[a-z*?!,|\\[\\]:]{0,12}", key: Vec<u8>) {
            prop_assert!(check(&text, "git.test", 22, &key).is_err());
            let text = format!("{pattern} {TWO}\n");
            let one: PublicKey = ONE.parse().unwrap();
            prop_assert!(check(&text, "git.test", 22, &one.to_bytes().unwrap()).is_err());
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_fingerprints() {
        let key: PublicKey = TWO.parse().unwrap();
        let text = format!("[127.0.0.1]:2222 {ONE}\n");
        let error = check(&text, "127.0.0.1", 2222, &key.to_bytes().unwrap()).unwrap_err();
        let shown = described(&key);
        let known = described(&ONE.parse().unwrap());
        assert!(shown.starts_with("ssh-ed25519 SHA256:"), "{shown}");
        assert_eq!(
            error.to_string(),
            format!(
                "the key of [127.0.0.1]:2222 has changed: it showed {shown}, but the known_hosts \
                 file has {known}; somebody may be in between: nothing was sent"
            )
        );
    }
}
