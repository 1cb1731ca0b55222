//! Whether a commit was signed by somebody who may: SSH signatures, judged by an allowed signers file
//! in the format of OpenSSH (`ALLOWED SIGNERS` of ssh-keygen(1)).
//!
//! What can't be read, or is not supported, makes the whole file unusable: a signer who was meant to
//! be limited must not become one without limits.

use std::path::PathBuf;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use ssh_key::{HashAlg, PublicKey, SshSig};
use thiserror::Error;

/// The namespace of signatures over git's objects (PROTOCOL.sshsig).
pub(super) const NAMESPACE: &str = "git";

/// Which commits of the reviewed branch are taken.
#[derive(Clone, Debug, Default)]
pub enum Policy {
    /// All.
    #[default]
    Unsigned,
    /// Those whose tip is signed by somebody in this file, which is read again for every tip.
    Head(PathBuf),
}

/// Why a commit is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Unverified {
    /// Nobody signed it.
    #[error("it is not signed")]
    Unsigned,
    /// It carries a signature that is not one of SSH.
    #[error("its signature is not an SSH signature")]
    NotSsh,
    /// The signer is not in the file.
    #[error("it is signed by {0}, who is not among the allowed signers")]
    UnknownSigner(String),
    /// The signer is in the file, but not for this.
    #[error("it is signed by {signer}, who is allowed to sign {limit}")]
    Limited {
        /// The fingerprint of the signer's key.
        signer: String,
        /// What the file allows.
        limit: String,
    },
    /// The signature does not fit the commit.
    #[error("its signature does not fit: it was changed after it was signed")]
    Wrong,
    /// Nobody can be verified.
    #[error("the allowed signers can't be read: {0}")]
    Unreadable(String),
}

/// Somebody who may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Signer {
    key: PublicKey,
    /// Patterns; every namespace if there are none.
    namespaces: Vec<String>,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// Those who may sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AllowedSigners(Vec<Signer>);

impl AllowedSigners {
    /// Reads a file's text.
    pub(super) fn parse(text: &str) -> Result<Self, Unverified> {
        let mut signers = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let signer = signer(line)
                .map_err(|why| Unverified::Unreadable(format!("line {}: {why}", number + 1)))?;
            signers.push(signer);
        }
        if signers.is_empty() {
            return Err(Unverified::Unreadable("the file names nobody".to_owned()));
        }
        Ok(Self(signers))
    }

    /// Verifies the signature of a commit, made at `time` by what the commit says.
    pub(super) fn verify(
        &self,
        content: &[u8],
        signature: &[u8],
        time: Timestamp,
    ) -> Result<(), Unverified> {
        let signature: SshSig = std::str::from_utf8(signature)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or(Unverified::NotSsh)?;
        let key = PublicKey::from(signature.public_key().clone());
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let mut named = self
            .0
            .iter()
            .filter(|signer| signer.key.key_data() == key.key_data())
            .peekable();
        if named.peek().is_none() {
            return Err(Unverified::UnknownSigner(fingerprint));
        }
        let limits: Vec<String> = named.filter_map(|signer| signer.limit(time)).collect();
        let all = self.0.iter();
        let entries = all.filter(|it| it.key.key_data() == key.key_data()).count();
        if limits.len() == entries {
            return Err(Unverified::Limited {
                signer: fingerprint,
                limit: limits.join(", or "),
            });
        }
        // Checks the namespace too.
        key.verify(NAMESPACE, content, &signature)
            .map_err(|_| Unverified::Wrong)
    }
}

impl Signer {
    /// What it may sign, if a commit of that time is not among it.
    fn limit(&self, time: Timestamp) -> Option<String> {
        let named = |pattern: &String| pattern == NAMESPACE || pattern == "*";
        if !self.namespaces.is_empty() && !self.namespaces.iter().any(named) {
            return Some(format!("in {} only", self.namespaces.join(",")));
        }
        match (self.from, self.until) {
            (Some(from), _) if time < from => Some(format!("from {from} on")),
            (_, Some(until)) if time >= until => Some(format!("until {until}")),
            _ => None,
        }
    }
}

/// `principals [options] type key [comment]`; who the principals are matters to nobody here.
fn signer(line: &str) -> Result<Signer, String> {
    let (_, rest) = field(line);
    let (mut options, mut rest) = (String::new(), rest);
    let key = loop {
        if let Ok(key) = rest.parse::<PublicKey>() {
            break key;
        }
        let (first, others) = field(rest);
        if !options.is_empty() || first.is_empty() {
            return Err("not `principals [options] type key`".to_owned());
        }
        (options, rest) = (first.to_owned(), others);
    };
    let mut signer = Signer {
        key,
        namespaces: Vec::new(),
        from: None,
        until: None,
    };
    for option in split(&options, ',') {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let value = value.trim_matches('"');
        match name.to_lowercase().as_str() {
            "namespaces" => signer.namespaces = value.split(',').map(str::to_owned).collect(),
            "valid-after" => signer.from = Some(moment(value)?),
            "valid-before" => signer.until = Some(moment(value)?),
            "" => {}
            "cert-authority" => return Err("certificates are not supported".to_owned()),
            other => return Err(format!("the option `{other}` is not known")),
        }
    }
    Ok(signer)
}

