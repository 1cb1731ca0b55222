//! `trustweave bundle revoke` and `unrevoke`.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    super::{
        Answer,
        check::now,
        output::{self, Format},
    },
    distrust_file::{DistrustFile, List},
    source::{Place, Source},
};
use crate::{
    federation::distrust,
    git::worktree,
    model::{
        attestation::{Publication, Rejection},
        bundle::{Bundle, Digest},
        distrust::{DistrustSpec, JwtKeyId, KeyId, KeyStanding, Revocation},
        trust_domain::{ClusterName, TrustDomain},
    },
};

/// Take back a key of a trust domain, for good
///
/// Writes an entry into `trust-domains/<TRUST_DOMAIN>/distrust.yaml` of the work tree: once that is
/// merged, every agent whose trust domain imports this one filters the key out of every bundle at
/// once, whoever signed it. With --by, another trust domain stops accepting the key for its own
/// workloads only, and the entry goes into that one's file.
///
/// The key is found in the bundle that the trust domain publishes, which has to be verified, as
/// `trustweave bundle show` does it. A full digest, or a key ID with --thumbprint, is also taken if
/// no such bundle holds it: a key that is out of the bundle can come back.
///
/// A revocation sticks. Clusters remember it, and removing the entry later lifts nothing; only
/// `trustweave bundle unrevoke` does. SPIRE of the trust domain itself is not changed: rotate there,
/// too (`spire-server localauthority x509 taint` and `revoke`).
///
/// Nothing is committed. Existing entries and comments in the file stay.
///
/// Exit codes: 0 written, or revoked before; 2 the key is not found, or the repository can't be read
/// or written.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave bundle show b.test                       the digests of its keys
  trustweave bundle revoke b.test --x509 1a2b3c4d5e6f --reason 'key file was copied, INC-42'
  trustweave bundle revoke b.test --jwt k1 --reason 'signed a forged token'
  trustweave bundle revoke b.test --all --reason 'cluster-2 is compromised'
  trustweave bundle revoke b.test --all --by a.test --reason 'we do not trust b.test any more'")]
pub(super) struct Revoke {
    #[command(flatten)]
    request: Request,

    /// The key's thumbprint (RFC 7638), if the published bundle does not hold the key ID
    #[arg(long, value_name = "THUMBPRINT", requires = "jwt")]
    thumbprint: Option<String>,
}

/// Accept a revoked key again
///
/// Writes an entry under `unrevoked` into the trust domain's `distrust.yaml` of the work tree. It
/// lifts what the same file revoked before, and only that: what others revoked for themselves stays.
/// The key is looked up among the file's revocations. Nothing is committed.
///
/// Exit codes: 0 written; 1 it is not revoked, so that there is nothing to lift; 2 the repository
/// can't be read or written.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave bundle unrevoke b.test --x509 1a2b3c4d5e6f --reason 'false alarm, INC-42'
  trustweave bundle unrevoke b.test --all --by a.test --reason 'b.test was rebuilt'")]
pub(super) struct Unrevoke {
    #[command(flatten)]
    request: Request,
}

#[derive(Debug, Args)]
struct Request {
    /// Whose key it is, without `spiffe://`
    trust_domain: TrustDomain,

    #[command(flatten)]
    which: Which,

    /// Why, in a sentence for those who read it later
    #[arg(long, value_name = "TEXT")]
    reason: String,

    /// Who decides: the trust domain itself, for everybody; or a peer, for its own workloads
    #[arg(long, value_name = "TRUST_DOMAIN")]
    by: Option<TrustDomain>,

    #[command(flatten)]
    place: Place,

    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Which keys.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// An X.509 authority: SHA-256 of its `SubjectPublicKeyInfo`, or the first digits of it
    #[arg(long, value_name = "SHA256")]
    x509: Option<String>,

    /// A JWT authority, by its key ID
    #[arg(long, value_name = "KID")]
    jwt: Option<String>,

    /// Every key
    #[arg(long)]
    all: bool,
}

/// How few digits may stand for a key.
const MIN_DIGITS: usize = 4;

impl Which {
    /// The keys among the candidates; none if there is no such key.
    fn among(&self, candidates: &[KeyId]) -> anyhow::Result<Vec<KeyId>> {
        let matches = |key: &&KeyId| match key {
            _ if self.all => true,
            KeyId::X509(digest) => self
                .x509
                .as_ref()
                .is_some_and(|digits| digest.as_str().starts_with(&digits.to_lowercase())),
            KeyId::Jwt(jwt) => self.jwt.as_ref() == Some(&jwt.kid),
        };
        if let Some(digits) = &self.x509
            && digits.len() < MIN_DIGITS
        {
            bail!("`{digits}` is too short: give at least {MIN_DIGITS} digits");
        }
        // Two certificates may hold one key, and two key IDs stand for one.
        let mut found: Vec<_> = candidates.iter().filter(matches).cloned().collect();
        found.sort();
        found.dedup();
        if let (Some(digits), [_, _, ..]) = (&self.x509, found.as_slice()) {
            let all: Vec<_> = found.iter().map(ToString::to_string).collect();
            bail!("`{digits}` may be any of these: {}", all.join(", "));
        }
        Ok(found)
    }
}

