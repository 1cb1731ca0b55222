//! Somebody else writes the same: after two reverts the agent stops, and says who it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::{SignedDuration, Timestamp};

use super::Installation;
use crate::model::{bundle::Digest, manifest::ObjectRef};

/// How many reverts end it.
const REVERTS: usize = 2;

/// For how long a revert counts. Tools that put objects back do it at once, or every few minutes; a
/// person's second edit of a day is no fight.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);

/// A part of the installation that is written as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Piece {
    /// `server.federation` in the server's configuration.
    Configuration,
    /// The fields of the `StatefulSet`.
    Workload,
    /// The Service.
    Service,
    /// What leads to the Service from outside.
    Exposure,
    /// The custom resource of an operator.
    Operator,
}

impl Piece {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Configuration,
        Self::Workload,
        Self::Service,
        Self::Exposure,
        Self::Operator,
    ];

    /// The condition that tells of it.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Configuration | Self::Workload | Self::Operator => super::SERVER_CONFIGURED,
            Self::Service | Self::Exposure => super::ENDPOINT_EXPOSED,
        }
    }

    /// Reads the name back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|piece| piece.as_str() == name)
    }

    /// The name under which it is remembered.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Workload => "workload",
            Self::Service => "service",
            Self::Exposure => "exposure",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Somebody undid what the agent wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revert {
    /// What was undone.
    pub piece: Piece,
    /// When it was seen.
    pub at: Timestamp,
    /// Who did, as far as the object tells.
    pub by: String,
}

/// What outlives a restart of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Where something of ours is, or may be.
    pub installation: Option<Installation>,
    /// The objects that we made or changed, besides those of the installation itself.
    pub objects: BTreeSet<ObjectRef>,
    /// The digest of what was asked for when we wrote last, of each piece.
    pub written: BTreeMap<Piece, Digest>,
    /// Who undid it since.
    pub reverts: Vec<Revert>,
    /// The text of the annotation [`super::RESUME`] that was heeded last.
    pub resumed: Option<String>,
    /// The trust domains that the server federates with by its own configuration.
    pub static_names: Vec<String>,
}

/// Whether a piece may be written that is not as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may; if it was written before, somebody undid that.
    Write(Option<Revert>),
    /// It was undone too often.
    Stop(Vec<Revert>),
}

impl Memory {
    /// Heeds the annotation by which a person ends a standstill.
    pub fn resume(&mut self, text: Option<&str>) {
        if self.resumed.as_deref() != text {
            self.resumed = text.map(str::to_owned);
            self.reverts.clear();
        }
    }

    /// Judges a piece that does not say what is asked for. `by` is who wrote it last.
    pub fn judge(&mut self, piece: Piece, asked: &Digest, by: &str, now: Timestamp) -> Verdict {
        if self.written.get(&piece) != Some(asked) {
            // Another thing was asked for then: nobody undid it.
            self.reverts.retain(|revert| revert.piece != piece);
            return Verdict::Write(None);
        }
        if self.of(piece).count() >= REVERTS {
            return Verdict::Stop(self.of(piece).cloned().collect());
        }
        self.reverts
            .retain(|it| it.piece != piece || now.duration_since(it.at) < REMEMBERED);
        let revert = Revert {
            piece,
            at: now,
            by: by.to_owned(),
        };
        if self.of(piece).count() + 1 < REVERTS {
            return Verdict::Write(Some(revert));
        }
        self.reverts.push(revert);
        Verdict::Stop(self.of(piece).cloned().collect())
    }

    /// Remembers that a piece was written.
    pub fn wrote(&mut self, piece: Piece, asked: Digest, undone: Option<Revert>) {
        self.written.insert(piece, asked);
        self.reverts.extend(undone);
    }

    fn of(&self, piece: Piece) -> impl Iterator<Item = &Revert> {
        self.reverts.iter().filter(move |it| it.piece == piece)
    }
}

/// What is told of a fight: who it is with, and how it ends.
pub(super) fn words(object: &ObjectRef, reverts: &[Revert]) -> String {
    let names: BTreeSet<&str> = reverts.iter().map(|it| it.by.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let names = names.join(", ");
    format!(
        "what the agent wrote into {object} was undone {} times by {names}, so it has stopped writing \
         it: let {names} keep it as declared or leave it alone, or declare `manage: false`; then \
         `kubectl annotate gitsync trustweave --overwrite {}=\"$(date)\"`",
        reverts.len(),
        super::RESUME,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_reverts_within_an_hour_end_it() {
        let at = |minute: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let piece = Piece::Configuration;
        let mut memory = Memory::default();
        // What a pass does: judge, and remember what it wrote.
        let pass = |memory: &mut Memory, asked: &Digest, minute: i64| match memory.judge(
            piece,
            asked,
            "helm",
            at(minute),
        ) {
            Verdict::Write(undone) => {
                let again = undone.is_some();
                memory.wrote(piece, asked.clone(), undone);
                if again { "put back" } else { "written" }
            }
            Verdict::Stop(reverts) => {
                assert_eq!(reverts.len(), REVERTS);
                "stopped"
            }
        };
        assert_eq!(pass(&mut memory, &one, 0), "written");
        assert_eq!(pass(&mut memory, &one, 1), "put back");
        assert_eq!(pass(&mut memory, &one, 2), "stopped");
        // For good, and without counting the same one again.
        assert_eq!(pass(&mut memory, &one, 600), "stopped");
        assert_eq!(memory.reverts.len(), REVERTS);
        // Until another thing is asked for, or somebody says so.
        assert_eq!(pass(&mut memory, &other, 601), "written");
        assert_eq!(pass(&mut memory, &other, 602), "put back");
        assert_eq!(pass(&mut memory, &other, 603), "stopped");
        memory.resume(Some("now"));
        assert_eq!(pass(&mut memory, &other, 604), "put back");
        memory.resume(Some("now"));
        assert_eq!(pass(&mut memory, &other, 605), "stopped");
        // An edit long after another is no fight.
        memory.resume(Some("again"));
        assert_eq!(pass(&mut memory, &other, 700), "put back");
        assert_eq!(pass(&mut memory, &other, 761), "put back");
        assert_eq!(pass(&mut memory, &other, 762), "stopped");
    }

    #[test]
    fn pieces_are_judged_apart() {
        let mut memory = Memory::default();
        let asked = Digest::of(b"1");
        for piece in Piece::ALL {
            memory.wrote(piece, asked.clone(), None);
        }
        let now = Timestamp::UNIX_EPOCH;
        for piece in Piece::ALL {
            let verdict = memory.judge(piece, &asked, "x", now);
            assert!(matches!(verdict, Verdict::Write(Some(_))), "{piece}");
        }
    }
}
