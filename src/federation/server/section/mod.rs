//! What `server.federation` should say: as declared, and otherwise as it stands.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Wanted, config::block};
use crate::model::{
    declaration::{Profile, ServedEndpoint},
    trust_domain::TrustDomain,
};

/// How often peers poll if nothing else is declared, as SPIRE has it.
const REFRESH_HINT: &str = "5m";

/// The profile `https_web` has no certificate in the configuration, and no declaration names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoCertificate;

/// Where `federates_with` comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Statically<'a> {
    /// From the declarations.
    Declared,
    /// It stays as it is.
    Standing,
    /// From what was there before the agent wrote it.
    Former(Option<&'a Value>),
}

/// What is asked for, whatever stands there: the same for as long as the declarations are.
pub(super) fn asked(wanted: &Wanted) -> Value {
    let endpoint = &wanted.endpoint;
    let mut asked = json!({
        "port": endpoint.server_port(),
        "refresh_hint": endpoint.refresh_hint,
        "profile": endpoint.profile.as_str(),
    });
    if let Some(peers) = &wanted.static_peers {
        asked["federates_with"] = federates_with(peers);
    }
    asked
}

/// `server.federation` as it should be; equal to the current one if that says the right thing.
pub(super) fn target(
    current: Option<&Value>,
    wanted: &Wanted,
    statically: Statically<'_>,
) -> Result<Value, NoCertificate> {
    let mut section = current.and_then(block).cloned().unwrap_or_default();
    let standing = section.get("bundle_endpoint").and_then(block);
    let before = standing.cloned().unwrap_or_default();
    let after = bundle_endpoint(&before, &wanted.endpoint)?;
    if standing.is_none() || before != after {
        section.insert("bundle_endpoint".to_owned(), after.into());
    }
    let peers = match (statically, &wanted.static_peers) {
        (Statically::Declared, Some(peers)) => Some(federates_with(peers)),
        (Statically::Former(former), _) => former.cloned(),
        (Statically::Standing | Statically::Declared, _) => section.get("federates_with").cloned(),
    };
    match peers {
        Some(peers) if peers.as_object().is_none_or(|peers| !peers.is_empty()) => {
            section.insert("federates_with".to_owned(), peers);
        }
        _ => {
            section.shift_remove("federates_with");
        }
    }
    Ok(match current {
        Some(current) if block(current) == Some(&section) => current.clone(),
        _ => section.into(),
    })
}

/// `bundle_endpoint` as declared; what already means the same is left as it is written.
fn bundle_endpoint(
    standing: &Map<String, Value>,
    endpoint: &ServedEndpoint,
) -> Result<Map<String, Value>, NoCertificate> {
    let mut members = standing.clone();
    let mut set = |name: &str, right: bool, value: Value| {
        if !right {
            members.insert(name.to_owned(), value);
        }
    };
    let text = |name: &str| standing.get(name).and_then(Value::as_str);
    // Whatever else a Service can lead to is somebody's choice.
    let reachable = text("address").is_some_and(|it| !is_loopback(it));
    set("address", reachable, "0.0.0.0".into());

    let port = endpoint.server_port();
    let same = standing.get("port").is_some_and(|found| match found {
        Value::String(text) => text.parse() == Ok(port),
        number => number.as_u64() == Some(port.into()),
    });
    set("port", same, port.into());

    let hint = endpoint.refresh_hint.map(|seconds| format!("{seconds}s"));
    let found = text("refresh_hint").and_then(milliseconds);
    let same = match &hint {
        Some(hint) => found.is_some() && found == milliseconds(hint),
        None => found.is_some(),
    };
    set(
        "refresh_hint",
        same,
        hint.unwrap_or_else(|| REFRESH_HINT.to_owned()).into(),
    );

    let name = endpoint.profile.as_str();
    let profile = standing.get("profile").and_then(block);
    let same = profile.is_some_and(|it| it.len() == 1 && it.contains_key(name));
    match endpoint.profile {
        Profile::HttpsSpiffe => set("profile", same, json!([{name: {}}])),
        Profile::HttpsWeb => {
            let certificate = profile.and_then(|it| block(it.get(name)?));
            if certificate.is_none_or(Map::is_empty) {
                return Err(NoCertificate);
            }
        }
    }
    Ok(members)
}

/// Relationships in the server's own configuration.
fn federates_with(peers: &BTreeMap<TrustDomain, ServedEndpoint>) -> Value {
    let relationship = |endpoint: &ServedEndpoint| {
        let mut profile = json!({});
        if let (Profile::HttpsSpiffe, Some(id)) = (endpoint.profile, &endpoint.spiffe_id) {
            profile["endpoint_spiffe_id"] = json!(id);
        }
        json!({
            "bundle_endpoint_url": endpoint.url,
            "bundle_endpoint_profile": [{endpoint.profile.as_str(): profile}],
        })
    };
    let peers = peers.iter();
    let members: Map<String, Value> = peers
        .map(|(peer, endpoint)| (peer.to_string(), relationship(endpoint)))
        .collect();
    members.into()
}

/// Whether only the pod itself reaches an address.
fn is_loopback(address: &str) -> bool {
    address.is_empty() || address.starts_with("127.") || matches!(address, "::1" | "localhost")
}

/// A duration as Go writes it (`time.ParseDuration`): `5m`, `300s`, `1h30m`, `1.5m`.
fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = rest[digits..].split_at(unit_end.unwrap_or(rest.len() - digits));
        total += number
            * match unit {
                "h" => 3_600_000.0,
                "m" => 60_000.0,
                "s" => 1_000.0,
                "ms" => 1.0,
                _ => return None,
            };
        rest = after;
    }
    // Whole milliseconds are enough to tell two hints apart.
    (!text.is_empty())
        .then(|| std::time::Duration::try_from_secs_f64(total / 1_000.0).ok())?
        .map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
}

/// The endpoint's part of the configuration in SPIRE's own form, for people to paste.
pub(super) fn as_hcl(wanted: &Wanted) -> String {
    let endpoint = &wanted.endpoint;
    let hint = endpoint.refresh_hint.map(|seconds| format!("{seconds}s"));
    format!(
        "federation {{ bundle_endpoint {{ address = \"0.0.0.0\", port = {}, refresh_hint = \"{}\", \
         profile \"{}\" {{}} }} }}",
        endpoint.server_port(),
        hint.as_deref().unwrap_or(REFRESH_HINT),
        endpoint.profile.as_str(),
    )
}

#[cfg(test)]
mod tests;
