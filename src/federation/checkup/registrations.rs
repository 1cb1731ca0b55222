//! The registrations of workloads: `ClusterSPIFFEID`s and `ClusterStaticEntry`s.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

use super::{
    About, Amiss, Check, ClusterFacts, Level, Seen, named,
    relationships::{is_of_class, other_class, reconciled},
};
use crate::{
    federation::{
        installation::meaning::items,
        objects::{CLUSTER_SPIFFE_ID, is_probe},
    },
    model::diagnostic::Severity,
};

pub(super) const CHECKS: &[Check<ClusterFacts>] = &[
    Check {
        about: About {
            id: "registration-class",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "every registration is of the class that the controller manager reconciles",
            why: "it ignores an object of another class without a word: the workload gets no identity by it",
            cure: "set `spec.className` to the controller manager's `className`",
        },
        look: class,
    },
    Check {
        about: About {
            id: "registration-accepted",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "SPIRE accepts every registration's entries",
            why: "new pods get no identity while SPIRE refuses the entry; existing ones keep theirs until it ends",
            cure: "take the peer that SPIRE holds no bundle of out of `federatesWith` until it is Federated: the \
                   annotation trustweave.dev/federates-with has the agent do that by itself",
        },
        look: accepted,
    },
    Check {
        about: About {
            id: "registration-rendered",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "every registration's template can be rendered for the pods that it selects",
            why: "the pods for which it can't get no entry",
            cure: "correct `spiffeIDTemplate`; the controller manager's log says what is wrong with it",
        },
        look: rendered,
    },
    Check {
        about: About {
            id: "registration-selects",
            level: Level::Cluster,
            severity: Severity::Warning,
            title: "every registration selects at least one pod",
            why: "a selector that matches nothing is no error to SPIRE: the workload just has no identity",
            cure: "compare `namespaceSelector` and `podSelector` with the labels of the namespace and of the pods",
        },
        look: selects,
    },
    Check {
        about: About {
            id: "registration-unmasked",
            level: Level::Cluster,
            severity: Severity::Warning,
            title: "no registration is masked by another",
            why: "of two registrations with the same SPIFFE ID for one pod one has no effect, and with it its \
                  `federatesWith`",
            cure: "merge the two, or give them different SPIFFE IDs",
        },
        look: unmasked,
    },
    Check {
        about: About {
            id: "registration-peers",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "whoever a registration federates with has a relationship",
            why: "SPIRE refuses every entry of a registration that names one trust domain without a bundle; a \
                  removed peer that is still named stays trusted",
            cure: "take the trust domain out of `federatesWith`, or add an edge to the topology",
        },
        look: peers,
    },
    Check {
        about: About {
            id: "peer-named",
            level: Level::Cluster,
            severity: Severity::Warning,
            title: "every peer is named by some registration",
            why: "a workload gets only the bundles of the trust domains that its registration federates with: it has \
                  an SVID, and refuses the peer",
            cure: "add the peer to `federatesWith`, or annotate the registration with \
                   trustweave.dev/federates-with=all",
        },
        look: named_by_some,
    },
];

/// What people registered, of the controller manager's class.
pub fn registrations(facts: &ClusterFacts) -> impl Iterator<Item = &Value> {
    let all = facts.objects.registrations.iter();
    all.filter(|it| !is_probe(it) && is_of_class(facts, it).unwrap_or(true))
}

/// What is counted in the status of a `ClusterSPIFFEID`; `None` for other kinds, and before the first pass.
fn stats(object: &Value) -> Option<&Value> {
    let of_pods = object["kind"] == CLUSTER_SPIFFE_ID;
    let stats = object.get("status")?.get("stats")?;
    (of_pods && stats.is_object()).then_some(stats)
}

fn count(stats: &Value, key: &str) -> u64 {
    stats[key].as_u64().unwrap_or_default()
}

fn by_stats(facts: &ClusterFacts, amiss: impl Fn(&Value, &Value) -> Option<String>) -> Seen {
    let told = registrations(facts).filter_map(|object| {
        let seen = amiss(object, stats(object)?)?;
        Some(Amiss::new(named(object), seen))
    });
    told.collect::<Vec<_>>().into()
}

