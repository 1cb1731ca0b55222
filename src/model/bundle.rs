//! SPIFFE bundles: parsing, the canonical form, digests, what is usable and until when.
//!
//! The document is a JWK Set with `spiffe_sequence` and `spiffe_refresh_hint` (SPIFFE Trust Domain
//! and Bundle, section 4). `spire-server bundle show` prints its JWT keys in random order, so two
//! readings of one bundle differ in bytes: everything here goes through the canonical form.

use std::{collections::BTreeMap, fmt};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use x509_parser::{
    prelude::{FromDer, GeneralName, X509Certificate},
    public_key::PublicKey,
};

use super::{
    distrust::{JwtKeyId, KeyId},
    trust_domain::TrustDomain,
};

/// Bundles above this size are refused: what all peers sum to must stay well under the 4 MiB of
/// one gRPC message, beyond which SPIRE's own workloads get no SVID.
pub const MAX_BUNDLE_BYTES: usize = 256 << 10;

/// The refresh hints, in seconds, that make SPIRE's poller behave: below, it polls no faster; above,
/// one failed poll can mean hours until the next.
pub const REFRESH_HINT_SECONDS: std::ops::RangeInclusive<u64> = 60..=300;

/// A SHA-256 digest, 64 lower-case hexadecimal digits.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[0-9a-f]{64}$"))]
pub struct Digest(String);

/// The text is no SHA-256 digest.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a SHA-256 digest (64 lower-case hexadecimal digits)")]
pub struct InvalidDigest(String);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(base16ct::lower::encode_string(&Sha256::digest(bytes)))
    }

    /// Parses the hexadecimal form.
    pub fn parse(text: &str) -> Result<Self, InvalidDigest> {
        let hexadecimal = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hexadecimal && text.len() == 64 {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidDigest(text.to_owned()))
        }
    }

    /// All digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// A root that signs X.509-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509Authority {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// SHA-256 of the certificate's `SubjectPublicKeyInfo`: what identifies the key, also in another
    /// certificate.
    pub key: Digest,
    /// When the certificate begins.
    pub not_before: Timestamp,
    /// When the certificate ends.
    pub not_after: Timestamp,
    public_key: Jwk,
}

/// A key that signs JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtAuthority {
    /// The key's ID, by which a token names it.
    pub key_id: String,
    public_key: Jwk,
}

/// A trust domain's bundle: only what SPIFFE gives a meaning to, in canonical order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The X.509 authorities, by DER digest, each once.
    pub x509_authorities: Vec<X509Authority>,
    /// The JWT authorities, by key ID, each once.
    pub jwt_authorities: Vec<JwtAuthority>,
    /// SPIRE's counter of this bundle's versions, if it states one. It starts again when SPIRE's
    /// datastore is lost, so it is data, not an order.
    pub sequence: Option<u64>,
    /// How often, in seconds, the publisher wants to be asked.
    pub refresh_hint: Option<u64>,
}

