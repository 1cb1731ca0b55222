//! What a live cluster tells about the SPIRE that is installed in it: the middle of
//! `trustweave init --from-cluster`.
//!
//! **Invariant:** what is said was read, and where is said with it; what can't be known is left out
//! and told, never guessed.

use std::collections::BTreeMap;

use serde_json::Value;

use self::{
    configuration::{ControllerManager, ServerConfiguration},
    exposure::Exposure,
    registration::Registrations,
};
use crate::model::{
    declaration::{
        BundleSource, ConfigMapSource, Distribution, EndpointSource, RootsSource, Server,
    },
    trust_domain::TrustDomain,
};

pub mod configuration;
pub mod exposure;
pub(super) mod meaning;
pub mod registration;
pub mod server;
#[cfg(test)]
mod tests;

pub use self::server::{Candidate, candidates};

/// The live objects of a cluster that tell about its SPIRE.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// `StatefulSet`s, of all namespaces.
    pub stateful_sets: Vec<Value>,
    /// `Deployment`s: a controller manager may run in one of its own.
    pub deployments: Vec<Value>,
    /// The `ConfigMap`s that the candidates mention.
    pub config_maps: Vec<Value>,
    /// `Service`s.
    pub services: Vec<Value>,
    /// `OpenShift`'s `Route`s.
    pub routes: Vec<Value>,
    /// `Ingress`es.
    pub ingresses: Vec<Value>,
    /// The Gateway API's `TLSRoute`s.
    pub tls_routes: Vec<Value>,
    /// The definition of the zero trust workload identity manager's `SpireServer`.
    pub spire_server_definition: Option<Value>,
    /// `ClusterFederatedTrustDomain`s.
    pub relationships: Vec<Value>,
    /// `ClusterSPIFFEID`s and `ClusterStaticEntry`s.
    pub registrations: Vec<Value>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

/// A value, and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// Where, for people.
    pub place: String,
}

impl<T> Found<T> {
    /// A value that was found somewhere.
    pub fn new(value: T, place: impl Into<String>) -> Self {
        Self {
            value,
            place: place.into(),
        }
    }
}

/// The SPIRE that is installed in a cluster.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Who installed it.
    pub distribution: Found<Distribution>,
    /// Of a zero trust workload identity manager: whether its `SpireServer` has `spec.federation`,
    /// as from version 1.0 on; `None` if that can't be seen, or another distribution is installed.
    pub operator_federates: Option<bool>,
    /// The namespace of the server.
    pub namespace: String,
    /// What the server's objects are called.
    pub server: Server,
    /// The trust domain.
    pub trust_domain: Option<Found<TrustDomain>>,
    /// The class that the controller manager reconciles.
    pub class_name: Option<Found<String>>,
    /// What the controller manager calls the cluster.
    pub cluster_name: Option<Found<String>>,
    /// Where the bundle can be read.
    pub bundle_source: Found<BundleSource>,
    /// The server's configuration, as far as it can be read.
    pub configuration: ServerConfiguration,
    /// The controller manager's configuration, if it was found.
    pub controller_manager: Option<ControllerManager>,
    /// How the bundle endpoint can be reached from outside, the likeliest first.
    pub exposures: Vec<Exposure>,
    /// Relationships and registrations of the class.
    pub registrations: Registrations,
    /// What could not be known, and what is odd.
    pub notes: Vec<String>,
}

/// What a candidate for SPIRE's server is, by everything around it.
pub fn read(objects: &Objects, candidate: &Candidate) -> Installation {
    let namespace = candidate.namespace.as_str();
    let in_namespace = |object: &&Value| object["metadata"]["namespace"] == namespace;
    let config_maps: Vec<&Value> = objects.config_maps.iter().collect();
    let mut notes = objects.unread.clone();
    notes.extend(candidate.notes.clone());

    let configuration = configuration::server(candidate, &config_maps, &mut notes);
    let manager = configuration::controller_manager(
        candidate,
        &objects.deployments,
        &config_maps,
        &mut notes,
    );
    let trust_domain = trust_domain(&configuration, manager.as_ref(), &mut notes);
    let class_name = class_name(manager.as_ref(), objects, &mut notes);
    let registrations = registration::read(
        objects,
        class_name.as_ref().map(|found| found.value.as_str()),
        &mut notes,
    );
    let (distribution, operator_federates) =
        server::distribution(candidate, objects.spire_server_definition.as_ref());
    let services: Vec<&Value> = objects.services.iter().filter(in_namespace).collect();
    let exposures = exposure::find(candidate, &configuration, &services, objects);
    let bundle_source = bundle_source(&configuration, candidate, &config_maps);
    Installation {
        distribution,
        operator_federates,
        namespace: candidate.namespace.clone(),
        server: candidate.server(configuration.place.as_ref()),
        trust_domain,
        class_name,
        cluster_name: manager
            .as_ref()
            .and_then(|manager| manager.cluster_name.clone()),
        bundle_source,
        configuration,
        controller_manager: manager,
        exposures,
        registrations,
        notes,
    }
}

