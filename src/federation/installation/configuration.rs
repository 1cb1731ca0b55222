//! What the configurations of SPIRE's server and of its controller manager say.
//!
//! Every distribution writes the server's as JSON, which is one form of HCL: a block may stand there as
//! an object or as a list of one. HCL proper is not read, and that is told.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde_json::Value;

use super::{
    Candidate, Found,
    meaning::{items, name, namespace},
    server::{is_program, mounted},
};
use crate::model::{
    declaration::Profile,
    repository::RepoPath,
    trust_domain::{SpiffeId, TrustDomain},
    yaml,
};

/// What the server's configuration says, as far as it can be read.
#[derive(Clone, Debug, Default)]
pub struct ServerConfiguration {
    /// The `ConfigMap` and the key that hold it.
    pub place: Option<(String, String)>,
    /// `server.trust_domain`.
    pub trust_domain: Option<Found<TrustDomain>>,
    /// `server.federation.bundle_endpoint`: without it none is served.
    pub endpoint: Option<Found<Endpoint>>,
    /// `server.federation.federates_with`: relationships that no `ClusterFederatedTrustDomain` ends.
    pub federates_with: BTreeMap<TrustDomain, Found<Peer>>,
    /// The `ConfigMap` that a `BundlePublisher` `k8s_configmap` writes, format `spiffe`.
    pub published: Option<Found<Key>>,
    /// The `ConfigMap` that a notifier `k8sbundle` writes: X.509 roots as PEM.
    pub notified: Option<Found<Key>>,
}

/// A bundle endpoint as the server is told to serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// How it proves itself; `https_spiffe` where nothing is said.
    pub profile: Profile,
    /// Whether the profile is written out, as SPIRE will ask for one day.
    pub names_profile: bool,
    /// The port; 443 where nothing is said.
    pub port: u64,
    /// How often, in seconds, peers should poll.
    pub refresh_hint: Option<u64>,
}

/// Where a bundle is polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The URL, without the fragment that Trustweave adds.
    pub url: String,
    /// How the endpoint proves itself.
    pub profile: Profile,
    /// The SPIFFE ID that it proves; `https_spiffe` only.
    pub spiffe_id: Option<SpiffeId>,
}

/// A key of a `ConfigMap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The key.
    pub key: String,
}

/// What the controller manager's configuration says.
#[derive(Clone, Debug)]
pub struct ControllerManager {
    /// `className`.
    pub class_name: Option<Found<String>>,
    /// `clusterName`.
    pub cluster_name: Option<Found<String>>,
    /// `trustDomain`.
    pub trust_domain: Option<Found<TrustDomain>>,
    /// `watchClassless`: whether it reconciles objects without a class, too.
    pub watch_classless: bool,
    /// `ignoreNamespaces`: regular expressions of the namespaces whose pods get nothing.
    pub ignored_namespaces: Vec<String>,
    /// `reconcile.clusterFederatedTrustDomains`: whether it reconciles relationships at all.
    pub reconciles_relationships: bool,
    /// Where all this is said.
    pub place: String,
}

impl ControllerManager {
    /// Whether it reconciles objects of a class (`spec.className`).
    pub fn reconciles(&self, class_name: Option<&str>) -> bool {
        match class_name.filter(|class| !class.is_empty()) {
            None => self.watch_classless,
            Some(class) => self
                .class_name
                .as_ref()
                .is_some_and(|own| own.value == class),
        }
    }
}

