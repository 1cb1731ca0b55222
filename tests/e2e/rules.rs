//! The rules that must never break, and the tests that show them.
//!
//! A test says which rules it shows; what came of it is written down beside the build, by version of
//! SPIRE, and `make rules` makes the table of docs/rules.md of it.

use std::{fs, path::Path, thread, time::Duration};

use serde_json::json;
use trustweave_testbed::SpireVersion;

/// A rule that must never break.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    Watermark,
    Revocation,
    Sticky,
    Refusal,
    SameBytes,
    OwnBranch,
    Leaving,
    Consent,
    Held,
    NoRewind,
    Confirmed,
    Signers,
    Restart,
    Unreadable,
    Shapes,
    Endpoints,
    Empty,
    Attack,
    Model,
}

impl Rule {
    /// The rule in words.
    fn statement(self) -> &'static str {
        match self {
            Self::Watermark => {
                "Nothing below the watermark is delivered; one serial with two digests is refused"
            }
            Self::Revocation => {
                "A revoked key is gone at once, and no poll brings it back; all keys revoked is empty at once"
            }
            Self::Sticky => "A revocation is in force until its author lifts it",
            Self::Refusal => {
                "A bundle that does not parse, is empty, expired, another's or unsigned is never delivered, and touches nothing"
            }
            Self::SameBytes => {
                "Same content, same bytes: nothing is committed, pushed or applied twice"
            }
            Self::OwnBranch => {
                "An agent writes its own branch only, as the declared publisher only"
            }
            Self::Leaving => {
                "Removing a peer leaves no key trusted, and takes no unrelated identity away"
            }
            Self::Consent => "Trust needs the consent of both sides by name",
            Self::Held => {
                "A peer that was never ready is held back; a ready one is never taken out"
            }
            Self::NoRewind => "A main that went back is not followed until it is accepted by name",
            Self::Confirmed => "Confirmed means that a workload was seen to hold the keys",
            Self::Signers => "A signing key is replaced without a gap",
            Self::Restart => "A kill at any moment, or a part that is away, costs nothing but time",
            Self::Unreadable => "What can't be read ends nothing",
            Self::Shapes => {
                "Each holds exactly the keys of those that it trusts, in any shape of topology"
            }
            Self::Endpoints => {
                "An endpoint of the web, in a third trust domain, or none: SPIRE has the peer's keys"
            }
            Self::Attack => {
                "Who may push moves nothing without a signer key; who has one speaks for one trust domain alone"
            }
            Self::Model => "The model that peers' lives are checked in does what SPIRE does",
            Self::Empty => "An empty bundle lets no peer in, and takes no identity away",
        }
    }
}

/// A test that shows rules. Its result is written down when it ends.
pub(crate) struct Shown {
    rules: &'static [Rule],
    measured: Vec<String>,
}

/// Says which rules the running test shows.
pub(crate) fn shows(rules: &'static [Rule]) -> Shown {
    Shown {
        rules,
        measured: Vec::new(),
    }
}

impl Shown {
    /// Keeps, and prints, how long something took.
    pub(crate) fn measured(&mut self, what: &str, took: Duration) {
        let line = format!("{what}: {:.1} s", took.as_secs_f64());
        super::progress(&line);
        self.measured.push(line);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let thread = thread::current();
        let test = thread.name().unwrap_or_default();
        let spire =
            SpireVersion::of_this_run().map_or_else(|error| error.to_string(), |it| it.to_string());
        let statements = self.rules.iter().map(|rule| rule.statement());
        let result = json!({
            "test": test, "spire": spire, "passed": !thread::panicking(),
            "rules": statements.collect::<Vec<_>>(), "measured": self.measured,
        });
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("rules")
            .join(&spire);
        let path = directory.join(format!("{}.json", test.replace("::", ".")));
        let written =
            fs::create_dir_all(&directory).and_then(|()| fs::write(&path, format!("{result:#}\n")));
        if let Err(error) = written {
            super::progress(&format!("{} can't be written: {error}", path.display()));
        }
    }
}