/// By the server's configuration, or else by its controller manager's; both must agree.
fn trust_domain(
    configuration: &ServerConfiguration,
    manager: Option<&ControllerManager>,
    notes: &mut Vec<String>,
) -> Option<Found<TrustDomain>> {
    let of_manager = manager.and_then(|manager| manager.trust_domain.clone());
    let of_server = configuration.trust_domain.clone();
    if let (Some(server), Some(manager)) = (&of_server, &of_manager)
        && server.value != manager.value
    {
        notes.push(format!(
            "{} says the trust domain is `{}`, but {} says `{}`",
            server.place, server.value, manager.place, manager.value
        ));
        return None;
    }
    of_server.or(of_manager)
}

/// By the controller manager's configuration, or else by what its objects all say.
fn class_name(
    manager: Option<&ControllerManager>,
    objects: &Objects,
    notes: &mut Vec<String>,
) -> Option<Found<String>> {
    if let Some(found) = manager.and_then(|manager| manager.class_name.clone()) {
        return Some(found);
    }
    let mut classes: BTreeMap<&str, &Value> = BTreeMap::new();
    for object in objects.relationships.iter().chain(&objects.registrations) {
        if let Some(class) = object["spec"]["className"].as_str() {
            classes.entry(class).or_insert(object);
        }
    }
    match classes.iter().next() {
        Some((class, object)) if classes.len() == 1 => {
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            let kind = kind.as_str().unwrap_or_default();
            let place = format!("{kind} {}", name.as_str().unwrap_or_default());
            Some(Found::new((*class).to_owned(), place))
        }
        Some(_) => {
            let classes: Vec<_> = classes.keys().copied().collect();
            notes.push(format!(
                "className is not known: the controller manager's configuration was not found, and \
                 objects of several classes are there ({})",
                classes.join(", ")
            ));
            None
        }
        None => {
            notes.push(
                "className is not known: neither the controller manager's configuration nor an object \
                 with a class was found"
                    .to_owned(),
            );
            None
        }
    }
}

/// Where the bundle can be read, as the server's plugins and `ConfigMap`s say it. What `auto` finds by
/// itself is left to it.
fn bundle_source(
    configuration: &ServerConfiguration,
    candidate: &Candidate,
    config_maps: &[&Value],
) -> Found<BundleSource> {
    let own = |namespace: &str| namespace == candidate.namespace;
    if let Some(published) = &configuration.published {
        let other = Some(published.value.namespace.clone()).filter(|it| !own(it));
        let source = ConfigMapSource {
            namespace: other,
            name: published.value.name.clone(),
            key: published.value.key.clone(),
        };
        let place = published.place.clone();
        return if source == ConfigMapSource::default() {
            Found::new(BundleSource::Auto, format!("the ConfigMap of {place}"))
        } else {
            Found::new(BundleSource::ConfigMap(source), place)
        };
    }
    if let Some(roots) = &configuration.notified {
        let other = Some(roots.value.namespace.clone()).filter(|it| !own(it));
        let default = RootsSource::default();
        let usual = roots.value.key == "bundle.crt";
        let source = RootsSource {
            namespace: other,
            name: roots.value.name.clone(),
            key: Some(roots.value.key.clone()).filter(|_| !usual),
        };
        if source != default {
            let source = EndpointSource {
                url: None,
                roots: source,
            };
            let place = format!("no BundlePublisher; the roots are those of {}", roots.place);
            return Found::new(BundleSource::Endpoint(source), place);
        }
    }
    let whole = config_maps.iter().any(|it| {
        let metadata = &it["metadata"];
        let usual = ConfigMapSource::default();
        metadata["name"] == usual.name.as_str()
            && metadata["namespace"] == candidate.namespace.as_str()
            && it["data"][usual.key.as_str()].is_string()
    });
    let place = if whole {
        "ConfigMap spire-bundle has the key bundle.spiffe"
    } else {
        "no BundlePublisher k8s_configmap was found: the own bundle endpoint, or else exec"
    };
    Found::new(BundleSource::Auto, place)
}
