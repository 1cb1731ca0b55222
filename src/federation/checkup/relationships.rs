//! The relationships with peers: `ClusterFederatedTrustDomain`s.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{About, Amiss, Check, ClusterFacts, Level, Seen, named, server::unfound};
use crate::{
    federation::{guard::MAX_TOTAL_BYTES, installation::meaning::name, objects::is_cut},
    model::{
        bundle::{Bundle, InvalidBundle, MAX_BUNDLE_BYTES, REFRESH_HINT_SECONDS},
        diagnostic::Severity,
        trust_domain::{SpiffeId, TrustDomain},
    },
};

pub(super) const CHECKS: &[Check<ClusterFacts>] = &[
    Check {
        about: About {
            id: "relationship-class",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "every relationship is of the class that the controller manager reconciles",
            why: "it ignores an object of another class without a word: the most frequent mistake of all",
            cure: "set `spec.className` to the controller manager's `className`",
        },
        look: class,
    },
    Check {
        about: About {
            id: "relationship-valid",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "every relationship is one that the controller manager accepts",
            why: "it ignores an invalid one, and deletes the relationship that SPIRE had by it",
            cure: "correct the field that is named; where the agent keeps the relationship, it writes it anew",
        },
        look: valid,
    },
    Check {
        about: About {
            id: "relationship-unique",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "there is one relationship for each trust domain",
            why: "of two, the controller manager ignores the younger: what is changed there has no effect",
            cure: "delete the younger one",
        },
        look: unique,
    },
    Check {
        about: About {
            id: "relationship-foreign",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "no relationship is with the cluster's own trust domain",
            why: "SPIRE refuses it; two clusters with one trust domain can't federate",
            cure: "give each cluster a trust domain of its own",
        },
        look: foreign,
    },
    Check {
        about: About {
            id: "relationship-address",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "every relationship's URL is written as SPIRE writes it, and its path is `/`",
            why: "SPIRE's endpoint answers 404 on any other path; a URL that SPIRE writes otherwise makes the \
                  controller manager push the bundle again every ten seconds, over what SPIRE has polled",
            cure: "write `https://<host in lower case>[:port]`, without a path",
        },
        look: address,
    },
    Check {
        about: About {
            id: "relationship-seeded",
            level: Level::Cluster,
            severity: Severity::Warning,
            title: "every relationship by https_spiffe brings a first bundle",
            why: "without one SPIRE can't verify the endpoint: `local copy of bundle not found`",
            cure: "put the peer's bundle into `spec.trustDomainBundle`, or let the agent deliver it",
        },
        look: seeded,
    },
    Check {
        about: About {
            id: "bundle-usable",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "every relationship's bundle holds a root of the peer that has not ended",
            why: "with an empty bundle nothing of the peer is trusted, and its endpoint can never prove itself \
                  again; an ended root is `certificate signed by unknown authority`",
            cure: "deliver a current bundle together with a new fragment of the URL, as the agent does; to change \
                   `trustDomainBundle` alone has no effect",
        },
        look: usable,
    },
    Check {
        about: About {
            id: "bundle-hint",
            level: Level::Cluster,
            severity: Severity::Warning,
            title: "every relationship's bundle has a refresh hint of 60 to 300 seconds",
            why: "without one, a single failed poll makes SPIRE wait for a fortieth of the authority's life: 36 \
                  minutes with 24 hours; with a day, nothing wakes it for six hours",
            cure: "add `\"spiffe_refresh_hint\": 60` to the bundle, as the agent does",
        },
        look: hint,
    },
    Check {
        about: About {
            id: "bundle-size",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "the peers' bundles fit into what SPIRE's components send each other",
            why: "beyond 4 MiB in sum all work on relationships stops, and workloads that federate with nobody \
                  get no identity either",
            cure: "take the large bundle away: delete its relationship's registrations first",
        },
        look: size,
    },
    Check {
        about: About {
            id: "relationship-polled",
            level: Level::Cluster,
            severity: Severity::Warning,
            title: "no `federates_with` of the server's configuration stands before a relationship",
            why: "SPIRE polls what stands in its configuration, and a relationship's URL has no effect; deleting \
                  the relationship does not end the polling. Rotation does not need `federates_with`",
            cure: "take the peer out of `federates_with`, and restart the server",
        },
        look: shadowed,
    },
];

