//! Trust domains without a SPIRE, and a web without a public authority: keys, bundles and certificates.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

/// The authority of a made-up trust domain: one X.509 root, and one key for JWTs.
pub struct Authority {
    trust_domain: String,
    root: CertifiedIssuer<'static, KeyPair>,
    jwt: KeyPair,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, and what leads from it to a root, PEM.
    pub certificate: String,
    /// The certificate's private key, PEM.
    pub key: String,
}

impl Authority {
    /// Makes keys for a trust domain.
    pub fn new(trust_domain: &str) -> anyhow::Result<Self> {
        let mut params = root_params();
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            root: CertifiedIssuer::self_signed(params, KeyPair::generate()?)
                .context("make a root")?,
            jwt: KeyPair::generate()?,
        })
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The bundle in SPIFFE's format, with sequence 1 and a refresh hint of a minute.
    pub fn bundle(&self) -> Value {
        let mut root = jwk(self.root.key());
        root["use"] = json!("x509-svid");
        root["x5c"] = json!([STANDARD.encode(self.root.der())]);
        let mut jwt = jwk(&self.jwt);
        jwt["use"] = json!("jwt-svid");
        jwt["kid"] = jwt["x"].clone();
        json!({"keys": [root, jwt], "spiffe_sequence": 1, "spiffe_refresh_hint": 60})
    }

    /// An X.509 SVID with a path in this trust domain.
    pub fn svid(&self, path: &str) -> anyhow::Result<Identity> {
        let id = uri(&format!("spiffe://{}{path}", self.trust_domain))?;
        leaf(vec![id], &self.root)
    }
}

/// The authority behind the certificates of web servers; the testbed's SPIRE servers trust it.
pub(crate) struct WebAuthority {
    root: CertifiedIssuer<'static, KeyPair>,
    path: PathBuf,
}

impl WebAuthority {
    /// Makes it, and writes its root to a file.
    pub(crate) fn write(path: &Path) -> anyhow::Result<Self> {
        let root = CertifiedIssuer::self_signed(root_params(), KeyPair::generate()?)
            .context("make a root")?;
        std::fs::write(path, root.pem())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            root,
            path: path.to_owned(),
        })
    }

    /// The file with its root, PEM.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A certificate for a server on loopback.
    pub(crate) fn server(&self) -> anyhow::Result<Identity> {
        let localhost = "localhost".try_into().context("not a host")?;
        let names = vec![
            SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
            SanType::DnsName(localhost),
        ];
        leaf(names, &self.root)
    }
}

fn root_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Trustweave testbed");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(
    names: Vec<SanType>,
    issuer: &CertifiedIssuer<'static, KeyPair>,
) -> anyhow::Result<Identity> {
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = names;
    let key = KeyPair::generate()?;
    let certificate = params
        .signed_by(&key, issuer)
        .context("sign a certificate")?;
    Ok(Identity {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn uri(uri: &str) -> anyhow::Result<SanType> {
    Ok(SanType::URI(uri.try_into().context("not a SPIFFE ID")?))
}

/// The public half of a key on P-256, which is what is made when nothing else is said.
fn jwk(key: &KeyPair) -> Value {
    // SEC1: a byte that says "uncompressed", and the two coordinates.
    let (x, y) = key.public_key_raw()[1..].split_at(32);
    json!({
        "kty": "EC",
        "crv": "P-256",
        "x": URL_SAFE_NO_PAD.encode(x),
        "y": URL_SAFE_NO_PAD.encode(y),
    })
}
