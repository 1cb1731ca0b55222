//! What the peers' bundle endpoints answer.

use super::{
    About, Amiss, Answer, Check, ClusterFacts, Level, Polled, Seen, facts::Silence,
    relationships::polled,
};
use crate::model::{bundle::Bundle, diagnostic::Severity};

pub(super) const CHECKS: &[Check<ClusterFacts>] = &[
    Check {
        about: About {
            id: "endpoint-reachable",
            level: Level::Endpoint,
            severity: Severity::Warning,
            title: "every peer's bundle endpoint answers",
            why: "SPIRE can't poll it: only git brings the peer's new keys",
            cure: "look at the Route or Ingress of the peer, at its Service, and at what may be between: DNS, \
                   network policies, a proxy. The doctor asks from where it runs, not from the cluster",
        },
        look: reachable,
    },
    Check {
        about: About {
            id: "endpoint-proven",
            level: Level::Endpoint,
            severity: Severity::Error,
            title: "every peer's bundle endpoint proves to be the expected one",
            why: "SPIRE refuses it, on every poll and for ever: either the bundle that stands here is older than the \
                  peer's keys, or somebody on the way ends TLS",
            cure: "deliver the peer's current bundle with a new fragment of the URL, as the agent does; make the way \
                   to the endpoint a TLS passthrough",
        },
        look: proven,
    },
    Check {
        about: About {
            id: "endpoint-bundle",
            level: Level::Endpoint,
            severity: Severity::Error,
            title: "every peer's bundle endpoint serves a bundle that may be used",
            why: "SPIRE takes `{}` or an empty list of keys for an empty bundle, stores it, and can't poll again",
            cure: "mend the peer's endpoint; then deliver its bundle with a new fragment of the URL",
        },
        look: serves,
    },
    Check {
        about: About {
            id: "endpoint-agrees",
            level: Level::Endpoint,
            severity: Severity::Warning,
            title: "every peer's bundle endpoint serves a key of the bundle that stands here",
            why: "what stands here is no longer what the peer signs with",
            cure: "deliver the peer's current bundle; see why git did not bring it",
        },
        look: agrees,
    },
];

/// The polled relationships with what their endpoints answered.
fn answered(facts: &ClusterFacts) -> impl Iterator<Item = (Polled, &Answer)> {
    polled(facts).into_iter().filter_map(|it| {
        let answer = facts.answers.get(&it.name)?;
        Some((it, answer))
    })
}

fn each(facts: &ClusterFacts, amiss: impl Fn(&Polled, &Answer) -> Option<String>) -> Seen {
    if polled(facts).is_empty() {
        return Seen::Unknown("no relationship has an endpoint that is polled".to_owned());
    }
    let mut asked = 0;
    let mut told = Vec::new();
    let mut why = "no endpoint was asked".to_owned();
    for (relationship, answer) in answered(facts) {
        if let Err(Silence::NotAsked(reason)) = answer {
            why = format!("{}: {reason}", relationship.trust_domain);
            continue;
        }
        asked += 1;
        if let Some(seen) = amiss(&relationship, answer) {
            let url = relationship.url.split('#').next().unwrap_or_default();
            told.push(Amiss::new(
                format!("{} ({url})", relationship.trust_domain),
                seen,
            ));
        }
    }
    if asked == 0 {
        Seen::Unknown(why)
    } else {
        told.into()
    }
}

fn reachable(facts: &ClusterFacts) -> Seen {
    each(facts, |_, answer| match answer {
        Err(Silence::Unreachable(why)) => Some(why.clone()),
        _ => None,
    })
}

fn proven(facts: &ClusterFacts) -> Seen {
    each(facts, |_, answer| match answer {
        Err(Silence::Unproven(why)) => Some(why.clone()),
        _ => None,
    })
}

fn serves(facts: &ClusterFacts) -> Seen {
    each(facts, |relationship, answer| match answer {
        Err(Silence::NoBundle(why)) => Some(why.clone()),
        Ok(bundle) => {
            let judged = bundle.check(&relationship.trust_domain, facts.now);
            judged.err().map(|error| error.to_string())
        }
        Err(_) => None,
    })
}

fn agrees(facts: &ClusterFacts) -> Seen {
    each(facts, |relationship, answer| {
        let served = answer.as_ref().ok()?;
        let here = relationship.bundle.as_ref()?;
        (!shares_a_root(served, here))
            .then(|| "none of the roots that it serves stands here".to_owned())
    })
}

/// Whether two bundles have an X.509 authority in common.
pub(super) fn shares_a_root(one: &Bundle, other: &Bundle) -> bool {
    let mut roots = one.x509_authorities.iter();
    roots.any(|root| other.x509_authorities.iter().any(|it| it.key == root.key))
}