/// Where SPIRE polls a relationship's peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polled {
    /// The relationship's name.
    pub name: String,
    /// The peer.
    pub trust_domain: TrustDomain,
    /// The URL.
    pub url: String,
    /// The SPIFFE ID that the endpoint must prove, of `https_spiffe`.
    pub spiffe_id: Option<SpiffeId>,
    /// The bundle that stands in the relationship.
    pub bundle: Option<Bundle>,
}

/// The relationships that SPIRE polls, as far as they can be read.
pub fn polled(facts: &ClusterFacts) -> Vec<Polled> {
    let read = |object: &Value| {
        let spec = &object["spec"];
        let url = spec["bundleEndpointURL"].as_str()?;
        let text = spec["trustDomainBundle"].as_str();
        let id = spec["bundleEndpointProfile"]["endpointSPIFFEID"].as_str();
        Some(Polled {
            name: name(object).to_owned(),
            trust_domain: TrustDomain::parse(spec["trustDomain"].as_str()?).ok()?,
            url: url.to_owned(),
            spiffe_id: id.and_then(|id| SpiffeId::parse(id).ok()),
            bundle: text.and_then(|text| Bundle::parse(text.as_bytes()).ok()),
        })
    };
    let mut all: Vec<Polled> = reconciled(facts).filter_map(read).collect();
    all.retain(|it| !is_cut(&it.url));
    all
}

/// The relationships of the controller manager's class; all of them if it is not known.
pub(super) fn reconciled(facts: &ClusterFacts) -> impl Iterator<Item = &Value> {
    let all = facts.objects.relationships.iter();
    all.filter(|object| is_of_class(facts, object).unwrap_or(true))
}

/// Whether the controller manager reconciles an object; `None` if that can't be known.
pub(super) fn is_of_class(facts: &ClusterFacts, object: &Value) -> Option<bool> {
    let (_, installation) = facts.server.as_ref()?;
    let class = object["spec"]["className"].as_str();
    if let Some(manager) = &installation.controller_manager {
        return Some(manager.reconciles(class));
    }
    let own = installation.class_name.as_ref()?;
    Some(class == Some(own.value.as_str()))
}

/// What is wrong with an object's class.
pub(super) fn other_class(facts: &ClusterFacts, object: &Value) -> Option<Amiss> {
    if is_of_class(facts, object)? {
        return None;
    }
    let (_, installation) = facts.server.as_ref()?;
    let own = installation.class_name.as_ref();
    let own = own.map_or("none", |own| own.value.as_str());
    let seen = match object["spec"]["className"].as_str() {
        Some(class) => format!("its className is `{class}`, the controller manager's is `{own}`"),
        None => format!("it has no className, the controller manager's is `{own}`"),
    };
    Some(Amiss::new(named(object), seen))
}

fn class(facts: &ClusterFacts) -> Seen {
    let mut all = facts.objects.relationships.iter();
    if all.clone().any(|it| is_of_class(facts, it).is_none()) {
        return Seen::Unknown("the controller manager's class is not known".to_owned());
    }
    let amiss: Vec<_> = all
        .by_ref()
        .filter_map(|it| other_class(facts, it))
        .collect();
    amiss.into()
}

/// As `ParseClusterFederatedTrustDomainSpec` of spire-controller-manager judges.
fn valid(facts: &ClusterFacts) -> Seen {
    let amiss =
        reconciled(facts).filter_map(|object| Some(Amiss::new(named(object), invalid(object)?)));
    amiss.collect::<Vec<_>>().into()
}