/// The text up to the first space outside of quotes, and what follows it.
fn field(text: &str) -> (&str, &str) {
    let first = split(text, ' ').next().unwrap_or_default();
    let rest = text.get(first.len()..).unwrap_or_default();
    (first, rest.trim_start())
}

/// The parts between separators that are not quoted.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |character| {
        quoted ^= character == '"';
        !quoted && character == separator
    })
}

/// `YYYYMMDD[HHMM[SS]]`, with or without a `Z`: always UTC, as an agent has no time zone.
fn moment(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("`{text}` is not a time: YYYYMMDD, or YYYYMMDDHHMMSSZ");
    let digits = text.strip_suffix('Z').unwrap_or(text);
    let padded = match digits.len() {
        8 => format!("{digits}000000"),
        12 => format!("{digits}00"),
        14 => digits.to_owned(),
        _ => return Err(wrong()),
    };
    let civil = DateTime::strptime("%Y%m%d%H%M%S", &padded).map_err(|_| wrong())?;
    let zoned = civil.to_zoned(TimeZone::UTC).map_err(|_| wrong())?;
    Ok(zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::git::SigningKey;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn verdict(file: &str, content: &str, signature: &str) -> String {
        let verdict = AllowedSigners::parse(file).and_then(|signers| {
            signers.verify(content.as_bytes(), signature.as_bytes(), at(1_700_000_000))
        });
        verdict.map_or_else(|why| why.to_string(), |()| "ok".to_owned())
    }

    proptest! {
        #[test]
        fn whatever_the_file_says_nothing_is_signed_by_chance(
            text: String,
            options in "[a-z=\", -]{0,20}",
            signature: String,
        ) {
            let key = SigningKey::generate("one").unwrap().public_key();
            for text in [text, format!("me@x {options} {key}")] {
                prop_assert_ne!(verdict(&text, "commit", &signature), "ok");
            }
        }
    }

    #[test]
    fn only_allowed_signers_count() {
        let (one, two) = (
            SigningKey::generate("one").unwrap(),
            SigningKey::generate("two").unwrap(),
        );
        let signed = |key: &SigningKey, namespace| key.sign(namespace, b"commit").unwrap();
        let good = signed(&one, "git");
        let (a, b) = (one.public_key(), two.public_key());
        for (file, expected) in [
            (format!("me@x {a}"), "ok"),
            (format!("# people\n\nyou@x {b}\nme@x,*@y {a}\n"), "ok"),
            (format!("\"me myself\" {a}"), "ok"),
            (format!("me@x namespaces=\"file,git\" {a}"), "ok"),
            (format!("me@x namespaces=\"file\" {a}"), "in file only"),
            (
                format!("me@x valid-before=\"20231114\" {a}"),
                "until 2023-11-14T00:00:00Z",
            ),
            (
                format!("me@x valid-after=20231115Z {a}"),
                "from 2023-11-15T00:00:00Z on",
            ),
            (
                format!("me@x valid-after=\"202311140000\",valid-before=\"20240101000000Z\" {a}"),
                "ok",
            ),
            // One entry is enough.
            (
                format!("me@x valid-before=\"20200101\" {a}\nme@x {a}"),
                "ok",
            ),
            (format!("you@x {b}"), "not among the allowed signers"),
            (String::new(), "names nobody"),
            (format!("me@x cert-authority {a}"), "line 1: certificates"),
            (
                format!("me@x {a}\nme@x verify-required {a}"),
                "line 2: the option",
            ),
            (format!("me@x valid-after=soon {a}"), "is not a time"),
            (
                "me@x ssh-ed25519 nonsense".to_owned(),
                "line 1: not `principals",
            ),
            ("me@x".to_owned(), "line 1: not `principals"),
        ] {
            let found = verdict(&file, "commit", &good);
            assert!(found.contains(expected), "{file}: {found}");
        }
        let file = format!("me@x {a}");
        assert!(verdict(&file, "other", &good).contains("does not fit"));
        assert!(verdict(&file, "commit", &signed(&one, "file")).contains("does not fit"));
        assert!(verdict(&file, "commit", "-----BEGIN PGP SIGNATURE-----").contains("not an SSH"));
        assert!(verdict(&file, "commit", &signed(&two, "git")).contains("not among"));
    }
}
