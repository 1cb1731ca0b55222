//! SPIFFE bundles, as SPIRE, endpoints and peers' branches give them.

use jiff::Timestamp;
use trustweave::model::{
    bundle::{Bundle, Digest, REFRESH_HINT_SECONDS},
    trust_domain::TrustDomain,
};

/// A bundle that is read is written in one form, and that form says the same.
pub fn holds(data: &[u8]) {
    let Ok(bundle) = Bundle::parse(data) else {
        return;
    };
    let canonical = bundle.canonical();
    assert_eq!(bundle.digest(), Digest::of(&canonical));
    let trust_domain = TrustDomain::parse("a.test").unwrap();
    let usable = bundle.check(&trust_domain, Timestamp::UNIX_EPOCH);
    match Bundle::parse(&canonical) {
        Ok(again) => {
            assert_eq!(again, bundle);
            assert_eq!(again.canonical(), canonical);
        }
        // What is published can be read.
        Err(error) => assert!(usable.is_err(), "{error}"),
    }
    if usable.is_ok() {
        assert!(!bundle.x509_authorities.is_empty());
        assert!(bundle.latest_expiry() > Some(Timestamp::UNIX_EPOCH));
    }
    assert!(bundle.earliest_expiry() <= bundle.latest_expiry());
    assert!(bundle.same_keys(&bundle.clone().with_refresh_hint(None)));
    let hint = bundle.clone().with_refresh_hint(None).refresh_hint;
    assert!(hint.is_some_and(|hint| REFRESH_HINT_SECONDS.contains(&hint)));

    // Taking away a key takes away that key, wherever it stands, and no other.
    assert_eq!(bundle.clone().without(|_| true).keys().count(), 0);
    if let Some(first) = bundle.keys().next() {
        let rest = bundle.clone().without(|key| *key == first);
        assert!(rest.keys().all(|key| key != first));
        let others = bundle.keys().filter(|key| *key != first);
        assert!(others.eq(rest.keys()));
    }
}