fn invalid(object: &Value) -> Option<String> {
    let spec = &object["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if let Err(error) = TrustDomain::parse(&text(&spec["trustDomain"])) {
        return Some(error.to_string());
    }
    let url = text(&spec["bundleEndpointURL"]);
    let rest = url
        .split_once("://")
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("https"));
    let Some((_, rest)) = rest else {
        return Some(format!("its URL `{url}` is not https"));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') {
        return Some(format!("its URL `{url}` has no host, or a user name"));
    }
    let profile = &spec["bundleEndpointProfile"];
    let id = profile["endpointSPIFFEID"].as_str();
    match (text(&profile["type"]).as_str(), id) {
        ("https_spiffe", None) => return Some("https_spiffe has no endpointSPIFFEID".to_owned()),
        ("https_spiffe", Some(id)) => {
            if let Err(error) = SpiffeId::parse(id) {
                return Some(error.to_string());
            }
        }
        ("https_web", Some(_)) => return Some("https_web has an endpointSPIFFEID".to_owned()),
        _ => {}
    }
    let bundle = spec["trustDomainBundle"]
        .as_str()
        .filter(|text| !text.is_empty())?;
    match Bundle::parse(bundle.as_bytes()) {
        Ok(_) | Err(InvalidBundle::TooLarge(_)) => None,
        Err(error) => Some(format!("its trustDomainBundle: {error}")),
    }
}

/// The oldest of several counts, then the smaller UID.
fn unique(facts: &ClusterFacts) -> Seen {
    let mut of: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for object in reconciled(facts) {
        let trust_domain = object["spec"]["trustDomain"].as_str().unwrap_or_default();
        of.entry(trust_domain).or_default().push(object);
    }
    let mut amiss = Vec::new();
    for (trust_domain, mut objects) in of {
        let text =
            |it: &Value, key: &str| it["metadata"][key].as_str().unwrap_or_default().to_owned();
        objects.sort_by_key(|it| (text(it, "creationTimestamp"), text(it, "uid")));
        let mut objects = objects.into_iter();
        let oldest = objects.next().map(name).unwrap_or_default();
        amiss.extend(objects.map(|it| {
            let seen = format!("it is for `{trust_domain}`, as the older {oldest} is");
            Amiss::new(named(it), seen)
        }));
    }
    amiss.into()
}

fn foreign(facts: &ClusterFacts) -> Seen {
    let Some(own) = facts.trust_domain() else {
        return unfound();
    };
    let own = reconciled(facts).filter(|it| it["spec"]["trustDomain"] == own.as_str());
    let amiss = own.map(|it| Amiss::new(named(it), "it is for the cluster's own trust domain"));
    amiss.collect::<Vec<_>>().into()
}

