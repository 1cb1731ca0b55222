//! What a workload sees through the SPIFFE Workload API, with the Rust `spiffe` crate.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use spiffe::WorkloadApiClient;

/// A workload's identity and the bundles that it holds, its own trust domain's among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadView {
    /// The SPIFFE ID of its X.509 SVID.
    pub spiffe_id: String,
    /// The X.509 roots (DER) by trust domain.
    pub x509: BTreeMap<String, BTreeSet<Vec<u8>>>,
    /// The ids of JWT keys by trust domain.
    pub jwt: BTreeMap<String, BTreeSet<String>>,
}

/// Fetches once.
pub async fn view(socket: &Path) -> anyhow::Result<WorkloadView> {
    let client = WorkloadApiClient::connect_to(format!("unix:{}", socket.display()))
        .await
        .context("cannot connect to the Workload API")?;
    let context = client
        .fetch_x509_context()
        .await
        .context("cannot fetch the X.509 context")?;
    let svid = context.default_svid().context("there is no X.509 SVID")?;
    let x509 = context.bundle_set().iter().map(|(trust_domain, bundle)| {
        let roots = bundle.authorities().iter();
        let roots = roots.map(|root| root.as_bytes().to_vec()).collect();
        (trust_domain.to_string(), roots)
    });
    let jwt = client
        .fetch_jwt_bundles()
        .await
        .context("cannot fetch the JWT bundles")?;
    let jwt = jwt.iter().map(|(trust_domain, bundle)| {
        let keys = bundle.jwt_authorities().map(|key| key.key_id().to_owned());
        (trust_domain.to_string(), keys.collect())
    });
    Ok(WorkloadView {
        spiffe_id: svid.spiffe_id().to_string(),
        x509: x509.collect(),
        jwt: jwt.collect(),
    })
}