impl Request {
    fn by(&self) -> &TrustDomain {
        self.by.as_ref().unwrap_or(&self.trust_domain)
    }

    /// The reason, in one line.
    fn reason(&self) -> anyhow::Result<String> {
        let words: Vec<_> = self.reason.split_whitespace().collect();
        if words.is_empty() {
            bail!("--reason is empty: those who read it later need one");
        }
        Ok(words.join(" "))
    }

    fn revocation(&self, key: &KeyId, reason: &str, time: Timestamp) -> Revocation {
        Revocation {
            trust_domain: self.trust_domain.clone(),
            key: key.clone(),
            reason: reason.to_owned(),
            time,
        }
    }

    /// A time for a new entry: this second, or this very moment if an entry of the keys is as young.
    fn time(
        &self,
        now: Timestamp,
        spec: &DistrustSpec,
        keys: &[KeyId],
    ) -> anyhow::Result<Timestamp> {
        let entries = spec.revoked.iter().chain(&spec.unrevoked);
        let latest = entries
            .filter(|entry| entry.trust_domain == self.trust_domain && keys.contains(&entry.key))
            .map(|entry| entry.time)
            .max();
        let second = Timestamp::from_second(now.as_second())?;
        match latest {
            Some(latest) if latest >= now => {
                bail!("an entry of this key lies in the future ({latest}): correct its time first")
            }
            Some(latest) if latest >= second => Ok(now),
            _ => Ok(second),
        }
    }

    /// Writes entries, and returns what the file says then.
    fn write(
        &self,
        file: &DistrustFile,
        list: List,
        entries: &[Revocation],
    ) -> anyhow::Result<DistrustSpec> {
        if entries.is_empty() {
            return Ok(file.spec.clone());
        }
        let amended = file.with(list, entries)?;
        worktree::write(&self.place.repo, &file.path, &amended.text)
            .with_context(|| format!("write {}", file.path))?;
        if amended.anew {
            output::note(&format!(
                "note: {} was written anew, as it could not be extended: look at what became of its \
                 comments",
                file.path
            ));
        }
        Ok(amended.spec)
    }
}

/// Says what to do next, which is people's business.
fn next(file: &DistrustFile) {
    output::note(&format!(
        "Next: review it (`git diff -- {}`, `trustweave diff --base HEAD`), commit it, and open a \
         pull request.",
        file.path
    ));
}

impl Revoke {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let request = &self.request;
        let (by, trust_domain, now) = (request.by(), &request.trust_domain, now());
        let reason = request.reason()?;
        let source = request.place.open()?;
        source.declaration(by)?;
        let published = source.publication(trust_domain, now)?;
        let keys = self.keys(published.as_ref())?;
        let file = DistrustFile::read(&request.place.repo, by)?;
        let fresh: Vec<_> = keys
            .iter()
            .filter(|key| file.spec.standing(trust_domain, key) != KeyStanding::Revoked)
            .cloned()
            .collect();
        let time = request.time(now, &file.spec, &fresh)?;
        let entries: Vec<_> = fresh
            .iter()
            .map(|key| request.revocation(key, &reason, time))
            .collect();
        let spec = request.write(&file, List::Revoked, &entries)?;
        let bundle = published
            .as_ref()
            .ok()
            .map(|publication| &publication.bundle);
        let told = Told {
            verb: "revokes",
            by,
            trust_domain,
            path: file.path.as_str(),
            keys: &keys,
            changed: &fresh,
            bundle,
            clusters: distrust::concerned(&source.declarations, by, trust_domain),
            left: bundle.map(|bundle| left(bundle, &source, by, trust_domain, &spec)),
        };
        told.write(request.output)?;
        if !fresh.is_empty() {
            next(&file);
        }
        Ok(Answer::Yes)
    }

    /// The keys that are meant.
    fn keys(&self, published: Result<&Publication, &Rejection>) -> anyhow::Result<Vec<KeyId>> {
        let which = &self.request.which;
        let held: Vec<KeyId> = published
            .map(|it| it.bundle.keys().collect())
            .unwrap_or_default();
        let found = which.among(&held)?;
        if let (Some(kid), Some(thumbprint)) = (&which.jwt, &self.thumbprint) {
            let key = KeyId::Jwt(JwtKeyId {
                kid: kid.clone(),
                thumbprint: thumbprint.clone(),
            });
            if !found.contains(&key) {
                self.note_absent(&key);
            }
            return Ok(vec![key]);
        }
        if !found.is_empty() {
            return Ok(found);
        }
        if let Some(Ok(digest)) = which
            .x509
            .as_ref()
            .map(|it| Digest::parse(&it.to_lowercase()))
        {
            let key = KeyId::X509(digest);
            self.note_absent(&key);
            return Ok(vec![key]);
        }
        let (trust_domain, full) = (
            &self.request.trust_domain,
            "give the full digest with --x509, or --jwt with --thumbprint",
        );
        match published {
            Err(rejection) => bail!(
                "no verified bundle of `{trust_domain}` tells its keys ({rejection}): fetch it, or {full}"
            ),
            Ok(_) => bail!(
                "the published bundle of `{trust_domain}` has no such key (`trustweave bundle show \
                 {trust_domain}` lists them): {full}"
            ),
        }
    }

    fn note_absent(&self, key: &KeyId) {
        output::note(&format!(
            "note: no verified bundle of {} here holds the {key}: it is revoked all the same",
            self.request.trust_domain
        ));
    }
}

