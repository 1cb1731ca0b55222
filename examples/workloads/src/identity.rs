//! What the Workload API gives: an identity of one's own, and whom to trust.

use std::time::Duration;

use spiffe::{WorkloadApiClient, WorkloadApiError, X509Source};

/// How long to wait before asking again for what was not there.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits for an identity, says what is missing meanwhile, and follows it from then on.
pub(crate) async fn source(socket: &str) -> anyhow::Result<X509Source> {
    let mut said = String::new();
    while let Err(error) = asked(socket).await {
        let missing = match error {
            WorkloadApiError::Endpoint(error) => anyhow::bail!("`{socket}` is no socket: {error}"),
            WorkloadApiError::NoIdentityIssued => {
                "no registration matches this workload (yet)".to_owned()
            }
            error => format!("the Workload API at {socket} does not answer: {error}"),
        };
        if missing != said {
            println!("waiting for an identity: {missing}");
            said = missing;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(X509Source::builder().endpoint(socket).build().await?)
}

async fn asked(socket: &str) -> Result<(), WorkloadApiError> {
    let client = WorkloadApiClient::connect_to(socket).await?;
    client.fetch_x509_context().await.map(drop)
}

/// Says who this is and whom it trusts, now and after each change.
pub(crate) async fn tell(source: X509Source) {
    let mut updates = source.updated();
    let mut said = String::new();
    loop {
        let now = own(&source);
        if now != said {
            println!("{now}");
            said = now;
        }
        if updates.changed().await.is_err() {
            return;
        }
    }
}

fn own(source: &X509Source) -> String {
    let Ok(svid) = source.svid() else {
        return "this workload has no identity any more".to_owned();
    };
    let bundles = source.bundle_set();
    let trusted = bundles.iter().flat_map(|bundles| bundles.iter());
    let trusted = trusted.filter(|(_, bundle)| !bundle.authorities().is_empty());
    let mut trusted: Vec<String> = trusted.map(|(name, _)| name.to_string()).collect();
    trusted.sort();
    format!(
        "this is {}, and trusts workloads of {}",
        svid.spiffe_id(),
        trusted.join(", ")
    )
}
