//! How the certificate of a bundle endpoint is verified.

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Error, Identity};
use crate::model::trust_domain::SpiffeId;

/// TLS 1.2 and 1.3, without a client certificate: no profile asks for one.
pub(super) fn configuration(identity: &Identity) -> Result<ClientConfig, Error> {
    match identity {
        Identity::Web => {
            // Reading all of the system's roots for each look would be most of its work.
            static WEB: OnceLock<ClientConfig> = OnceLock::new();
            if let Some(known) = WEB.get() {
                return Ok(known.clone());
            }
            let read = web(Vec::new())?;
            Ok(WEB.get_or_init(|| read).clone())
        }
        Identity::Spiffe { id, roots } => verified_by(Arc::new(Svid {
            id: id.clone(),
            roots: readable(roots)?,
            provider: Arc::new(ring::default_provider()),
        })),
    }
}

/// By the system's roots, read now, and these.
pub(super) fn web(more: Vec<CertificateDer<'static>>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(more, provider);
    verified_by(Arc::new(verifier.map_err(|error| unusable(&error))?))
}

fn unusable(error: &rustls::Error) -> Error {
    Error::Roots(error.to_string())
}

fn verified_by(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let mut configuration = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(configuration)
}

/// The roots that can be used at all, of which there must be one.
fn readable(roots: &[Vec<u8>]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let readable: Vec<_> = roots
        .iter()
        .filter(|root| X509Certificate::from_der(root).is_ok())
        .map(|root| CertificateDer::from(root.clone()))
        .collect();
    if readable.is_empty() {
        let reason = "the trust domain of its SPIFFE ID has no X.509 authority";
        return Err(Error::Roots(reason.to_owned()));
    }
    Ok(readable)
}

/// Verifies an X.509-SVID of one SPIFFE ID (SPIFFE Federation, section 5.2.2).
#[derive(Debug)]
struct Svid {
    id: SpiffeId,
    roots: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

/// What makes a certificate no X.509-SVID of the declared ID.
#[derive(Debug, thiserror::Error)]
enum NotTheSvid {
    #[error("its certificate can't be read")]
    Unreadable,
    #[error("its certificate has {0} URIs, an X.509-SVID has exactly one")]
    Uris(usize),
    #[error("its certificate is that of `{found}`, not of `{declared}`")]
    OtherId { found: String, declared: SpiffeId },
    #[error("its certificate may sign others, so it is no leaf")]
    Authority,
}

impl ServerCertVerifier for Svid {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut anchors = RootCertStore::empty();
        anchors.add_parsable_certificates(
            self.roots.iter().filter(|root| ongoing(root, now)).cloned(),
        );
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &anchors,
            intermediates,
            now,
            algorithms,
        )?;
        self.identify(end_entity)
            .map_err(|reason| CertificateError::Other(OtherError(Arc::new(reason))))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl Svid {
    /// Whether the certificate names the declared ID and nothing else (X509-SVID, sections 2, 4, 5).
    fn identify(&self, certificate: &[u8]) -> Result<(), NotTheSvid> {
        let unreadable = |_| NotTheSvid::Unreadable;
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| NotTheSvid::Unreadable)?;
        if let Some(usage) = parsed.key_usage().map_err(unreadable)?
            && (usage.value.key_cert_sign() || usage.value.crl_sign())
        {
            return Err(NotTheSvid::Authority);
        }
        let names = parsed.subject_alternative_name().map_err(unreadable)?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let uris: Vec<&str> = names
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        match uris.as_slice() {
            [uri] if *uri == self.id.as_str() => Ok(()),
            [uri] => Err(NotTheSvid::OtherId {
                found: (*uri).to_owned(),
                declared: self.id.clone(),
            }),
            _ => Err(NotTheSvid::Uris(uris.len())),
        }
    }
}

/// Whether a root has not ended; what verifies the chain looks at the certificates below it only.
fn ongoing(root: &[u8], now: UnixTime) -> bool {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    X509Certificate::from_der(root)
        .is_ok_and(|(_, root)| root.validity().not_after.timestamp() > now)
}

/// What is wrong with a certificate, in words.
pub(super) fn words(error: &CertificateError) -> String {
    match error {
        CertificateError::Other(OtherError(reason)) => reason.to_string(),
        CertificateError::UnknownIssuer => {
            "its certificate is not signed by the roots that are to be trusted".to_owned()
        }
        other => other.to_string(),
    }
}
