//! How the proofs are written.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::output;
use crate::federation::proof::{Evidence, Proof};

/// The answer for people: each direction, its claims, and how the newest bundle came.
pub(super) fn text(proofs: &[Proof], without_view: bool) -> String {
    let mut text = String::new();
    for proof in proofs {
        let _ = writeln!(
            text,
            "{} trusts {} ({}): {}",
            proof.importer,
            proof.exporter,
            proof.cluster,
            verdict(proof, without_view)
        );
        for step in &proof.steps {
            let (sign, said) = match &step.evidence {
                Evidence::For(said) => ("yes", said),
                Evidence::Against(said) => ("NO", said),
                Evidence::Missing(said) => ("not seen", said),
            };
            let _ = writeln!(
                text,
                "  {:<10} {sign:<9} {}",
                step.claim.id(),
                output::visible(said)
            );
        }
        let mut former = None;
        for event in &proof.events {
            let after = former.map_or_else(String::new, |former| {
                let took = event.at.duration_since(former);
                format!("  (after {:.1} s)", took.as_secs_f64())
            });
            let _ = writeln!(
                text,
                "  {:.0}  {}{after}",
                event.at,
                output::visible(&event.what)
            );
            former = Some(event.at);
        }
        text.push('\n');
    }
    let proven = proofs.iter().filter(|it| it.holds(without_view)).count();
    let _ = writeln!(
        text,
        "{proven} of {} proven",
        output::plural(proofs.len(), "edge")
    );
    text
}

/// What came of it, in a few words.
fn verdict(proof: &Proof, without_view: bool) -> &'static str {
    match (proof.holds(without_view), proof.is_by_git_alone()) {
        (true, true) => "proven; the keys came by git, as no endpoint serves them",
        (true, false) => "proven",
        (false, _) => "NOT PROVEN",
    }
}

/// The answer for programs.
pub(super) fn json(proofs: &[Proof], without_view: bool) -> Value {
    let proofs = proofs.iter().map(|proof| {
        let steps = proof.steps.iter().map(|step| {
            let (status, seen) = match &step.evidence {
                Evidence::For(seen) => ("proven", seen),
                Evidence::Against(seen) => ("refuted", seen),
                Evidence::Missing(seen) => ("unseen", seen),
            };
            json!({
                "claim": step.claim.id(), "needed": step.claim.is_needed(),
                "status": status, "seen": seen,
            })
        });
        let events = proof.events.iter();
        let events = events.map(|it| json!({"at": it.at.to_string(), "what": it.what}));
        json!({
            "importer": proof.importer.as_str(), "cluster": proof.cluster,
            "exporter": proof.exporter.as_str(), "version": proof.version,
            "proven": proof.holds(without_view), "byGitAlone": proof.is_by_git_alone(),
            "claims": steps.collect::<Vec<_>>(), "timeline": events.collect::<Vec<_>>(),
        })
    });
    json!({"proofs": proofs.collect::<Vec<_>>()})
}
