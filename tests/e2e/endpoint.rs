//! The client of bundle endpoints, against SPIRE's own.

use trustweave::{
    model::{bundle::Bundle, trust_domain::SpiffeId},
    spire::endpoint::{self, Endpoint, Identity},
};
use trustweave_testbed::federation::Federation;

use super::{ONE, TWO, own, plan, progress, rotate};

fn roots(bundle: &Bundle) -> Vec<Vec<u8>> {
    let authorities = bundle.x509_authorities.iter();
    authorities.map(|it| it.certificate.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_spires_endpoint_serves_is_what_spire_shows() {
    // No agent is needed.
    let federation = Federation::prepare(plan(), &progress).await.unwrap();
    let spire = &federation.testbed.cluster(TWO).unwrap().spire;
    let before = own(&federation, TWO).await;
    let endpoint = |id: &str, bundle: &Bundle| Endpoint {
        url: spire.bundle_endpoint_url(),
        identity: Identity::Spiffe {
            id: SpiffeId::parse(id).unwrap(),
            roots: roots(bundle),
        },
    };
    let id = spire.bundle_endpoint_spiffe_id();
    let served = endpoint::fetch(&endpoint(&id, &before)).await.unwrap();
    assert!(served.same_keys(&before), "{served:?} is not {before:?}");
    assert_eq!(served.sequence, before.sequence);

    // The former roots still do after a rotation, and the new key is seen.
    rotate(&federation, TWO).await;
    let after = own(&federation, TWO).await;
    federation
        .until("the endpoint to serve the new key", async || {
            let served = endpoint::fetch(&endpoint(&id, &before)).await?;
            Ok(served.same_keys(&after).then_some(()))
        })
        .await
        .unwrap();

    let other_id = id.replace("/spire/server", "/spire/agent");
    let refused = endpoint::fetch(&endpoint(&other_id, &after)).await;
    assert!(
        matches!(refused, Err(endpoint::Error::Identity { .. })),
        "{refused:?}"
    );
    let other_roots = own(&federation, ONE).await;
    let refused = endpoint::fetch(&endpoint(&id, &other_roots)).await;
    assert!(
        matches!(refused, Err(endpoint::Error::Identity { .. })),
        "{refused:?}"
    );
}
