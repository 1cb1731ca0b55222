//! Names of trust domains, SPIFFE IDs and clusters.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Implements the conversions that every parsed name has.
macro_rules! name {
    ($name:ident, $error:ident, $pattern:literal, $description:literal) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern, "description": $description})
            }
        }
    };
}

/// The name of a SPIFFE trust domain: 1 to 255 of `a-z 0-9 . - _` (SPIFFE-ID, section 2.1), without
/// `spiffe://`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

/// Why a text is no trust domain name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidTrustDomain {
    /// The `spiffe://` prefix belongs to SPIFFE IDs.
    #[error("`{0}` is a URI, not a trust domain name: write it without `spiffe://` and path")]
    Uri(String),
    /// A character outside the allowed ones, or too many, or none.
    #[error(
        "`{0}` is not a trust domain name: 1 to 255 lower-case letters, digits, dots, dashes and underscores"
    )]
    Characters(String),
}

impl TrustDomain {
    /// Parses a trust domain's name.
    pub fn parse(text: &str) -> Result<Self, InvalidTrustDomain> {
        if text.contains("://") || text.contains('/') {
            return Err(InvalidTrustDomain::Uri(text.to_owned()));
        }
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        // `.` and `..` are allowed by the specification but would be other directories in git.
        let directory = text.starts_with('.') || text.ends_with('.') || text.contains("..");
        if text.is_empty() || text.len() > 255 || directory || !text.bytes().all(allowed) {
            return Err(InvalidTrustDomain::Characters(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The trust domain's own SPIFFE ID, `spiffe://<trust-domain>`.
    pub fn id(&self) -> String {
        format!("spiffe://{}", self.0)
    }
}

name!(
    TrustDomain,
    InvalidTrustDomain,
    "^[a-z0-9_-][a-z0-9._-]{0,254}$",
    "Name of a SPIFFE trust domain, without spiffe://"
);

/// A SPIFFE ID with a path, `spiffe://<trust-domain>/<path>` (SPIFFE-ID, section 2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId(String);

/// The text is no SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a SPIFFE ID: write spiffe://<trust-domain>/<path>")]
pub struct InvalidSpiffeId(String);

impl SpiffeId {
    /// Parses a SPIFFE ID that has a path.
    pub fn parse(text: &str) -> Result<Self, InvalidSpiffeId> {
        let invalid = || InvalidSpiffeId(text.to_owned());
        let rest = text.strip_prefix("spiffe://").ok_or_else(invalid)?;
        let (trust_domain, path) = rest.split_once('/').ok_or_else(invalid)?;
        TrustDomain::parse(trust_domain).map_err(|_| invalid())?;
        let segment = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        if path.split('/').all(segment) {
            Ok(Self(text.to_owned()))
        } else {
            Err(invalid())
        }
    }

    /// The trust domain that it lies in.
    pub fn trust_domain(&self) -> TrustDomain {
        let rest = self.0.strip_prefix("spiffe://").unwrap_or_default();
        let name = rest.split('/').next().unwrap_or_default();
        TrustDomain(name.to_owned())
    }

    /// The SPIFFE ID under which a SPIRE server serves its bundle endpoint.
    pub fn spire_server(trust_domain: &TrustDomain) -> Self {
        Self(format!("spiffe://{trust_domain}/spire/server"))
    }
}

name!(
    SpiffeId,
    InvalidSpiffeId,
    "^spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+$",
    "A SPIFFE ID with a path"
);

/// The name of a cluster: what a Kubernetes label value and a directory can both be
/// (RFC 1123 label, 1 to 63 of `a-z 0-9 -`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

/// The text is no cluster name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a cluster name: 1 to 63 lower-case letters, digits and dashes, not starting or ending with a dash"
)]
pub struct InvalidClusterName(String);

impl ClusterName {
    /// Parses a cluster's name.
    pub fn parse(text: &str) -> Result<Self, InvalidClusterName> {
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let valid = (1..=63).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidClusterName(text.to_owned()))
        }
    }
}

name!(
    ClusterName,
    InvalidClusterName,
    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    "Name of a cluster: the directory clusters/<name> holds its overlay"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_once_and_strictly() {
        for good in [
            "b.test",
            "apps.cluster-1.devcluster.openshift.com",
            "under_score",
        ] {
            assert!(TrustDomain::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "B.test",
            "spiffe://b.test",
            "b.test/x",
            "..",
            "a..b",
            ".git",
            "é",
        ] {
            assert!(TrustDomain::parse(bad).is_err(), "{bad}");
        }
        for bad in [
            "spiffe://b.test",
            "spiffe://b.test/",
            "https://b.test/x",
            "spiffe://b.test/a//b",
            "spiffe://b.test/..",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad}");
        }
        assert!(SpiffeId::parse("spiffe://b.test/spire/server").is_ok());
        for bad in ["", "-a", "a-", "A", "a.b", "a/b"] {
            assert!(ClusterName::parse(bad).is_err(), "{bad}");
        }
    }
}
