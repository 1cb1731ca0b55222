//! What time it is, for those who write it into a status.

use k8s_openapi::jiff::Timestamp;

/// Now, as an API server takes it.
#[expect(
    clippy::disallowed_methods,
    reason = "stand-ins for parts of a cluster have no other clock"
)]
pub(crate) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