/// Why bytes are no bundle that may be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidBundle {
    /// Larger than [`MAX_BUNDLE_BYTES`].
    #[error("the bundle has {0} bytes, more than the {MAX_BUNDLE_BYTES} that are accepted")]
    TooLarge(u64),
    /// Not JSON, or not a JSON object.
    #[error("the bundle is not a JSON object: {0}")]
    Json(String),
    /// `keys` is missing, null or no list. SPIRE takes such a document for an empty bundle.
    #[error("the bundle has no list `keys`")]
    NoKeys,
    /// A key with a known `use` that breaks its specification.
    #[error("key {index} of the bundle: {reason}")]
    Key {
        /// The key's place in the list, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// `spiffe_sequence` or `spiffe_refresh_hint` is no integer that is not negative.
    #[error("`{0}` of the bundle is not a non-negative integer")]
    Number(&'static str),
    /// No key that a SPIFFE implementation could use.
    #[error("the bundle has no usable X.509 authority")]
    Empty,
    /// Every X.509 authority has ended.
    #[error("every X.509 authority of the bundle has expired, the last at {0}")]
    Expired(Timestamp),
    /// A certificate names another trust domain than the one it is to vouch for.
    #[error("an X.509 authority of the bundle names the trust domain `{0}`")]
    OtherTrustDomain(String),
}

impl Bundle {
    /// Reads a bundle document. Keys with another `use` or `kty` than SPIFFE knows are ignored, as
    /// the specification asks; duplicate keys are folded.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidBundle> {
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(InvalidBundle::TooLarge(bytes.len() as u64));
        }
        let document: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| InvalidBundle::Json(error.to_string()))?;
        let Some(Value::Array(keys)) = document.get("keys") else {
            return Err(InvalidBundle::NoKeys);
        };
        let mut x509 = BTreeMap::new();
        let mut jwt = BTreeMap::new();
        for (index, key) in keys.iter().enumerate() {
            let invalid = |reason: String| InvalidBundle::Key { index, reason };
            let Value::Object(jwk) = key else {
                return Err(invalid("it is not a JSON object".to_owned()));
            };
            match jwk.get("use").and_then(Value::as_str) {
                Some("x509-svid") => {
                    let authority = X509Authority::parse(jwk).map_err(invalid)?;
                    x509.insert(Digest::of(&authority.certificate), authority);
                }
                Some("jwt-svid") => {
                    let authority = JwtAuthority::parse(jwk).map_err(invalid)?;
                    jwt.insert(authority.key_id.clone(), authority);
                }
                _ => {}
            }
        }
        let number = |name: &'static str| match document.get(name) {
            None => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or(InvalidBundle::Number(name)),
        };
        Ok(Self {
            x509_authorities: x509.into_values().collect(),
            jwt_authorities: jwt.into_values().collect(),
            sequence: number("spiffe_sequence")?,
            refresh_hint: number("spiffe_refresh_hint")?.filter(|hint| *hint > 0),
        })
    }

    /// Whether this bundle may stand for `trust_domain` at `now`: it has a root that has not ended,
    /// no root names another trust domain, and the canonical form, which is what is published, can be
    /// read: it may be larger than what this bundle was read from.
    pub fn check(&self, trust_domain: &TrustDomain, now: Timestamp) -> Result<(), InvalidBundle> {
        let size = self.canonical().len();
        if size > MAX_BUNDLE_BYTES {
            return Err(InvalidBundle::TooLarge(size as u64));
        }
        for authority in &self.x509_authorities {
            if let Some(other) = authority
                .trust_domain()
                .filter(|td| td != trust_domain.as_str())
            {
                return Err(InvalidBundle::OtherTrustDomain(other));
            }
        }
        match self
            .x509_authorities
            .iter()
            .map(|authority| authority.not_after)
            .max()
        {
            None => Err(InvalidBundle::Empty),
            Some(last) if last <= now => Err(InvalidBundle::Expired(last)),
            Some(_) => Ok(()),
        }
    }

    /// The canonical bytes: what is committed, signed and compared. Keys in canonical order,
    /// members by name, two spaces, a final newline.
    pub fn canonical(&self) -> Vec<u8> {
        let x509 = self.x509_authorities.iter().map(X509Authority::document);
        let jwt = self.jwt_authorities.iter().map(JwtAuthority::document);
        let mut document = Map::new();
        document.insert("keys".to_owned(), x509.chain(jwt).collect());
        if let Some(hint) = self.refresh_hint {
            document.insert("spiffe_refresh_hint".to_owned(), hint.into());
        }
        if let Some(sequence) = self.sequence {
            document.insert("spiffe_sequence".to_owned(), sequence.into());
        }
        format!("{:#}\n", Value::Object(document)).into_bytes()
    }

    /// The digest of [`Self::canonical`].
    pub fn digest(&self) -> Digest {
        Digest::of(&self.canonical())
    }

    /// The same bundle with a refresh hint that SPIRE's poller can live with: the publisher's own,
    /// or `declared`, brought into [`REFRESH_HINT_SECONDS`]. Without one, a single failed poll makes
    /// SPIRE wait for a tenth of the CA's life.
    #[must_use]
    pub fn with_refresh_hint(mut self, declared: Option<u64>) -> Self {
        let hint = declared
            .or(self.refresh_hint)
            .unwrap_or(*REFRESH_HINT_SECONDS.start());
        self.refresh_hint =
            Some(hint.clamp(*REFRESH_HINT_SECONDS.start(), *REFRESH_HINT_SECONDS.end()));
        self
    }

    /// Whether both hold the same keys, whatever their sequence and hint.
    pub fn same_keys(&self, other: &Self) -> bool {
        self.x509_authorities == other.x509_authorities
            && self.jwt_authorities == other.jwt_authorities
    }

    /// Every key, X.509 before JWT.
    pub fn keys(&self) -> impl Iterator<Item = KeyId> {
        let x509 = self.x509_authorities.iter().map(X509Authority::id);
        x509.chain(self.jwt_authorities.iter().map(JwtAuthority::id))
    }

    /// The same bundle without the keys that `refused` holds for.
    #[must_use]
    pub fn without(mut self, refused: impl Fn(&KeyId) -> bool) -> Self {
        self.x509_authorities.retain(|it| !refused(&it.id()));
        self.jwt_authorities.retain(|it| !refused(&it.id()));
        self
    }

    /// A bundle without keys: nothing of its trust domain is trusted.
    pub fn empty() -> Self {
        Self {
            x509_authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            sequence: None,
            refresh_hint: None,
        }
    }

    /// The shortest life of an X.509 authority.
    pub fn shortest_life(&self) -> Option<SignedDuration> {
        let roots = self.x509_authorities.iter();
        roots
            .map(|it| it.not_after.duration_since(it.not_before))
            .min()
    }

    /// When the last X.509 authority ends.
    pub fn latest_expiry(&self) -> Option<Timestamp> {
        let ends = self.x509_authorities.iter();
        ends.map(|authority| authority.not_after).max()
    }

    /// When the first X.509 authority ends.
    pub fn earliest_expiry(&self) -> Option<Timestamp> {
        self.x509_authorities
            .iter()
            .map(|authority| authority.not_after)
            .min()
    }
}

