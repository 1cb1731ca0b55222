//! A small pool of roots, made once: making keys is slow.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::json;
use trustweave::model::{bundle::Bundle, distrust::KeyId};

use super::spire::Keys;

/// The peers.
pub(crate) const PEERS: [&str; 3] = ["b.test", "c.test", "d.test"];

/// How many roots each peer has.
pub(crate) const ROOTS: usize = 4;

/// A root of a peer.
pub(crate) struct Root {
    /// As a bundle document has it.
    pub x5c: String,
    /// DER.
    pub(crate) der: Vec<u8>,
    /// What identifies its key.
    pub(crate) key: KeyId,
}

static POOL: LazyLock<Vec<Vec<Root>>> = LazyLock::new(|| {
    let root = |peer: &str| {
        let mut params = CertificateParams::default();
        let name = format!("spiffe://{peer}").try_into().unwrap();
        params.subject_alt_names = vec![SanType::URI(name)];
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let der = certificate.der().to_vec();
        let x5c = STANDARD.encode(&der);
        let key = parse(&[&x5c], None).keys().next().unwrap();
        Root { x5c, der, key }
    };
    let pool = |peer: &&str| (0..ROOTS).map(|_| root(peer)).collect();
    PEERS.iter().map(pool).collect()
});

/// A peer's roots.
pub(crate) fn roots(peer: usize) -> &'static [Root] {
    &POOL[peer]
}

/// The roots of a peer that a mask of bits names.
pub(crate) fn masked(peer: usize, mask: u8) -> impl Iterator<Item = &'static Root> {
    let roots = roots(peer).iter().enumerate();
    roots
        .filter(move |(index, _)| mask & (1 << index) != 0)
        .map(|(_, root)| root)
}

/// The same as certificates.
pub(crate) fn certificates(peer: usize, mask: u8) -> Keys {
    masked(peer, mask).map(|root| root.x5c.clone()).collect()
}

/// The same as a bundle.
pub(crate) fn bundle(peer: usize, mask: u8, sequence: Option<u64>) -> Bundle {
    let x5c: Vec<_> = masked(peer, mask).map(|root| root.x5c.as_str()).collect();
    parse(&x5c, sequence)
}

/// The certificates of a bundle.
pub(crate) fn held(bundle: &Bundle) -> Keys {
    let roots = bundle.x509_authorities.iter();
    roots
        .map(|root| STANDARD.encode(&root.certificate))
        .collect()
}

/// What identifies the key of a certificate of the pool.
pub(crate) fn key_of(x5c: &str) -> &'static KeyId {
    let mut roots = POOL.iter().flatten();
    &roots.find(|root| root.x5c == x5c).unwrap().key
}

/// A certificate of the pool, DER.
pub(crate) fn der_of(x5c: &str) -> Vec<u8> {
    let mut roots = POOL.iter().flatten();
    roots.find(|root| root.x5c == x5c).unwrap().der.clone()
}

fn parse(x5c: &[&str], sequence: Option<u64>) -> Bundle {
    let keys: Vec<_> = x5c
        .iter()
        .map(|x5c| json!({"use": "x509-svid", "x5c": [x5c]}))
        .collect();
    let mut document = json!({"keys": keys});
    if let Some(sequence) = sequence {
        document["spiffe_sequence"] = sequence.into();
    }
    Bundle::parse(document.to_string().as_bytes()).unwrap()
}
