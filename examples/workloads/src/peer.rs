//! Who the other side of a connection is, and who it may be.

use std::str::FromStr;

use anyhow::Context as _;
use rustls::pki_types::CertificateDer;
use spiffe::{SpiffeId, TrustDomain};

/// Somebody who is let in.
#[derive(Clone, Debug)]
pub(crate) enum Allowed {
    One(SpiffeId),
    AllOf(TrustDomain),
}

impl FromStr for Allowed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = text.strip_prefix("spiffe://");
        if id.is_some_and(|id| id.trim_end_matches('/').contains('/')) {
            let id = SpiffeId::new(text).map_err(|error| error.to_string())?;
            return Ok(Self::One(id));
        }
        let name = id.unwrap_or(text);
        // No SVID has another form, so it would never be let in.
        if name.contains(|letter: char| letter.is_ascii_uppercase()) {
            return Err(format!(
                "`{name}` is no trust domain: they are in lower case"
            ));
        }
        let trust_domain = TrustDomain::new(name).map_err(|error| error.to_string())?;
        Ok(Self::AllOf(trust_domain))
    }
}

impl Allowed {
    pub(crate) fn is(&self, peer: &SpiffeId) -> bool {
        match self {
            Self::One(id) => id == peer,
            Self::AllOf(trust_domain) => trust_domain == peer.trust_domain(),
        }
    }
}

/// The SPIFFE ID in the certificate of a peer that was verified.
pub(crate) fn id_of(certificates: Option<&[CertificateDer<'_>]>) -> anyhow::Result<SpiffeId> {
    let certificate = certificates
        .and_then(<[_]>::first)
        .context("the peer showed no certificate")?;
    spiffe::cert::spiffe_id_from_der(certificate).context("read the peer's certificate")
}

#[cfg(test)]
mod tests {
    use spiffe::SpiffeId;

    use super::Allowed;

    fn check(allowed: &str, peer: &str, expected: bool) {
        let allowed: Allowed = allowed.parse().unwrap();
        let peer = SpiffeId::new(peer).unwrap();
        assert_eq!(allowed.is(&peer), expected, "{allowed:?} and {peer}");
    }

    #[test]
    fn a_trust_domain_lets_all_of_its_workloads_in_and_an_id_one() {
        for trust_domain in ["a.test", "spiffe://a.test"] {
            check(trust_domain, "spiffe://a.test/one", true);
            check(trust_domain, "spiffe://b.test/one", false);
        }
        check("spiffe://a.test/one", "spiffe://a.test/one", true);
        check("spiffe://a.test/one", "spiffe://a.test/two", false);
        check("spiffe://a.test/one", "spiffe://b.test/one", false);
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["", "A.test", "https://a.test/one", "a.test/one"] {
            assert!(text.parse::<Allowed>().is_err(), "{text}");
        }
    }
}