/// Reads the configuration of a candidate from the `ConfigMap`s that it mounts.
pub(super) fn server(
    candidate: &Candidate,
    config_maps: &[&Value],
    notes: &mut Vec<String>,
) -> ServerConfiguration {
    let key = candidate.config_file.as_str();
    let mut mounted = config_maps.iter().filter(|it| mounts(candidate, it));
    let Some(found) = mounted.find(|it| it["data"][key].is_string()) else {
        notes.push(format!(
            "the server's configuration was not found: no ConfigMap that StatefulSet {}/{} mounts has \
             the key {key}",
            candidate.namespace, candidate.stateful_set
        ));
        return ServerConfiguration::default();
    };
    let place = format!("{key} of ConfigMap {}/{}", candidate.namespace, name(found));
    let mut configuration = ServerConfiguration {
        place: Some((name(found).to_owned(), key.to_owned())),
        ..ServerConfiguration::default()
    };
    let text = found["data"][key].as_str().unwrap_or_default();
    let Ok(document) = serde_json::from_str::<Value>(text) else {
        notes.push(format!(
            "{place} is not JSON: HCL is not read; say in the declaration what it says"
        ));
        return configuration;
    };
    let server = block(&document["server"]);
    let trust_domain = server["trust_domain"].as_str().map(TrustDomain::parse);
    configuration.trust_domain = match trust_domain {
        Some(Ok(trust_domain)) => Some(Found::new(trust_domain, &place)),
        _ => None,
    };
    let federation = block(&server["federation"]);
    configuration.endpoint = endpoint(federation, &place, notes);
    let peers = block(&federation["federates_with"]).as_object();
    for (peer, settings) in peers.into_iter().flatten() {
        let peer = TrustDomain::parse(peer.trim_start_matches("spiffe://"));
        if let (Ok(peer), Some(settings)) = (peer, static_peer(block(settings))) {
            let settings = Found::new(settings, format!("federates_with in {place}"));
            configuration.federates_with.insert(peer, settings);
        }
    }
    configuration.published = published(plugin(&document, "BundlePublisher", "k8s_configmap"))
        .map(|key| Found::new(key, format!("BundlePublisher k8s_configmap in {place}")));
    configuration.notified = plugin(&document, "Notifier", "k8sbundle")
        .map(notified)
        .map(|key| Found::new(key, format!("notifier k8sbundle in {place}")));
    configuration
}

fn mounts(candidate: &Candidate, config_map: &Value) -> bool {
    namespace(config_map) == candidate.namespace
        && candidate
            .config_maps
            .iter()
            .any(|it| it == name(config_map))
}

/// A block of HCL in JSON: an object, or the first of a list of objects.
fn block(value: &Value) -> &Value {
    value
        .as_array()
        .and_then(|list| list.first())
        .unwrap_or(value)
}

/// The settings of a plugin of a type, if it is configured.
fn plugin<'a>(document: &'a Value, kind: &str, plugin: &str) -> Option<&'a Value> {
    let configured = &block(&document["plugins"])[kind];
    let listed = items(configured).find_map(|it| it.get(plugin));
    let found = listed.or_else(|| configured.get(plugin))?;
    Some(block(&block(found)["plugin_data"]))
}

fn published(settings: Option<&Value>) -> Option<Key> {
    let clusters = block(&settings?["clusters"]).as_object()?;
    let whole = |it: &&Value| it["format"] == "spiffe";
    let mut clusters: Vec<_> = clusters.values().map(block).filter(whole).collect();
    // One without a kubeconfig is the server's own cluster.
    clusters.sort_by_key(|it| {
        it["kubeconfig_path"]
            .as_str()
            .is_some_and(|path| !path.is_empty())
    });
    let found = clusters.first()?;
    let text = |key: &str| found[key].as_str().map(str::to_owned);
    Some(Key {
        namespace: text("namespace")?,
        name: text("configmap_name")?,
        key: text("configmap_key")?,
    })
}

fn notified(settings: &Value) -> Key {
    let text = |key: &str, default: &str| settings[key].as_str().unwrap_or(default).to_owned();
    Key {
        namespace: text("namespace", "spire"),
        name: text("config_map", "spire-bundle"),
        key: text("config_map_key", "bundle.crt"),
    }
}

