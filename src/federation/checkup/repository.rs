//! A repository, as all agents read it.

use super::{About, Amiss, Check, Level, RepositoryFacts, Seen};
use crate::model::{
    attestation::Rejection,
    diagnostic::{Diagnostic, Severity},
};

pub(super) const CHECKS: &[Check<RepositoryFacts>] = &[
    Check {
        about: About {
            id: "repository-valid",
            level: Level::Repository,
            severity: Severity::Error,
            title: "the repository has no error",
            why: "a broken file is not used: what was good stays in force, and nothing new of it arrives",
            cure: "`trustweave check` shows each with its place and what to do",
        },
        look: valid,
    },
    Check {
        about: About {
            id: "repository-sound",
            level: Level::Repository,
            severity: Severity::Warning,
            title: "the repository gives no warning",
            why: "what is written is used, and is probably not what was meant",
            cure: "`trustweave check` shows each with its place and what to do",
        },
        look: sound,
    },
    Check {
        about: About {
            id: "bundle-published",
            level: Level::Repository,
            severity: Severity::Warning,
            title: "every trust domain publishes a bundle",
            why: "its peers stay Pending: there is nothing to deliver",
            cure: "see why its agent does not publish: `trustweave status` in its cluster",
        },
        look: published,
    },
    Check {
        about: About {
            id: "bundle-verified",
            level: Level::Repository,
            severity: Severity::Error,
            title: "every published bundle is signed by a declared signer, for the declared endpoint and epoch",
            why: "it is never delivered; what was delivered before stays",
            cure: "compare the signer in the trust domain's declaration with the one that its GitSync shows; a \
                   signature that nobody of yours made is an attack",
        },
        look: verified,
    },
];

fn diagnostics(facts: &RepositoryFacts, matters: impl Fn(&Diagnostic) -> bool) -> Seen {
    let told = facts.diagnostics.iter().filter(|it| matters(it));
    let amiss = told.map(|it| {
        let place = match it.position {
            Some(position) => format!("{}:{position}", it.path),
            None => it.path.to_string(),
        };
        Amiss::new(place, format!("{} ({})", it.message, it.code))
    });
    amiss.collect::<Vec<_>>().into()
}

fn valid(facts: &RepositoryFacts) -> Seen {
    diagnostics(facts, Diagnostic::is_error)
}

fn sound(facts: &RepositoryFacts) -> Seen {
    diagnostics(facts, |it| !it.is_error())
}

fn published(facts: &RepositoryFacts) -> Seen {
    let unpublished = facts
        .publications
        .iter()
        .filter(|(_, it)| matches!(it, Err(Rejection::Unpublished)));
    let amiss = unpublished.map(|(name, _)| Amiss::new(name.as_str(), "nothing is published"));
    amiss.collect::<Vec<_>>().into()
}

fn verified(facts: &RepositoryFacts) -> Seen {
    let amiss = facts.publications.iter().filter_map(|(name, it)| match it {
        Err(Rejection::Unpublished) | Ok(_) => None,
        Err(rejection) => Some(Amiss::new(name.as_str(), rejection.to_string())),
    });
    amiss.collect::<Vec<_>>().into()
}
