//! What is remembered of peers as their `TrustPeer` keeps it, and of the SPIRE server as the `GitSync` does.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::{
    cluster::types::{
        ObjectStatus, RevertStatus, RevokedStatus, ServerStatus, TrustPeerStatus, WatermarkStatus,
    },
    federation::{
        guard::Watermark,
        lifecycle::Memory,
        revocation::Revoked,
        server::{self, Installation, Piece, Revert},
    },
    model::{
        attestation::Serial,
        bundle::Digest,
        declaration::{Distribution, Server},
        distrust::{JwtKeyId, KeyId},
        manifest::{Gvk, ObjectRef},
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

impl From<&ServerStatus> for server::Memory {
    fn from(status: &ServerStatus) -> Self {
        let distribution = Distribution::parse(&status.distribution);
        Self {
            installation: distribution.map(|distribution| Installation {
                distribution,
                namespace: status.namespace.clone(),
                server: Server {
                    stateful_set: status.stateful_set.clone(),
                    container: status.container.clone(),
                    config_map: status.config_map.clone(),
                    config_key: status.config_key.clone(),
                },
            }),
            objects: status.objects.iter().map(object).collect(),
            written: status
                .written
                .iter()
                .filter_map(|(piece, digest)| {
                    Some((Piece::parse(piece)?, Digest::parse(digest).ok()?))
                })
                .collect(),
            reverts: status.reverts.iter().filter_map(revert).collect(),
            resumed: status.resumed.clone(),
            static_names: status.federates_with.clone(),
        }
    }
}

fn object(status: &ObjectStatus) -> ObjectRef {
    let namespace = &status.namespace;
    ObjectRef {
        gvk: Gvk::new(&status.api_version, &status.kind),
        namespace: (!namespace.is_empty()).then(|| namespace.clone()),
        name: status.name.clone(),
    }
}

fn revert(status: &RevertStatus) -> Option<Revert> {
    Some(Revert {
        piece: Piece::parse(&status.piece)?,
        at: status.at.parse().ok()?,
        by: status.by.clone(),
    })
}

impl From<&server::Memory> for ServerStatus {
    fn from(memory: &server::Memory) -> Self {
        let mut status = Self {
            objects: memory
                .objects
                .iter()
                .map(|reference| ObjectStatus {
                    api_version: reference.gvk.api_version(),
                    kind: reference.gvk.kind.clone(),
                    namespace: reference.namespace.clone().unwrap_or_default(),
                    name: reference.name.clone(),
                })
                .collect(),
            written: memory
                .written
                .iter()
                .map(|(piece, digest)| (piece.to_string(), digest.to_string()))
                .collect(),
            reverts: memory
                .reverts
                .iter()
                .map(|revert| RevertStatus {
                    piece: revert.piece.to_string(),
                    at: time(revert.at),
                    by: revert.by.clone(),
                })
                .collect(),
            resumed: memory.resumed.clone(),
            federates_with: memory.static_names.clone(),
            ..Self::default()
        };
        if let Some(installation) = &memory.installation {
            let server = installation.server.clone();
            installation
                .distribution
                .as_str()
                .clone_into(&mut status.distribution);
            status.namespace.clone_from(&installation.namespace);
            status.stateful_set = server.stateful_set;
            status.container = server.container;
            status.config_map = server.config_map;
            status.config_key = server.config_key;
        }
        status
    }
}