/// What identifies the key of a certificate (DER); `None` if it is none.
pub fn x509_key(certificate: &[u8]) -> Option<KeyId> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(KeyId::X509(Digest::of(parsed.public_key().raw)))
}

impl X509Authority {
    /// Reads a key with `use: x509-svid` (X509-SVID, section 6.1): the first value of `x5c` is the
    /// certificate, and the other members follow from it.
    fn parse(jwk: &Map<String, Value>) -> Result<Self, String> {
        let certificates = jwk.get("x5c").and_then(Value::as_array).map(Vec::as_slice);
        let encoded = match certificates {
            Some([Value::String(encoded)]) => encoded,
            // SPIRE refuses the whole document for this, and then deletes the relationship.
            Some([_, _, ..]) => return Err("`x5c` has more than one certificate".to_owned()),
            _ => return Err("`x5c` has no certificate".to_owned()),
        };
        let certificate = STANDARD
            .decode(encoded)
            .map_err(|error| format!("`x5c` is not base64: {error}"))?;
        let (rest, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|error| format!("`x5c` is not a certificate: {error}"))?;
        if !rest.is_empty() {
            return Err("`x5c` has bytes after the certificate".to_owned());
        }
        let public_key = match parsed.public_key().parsed() {
            Ok(PublicKey::EC(point)) => Jwk::from_point(point.data())?,
            Ok(PublicKey::RSA(key)) => Jwk::rsa(key.modulus, key.exponent)?,
            _ => return Err("the certificate's key is neither an EC nor an RSA key".to_owned()),
        };
        let key = Digest::of(parsed.public_key().raw);
        let validity = parsed.validity();
        let time = |seconds| {
            Timestamp::from_second(seconds)
                .map_err(|error| format!("the certificate's validity is no time: {error}"))
        };
        let not_before = time(validity.not_before.timestamp())?;
        let not_after = time(validity.not_after.timestamp())?;
        Ok(Self {
            certificate,
            key,
            not_before,
            not_after,
            public_key,
        })
    }

