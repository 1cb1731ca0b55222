//! Somebody else writes the same: after two reverts the agent stops, and says who it is.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Installation;
use crate::model::{bundle::Digest, manifest::ObjectRef};

/// A part of the installation that is written as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// The digest of what we wrote last, of each piece.
    pub written: BTreeMap<Piece, Digest>,
    /// Who undid it since.
    pub reverts: Vec<Revert>,
    /// The text of the annotation [`super::RESUME`] that was heeded last.
    pub resumed: Option<String>,
}