fn endpoint(federation: &Value, place: &str, notes: &mut Vec<String>) -> Option<Found<Endpoint>> {
    let settings = block(federation.get("bundle_endpoint")?);
    let profile = block(&settings["profile"]);
    let web = profile.get("https_web").is_some() || settings.get("acme").is_some();
    if profile.is_null() && !web {
        notes.push(format!(
            "{place} has a bundle endpoint without a profile: SPIRE takes https_spiffe today, and will \
             refuse it one day; write `\"profile\": [{{\"https_spiffe\": {{}}}}]`"
        ));
    }
    let hint = settings["refresh_hint"].as_str();
    let hint = hint.and_then(|text| text.parse::<SignedDuration>().ok());
    let endpoint = Endpoint {
        profile: if web {
            Profile::HttpsWeb
        } else {
            Profile::HttpsSpiffe
        },
        names_profile: web || !profile.is_null(),
        port: settings["port"].as_u64().unwrap_or(443),
        refresh_hint: hint.and_then(|hint| u64::try_from(hint.as_secs()).ok()),
    };
    Some(Found::new(endpoint, format!("bundle_endpoint in {place}")))
}

fn static_peer(settings: &Value) -> Option<Peer> {
    let profile = block(&settings["bundle_endpoint_profile"]);
    let spiffe = profile.get("https_spiffe").map(block);
    let id = spiffe.and_then(|it| it["endpoint_spiffe_id"].as_str());
    Some(Peer {
        url: settings["bundle_endpoint_url"]
            .as_str()?
            .trim_end_matches('/')
            .to_owned(),
        profile: if spiffe.is_some() {
            Profile::HttpsSpiffe
        } else {
            Profile::HttpsWeb
        },
        spiffe_id: id.and_then(|id| SpiffeId::parse(id).ok()),
    })
}

/// Reads the configuration of the controller manager, which runs beside the server, or in a
/// `Deployment` of the same namespace.
pub(super) fn controller_manager(
    candidate: &Candidate,
    deployments: &[Value],
    config_maps: &[&Value],
    notes: &mut Vec<String>,
) -> Option<ControllerManager> {
    let beside = managers(deployments, &candidate.namespace);
    let own = candidate.config_maps.iter().chain(&beside);
    let own: Vec<&String> = own.collect();
    for config_map in config_maps {
        if namespace(config_map) != candidate.namespace
            || own.iter().all(|it| *it != name(config_map))
        {
            continue;
        }
        let data = config_map["data"].as_object();
        for (key, text) in data.into_iter().flatten() {
            let text = text.as_str().unwrap_or_default();
            if !text.contains("ControllerManagerConfig") {
                continue;
            }
            let place = format!(
                "{key} of ConfigMap {}/{}",
                candidate.namespace,
                name(config_map)
            );
            match yaml::parse(&RepoPath::default(), text) {
                Ok(documents) => {
                    let mut documents = documents.iter().map(|it| &it.value);
                    let found = documents.find(|it| it["kind"] == "ControllerManagerConfig");
                    if let Some(found) = found {
                        return Some(manager(found, &place));
                    }
                }
                Err(error) => notes.push(format!("{place} can't be read: {}", error.message)),
            }
        }
    }
    None
}

/// The `ConfigMap`s that `Deployment`s of the controller manager mount.
pub fn managers(deployments: &[Value], in_namespace: &str) -> Vec<String> {
    deployments
        .iter()
        .filter(|it| namespace(it) == in_namespace)
        .map(|it| &it["spec"]["template"]["spec"])
        .filter(|pod| {
            items(&pod["containers"]).any(|it| is_program(it, "spire-controller-manager"))
        })
        .flat_map(mounted)
        .collect()
}

fn manager(document: &Value, place: &str) -> ControllerManager {
    let text = |key: &str| {
        let text = document[key].as_str().filter(|text| !text.is_empty());
        text.map(|text| Found::new(text.to_owned(), place))
    };
    let trust_domain = document["trustDomain"].as_str().map(TrustDomain::parse);
    ControllerManager {
        class_name: text("className"),
        cluster_name: text("clusterName"),
        trust_domain: match trust_domain {
            Some(Ok(trust_domain)) => Some(Found::new(trust_domain, place)),
            _ => None,
        },
        watch_classless: document["watchClassless"] == true,
        ignored_namespaces: items(&document["ignoreNamespaces"])
            .filter_map(|it| it.as_str().map(str::to_owned))
            .collect(),
        reconciles_relationships: document["reconcile"]["clusterFederatedTrustDomains"] != false,
        place: place.to_owned(),
    }
}
