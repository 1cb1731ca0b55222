//! Publications, as anybody writes them who may push to a trust domain's branch.

use std::{collections::BTreeMap, sync::LazyLock};

use jiff::Timestamp;
use serde_json::json;
use ssh_key::{LineEnding, PrivateKey, private::Ed25519Keypair};
use trustweave::{
    git::SigningKey,
    model::{
        attestation::{self, Attestation},
        bundle::{Bundle, Digest},
        declaration::TrustDomainSpec,
        repository::publication,
        trust_domain::TrustDomain,
    },
};

use super::sections::sections;

/// What a statement may say instead of the bundle's digest, which no fuzzer finds.
const DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The declared signer, and somebody else: their keys are nobody's secret.
static SIGNERS: LazyLock<[SigningKey; 2]> = LazyLock::new(|| [1, 2].map(key));

fn key(seed: u8) -> SigningKey {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]));
    SigningKey::from_openssh(&key.to_openssh(LineEnding::LF).unwrap()).unwrap()
}

fn declaration(signers: &[&SigningKey], epoch: u64) -> TrustDomainSpec {
    let signers: Vec<_> = signers.iter().map(|key| key.public_key()).collect();
    serde_json::from_value(json!({
        "clusters": [{"name": "a"}], "signers": signers, "epoch": epoch,
        "spire": {"distribution": "custom", "namespace": "s", "className": "c"},
        "bundleEndpoint": "none",
    }))
    .unwrap()
}

/// What verifies is what a declared signer signed, about this trust domain, in this epoch; and nothing
/// that differs from it verifies.
///
/// An input has the files `statement` and `bundle`; without a file `signature`, the signer signs.
pub fn holds(data: &[u8]) {
    let [signer, stranger] = &*SIGNERS;
    let mut found: BTreeMap<_, _> = sections(data).into_iter().collect();
    let bundle = found.remove("bundle").unwrap_or_default();
    let statement = found.remove("statement").unwrap_or_default();
    let statement = match String::from_utf8(statement) {
        Ok(text) => text
            .replacen(DIGEST, Digest::of(&bundle).as_str(), 1)
            .into(),
        Err(error) => error.into_bytes(),
    };
    if let Ok(read) = serde_json::from_slice::<Attestation>(&statement) {
        let again = serde_json::from_slice::<Attestation>(&read.to_bytes());
        assert_eq!(again.ok().as_ref(), Some(&read));
    }
    let sign = |key: &SigningKey, statement: &[u8]| {
        let signature = key.sign(attestation::NAMESPACE, statement);
        signature.unwrap().into_bytes()
    };
    let given = found.remove("signature");
    let signature = given.unwrap_or_else(|| sign(signer, &statement));
    let files = BTreeMap::from([
        (publication::BUNDLE.to_owned(), bundle.clone()),
        (publication::ATTESTATION.to_owned(), statement.clone()),
        (publication::SIGNATURE.to_owned(), signature),
    ]);
    let trust_domain = TrustDomain::parse("a.test").unwrap();
    let declared = declaration(&[signer], 3);
    let verify = |trust_domain: &TrustDomain, declared: &TrustDomainSpec, files: &_| {
        attestation::verify(trust_domain, declared, files, Timestamp::UNIX_EPOCH)
    };
    let verified = verify(&trust_domain, &declared, &files);
    assert_eq!(verify(&trust_domain, &declared, &files), verified);
    let Ok(verified) = verified else {
        return;
    };

    let stated = verified.attestation;
    assert_eq!(stated.trust_domain, trust_domain);
    assert_eq!((stated.epoch, &stated.sha256), (3, &Digest::of(&bundle)));
    assert_eq!(Bundle::parse(&bundle), Ok(verified.bundle));
    assert!(attestation::signer(&files).is_some_and(|it| signer.is(&it)));
    let again = attestation::stated(&trust_domain, &declared, &files);
    assert_eq!(again, Some(stated));

    let other = TrustDomain::parse("b.test").unwrap();
    assert!(verify(&other, &declared, &files).is_err());
    for declared in [
        declaration(&[signer], 4),
        declaration(&[stranger], 3),
        declaration(&[], 3),
    ] {
        assert!(verify(&trust_domain, &declared, &files).is_err());
    }
    for name in [publication::BUNDLE, publication::ATTESTATION] {
        let mut changed = files.clone();
        changed.entry(name.to_owned()).or_default().push(b' ');
        assert!(verify(&trust_domain, &declared, &changed).is_err());
        changed.remove(name);
        assert!(verify(&trust_domain, &declared, &changed).is_err());
    }
    let mut strange = files;
    strange.insert(
        publication::SIGNATURE.to_owned(),
        sign(stranger, &statement),
    );
    assert!(verify(&trust_domain, &declared, &strange).is_err());
}