    fn document(&self) -> Value {
        let mut members = self.public_key.members();
        members.insert("use", "x509-svid".into());
        members.insert("x5c", json!([STANDARD.encode(&self.certificate)]));
        json!(members)
    }

    /// What identifies the key.
    pub fn id(&self) -> KeyId {
        KeyId::X509(self.key.clone())
    }

    /// The trust domain in the certificate's URI SAN, if it has one.
    fn trust_domain(&self) -> Option<String> {
        let (_, certificate) = X509Certificate::from_der(&self.certificate).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        names
            .value
            .general_names
            .iter()
            .find_map(|name| match name {
                GeneralName::URI(uri) => {
                    let rest = uri.strip_prefix("spiffe://")?;
                    Some(rest.split('/').next().unwrap_or(rest).to_owned())
                }
                _ => None,
            })
    }
}

impl JwtAuthority {
    /// What identifies the key.
    pub fn id(&self) -> KeyId {
        KeyId::Jwt(JwtKeyId {
            kid: self.key_id.clone(),
            thumbprint: self.public_key.thumbprint(),
        })
    }

    /// Reads a key with `use: jwt-svid` (JWT-SVID, section 6.1).
    fn parse(jwk: &Map<String, Value>) -> Result<Self, String> {
        let key_id = match jwk.get("kid").and_then(Value::as_str) {
            Some(key_id) if !key_id.is_empty() => key_id.to_owned(),
            _ => return Err("a JWT authority without `kid`".to_owned()),
        };
        let bytes = |name: &str| {
            let encoded = jwk.get(name).and_then(Value::as_str).unwrap_or_default();
            match URL_SAFE_NO_PAD.decode(encoded) {
                Ok(bytes) if !bytes.is_empty() => Ok(bytes),
                _ => Err(format!("JWT authority `{key_id}` has no valid `{name}`")),
            }
        };
        let public_key = match jwk.get("kty").and_then(Value::as_str) {
            Some("EC") => Jwk::from_point(&[vec![4], bytes("x")?, bytes("y")?].concat())
                .map_err(|reason| format!("JWT authority `{key_id}`: {reason}"))?,
            Some("RSA") => Jwk::rsa(&bytes("n")?, &bytes("e")?)
                .map_err(|reason| format!("JWT authority `{key_id}`: {reason}"))?,
            _ => {
                return Err(format!(
                    "JWT authority `{key_id}` is neither an EC nor an RSA key"
                ));
            }
        };
        Ok(Self { key_id, public_key })
    }

    fn document(&self) -> Value {
        let mut members = self.public_key.members();
        members.insert("use", "jwt-svid".into());
        members.insert("kid", self.key_id.as_str().into());
        json!(members)
    }
}

/// A public key as a JSON Web Key (RFC 7518, section 6), reduced to what defines it.
///
/// SPIRE's reader refuses a document with a point off its curve, and a refused document in a
/// `ClusterFederatedTrustDomain` deletes the relationship: such a key must not get through here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Jwk {
    Ec {
        curve: &'static str,
        x: Vec<u8>,
        y: Vec<u8>,
    },
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
}

impl Jwk {
    /// From an uncompressed point (SEC 1, section 2.3.3), whose length tells the curve.
    fn from_point(point: &[u8]) -> Result<Self, String> {
        let (curve, on_curve) = match point.len() {
            65 => ("P-256", p256::PublicKey::from_sec1_bytes(point).is_ok()),
            97 => ("P-384", p384::PublicKey::from_sec1_bytes(point).is_ok()),
            133 => ("P-521", p521::PublicKey::from_sec1_bytes(point).is_ok()),
            _ => {
                return Err("the EC key is not an uncompressed P-256, P-384 or P-521 point".into());
            }
        };
        if !on_curve {
            return Err(format!("the EC key is not a point on {curve}"));
        }
        let (x, y) = point[1..].split_at(point.len() / 2);
        Ok(Self::Ec {
            curve,
            x: x.to_vec(),
            y: y.to_vec(),
        })
    }

