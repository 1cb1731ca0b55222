//! A peer's memory as its `TrustPeer` keeps it.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::{
    cluster::types::{RevokedStatus, TrustPeerStatus, WatermarkStatus},
    federation::{guard::Watermark, lifecycle::Memory, revocation::Revoked},
    model::{
        attestation::Serial,
        bundle::Digest,
        distrust::{JwtKeyId, KeyId},
        trust_domain::TrustDomain,
    },
};

/// A time as Kubernetes writes it: RFC 3339 with whole seconds.
pub(super) fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC)
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

impl From<&TrustPeerStatus> for Memory {
    fn from(status: &TrustPeerStatus) -> Self {
        let time = |text: &Option<String>| text.as_ref()?.parse().ok();
        Self {
            watermark: status.watermark.as_ref().and_then(watermark),
            revoked: status.revoked.iter().filter_map(revoked).collect(),
            trusted_until: time(&status.trusted_until),
            was_federated: status.was_federated,
            unnamed_since: time(&status.unnamed_since),
            failing_since: time(&status.failing_since),
            repairs: status.repairs,
            lag: status.delivery_lag_seconds.map(SignedDuration::from_secs),
        }
    }
}

fn watermark(status: &WatermarkStatus) -> Option<Watermark> {
    Some(Watermark {
        epoch: status.epoch,
        serial: Serial(status.serial),
        revocations: status.revocations,
        nonce: status.nonce,
        digest: Digest::parse(&status.digest).ok()?,
        sequence: status.spiffe_sequence,
    })
}

fn revoked(status: &RevokedStatus) -> Option<Revoked> {
    let key = match (&status.x509, &status.jwt) {
        (Some(digest), _) => KeyId::X509(Digest::parse(digest).ok()?),
        (None, Some(thumbprint)) => KeyId::Jwt(JwtKeyId {
            kid: status.kid.clone().unwrap_or_default(),
            thumbprint: thumbprint.clone(),
        }),
        (None, None) => return None,
    };
    Some(Revoked {
        key,
        by: TrustDomain::parse(&status.by).ok()?,
        time: status.since.parse().ok()?,
    })
}

/// Writes what must be remembered into a status.
pub(super) fn write(memory: &Memory, status: &mut TrustPeerStatus) {
    status.watermark = memory.watermark.as_ref().map(|watermark| WatermarkStatus {
        epoch: watermark.epoch,
        serial: watermark.serial.0,
        revocations: watermark.revocations,
        nonce: watermark.nonce,
        digest: watermark.digest.to_string(),
        spiffe_sequence: watermark.sequence,
    });
    let revoked = memory.revoked.iter().map(|revoked| {
        let (x509, jwt, kid) = match &revoked.key {
            KeyId::X509(digest) => (Some(digest.to_string()), None, None),
            KeyId::Jwt(jwt) => (None, Some(jwt.thumbprint.clone()), Some(jwt.kid.clone())),
        };
        RevokedStatus {
            x509,
            jwt,
            kid,
            by: revoked.by.to_string(),
            // Not shortened: whether it was lifted depends on it.
            since: revoked.time.to_string(),
        }
    });
    status.revoked = revoked.collect();
    status.trusted_until = memory.trusted_until.map(time);
    status.was_federated = memory.was_federated;
    status.unnamed_since = memory.unnamed_since.map(time);
    status.failing_since = memory.failing_since.map(time);
    status.repairs = memory.repairs;
    status.delivery_lag_seconds = memory.lag.map(|lag| lag.as_secs());
}
