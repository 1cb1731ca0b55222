//! Trust domains without a cluster: declared, and published as their agent would, by the test.

use std::fs;

use serde_json::{Value, json};
use trustweave::{
    git::SigningKey,
    model::{
        attestation::{self, Attestation, Serial},
        bundle::{Bundle, Digest},
        declaration::API_VERSION,
        trust_domain::TrustDomain,
    },
};
use trustweave_testbed::{
    authority::Authority,
    federation::{CLASS_NAME, Federation, SPIRE_NAMESPACE},
    ssh_key,
};

use super::{bundle, publication::Publication};

/// What publishes for trust domains that have no agent.
pub(crate) struct Publisher {
    signer: SigningKey,
    public: String,
}

impl Publisher {
    /// Makes a key.
    pub(crate) fn new(federation: &Federation) -> Self {
        let key = ssh_key(federation.testbed.directory(), "publisher").unwrap();
        Self {
            signer: SigningKey::from_openssh(&fs::read_to_string(&key.private).unwrap()).unwrap(),
            public: key.public,
        }
    }

    /// The path and the content of a declaration that consents to federation with one peer, both ways.
    pub(crate) fn declaration(
        &self,
        trust_domain: &str,
        endpoint: &Value,
        peer: &str,
    ) -> (String, String) {
        let declaration = json!({
            "apiVersion": API_VERSION,
            "kind": "TrustDomain",
            "metadata": {"name": trust_domain},
            "spec": {
                "clusters": [{"name": trust_domain.replace('.', "-")}],
                "spire": {
                    "distribution": "custom",
                    "namespace": SPIRE_NAMESPACE,
                    "className": CLASS_NAME,
                },
                "bundleEndpoint": endpoint,
                "signers": [self.public],
                "consent": {"import": [peer], "export": [peer]},
            },
        });
        (
            format!("trust-domains/{trust_domain}/trust-domain.yaml"),
            format!("{declaration:#}\n"),
        )
    }

    /// Publishes a trust domain's first bundle on its branch.
    pub(crate) async fn publish(
        &self,
        federation: &Federation,
        authority: &Authority,
        endpoint: &Value,
    ) {
        let bundle = bundle(&authority.bundle());
        self.publish_bundle(federation, authority.trust_domain(), &bundle, 1, endpoint)
            .await;
    }

    /// Publishes a bundle of a trust domain on its branch, under a serial.
    pub(crate) async fn publish_bundle(
        &self,
        federation: &Federation,
        trust_domain: &str,
        bundle: &Bundle,
        serial: u64,
        endpoint: &Value,
    ) {
        let spiffe_sequence = bundle.sequence;
        let bundle = bundle.canonical();
        let statement = Attestation {
            api_version: API_VERSION.to_owned(),
            kind: attestation::KIND.to_owned(),
            trust_domain: TrustDomain::parse(trust_domain).unwrap(),
            epoch: 0,
            serial: Serial(serial),
            sha256: Digest::of(&bundle),
            spiffe_sequence,
            endpoint: serde_json::from_value(endpoint.clone()).unwrap(),
            cluster_uid: "00000000-0000-0000-0000-000000000000".to_owned(),
            issued_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        };
        let branch = format!("trustweave/{trust_domain}");
        Publication::signed(bundle, &statement, &self.signer)
            .commit(federation, &branch, "Publish the bundle")
            .await;
    }
}