    /// From big-endian integers, with or without leading zeros. Without them, nothing is left of zero,
    /// which no reader takes for a number.
    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        let minimal =
            |bytes: &[u8]| -> Vec<u8> { bytes.iter().copied().skip_while(|b| *b == 0).collect() };
        let (modulus, exponent) = (minimal(modulus), minimal(exponent));
        if modulus.is_empty() || exponent.is_empty() {
            return Err("the RSA key's modulus or exponent is zero".to_owned());
        }
        Ok(Self::Rsa { modulus, exponent })
    }

    /// The thumbprint (RFC 7638): of the members that define the key, by name, without white space.
    fn thumbprint(&self) -> String {
        let canonical = json!(self.members()).to_string();
        URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
    }

    fn members(&self) -> BTreeMap<&'static str, Value> {
        let text = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
        match self {
            Self::Ec { curve, x, y } => BTreeMap::from([
                ("kty", "EC".into()),
                ("crv", (*curve).into()),
                ("x", text(x)),
                ("y", text(y)),
            ]),
            Self::Rsa { modulus, exponent } => BTreeMap::from([
                ("kty", "RSA".into()),
                ("n", text(modulus)),
                ("e", text(exponent)),
            ]),
        }
    }
}

/// A bundle of a trust domain, with a fresh root.
#[cfg(test)]
pub(crate) fn sample(trust_domain: &str) -> Bundle {
    let keys =
        json!({"keys": [{"use": "x509-svid", "x5c": [tests::certificate(trust_domain, 4096)]}]});
    Bundle::parse(keys.to_string().as_bytes()).unwrap()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    /// A self-signed CA for the trust domain, ending in `year`.
    pub(super) fn certificate(trust_domain: &str, year: i32) -> String {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(
            format!("spiffe://{trust_domain}").try_into().unwrap(),
        )];
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        STANDARD.encode(certificate.der())
    }

    fn x509(certificate: &str) -> Value {
        json!({"use": "x509-svid", "kty": "EC", "x5c": [certificate]})
    }

    /// The base point of P-256: a valid key that nobody holds.
    fn jwt(key_id: &str) -> Value {
        json!({
            "use": "jwt-svid", "kty": "EC", "kid": key_id, "crv": "P-256",
            "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
            "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",
        })
    }

    fn parse(document: &Value) -> Result<Bundle, InvalidBundle> {
        Bundle::parse(document.to_string().as_bytes())
    }

    #[test]
    fn what_spire_would_misread_is_refused() {
        let root = certificate("b.test", 2040);
        let check = |document: Value, expected: &str| {
            let error = parse(&document)
                .and_then(|bundle| bundle.check(&TrustDomain::parse("b.test").unwrap(), now()));
            assert_eq!(error.unwrap_err().to_string(), expected);
        };
        check(json!({}), "the bundle has no list `keys`");
        check(
            json!({"error": "maintenance"}),
            "the bundle has no list `keys`",
        );
        check(json!({"keys": null}), "the bundle has no list `keys`");
        check(
            json!({"keys": []}),
            "the bundle has no usable X.509 authority",
        );
        check(
            json!({"keys": [jwt("a")]}),
            "the bundle has no usable X.509 authority",
        );
        check(
            json!({"keys": [{"kty": "EC", "x5c": [root]}]}),
            "the bundle has no usable X.509 authority",
        );
        check(
            json!({"keys": [{"use": "x509-svid", "x5c": [root, root]}]}),
            "key 0 of the bundle: `x5c` has more than one certificate",
        );
        check(
            json!({"keys": [x509(&root)], "spiffe_sequence": "1"}),
            "`spiffe_sequence` of the bundle is not a non-negative integer",
        );
        check(
            json!({"keys": [x509(&certificate("b.test", 2020))]}),
            "every X.509 authority of the bundle has expired, the last at 2020-01-01T00:00:00Z",
        );
        check(
            json!({"keys": [x509(&root), x509(&certificate("c.test", 2040))]}),
            "an X.509 authority of the bundle names the trust domain `c.test`",
        );
        let mut off_curve = jwt("a");
        off_curve["y"] = off_curve["x"].clone();
        check(
            json!({"keys": [x509(&root), off_curve]}),
            "key 1 of the bundle: JWT authority `a`: the EC key is not a point on P-256",
        );
        let nothing =
            json!({"use": "jwt-svid", "kty": "RSA", "kid": "a", "n": "AAAA", "e": "AQAB"});
        check(
            json!({"keys": [x509(&root), nothing]}),
            "key 1 of the bundle: JWT authority `a`: the RSA key's modulus or exponent is zero",
        );
    }

    #[test]
    fn what_may_be_published_can_be_read() {
        let trust_domain = TrustDomain::parse("b.test").unwrap();
        let root = x509(&certificate("b.test", 2040));
        // Compact, and just small enough: with line breaks and indents it is too large.
        let keys = (0..1_300).map(|number| jwt(&number.to_string()));
        let keys: Vec<_> = std::iter::once(root).chain(keys).collect();
        let bundle = parse(&json!({"keys": keys})).unwrap();
        let size = bundle.canonical().len();
        let error = bundle.check(&trust_domain, now()).unwrap_err();
        assert_eq!(error, InvalidBundle::TooLarge(size as u64));
        assert_eq!(Bundle::parse(&bundle.canonical()), Err(error));
    }

    #[test]
    fn unknown_uses_are_ignored_key_by_key() {
        let root = certificate("b.test", 2040);
        let bundle =
            parse(&json!({"keys": [{"use": "wit-svid", "kty": "X"}, x509(&root)], "other": 1}));
        assert_eq!(bundle.unwrap().x509_authorities.len(), 1);
    }

    #[test]
    fn a_jwt_key_is_known_by_its_thumbprint_under_any_kid() {
        // RFC 7638, section 3.1: the example key and its thumbprint.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let key =
            |kid: &str| json!({"use": "jwt-svid", "kty": "RSA", "kid": kid, "n": n, "e": "AQAB"});
        let bundle = parse(&json!({"keys": [key("a"), key("b")]})).unwrap();
        let ids: Vec<_> = bundle.keys().collect();
        let KeyId::Jwt(id) = &ids[0] else {
            panic!("{ids:?}")
        };
        assert_eq!(id.thumbprint, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(ids[0], ids[1]);
        assert_eq!(bundle.without(|key| *key == ids[0]).keys().count(), 0);
    }

    #[test]
    fn the_hint_is_always_one_that_the_poller_survives() {
        let bundle = |hint: Option<u64>| {
            let mut bundle = parse(&json!({"keys": [x509(&certificate("b.test", 2040))]})).unwrap();
            bundle.refresh_hint = hint;
            bundle
        };
        assert_eq!(bundle(None).with_refresh_hint(None).refresh_hint, Some(60));
        assert_eq!(
            bundle(Some(86400)).with_refresh_hint(None).refresh_hint,
            Some(300)
        );
        assert_eq!(
            bundle(Some(120)).with_refresh_hint(Some(5)).refresh_hint,
            Some(60)
        );
    }

    proptest! {
        #[test]
        fn the_canonical_form_knows_no_order(order in Just((0..5).collect::<Vec<usize>>()).prop_shuffle()) {
            let roots = [certificate("b.test", 2040), certificate("b.test", 2041)];
            let keys = [x509(&roots[0]), x509(&roots[1]), jwt("a"), jwt("b"), jwt("c")];
            let shuffled: Vec<_> = order.iter().map(|index| &keys[*index]).collect();
            let one = parse(&json!({"keys": keys, "spiffe_sequence": 7})).unwrap();
            let other = parse(&json!({"spiffe_sequence": 7, "keys": shuffled})).unwrap();
            prop_assert_eq!(one.canonical(), other.canonical());
            prop_assert_eq!(&Bundle::parse(&one.canonical()).unwrap(), &one);
        }
    }
}
