//! Whether whoever calls a webhook knows the secret. Pure: headers and bytes in, a verdict out.
//!
//! The body is only hashed as it arrives. It is never parsed, nor kept: a webhook says no more than
//! "look now", whatever is in it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

/// Who sends webhooks in which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// `X-Hub-Signature-256: sha256=<hex>`.
    GitHub,
    /// `X-Gitlab-Token: <secret>`.
    GitLab,
    /// `X-Forgejo-Signature: <hex>`.
    Forgejo,
    /// `X-Gitea-Signature: <hex>`.
    Gitea,
    /// `X-Hub-Signature: sha256=<hex>`.
    Bitbucket,
    /// `X-Signature: sha256=<hex>`, of whoever else can make an HMAC.
    Generic,
}

/// All of them, with their headers. Some send another's header too: the first that is there counts.
const PROVIDERS: [(Provider, &str); 6] = [
    (Provider::Forgejo, "x-forgejo-signature"),
    (Provider::Gitea, "x-gitea-signature"),
    (Provider::GitHub, "x-hub-signature-256"),
    (Provider::GitLab, "x-gitlab-token"),
    (Provider::Bitbucket, "x-hub-signature"),
    (Provider::Generic, "x-signature"),
];

impl Provider {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Forgejo => "forgejo",
            Self::Gitea => "gitea",
            Self::Bitbucket => "bitbucket",
            Self::Generic => "generic",
        }
    }
}

/// Why a call is not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is no secret that anybody could know.
    #[error("there is no secret to verify with")]
    NoSecret,
    /// The call carries no signature.
    #[error(
        "no signature: X-Hub-Signature-256, X-Gitlab-Token, X-Gitea-Signature, X-Forgejo-Signature, X-Hub-Signature or X-Signature"
    )]
    Unsigned,
    /// The signature is none, or of another kind than HMAC-SHA256.
    #[error("the signature is not an HMAC-SHA256 in hexadecimal")]
    Malformed,
    /// Whoever calls does not know the secret.
    #[error("the signature does not fit")]
    Wrong,
}

/// What calls are verified with: several secrets, so that one can be replaced without a gap.
pub struct Secrets(Vec<Zeroizing<String>>);

impl Secrets {
    /// One on each line; white space around it, and lines without anything else, do not count.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let secrets: Vec<_> = lines.map(|line| Zeroizing::new(line.to_owned())).collect();
        if secrets.is_empty() {
            return Err(Refusal::NoSecret);
        }
        Ok(Self(secrets))
    }

    /// The one that the agent itself signs with.
    pub(super) fn first(&self) -> &[u8] {
        self.0.first().map(|it| it.as_bytes()).unwrap_or_default()
    }
}

/// The verification of one call, while its body arrives.
pub struct Verification {
    provider: Provider,
    proof: Proof,
}

enum Proof {
    /// The HMACs of the body so far, by each secret, and what one of them has to be.
    Body(Vec<Hmac<Sha256>>, Vec<u8>),
    /// Decided by a header alone.
    Header(bool),
}

impl Verification {
    /// Begins with what a call's headers are; `header` finds one by its name, in lower case.
    pub fn begin<'h>(
        header: impl Fn(&str) -> Option<&'h [u8]>,
        secrets: &Secrets,
    ) -> Result<Self, Refusal> {
        let found = PROVIDERS
            .iter()
            .find_map(|(provider, name)| Some((*provider, header(name)?)));
        let (provider, value) = found.ok_or(Refusal::Unsigned)?;
        let keyed = secrets.0.iter();
        let macs = keyed.map(|secret| Hmac::<Sha256>::new_from_slice(secret.as_bytes()));
        // A key of any length will do.
        let macs: Vec<_> = macs
            .collect::<Result<_, _>>()
            .map_err(|_| Refusal::NoSecret)?;
        let proof = match provider {
            Provider::GitLab => Proof::Header(is_one_of(value, secrets, &macs)),
            Provider::Gitea | Provider::Forgejo => Proof::Body(macs, digest(value)?),
            Provider::GitHub | Provider::Bitbucket | Provider::Generic => {
                let hex = value.strip_prefix(b"sha256=").ok_or(Refusal::Malformed)?;
                Proof::Body(macs, digest(hex)?)
            }
        };
        Ok(Self { provider, proof })
    }

    /// Takes the next part of the body.
    pub fn update(&mut self, part: &[u8]) {
        if let Proof::Body(macs, _) = &mut self.proof {
            for mac in macs {
                mac.update(part);
            }
        }
    }

    /// Decides, after the last part.
    pub fn finish(self) -> Result<Provider, Refusal> {
        let fits = match self.proof {
            Proof::Header(fits) => fits,
            Proof::Body(macs, expected) => {
                // All of them, so that the time tells nothing about which.
                macs.into_iter().fold(false, |fits, mac| {
                    fits | mac.verify_slice(&expected).is_ok()
                })
            }
        };
        fits.then_some(self.provider).ok_or(Refusal::Wrong)
    }
}