impl Unrevoke {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let request = &self.request;
        let (by, trust_domain, now) = (request.by(), &request.trust_domain, now());
        let reason = request.reason()?;
        let source = request.place.open()?;
        source.declaration(by)?;
        let file = DistrustFile::read(&request.place.repo, by)?;
        let mut revoked: Vec<_> = file
            .spec
            .keys()
            .into_iter()
            .filter(|(owner, key)| {
                *owner == trust_domain && file.spec.standing(owner, key) == KeyStanding::Revoked
            })
            .map(|(_, key)| key.clone())
            .collect();
        revoked = request.which.among(&revoked)?;
        if revoked.is_empty() {
            output::note(&format!(
                "{} revokes no such key of {trust_domain}: there is nothing to lift",
                file.path
            ));
            return Ok(Answer::No);
        }
        let time = request.time(now, &file.spec, &revoked)?;
        let entries: Vec<_> = revoked
            .iter()
            .map(|key| request.revocation(key, &reason, time))
            .collect();
        let spec = request.write(&file, List::Unrevoked, &entries)?;
        let published = source
            .publication(trust_domain, now)
            .ok()
            .and_then(Result::ok);
        let bundle = published.as_ref().map(|publication| &publication.bundle);
        let told = Told {
            verb: "accepts again",
            by,
            trust_domain,
            path: file.path.as_str(),
            keys: &revoked,
            changed: &revoked,
            bundle,
            clusters: distrust::concerned(&source.declarations, by, trust_domain),
            left: bundle.map(|bundle| left(bundle, &source, by, trust_domain, &spec)),
        };
        told.write(request.output)?;
        next(&file);
        Ok(Answer::Yes)
    }
}

/// How many X.509 authorities are left to those that an entry of `by`'s file concerns.
fn left(
    bundle: &Bundle,
    source: &Source,
    by: &TrustDomain,
    trust_domain: &TrustDomain,
    spec: &DistrustSpec,
) -> usize {
    let own = (by != trust_domain)
        .then(|| source.declarations.distrust.get(trust_domain))
        .flatten();
    distrust::accepted(bundle, trust_domain, own.into_iter().chain([spec]))
}

/// An answer that is about to be written.
struct Told<'a> {
    verb: &'a str,
    by: &'a TrustDomain,
    trust_domain: &'a TrustDomain,
    path: &'a str,
    keys: &'a [KeyId],
    /// Those of the keys that the file said something else about before.
    changed: &'a [KeyId],
    /// What the trust domain publishes, if that is verified.
    bundle: Option<&'a Bundle>,
    clusters: BTreeMap<TrustDomain, Vec<ClusterName>>,
    /// How many X.509 authorities of the published bundle are still accepted.
    left: Option<usize>,
}