fn address(facts: &ClusterFacts) -> Seen {
    let amiss = reconciled(facts).filter_map(|object| {
        let url = object["spec"]["bundleEndpointURL"].as_str()?;
        // Of another's endpoint nothing is known but that it is not SPIRE's.
        let of_spire = object["spec"]["bundleEndpointProfile"]["endpointSPIFFEID"]
            .as_str()
            .is_some_and(|id| id.ends_with("/spire/server"));
        let (scheme, rest) = url.split_once("://")?;
        // Another scheme makes it invalid, which is told elsewhere.
        if !scheme.eq_ignore_ascii_case("https") {
            return None;
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        if scheme != "https" {
            Some(Amiss::new(
                named(object),
                format!("the scheme `{scheme}` of its URL is not in lower case"),
            ))
        } else if authority != authority.to_lowercase() {
            Some(Amiss::new(
                named(object),
                format!("the host `{authority}` of its URL is not in lower case"),
            ))
        } else if of_spire && !matches!(path, "" | "/") {
            Some(Amiss::new(
                named(object),
                format!("its URL has the path `{path}`"),
            ))
        } else {
            None
        }
    });
    amiss.collect::<Vec<_>>().into()
}

fn seeded(facts: &ClusterFacts) -> Seen {
    let own = facts.trust_domain();
    let amiss = reconciled(facts).filter(|object| {
        let spec = &object["spec"];
        let id = spec["bundleEndpointProfile"]["endpointSPIFFEID"].as_str();
        let id = id.and_then(|id| SpiffeId::parse(id).ok());
        let by_own = id
            .as_ref()
            .is_some_and(|id| Some(&id.trust_domain()) == own);
        // The agent leaves the bundle out where SPIRE is to keep what it holds.
        let remembered = object["metadata"]["annotations"]["trustweave.dev/serial"].is_string();
        let empty = spec["trustDomainBundle"].as_str().is_none_or(str::is_empty);
        id.is_some() && empty && !by_own && !remembered
    });
    let amiss = amiss.map(|it| Amiss::new(named(it), "it has no trustDomainBundle"));
    amiss.collect::<Vec<_>>().into()
}

/// The readable bundles of relationships that are not cut on purpose.
fn bundles(facts: &ClusterFacts) -> impl Iterator<Item = (&Value, TrustDomain, Bundle)> {
    reconciled(facts).filter_map(|object| {
        let spec = &object["spec"];
        let url = spec["bundleEndpointURL"].as_str().unwrap_or_default();
        let text = spec["trustDomainBundle"].as_str()?;
        let trust_domain = TrustDomain::parse(spec["trustDomain"].as_str()?).ok()?;
        let bundle = Bundle::parse(text.as_bytes()).ok()?;
        let taken_away = is_cut(url) && bundle.x509_authorities.is_empty();
        (!taken_away).then_some((object, trust_domain, bundle))
    })
}

fn usable(facts: &ClusterFacts) -> Seen {
    let amiss = bundles(facts).filter_map(|(object, trust_domain, bundle)| {
        let error = bundle.check(&trust_domain, facts.now).err()?;
        Some(Amiss::new(named(object), error.to_string()))
    });
    amiss.collect::<Vec<_>>().into()
}

fn hint(facts: &ClusterFacts) -> Seen {
    let amiss = bundles(facts).filter_map(|(object, _, bundle)| {
        let seen = match bundle.refresh_hint {
            None => "its bundle has no spiffe_refresh_hint".to_owned(),
            Some(hint) if !REFRESH_HINT_SECONDS.contains(&hint) => {
                format!("its bundle's spiffe_refresh_hint is {hint}")
            }
            Some(_) => return None,
        };
        Some(Amiss::new(named(object), seen))
    });
    amiss.collect::<Vec<_>>().into()
}

fn size(facts: &ClusterFacts) -> Seen {
    let bytes = |it: &Value| it["spec"]["trustDomainBundle"].as_str().map_or(0, str::len);
    let large = reconciled(facts).filter(|it| bytes(it) > MAX_BUNDLE_BYTES);
    let mut amiss: Vec<_> = large
        .map(|it| Amiss::new(named(it), format!("its bundle has {} bytes", bytes(it))))
        .collect();
    let sum: usize = reconciled(facts).map(bytes).sum();
    if sum > MAX_TOTAL_BYTES {
        amiss.push(Amiss::new(
            "ClusterFederatedTrustDomains",
            format!("their bundles have {sum} bytes together"),
        ));
    }
    amiss.into()
}

fn shadowed(facts: &ClusterFacts) -> Seen {
    let Ok((_, installation)) = facts.installation() else {
        return unfound();
    };
    let configured = &installation.configuration.federates_with;
    let amiss = polled(facts).into_iter().filter_map(|relationship| {
        let found = configured.get(&relationship.trust_domain)?;
        let url = relationship.url.split('#').next().unwrap_or_default();
        let url = url.trim_end_matches('/');
        let seen = if found.value.url == url && found.value.spiffe_id == relationship.spiffe_id {
            format!("{} names the same peer, with the same address", found.place)
        } else {
            format!(
                "{} has another address for the peer: {}",
                found.place, found.value.url
            )
        };
        Some(Amiss::new(
            format!("ClusterFederatedTrustDomain {}", relationship.name),
            seen,
        ))
    });
    amiss.collect::<Vec<_>>().into()
}