/// Whether a token is one of the secrets. What is compared are their HMACs, in constant time: neither
/// their content nor their length is told by how long it takes.
fn is_one_of(token: &[u8], secrets: &Secrets, macs: &[Hmac<Sha256>]) -> bool {
    let same = |(secret, mac): (&Zeroizing<String>, &Hmac<Sha256>)| {
        let of = |text: &[u8]| mac.clone().chain_update(text);
        let expected = of(secret.as_bytes()).finalize().into_bytes();
        of(token).verify_slice(&expected).is_ok()
    };
    let each = secrets.0.iter().zip(macs);
    each.map(same).fold(false, |found, same| found | same)
}

fn digest(hex: &[u8]) -> Result<Vec<u8>, Refusal> {
    match base16ct::mixed::decode_vec(hex) {
        Ok(digest) if digest.len() == 32 => Ok(digest),
        _ => Err(Refusal::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `printf '{"ref":"refs/heads/main"}' | openssl dgst -sha256 -hmac secret`
    const SIGNED: &str = "d8f89f0618acd61fe621aa4e64078c0e2bca15d0b578b7f3eb734f55883c5320";
    const BODY: &[u8] = br#"{"ref":"refs/heads/main"}"#;

    fn verdict(headers: &[(&str, &str)], body: &[u8], secrets: &str) -> Result<Provider, Refusal> {
        let secrets = Secrets::parse(secrets)?;
        let header = |name: &str| {
            let mut named = headers.iter().filter(|(it, _)| *it == name);
            named.next().map(|(_, value)| value.as_bytes())
        };
        let mut verification = Verification::begin(header, &secrets)?;
        for part in body.chunks(7) {
            verification.update(part);
        }
        verification.finish()
    }

    #[test]
    fn every_providers_signature_is_known() {
        let prefixed = format!("sha256={SIGNED}");
        let upper = SIGNED.to_uppercase();
        for (header, value, provider) in [
            ("x-hub-signature-256", prefixed.as_str(), Provider::GitHub),
            ("x-hub-signature", &prefixed, Provider::Bitbucket),
            ("x-signature", &prefixed, Provider::Generic),
            ("x-gitea-signature", SIGNED, Provider::Gitea),
            ("x-forgejo-signature", &upper, Provider::Forgejo),
            ("x-gitlab-token", "secret", Provider::GitLab),
        ] {
            let verdict = |body, secrets| verdict(&[(header, value)], body, secrets);
            assert_eq!(verdict(BODY, "secret"), Ok(provider), "{header}");
            assert_eq!(verdict(BODY, "new\n secret \n"), Ok(provider), "{header}");
            assert_eq!(verdict(BODY, "other"), Err(Refusal::Wrong), "{header}");
            assert_eq!(verdict(BODY, "secre"), Err(Refusal::Wrong), "{header}");
            // Nobody can sign with no secret.
            assert_eq!(verdict(BODY, " \n"), Err(Refusal::NoSecret), "{header}");
            if provider != Provider::GitLab {
                assert_eq!(verdict(b"{}", "secret"), Err(Refusal::Wrong), "{header}");
            }
        }
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let sha1 = "sha1=25af6174a0fcecc4d346680a72b7ce644b9a88e8";
        for (headers, refusal) in [
            (vec![], Refusal::Unsigned),
            (
                vec![("content-type", "application/json")],
                Refusal::Unsigned,
            ),
            (vec![("x-hub-signature", sha1)], Refusal::Malformed),
            (vec![("x-hub-signature-256", SIGNED)], Refusal::Malformed),
            (vec![("x-hub-signature-256", "sha256=")], Refusal::Malformed),
            (vec![("x-gitea-signature", "abc")], Refusal::Malformed),
            (
                vec![("x-gitea-signature", &SIGNED[2..])],
                Refusal::Malformed,
            ),
            (vec![("x-gitlab-token", "")], Refusal::Wrong),
            // The first that is there counts: a good one does not make up for a bad one.
            (
                vec![("x-gitlab-token", "secret"), ("x-gitea-signature", "abc")],
                Refusal::Malformed,
            ),
        ] {
            assert_eq!(
                verdict(&headers, BODY, "secret"),
                Err(refusal),
                "{headers:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn nobody_gets_in_by_chance(name in 0..PROVIDERS.len(), value: String, body: Vec<u8>) {
            let headers = [(PROVIDERS[name].1, value.as_str())];
            prop_assert!(verdict(&headers, &body, "a secret of some length").is_err());
        }
    }
}