impl Told<'_> {
    fn write(&self, format: Format) -> anyhow::Result<()> {
        match format {
            Format::Text => output::data(&self.text()),
            Format::Json => output::json(&self.json()),
        }
    }

    fn revokes(&self) -> bool {
        self.verb == "revokes"
    }

    fn expiry(&self, key: &KeyId) -> Option<Timestamp> {
        let authorities = self.bundle?.x509_authorities.iter();
        let found = authorities.filter(|authority| authority.id() == *key);
        found.map(|authority| authority.not_after).max()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for key in self.keys {
            let whose = if self.by == self.trust_domain {
                String::new()
            } else {
                format!(" of {}", self.trust_domain)
            };
            if !self.changed.contains(key) {
                let _ = writeln!(
                    text,
                    "{}: the {key}{whose} is revoked already: nothing changes",
                    self.path
                );
                continue;
            }
            let _ = write!(
                text,
                "{}: {} {} the {key}{whose}",
                self.path, self.by, self.verb
            );
            if let Some(ends) = self.expiry(key) {
                let _ = write!(text, ", which ends at {ends}");
            }
            text.push('\n');
        }
        if self.changed.is_empty() {
            return text;
        }
        let _ = writeln!(text, "\nOnce it is merged:");
        for line in self.effects() {
            let _ = writeln!(text, "  - {line}");
        }
        text
    }

    fn effects(&self) -> Vec<String> {
        let trust_domain = self.trust_domain;
        let mut lines = Vec::new();
        for (importer, clusters) in &self.clusters {
            let clusters: Vec<_> = clusters.iter().map(ToString::to_string).collect();
            let what = if self.revokes() {
                "refuse what it signed, at once"
            } else {
                "believe it again, in whatever bundle holds it"
            };
            lines.push(format!(
                "the workloads of {importer} ({}) {what}",
                clusters.join(", ")
            ));
        }
        if self.clusters.is_empty() {
            lines.push(if self.by == trust_domain {
                format!("nobody trusts {trust_domain} now: it counts for those who come to")
            } else {
                format!(
                    "{} does not trust {trust_domain} now: it counts once it does",
                    self.by
                )
            });
        }
        match self.left {
            Some(0) => lines.push(format!(
                "no X.509 authority of {trust_domain} is left: everything of {trust_domain} is distrusted at once"
            )),
            Some(1) => lines.push(format!("1 X.509 authority of {trust_domain} is accepted then")),
            Some(left) => lines.push(format!(
                "{left} X.509 authorities of {trust_domain} are accepted then"
            )),
            None => {}
        }
        if self.revokes() {
            lines.push(
                "clusters remember it: removing the entry later lifts nothing, only \
                 `trustweave bundle unrevoke` does"
                    .to_owned(),
            );
            if self.by == trust_domain {
                lines.push(format!(
                    "SPIRE of {trust_domain} itself goes on as before: taint and revoke the key there, too"
                ));
            }
        } else {
            lines.push("what others revoked for themselves stays revoked".to_owned());
        }
        lines
    }

    fn json(&self) -> Value {
        let key = |key: &KeyId| {
            json!({
                "key": key,
                "changed": self.changed.contains(key),
                "notAfter": self.expiry(key).map(|ends| ends.to_string()),
            })
        };
        json!({
            "file": self.path,
            "by": self.by,
            "trustDomain": self.trust_domain,
            "revoked": self.revokes(),
            "changed": !self.changed.is_empty(),
            "keys": self.keys.iter().map(key).collect::<Vec<_>>(),
            "concerned": self.clusters,
            "x509AuthoritiesLeft": self.left,
            "everythingDistrusted": self.left.map(|left| left == 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_name_one_key_however_many_certificates_hold_it() {
        let x509 = |digits: &str| KeyId::X509(Digest::parse(&format!("{digits:0<64}")).unwrap());
        let jwt = |kid: &str| {
            KeyId::Jwt(JwtKeyId {
                kid: kid.to_owned(),
                thumbprint: "t".to_owned(),
            })
        };
        let keys = [
            x509("abcd1"),
            x509("abcd2"),
            x509("abcd1"),
            jwt("a"),
            jwt("b"),
        ];
        let which = |x509: Option<&str>, jwt: Option<&str>| Which {
            x509: x509.map(str::to_owned),
            jwt: jwt.map(str::to_owned),
            all: x509.is_none() && jwt.is_none(),
        };
        let among = |which: Which| which.among(&keys).map_err(|error| error.to_string());
        assert_eq!(among(which(Some("ABCD1"), None)), Ok(vec![x509("abcd1")]));
        assert_eq!(among(which(Some("ffff"), None)), Ok(vec![]));
        assert_eq!(among(which(None, Some("b"))), Ok(vec![jwt("b")]));
        assert_eq!(among(which(None, None)).unwrap().len(), 3);
        let ambiguous = among(which(Some("abcd"), None)).unwrap_err();
        assert!(
            ambiguous.starts_with("`abcd` may be any of these: X.509 key abcd1"),
            "{ambiguous}"
        );
        let short = among(which(Some("abc"), None)).unwrap_err();
        assert!(short.contains("too short"), "{short}");
    }
}
