//! The own bundle from the trust domain's own bundle endpoint, from inside the cluster.
//!
//! The endpoint proves itself as the SPIRE server of the trust domain, with the roots of the
//! `ConfigMap` that SPIRE's agents start with. After a rotation its certificate is signed by the older
//! authority until it is renewed, so all roots that stand there count. Whoever may write that
//! `ConfigMap` and answers at the endpoint's address decides what is published.
//!
//! SPIRE's notifier writes the roots at each rotation, so the endpoint is asked when they change, and
//! every few seconds besides: a new JWT key changes no root.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{
    BundleSource, Error,
    configmap::WatchedConfigMap,
    endpoint::{self, Identity},
    polled::Last,
};
use crate::model::{
    bundle::{Bundle, x509_key},
    declaration::EndpointSource,
    trust_domain::{SpiffeId, TrustDomain},
};

/// How often the endpoint is asked.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long one answer may take: it comes from the same cluster.
const DEADLINE: Duration = Duration::from_secs(5);

/// The keys under which roots stand, unless the source names one.
const KEYS: [&str; 2] = ["bundle.crt", "bundle.spiffe"];

/// The Services that lead to the endpoint, in SPIRE's namespace: the first by hand and by Trustweave,
/// the second by the Helm charts and the zero trust workload identity manager.
const SERVICES: [&str; 2] = ["spire-server-federation", "spire-server"];

/// The endpoint and its roots.
pub struct LocalEndpoint {
    id: SpiffeId,
    urls: Vec<String>,
    /// Which of the URLs answered last.
    answering: AtomicUsize,
    roots: WatchedConfigMap,
    key: Option<String>,
    last: Last,
}

impl LocalEndpoint {
    /// The endpoint of a trust domain, with the `ConfigMap` that holds its roots.
    pub(super) fn new(
        trust_domain: &TrustDomain,
        spire_namespace: &str,
        source: &EndpointSource,
        roots: WatchedConfigMap,
    ) -> Self {
        Self {
            id: SpiffeId::spire_server(trust_domain),
            urls: urls(spire_namespace, source),
            answering: AtomicUsize::new(0),
            roots,
            key: source.roots.key.clone(),
            last: Last::default(),
        }
    }

    async fn read(&self) -> Result<Bundle, Error> {
        let data = self.roots.read().await?;
        let roots = roots(&data, self.key.as_deref());
        if roots.is_empty() {
            let keys = self.key.clone().unwrap_or_else(|| KEYS.join(" or "));
            let name = self.roots.full_name();
            return Err(Error::NoRoots { name, keys });
        }
        let first = self.answering.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for offset in 0..self.urls.len() {
            let index = (first + offset) % self.urls.len();
            let endpoint = endpoint::Endpoint {
                url: self.urls[index].clone(),
                identity: Identity::Spiffe {
                    id: self.id.clone(),
                    roots: roots.clone(),
                },
            };
            match endpoint::fetch_within(&endpoint, DEADLINE).await {
                Ok(bundle) => {
                    self.answering.store(index, Ordering::Relaxed);
                    return Ok(bundle);
                }
                Err(error) => failures.push((endpoint.url, error)),
            }
        }
        Err(Error::Endpoint(failures))
    }
}

impl BundleSource for LocalEndpoint {
    async fn current(&self) -> Result<Bundle, Error> {
        self.last.noted(self.read().await)
    }

    async fn changed(&self) {
        tokio::select! {
            () = self.roots.changed() => {}
            () = self.last.until_other(INTERVAL, || self.read()) => {}
        }
    }

    fn describe(&self) -> String {
        let answering = self.answering.load(Ordering::Relaxed);
        let url = self.urls.get(answering).map_or("", String::as_str);
        format!(
            "endpoint {url}, roots of ConfigMap {}",
            self.roots.full_name()
        )
    }
}

/// Where the endpoint may be reached, the likeliest first.
fn urls(spire_namespace: &str, source: &EndpointSource) -> Vec<String> {
    match &source.url {
        Some(url) => vec![url.clone()],
        None => SERVICES
            .iter()
            .map(|service| format!("https://{service}.{spire_namespace}.svc:8443"))
            .collect(),
    }
}

/// The X.509 roots (DER) that a `ConfigMap` holds under a key, or under the usual ones: PEM or a
/// SPIFFE bundle, whatever the key is called.
fn roots(data: &BTreeMap<String, String>, key: Option<&str>) -> Vec<Vec<u8>> {
    let keys = key.map_or_else(|| KEYS.to_vec(), |key| vec![key]);
    let mut found = Vec::new();
    for content in keys.iter().filter_map(|key| data.get(*key)) {
        if let Ok(bundle) = Bundle::parse(content.as_bytes()) {
            let authorities = bundle.x509_authorities.into_iter();
            found.extend(authorities.map(|authority| authority.certificate));
        } else {
            let certificates = CertificateDer::pem_slice_iter(content.as_bytes());
            found.extend(certificates.flatten().map(|it| it.as_ref().to_vec()));
        }
    }
    found.retain(|root| x509_key(root).is_some());
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::model::bundle::sample;

    fn pem(bundle: &Bundle) -> String {
        let certificates = bundle.x509_authorities.iter().map(|it| {
            let body = STANDARD.encode(&it.certificate);
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        });
        certificates.collect()
    }

    #[test]
    fn roots_are_read_as_pem_and_as_a_spiffe_bundle_once_each() {
        let (old, new) = (sample("a.test"), sample("a.test"));
        let json = |bundle: &Bundle| String::from_utf8(bundle.canonical()).unwrap();
        let data = |entries: &[(&str, String)]| -> BTreeMap<String, String> {
            let entries = entries.iter().cloned();
            entries
                .map(|(key, value)| (key.to_owned(), value))
                .collect()
        };
        let der = |bundles: &[&Bundle]| {
            let roots = bundles.iter().flat_map(|it| &it.x509_authorities);
            let mut roots: Vec<_> = roots.map(|it| it.certificate.clone()).collect();
            roots.sort();
            roots
        };
        let both = data(&[
            ("bundle.crt", pem(&old) + &pem(&new)),
            ("bundle.spiffe", json(&new)),
        ]);
        assert_eq!(roots(&both, None), der(&[&old, &new]));
        assert_eq!(roots(&both, Some("bundle.spiffe")), der(&[&new]));
        // What another key holds is not trusted unless it is named.
        let other = data(&[
            ("ca.crt", pem(&old)),
            (
                "bundle.crt",
                "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_owned(),
            ),
        ]);
        assert_eq!(roots(&other, None), der(&[]));
        assert_eq!(roots(&other, Some("ca.crt")), der(&[&old]));
    }

    #[test]
    fn the_address_is_a_service_of_spires_namespace_unless_it_is_said() {
        let default = EndpointSource::default();
        assert_eq!(
            urls("spire", &default),
            [
                "https://spire-server-federation.spire.svc:8443",
                "https://spire-server.spire.svc:8443"
            ]
        );
        let said = EndpointSource {
            url: Some("https://127.0.0.1:1".to_owned()),
            ..default
        };
        assert_eq!(urls("spire", &said), ["https://127.0.0.1:1"]);
    }
}
