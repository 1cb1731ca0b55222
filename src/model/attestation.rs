//! What a publisher says about its bundle, signed with its SSH key, and the proof that it did.
//!
//! The signed statement names the trust domain, so that one trust domain's bundle can't be passed
//! off as another's, and carries its own counter, so that an old one can't be passed off as new:
//! `spiffe_sequence` can't serve, as it starts again when SPIRE's datastore is lost.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ssh_key::{PublicKey, SshSig};
use thiserror::Error;

use super::{
    bundle::{Bundle, Digest, InvalidBundle},
    declaration::{API_VERSION, BundleEndpoint, TrustDomainSpec},
    repository::{Entry, publication},
    trust_domain::TrustDomain,
};

/// The namespace of the signature (PROTOCOL.sshsig): a signature made for anything else, such as a
/// commit, is none for a bundle.
pub const NAMESPACE: &str = "bundle@trustweave.dev";

/// The `kind` of the document.
pub const KIND: &str = "BundleAttestation";

/// A publisher's own counter of its publications, from 1; it never goes back within an epoch.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(transparent)]
pub struct Serial(pub u64);

impl Serial {
    /// The last serial of an epoch: a Kubernetes API server keeps integers of 64 bits with a sign.
    pub const LAST: Self = Self(i64::MAX.unsigned_abs());

