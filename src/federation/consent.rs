//! Consent of both sides: an edge is active only when both trust domains' own files agree.

use crate::model::{
    declarations::Declarations,
    repository::{RepoPath, trust_domain_path},
    topology::Edge,
    trust_domain::TrustDomain,
};

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
    /// What one side says can't be read: what is in force stays in force.
    Unknown {
        /// The file that can't be used.
        path: RepoPath,
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

/// Looks up both sides' consent to an edge of the topology.
pub fn consent(edge: &Edge, declarations: &Declarations) -> Consent {
    let mut moves = Vec::new();
    for (owner, list, peer) in [
        (&edge.importer, "import", &edge.exporter),
        (&edge.exporter, "export", &edge.importer),
    ] {
        let Some(declaration) = declarations.trust_domains.get(owner) else {
            return Consent::Unknown {
                path: trust_domain_path(owner),
            };
        };
        let names = match list {
            "import" => &declaration.consent.import,
            _ => &declaration.consent.export,
        };
        if !names.contains(peer) {
            moves.push(Move {
                owner: owner.clone(),
                list,
                peer: peer.clone(),
            });
        }
    }
    if moves.is_empty() {
        Consent::Given
    } else {
        Consent::Missing { moves }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(a: &str, b: Option<&str>, expected: &str) {
        let declaration = |consent: &str| {
            serde_json::from_value(serde_json::json!({
                "clusters": [], "signers": [], "bundleEndpoint": "none",
                "spire": {"distribution": "custom", "namespace": "s", "className": "c"},
                "consent": serde_json::from_str::<serde_json::Value>(consent).unwrap(),
            }))
            .unwrap()
        };
        let name = |name: &str| TrustDomain::parse(name).unwrap();
        let mut declarations = Declarations::default();
        declarations.trust_domains.insert(name("a"), declaration(a));
        if let Some(b) = b {
            declarations.trust_domains.insert(name("b"), declaration(b));
        }
        let edge = Edge {
            importer: name("a"),
            exporter: name("b"),
        };
        let found = match consent(&edge, &declarations) {
            Consent::Given => "given".to_owned(),
            Consent::Unknown { path } => format!("unknown: {path}"),
            Consent::Missing { moves } => moves
                .iter()
                .map(|needed| format!("{} {}", needed.owner, needed.list))
                .collect::<Vec<_>>()
                .join(", "),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn both_sides_must_agree_by_name() {
        check(
            r#"{"import": ["b"]}"#,
            Some(r#"{"export": ["a"]}"#),
            "given",
        );
        check(
            r#"{"export": ["b"]}"#,
            Some(r#"{"export": ["a"]}"#),
            "a import",
        );
        check(
            r#"{"import": ["b"]}"#,
            Some(r#"{"import": ["a"]}"#),
            "b export",
        );
        check("{}", Some("{}"), "a import, b export");
        check(
            r#"{"import": ["b"]}"#,
            None,
            "unknown: trust-domains/b/trust-domain.yaml",
        );
    }
}
