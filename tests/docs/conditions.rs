//! Conditions, their reasons, and the reasons of events: that docs/reference/conditions.md has them all.

use std::collections::BTreeSet;

use super::source::{program, sources};

/// What is found only in files that tell something.
const TELLING: [&str; 7] = [
    "Condition::new(",
    "Condition {",
    "Happening::about(",
    ".tell(",
    "fn reason(&self)",
    "reason: \"",
    "let reason = \"",
];

/// Single capitalised words in those files that are no condition and no reason: kinds, and what objects of
/// Kubernetes and of gateways say themselves.
const OTHERS: &[&str] = &[
    "Accepted",
    "Admitted",
    "BundleAttestation",
    "ClusterIP",
    "ConfigMap",
    "CustomResourceDefinition",
    "False",
    "ImplementationSpecific",
    "Ingress",
    "LoadBalancer",
    "OnDelete",
    "Pod",
    "Prefix",
    "Redirect",
    "Route",
    "Service",
    "SpireServer",
    "StatefulSet",
    "String",
    "True",
    "TrustPeer",
];

/// Every condition and reason that the source names.
pub(crate) fn words() -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for below in ["federation", "model", "reconcile"] {
        for (_, text) in sources(below) {
            let text = program(&text);
            if TELLING.iter().any(|part| text.contains(part)) {
                words.extend(capitalised(&text));
            }
        }
    }
    for other in OTHERS {
        words.remove(*other);
    }
    words
}

/// The literals that are one capitalised word.
fn capitalised(text: &str) -> impl Iterator<Item = String> {
    let parts = text.split('"');
    let words = parts.filter(|part| {
        part.len() > 2
            && part.starts_with(|c: char| c.is_ascii_uppercase())
            && part.contains(|c: char| c.is_ascii_lowercase())
            && part.chars().all(|c| c.is_ascii_alphanumeric())
    });
    words.map(str::to_owned)
}

/// What a page leaves out, and what its tables explain although it is not there.
pub(crate) fn differences(page: &str, words: &BTreeSet<String>) -> Vec<String> {
    let code: BTreeSet<&str> = page.split('`').skip(1).step_by(2).collect();
    let unsaid = words.iter().filter(|word| !code.contains(word.as_str()));
    let unsaid = unsaid.map(|word| format!("`{word}` is not explained"));
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter_map(|row| Some(row.split_once('`')?.0));
    let stale = rows.filter(|row| !words.contains(*row));
    unsaid
        .chain(stale.map(|row| format!("there is no `{row}`")))
        .collect()
}