fn class(facts: &ClusterFacts) -> Seen {
    let all = || facts.objects.registrations.iter();
    if all().any(|it| is_of_class(facts, it).is_none()) {
        return Seen::Unknown("the controller manager's class is not known".to_owned());
    }
    let amiss: Vec<_> = all().filter_map(|it| other_class(facts, it)).collect();
    amiss.into()
}

fn accepted(facts: &ClusterFacts) -> Seen {
    by_stats(facts, |object, stats| {
        let failures = count(stats, "entryFailures");
        let with: Vec<_> = federates_with(object).collect();
        let with = if with.is_empty() {
            "nobody".to_owned()
        } else {
            with.join(", ")
        };
        (failures > 0)
            .then(|| format!("SPIRE refused {failures} of its entries; it federates with {with}"))
    })
}

fn rendered(facts: &ClusterFacts) -> Seen {
    by_stats(facts, |_, stats| {
        let failures = count(stats, "podEntryRenderFailures");
        (failures > 0).then(|| format!("its template could not be rendered for {failures} pods"))
    })
}

fn selects(facts: &ClusterFacts) -> Seen {
    by_stats(facts, |object, stats| {
        if count(stats, "podsSelected") > 0 {
            return None;
        }
        if count(stats, "namespacesSelected") == 0 {
            return Some("it selects no namespace".to_owned());
        }
        let ignored = count(stats, "namespacesIgnored");
        if ignored > 0 {
            return Some(format!(
                "{ignored} of the namespaces that it selects are ones that the controller manager ignores{}",
                ignoring(facts, object)
            ));
        }
        Some("it selects no pod in the namespaces that it selects".to_owned())
    })
}

/// The expressions by which the controller manager ignores the one namespace that an object selects by
/// its name, in words.
fn ignoring(facts: &ClusterFacts, object: &Value) -> String {
    let labels = &object["spec"]["namespaceSelector"]["matchLabels"];
    let namespace = labels["kubernetes.io/metadata.name"].as_str();
    let manager = facts.server.as_ref();
    let manager = manager.and_then(|(_, it)| it.controller_manager.as_ref());
    let (Some(namespace), Some(manager)) = (namespace, manager) else {
        return String::new();
    };
    let matches = |it: &&String| Regex::new(it).is_ok_and(|it| it.is_match(namespace));
    let found = manager.ignored_namespaces.iter().find(matches);
    found.map_or_else(String::new, |it| format!(": ignoreNamespaces has `{it}`"))
}

fn unmasked(facts: &ClusterFacts) -> Seen {
    by_stats(facts, |_, stats| {
        let masked = count(stats, "entriesMasked");
        (masked > 0)
            .then(|| format!("{masked} of its entries are masked by another registration's"))
    })
}

fn federates_with(object: &Value) -> impl Iterator<Item = &str> {
    items(&object["spec"]["federatesWith"]).filter_map(Value::as_str)
}

fn related(facts: &ClusterFacts) -> BTreeSet<&str> {
    let all = reconciled(facts);
    all.filter_map(|it| it["spec"]["trustDomain"].as_str())
        .collect()
}

fn peers(facts: &ClusterFacts) -> Seen {
    let related = related(facts);
    let amiss = registrations(facts).flat_map(|object| {
        let strangers = federates_with(object).filter(|it| !related.contains(it));
        strangers.map(move |it| {
            Amiss::new(
                named(object),
                format!("it federates with `{it}`, for which there is no relationship"),
            )
        })
    });
    amiss.collect::<Vec<_>>().into()
}

fn named_by_some(facts: &ClusterFacts) -> Seen {
    let all: BTreeSet<&str> = registrations(facts).flat_map(federates_with).collect();
    let unnamed = related(facts).into_iter().filter(|it| !all.contains(it));
    let amiss = unnamed.map(|it| Amiss::new(it, "no registration federates with it"));
    amiss.collect::<Vec<_>>().into()
}
