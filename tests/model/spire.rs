//! SPIRE and its controller manager as data: what they do with the objects that the agent keeps, as it
//! was seen on the real ones (`tests/e2e/model.rs` compares both).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Certificates as a bundle document has them (`x5c`).
pub(crate) type Keys = BTreeSet<String>;

/// What SPIRE polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relationship {
    pub(crate) url: String,
    pub(crate) profile: Value,
}

/// A trust domain's SPIRE server, with what its controller manager keeps there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spire {
    /// The federated bundles, by trust domain. They outlive their relationships.
    pub(crate) rows: BTreeMap<String, Keys>,
    pub(crate) relationships: BTreeMap<String, Relationship>,
    /// What each entry federates with, by registration and pod.
    pub(crate) entries: BTreeMap<(String, u32), BTreeSet<String>>,
}

/// A valid `ClusterFederatedTrustDomain`.
struct Declared {
    trust_domain: String,
    relationship: Relationship,
    bundle: Option<Keys>,
}

/// Reads a `ClusterFederatedTrustDomain` as the controller manager does; `None` if it is invalid.
fn declared(cftd: &Value) -> Option<Declared> {
    let spec = &cftd["spec"];
    let url = spec["bundleEndpointURL"].as_str()?;
    let host = url.strip_prefix("https://")?.split('/').next()?;
    if host.is_empty() || host.contains('@') {
        return None;
    }
    let profile = &spec["bundleEndpointProfile"];
    match profile["type"].as_str()? {
        "https_web" => {}
        "https_spiffe" => {
            let id = profile["endpointSPIFFEID"].as_str()?;
            id.strip_prefix("spiffe://")
                .filter(|rest| !rest.is_empty())?;
        }
        _ => return None,
    }
    let bundle = match spec.get("trustDomainBundle") {
        None | Some(Value::Null) => None,
        Some(text) => match text.as_str()? {
            "" => None,
            text => Some(keys(text)?),
        },
    };
    Some(Declared {
        trust_domain: spec["trustDomain"].as_str()?.to_owned(),
        relationship: Relationship {
            url: url.to_owned(),
            profile: profile.clone(),
        },
        bundle,
    })
}

/// The certificates of a bundle document; `None` if the controller manager refuses it.
pub(crate) fn keys(document: &str) -> Option<Keys> {
    let document: Value = serde_json::from_str(document).ok()?;
    for number in ["spiffe_refresh_hint", "spiffe_sequence"] {
        document
            .get(number)
            .is_none_or(Value::is_i64)
            .then_some(())?;
    }
    // A key of a use that it does not know is dropped silently.
    let known = document["keys"]
        .as_array()?
        .iter()
        .filter(|key| key["use"] == "x509-svid");
    known
        .map(|key| match key["x5c"].as_array()?.as_slice() {
            [Value::String(certificate)] => Some(certificate.clone()),
            _ => None,
        })
        .collect()
}

impl Spire {
    /// The controller manager's pass over relationships, given its objects, the oldest first.
    /// Returns the trust domains that are polled at once, as their relationship is new.
    pub(crate) fn reconcile_relationships(&mut self, cftds: &[Value]) -> Vec<String> {
        let mut heeded = BTreeMap::new();
        for cftd in cftds {
            if let Some(declared) = declared(cftd) {
                heeded
                    .entry(declared.trust_domain.clone())
                    .or_insert(declared);
            }
        }
        self.relationships
            .retain(|trust_domain, _| heeded.contains_key(trust_domain));
        let mut created = Vec::new();
        for (trust_domain, declared) in heeded {
            let standing = self.relationships.get(&trust_domain);
            // A bundle alone changes nothing.
            if standing == Some(&declared.relationship) {
                continue;
            }
            if standing.is_none() {
                created.push(trust_domain.clone());
            }
            self.relationships
                .insert(trust_domain.clone(), declared.relationship);
            if let Some(bundle) = declared.bundle {
                self.rows.insert(trust_domain, bundle);
            }
        }
        created
    }

    /// The controller manager's pass over registrations, each with its pods. Returns their
    /// `status.stats`. An entry that federates with a trust domain without a bundle is refused, and
    /// what there was stays.
    pub(crate) fn reconcile_entries<'a>(
        &mut self,
        registrations: impl IntoIterator<Item = (&'a Value, u32)>,
    ) -> BTreeMap<String, Value> {
        let mut wanted = BTreeSet::new();
        let mut stats = BTreeMap::new();
        for (registration, pods) in registrations {
            let name = registration["metadata"]["name"]
                .as_str()
                .unwrap_or_default();
            let names = registration["spec"]["federatesWith"].as_array();
            let federates: BTreeSet<String> = names
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            let known = federates.iter().all(|name| self.rows.contains_key(name));
            let mut failures = 0;
            for pod in 0..pods {
                let key = (name.to_owned(), pod);
                wanted.insert(key.clone());
                if self.entries.get(&key) == Some(&federates) {
                    continue;
                }
                if known {
                    self.entries.insert(key, federates.clone());
                } else {
                    failures += 1;
                }
            }
            stats.insert(
                name.to_owned(),
                json!({
                    "podsSelected": pods, "entriesToSet": pods, "entriesMasked": 0,
                    "podEntryRenderFailures": 0, "entryFailures": failures,
                }),
            );
        }
        self.entries.retain(|key, _| wanted.contains(key));
        stats
    }

    /// What a workload of a registration holds, by trust domain.
    pub(crate) fn view(&self, registration: &str) -> BTreeMap<String, Keys> {
        let entries = self.entries.iter();
        let of = entries.filter(|((name, _), _)| name == registration);
        let names = of.flat_map(|(_, federates)| federates);
        names
            .filter_map(|name| Some((name.clone(), self.rows.get(name)?.clone())))
            .collect()
    }

    /// What a poll of a trust domain's endpoint would bring, given what answers there: the address,
    /// its certificates and the one that it proves itself with.
    pub(crate) fn poll(
        &self,
        trust_domain: &str,
        address: &str,
        served: &Keys,
        signer: &str,
    ) -> Option<Keys> {
        let relationship = self.relationships.get(trust_domain)?;
        let polled = relationship.url.split('#').next().unwrap_or_default();
        if polled.trim_end_matches('/') != address {
            return None;
        }
        let trusted = relationship.profile["type"] == "https_web"
            || self.rows.get(trust_domain)?.contains(signer);
        trusted.then(|| served.clone())
    }

    /// A bundle is deleted by hand, with what refers to it (`-mode dissociate`).
    pub(crate) fn delete_row(&mut self, trust_domain: &str) {
        self.rows.remove(trust_domain);
        for federates in self.entries.values_mut() {
            federates.remove(trust_domain);
        }
    }
}
