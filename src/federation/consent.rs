//! Consent of both sides: an edge is active only when both trust domains' own files agree.

use crate::model::{declarations::Declarations, topology::Edge, trust_domain::TrustDomain};

/// Whether an edge is active, and if not, whose move it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Both sides agree.
    Given,
    /// Somebody has yet to agree.
    Missing {
        /// The trust domains whose declaration has to change, with the line that it lacks.
        moves: Vec<Move>,
    },
}

/// What a trust domain's owners have to write to agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Whose declaration has to change.
    pub owner: TrustDomain,
    /// `import` or `export`.
    pub list: &'static str,
    /// The name that the list lacks.
    pub peer: TrustDomain,
}

impl std::fmt::Display for Move {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the owners of `{}` must add `{}` to consent.{}",
            self.owner, self.peer, self.list
        )
    }
}

/// Looks up both sides' consent to an edge.
pub fn consent(edge: &Edge, declarations: &Declarations) -> Consent {
    let import = declarations
        .trust_domains
        .get(&edge.importer)
        .map(|spec| &spec.consent.import);
    let export = declarations
        .trust_domains
        .get(&edge.exporter)
        .map(|spec| &spec.consent.export);
    let mut moves = Vec::new();
    if !import.is_some_and(|names| names.contains(&edge.exporter)) {
        moves.push(Move {
            owner: edge.importer.clone(),
            list: "import",
            peer: edge.exporter.clone(),
        });
    }
    if !export.is_some_and(|names| names.contains(&edge.importer)) {
        moves.push(Move {
            owner: edge.exporter.clone(),
            list: "export",
            peer: edge.importer.clone(),
        });
    }
    if moves.is_empty() {
        Consent::Given
    } else {
        Consent::Missing { moves }
    }
}
