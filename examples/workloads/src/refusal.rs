//! Why a connection did not come about, for people who federate trust domains.

use std::error::Error;
use std::io;

/// The reason in words.
pub(crate) fn explain(error: &(dyn Error + 'static)) -> String {
    match find(error) {
        Some(rustls::Error::Other(rustls::OtherError(inner))) => {
            match inner.downcast_ref::<spiffe_rustls::Error>() {
                Some(reason) => explain_spiffe(reason),
                None => inner.to_string(),
            }
        }
        Some(rustls::Error::AlertReceived(alert)) => format!(
            "the other side refused this workload ({alert:?}): its log says why; its registration may not federate \
             with this trust domain"
        ),
        Some(rustls::Error::InvalidCertificate(reason)) => format!(
            "the other side's certificate is not signed by an authority that is trusted here: {reason}"
        ),
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

fn explain_spiffe(error: &spiffe_rustls::Error) -> String {
    match error {
        spiffe_rustls::Error::NoBundle(trust_domain) => format!(
            "{trust_domain} is not trusted here: this workload's registration does not federate with it, or its \
             bundle is empty"
        ),
        spiffe_rustls::Error::UnauthorizedSpiffeId(id) => {
            format!("the other side is {id}, which is not allowed")
        }
        spiffe_rustls::Error::MaterialUnavailable(reason) => explain_spiffe(reason),
        error => error.to_string(),
    }
}

/// TLS' own error, however deep it is wrapped.
fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    // The source of an I/O error is the source of what it wraps.
    let wrapped = error.downcast_ref().and_then(io::Error::get_ref);
    match wrapped {
        Some(wrapped) => find(wrapped),
        None => find(error.source()?),
    }
}
