//! The versions of SPIRE that the testbed runs.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail};

use crate::settings;

/// A minor version of SPIRE; `go/spire-<version>` pins the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpireVersion {
    /// 1.14.
    V1_14,
    /// 1.15.
    V1_15,
}

impl SpireVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 2] = [Self::V1_14, Self::V1_15];

    /// The newest one.
    pub const NEWEST: Self = Self::V1_15;

    /// What a cluster runs that asks for no version: what `TRUSTWEAVE_TESTBED_SPIRE` says, else the newest.
    pub fn of_this_run() -> anyhow::Result<Self> {
        match settings::spire_version() {
            None => Ok(Self::NEWEST),
            Some(version) => version
                .to_str()
                .context("TRUSTWEAVE_TESTBED_SPIRE is not UTF-8")?
                .parse()
                .context("TRUSTWEAVE_TESTBED_SPIRE can't be followed"),
        }
    }

    /// The Go module that pins it.
    pub(crate) fn module(self) -> &'static str {
        match self {
            Self::V1_14 => "spire-1.14",
            Self::V1_15 => "spire-1.15",
        }
    }
}

impl fmt::Display for SpireVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.module().trim_start_matches("spire-"))
    }
}

impl FromStr for SpireVersion {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL
            .into_iter()
            .find(|version| version.to_string() == text);
        match found {
            Some(version) => Ok(version),
            None => bail!(
                "the testbed has no SPIRE `{text}`, but {}",
                Self::ALL.map(|version| version.to_string()).join(" and ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SpireVersion;

    #[test]
    fn versions_are_named_as_they_are_written() {
        for version in SpireVersion::ALL {
            assert_eq!(
                version.to_string().parse::<SpireVersion>().unwrap(),
                version
            );
        }
        let error = "1.9".parse::<SpireVersion>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the testbed has no SPIRE `1.9`, but 1.14 and 1.15"
        );
    }
}
