//! The kind `BundleSet`: publications of several trust domains in one file, for repositories that no
//! link reaches.
//!
//! The set itself is not signed and says nothing: each publication in it carries its own proof, and
//! is verified against the declarations of the repository that takes it in.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    bundle::MAX_BUNDLE_BYTES, declaration::API_VERSION, repository::publication,
    trust_domain::TrustDomain,
};

/// The `kind` of the document.
pub const KIND: &str = "BundleSet";

/// Sets above this size are not read.
pub const MAX_SET_BYTES: usize = 64 << 20;

/// Attestations and signatures above this size are refused.
pub const MAX_STATEMENT_BYTES: usize = 64 << 10;

/// Publications of several trust domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BundleSet {
    /// `trustweave.dev/v1alpha1`.
    pub api_version: String,
    /// `BundleSet`.
    pub kind: String,
    /// The publications, each trust domain's once.
    pub publications: Vec<Carried>,
}

/// The files of a publication, byte by byte: they are JSON and armor, so text holds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Carried {
    /// Whose they are said to be; the attestation has to say so, too.
    pub trust_domain: TrustDomain,
    /// `bundle.json`.
    pub bundle: String,
    /// `bundle.attestation.json`.
    pub attestation: String,
    /// `bundle.attestation.json.sig`.
    pub signature: String,
}

/// Why bytes are no set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidSet {
    /// Larger than [`MAX_SET_BYTES`].
    #[error("the set has more than the {MAX_SET_BYTES} bytes that are accepted")]
    TooLarge,
    /// Not JSON, or not of this form.
    #[error("the set can't be read: {0}")]
    Json(String),
    /// Another kind or version.
    #[error("this is {0} {1}, not {API_VERSION} {KIND}")]
    OtherKind(String, String),
    /// Two publications of one trust domain.
    #[error("the set has two publications of `{0}`")]
    Twice(TrustDomain),
}

impl BundleSet {
    /// A set of publications.
    pub fn of(publications: Vec<Carried>) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            publications,
        }
    }

    /// The document's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a set. Nothing in it is verified yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidSet> {
        if bytes.len() > MAX_SET_BYTES {
            return Err(InvalidSet::TooLarge);
        }
        let set: Self =
            serde_json::from_slice(bytes).map_err(|error| InvalidSet::Json(error.to_string()))?;
        if set.api_version != API_VERSION || set.kind != KIND {
            return Err(InvalidSet::OtherKind(set.api_version, set.kind));
        }
        let mut names: Vec<_> = set.publications.iter().map(|it| &it.trust_domain).collect();
        names.sort();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(InvalidSet::Twice(pair[0].clone())),
            None => Ok(set),
        }
    }
}

impl Carried {
    /// The files of a publication; `None` if one is missing, or is no text.
    pub fn of(trust_domain: &TrustDomain, files: &BTreeMap<String, Vec<u8>>) -> Option<Self> {
        let text = |name: &str| String::from_utf8(files.get(name)?.clone()).ok();
        Some(Self {
            trust_domain: trust_domain.clone(),
            bundle: text(publication::BUNDLE)?,
            attestation: text(publication::ATTESTATION)?,
            signature: text(publication::SIGNATURE)?,
        })
    }

    /// The files as they stand in a repository.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        [
            (publication::BUNDLE, &self.bundle),
            (publication::ATTESTATION, &self.attestation),
            (publication::SIGNATURE, &self.signature),
        ]
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text.clone().into_bytes()))
        .collect()
    }

    /// The file that is larger than it may be.
    pub fn oversized(&self) -> Option<&'static str> {
        [
            (publication::BUNDLE, &self.bundle, MAX_BUNDLE_BYTES),
            (
                publication::ATTESTATION,
                &self.attestation,
                MAX_STATEMENT_BYTES,
            ),
            (publication::SIGNATURE, &self.signature, MAX_STATEMENT_BYTES),
        ]
        .into_iter()
        .find_map(|(name, text, limit)| (text.len() > limit).then_some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(name: &str) -> Carried {
        Carried {
            trust_domain: TrustDomain::parse(name).unwrap(),
            bundle: "{\"keys\":\u{e4}}\n".to_owned(),
            attestation: "{}\r\n".to_owned(),
            signature: "x".to_owned(),
        }
    }

    #[test]
    fn a_set_keeps_every_byte() {
        let set = BundleSet::of(vec![carried("a.test"), carried("b.test")]);
        let read = BundleSet::parse(&set.to_bytes()).unwrap();
        assert_eq!(read, set);
        let files = read.publications[0].files();
        let again = Carried::of(&read.publications[0].trust_domain, &files).unwrap();
        assert_eq!(again, carried("a.test"));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let check = |change: &dyn Fn(&mut serde_json::Value), expected: &str| {
            let mut set = serde_json::json!(BundleSet::of(vec![carried("a.test")]));
            change(&mut set);
            let error = BundleSet::parse(set.to_string().as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        };
        check(
            &|set| set["kind"] = "List".into(),
            "this is trustweave.dev/v1alpha1 List, not",
        );
        check(
            &|set| set["publications"][0]["other.json"] = "x".into(),
            "the set can't be read: unknown field `other.json`",
        );
        check(
            &|set| set["publications"][0]["trustDomain"] = "../x".into(),
            "the set can't be read: ",
        );
        check(
            &|set| {
                let twice = set["publications"][0].clone();
                set["publications"].as_array_mut().unwrap().push(twice);
            },
            "the set has two publications of `a.test`",
        );
        assert_eq!(
            BundleSet::parse(&vec![b' '; MAX_SET_BYTES + 1]),
            Err(InvalidSet::TooLarge)
        );
        let mut large = carried("a.test");
        large.signature = "x".repeat(MAX_STATEMENT_BYTES + 1);
        assert_eq!(large.oversized(), Some(publication::SIGNATURE));
        assert_eq!(carried("a.test").oversized(), None);
    }
}
