//! What a workload holds: the agent's own view of its peers' bundles, through the SPIFFE Workload API.
//!
//! This is the end of the line: SPIRE's server has the bundle, its agent has synced, and a workload
//! with `federatesWith` sees it.

use std::{collections::BTreeMap, path::Path, time::Duration};

use futures::StreamExt;
use spiffe::{WorkloadApiClient, X509BundleSet};
use tokio::sync::watch;

use crate::model::trust_domain::TrustDomain;

/// The X.509 roots (DER) that a workload holds, by trust domain.
pub type View = BTreeMap<TrustDomain, Vec<Vec<u8>>>;

/// How long to wait before the Workload API is asked again after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Follows the Workload API for ever and hands on every view; `None` while there is none.
pub async fn follow(socket: &Path, views: &watch::Sender<Option<View>>) {
    loop {
        if let Err(error) = stream(socket, views).await {
            tracing::debug!(%error, "no view through the Workload API; it is asked again");
        }
        views.send_if_modified(|view| view.take().is_some());
        tokio::time::sleep(RETRY).await;
    }
}

async fn stream(
    socket: &Path,
    views: &watch::Sender<Option<View>>,
) -> Result<(), spiffe::WorkloadApiError> {
    let client = WorkloadApiClient::connect_to(format!("unix:{}", socket.display())).await?;
    let mut bundles = client.stream_x509_bundles().await?;
    while let Some(bundles) = bundles.next().await {
        let view = Some(read(&bundles?));
        views.send_if_modified(|last| std::mem::replace(last, view.clone()) != view);
    }
    Ok(())
}

fn read(bundles: &X509BundleSet) -> View {
    bundles
        .iter()
        .filter_map(|(trust_domain, bundle)| {
            let trust_domain = TrustDomain::parse(trust_domain.as_ref()).ok()?;
            let roots = bundle
                .authorities()
                .iter()
                .map(|root| root.as_bytes().to_vec());
            Some((trust_domain, roots.collect()))
        })
        .collect()
}