    /// The serial after this one; `None` after the last.
    pub fn next(self) -> Option<Self> {
        (self < Self::LAST).then(|| Self(self.0 + 1))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The statement of `bundle.attestation.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attestation {
    /// `trustweave.dev/v1alpha1`.
    pub api_version: String,
    /// `BundleAttestation`.
    pub kind: String,
    /// Whose bundle it is.
    pub trust_domain: TrustDomain,
    /// The reviewed epoch of the trust domain's declaration.
    pub epoch: u64,
    /// The publisher's counter inside the epoch.
    pub serial: Serial,
    /// SHA-256 of `bundle.json`.
    pub sha256: Digest,
    /// SPIRE's own counter, as data.
    #[serde(rename = "spiffe_sequence")]
    pub spiffe_sequence: Option<u64>,
    /// The declared endpoint that the publisher agrees with.
    pub endpoint: BundleEndpoint,
    /// UID of the namespace `kube-system` of the publishing cluster: tells clones apart.
    #[serde(rename = "clusterUID")]
    pub cluster_uid: String,
    /// When it was signed (RFC 3339).
    #[schemars(with = "String")]
    pub issued_at: Timestamp,
}

impl Attestation {
    /// The bytes that are signed and committed.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Refuses numbers that no cluster could remember.
    fn check_numbers(&self) -> Result<(), String> {
        let numbers = [
            ("epoch", self.epoch),
            ("serial", self.serial.0),
            ("spiffe_sequence", self.spiffe_sequence.unwrap_or(0)),
        ];
        match numbers.into_iter().find(|(_, it)| *it > Serial::LAST.0) {
            Some((name, number)) => Err(format!("{name} {number} is beyond {}", Serial::LAST)),
            None => Ok(()),
        }
    }
}

/// A bundle whose attestation was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The bundle.
    pub bundle: Bundle,
    /// The statement about it.
    pub attestation: Attestation,
}

/// Why what stands on a trust domain's branch is not its bundle.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Rejection {
    /// What stands on the branch can't be read.
    #[error("the branch can't be read: {0}")]
    UnreadableBranch(String),
    /// Nothing was ever published.
    #[error("nothing is published yet")]
    Unpublished,
    /// One of the three files is missing.
    #[error("`{0}` is missing")]
    MissingFile(&'static str),
    /// The declaration has no usable signer.
    #[error("the declaration names no signer")]
    NoSigners,
    /// The signature file is no SSH signature, or made for another purpose.
    #[error("the signature can't be read: {0}")]
    UnreadableSignature(String),
    /// A key that the declaration does not name.
    #[error("signed by {0}, which is not among the declared signers")]
    UnknownSigner(String),
    /// A declared key, but not its signature of these bytes.
    #[error("the signature does not fit the attestation")]
    WrongSignature,
    /// The signed statement is no attestation.
    #[error("the attestation can't be read: {0}")]
    UnreadableAttestation(String),
    /// A statement about another trust domain.
    #[error("the attestation is about `{0}`")]
    OtherTrustDomain(TrustDomain),
    /// Other bytes than the ones attested.
    #[error("the bundle's digest is {found}, but {attested} was attested")]
    OtherDigest {
        /// Of the file.
        found: Digest,
        /// Of the statement.
        attested: Digest,
    },
    /// The statement's epoch is not the declared one.
    #[error("attested in epoch {attested}, but the declaration is in epoch {declared}")]
    OtherEpoch {
        /// Of the statement.
        attested: u64,
        /// Of the declaration.
        declared: u64,
    },
    /// The declared endpoint is not the one that the publisher attested.
    #[error("the declared bundle endpoint is not the one that the publisher attested ({0})")]
    OtherEndpoint(String),
    /// The bundle can't be used.
    #[error(transparent)]
    Bundle(#[from] InvalidBundle),
}

impl Rejection {
    /// A stable, short name for metrics and conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnreadableBranch(_) => "UnreadableBranch",
            Self::Unpublished => "Unpublished",
            Self::MissingFile(_) => "MissingFile",
            Self::NoSigners => "NoSigners",
            Self::UnreadableSignature(_) => "UnreadableSignature",
            Self::UnknownSigner(_) => "UnknownSigner",
            Self::WrongSignature => "WrongSignature",
            Self::UnreadableAttestation(_) => "UnreadableAttestation",
            Self::OtherTrustDomain(_) => "OtherTrustDomain",
            Self::OtherDigest { .. } => "OtherDigest",
            Self::OtherEpoch { .. } => "OtherEpoch",
            Self::OtherEndpoint(_) => "OtherEndpoint",
            Self::Bundle(_) => "InvalidBundle",
        }
    }
}

/// What stands at the names of a publication's files on a trust domain's own branch, as its files.
///
/// A branch without any of them is no publication that is still to come: somebody emptied it.
pub fn files(found: BTreeMap<String, Entry>) -> Result<BTreeMap<String, Vec<u8>>, Rejection> {
    let mut files = BTreeMap::new();
    for (name, entry) in found {
        match (entry, name.as_str()) {
            (Entry::File(content), _) => drop(files.insert(name, content.to_vec())),
            (Entry::TooLarge(size), publication::BUNDLE) => {
                return Err(InvalidBundle::TooLarge(size).into());
            }
            (Entry::TooLarge(size), _) => {
                let message = format!("`{name}` has {size} bytes");
                return Err(Rejection::UnreadableAttestation(message));
            }
            // Never followed.
            (Entry::Symlink | Entry::Submodule, _) => {}
        }
    }
    if files.is_empty() {
        return Err(Rejection::MissingFile(publication::ATTESTATION));
    }
    Ok(files)
}

/// Verifies the files of a publication against the reviewed declaration of its trust domain.
///
/// The signature is checked before anything signed is interpreted.
pub fn verify(
    trust_domain: &TrustDomain,
    declaration: &TrustDomainSpec,
    files: &BTreeMap<String, Vec<u8>>,
    now: Timestamp,
) -> Result<Publication, Rejection> {
    let file = |name: &'static str| files.get(name).ok_or(Rejection::MissingFile(name));
    if files.is_empty() {
        return Err(Rejection::Unpublished);
    }
    let statement = file(publication::ATTESTATION)?;
    verify_signature(declaration, statement, file(publication::SIGNATURE)?)?;

    let unreadable = |reason: String| Rejection::UnreadableAttestation(reason);
    let attestation: Attestation =
        serde_json::from_slice(statement).map_err(|error| unreadable(error.to_string()))?;
    attestation.check_numbers().map_err(unreadable)?;
    if attestation.api_version != API_VERSION || attestation.kind != KIND {
        return Err(unreadable(format!(
            "{} {}",
            attestation.api_version, attestation.kind
        )));
    }
    if attestation.trust_domain != *trust_domain {
        return Err(Rejection::OtherTrustDomain(attestation.trust_domain));
    }
    let content = file(publication::BUNDLE)?;
    let found = Digest::of(content);
    if found != attestation.sha256 {
        return Err(Rejection::OtherDigest {
            found,
            attested: attestation.sha256,
        });
    }
    if attestation.epoch != declaration.epoch {
        return Err(Rejection::OtherEpoch {
            attested: attestation.epoch,
            declared: declaration.epoch,
        });
    }
    if !attestation
        .endpoint
        .same_address(&declaration.bundle_endpoint)
    {
        return Err(Rejection::OtherEndpoint(attestation.endpoint.to_string()));
    }
    let bundle = Bundle::parse(content)?;
    bundle.check(trust_domain, now)?;
    Ok(Publication {
        bundle,
        attestation,
    })
}

/// The statement of a publication that a declared signer signed, whatever became of the bundle; `None`
/// if there is no such statement about the trust domain.
pub fn stated(
    trust_domain: &TrustDomain,
    declaration: &TrustDomainSpec,
    files: &BTreeMap<String, Vec<u8>>,
) -> Option<Attestation> {
    let statement = files.get(publication::ATTESTATION)?;
    verify_signature(declaration, statement, files.get(publication::SIGNATURE)?).ok()?;
    let attestation: Attestation = serde_json::from_slice(statement).ok()?;
    let usable = attestation.trust_domain == *trust_domain && attestation.check_numbers().is_ok();
    usable.then_some(attestation)
}

/// The public key that a publication's signature names; `None` without a readable signature. Whether
/// the signature is good, [`verify`] says.
pub fn signer(files: &BTreeMap<String, Vec<u8>>) -> Option<PublicKey> {
    let signature = std::str::from_utf8(files.get(publication::SIGNATURE)?).ok()?;
    let signature: SshSig = signature.parse().ok()?;
    Some(PublicKey::from(signature.public_key().clone()))
}

/// Checks that one of the declared signers signed these bytes for [`NAMESPACE`].
fn verify_signature(
    declaration: &TrustDomainSpec,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Rejection> {
    if declaration.signers.is_empty() {
        return Err(Rejection::NoSigners);
    }
    let signature = std::str::from_utf8(signature)
        .map_err(|error| error.to_string())
        .and_then(|text| text.parse::<SshSig>().map_err(|error| error.to_string()))
        .map_err(Rejection::UnreadableSignature)?;
    let signer = PublicKey::from(signature.public_key().clone());
    let declared = declaration
        .signers
        .iter()
        .any(|declared| declared.public_key().key_data() == signer.key_data());
    if !declared {
        let fingerprint = signer.fingerprint(ssh_key::HashAlg::Sha256).to_string();
        return Err(Rejection::UnknownSigner(fingerprint));
    }
    // Checks the namespace too, before the signature.
    signer
        .verify(NAMESPACE, message, &signature)
        .map_err(|_| Rejection::WrongSignature)
}
