//! The cluster's own bundle endpoint: configured, behind a Service, and open to the outside.

use serde_json::Value;

use super::{
    About, Amiss, Check, ClusterFacts, Level, Seen,
    server::{unfound, unread},
};
use crate::{
    federation::{
        installation::meaning::{items, name, namespace, selects},
        server::config::ServerConf,
    },
    model::{declaration::Profile, diagnostic::Severity},
};

pub(super) const CHECKS: &[Check<ClusterFacts>] = &[
    Check {
        about: About {
            id: "endpoint-configured",
            level: Level::Cluster,
            severity: Severity::Warning,
            title: "the server serves a bundle endpoint",
            why: "without one no peer can poll this trust domain: git alone brings its keys to them",
            cure: "declare `bundleEndpoint.manage: true`, or add `federation.bundle_endpoint` to the server's \
                   configuration and restart it; declare `bundleEndpoint: none` if git alone is meant",
        },
        look: configured,
    },
    Check {
        about: About {
            id: "endpoint-profile",
            level: Level::Cluster,
            severity: Severity::Warning,
            title: "the bundle endpoint's profile is written out",
            why: "SPIRE takes https_spiffe where nothing is said, warns, and will refuse to start one day",
            cure: "write `\"profile\": [{\"https_spiffe\": {}}]` in `bundle_endpoint`",
        },
        look: profile,
    },
    Check {
        about: About {
            id: "endpoint-service",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "a Service leads to the bundle endpoint's port",
            why: "nothing can reach the endpoint: connections are refused",
            cure: "declare `bundleEndpoint.manage: true`, or create a Service with the server's pod labels as \
                   selector and a port whose targetPort is the endpoint's",
        },
        look: service,
    },
    Check {
        about: About {
            id: "endpoint-exposed",
            level: Level::Cluster,
            severity: Severity::Warning,
            title: "a Route, Ingress, TLSRoute or load balancer leads to the bundle endpoint from outside",
            why: "peers in other clusters can't reach the endpoint",
            cure: "declare `bundleEndpoint.expose`, or create one by hand",
        },
        look: exposed,
    },
    Check {
        about: About {
            id: "endpoint-passthrough",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "TLS goes through to the bundle endpoint untouched",
            why: "who ends TLS on the way shows its own certificate: `certificate contains no URI SAN`",
            cure: "set the Route's termination to passthrough, or the Ingress's passthrough annotations",
        },
        look: passthrough,
    },
];

fn configured(facts: &ClusterFacts) -> Seen {
    let Ok((_, installation)) = facts.installation() else {
        return unfound();
    };
    let configuration = &installation.configuration;
    let Some((config_map, key)) = &configuration.place else {
        return unread();
    };
    let text = facts.server_configuration();
    if text.is_none_or(|(_, text)| ServerConf::parse(text).is_err()) {
        return unread();
    }
    let amiss = configuration.endpoint.is_none().then(|| {
        Amiss::new(
            format!("ConfigMap {}/{config_map}", installation.namespace),
            format!("{key} has no `federation.bundle_endpoint`"),
        )
    });
    amiss.into()
}

fn profile(facts: &ClusterFacts) -> Seen {
    let Ok((_, installation)) = facts.installation() else {
        return unfound();
    };
    let Some(endpoint) = &installation.configuration.endpoint else {
        return unserved();
    };
    let amiss =
        (!endpoint.value.names_profile).then(|| Amiss::new(&endpoint.place, "it has no `profile`"));
    amiss.into()
}

/// A Service's port leads to the endpoint by the port's number, or by a name that a pod's port has.
fn service(facts: &ClusterFacts) -> Seen {
    let Ok((candidate, installation)) = facts.installation() else {
        return unfound();
    };
    let Some(endpoint) = &installation.configuration.endpoint else {
        return unserved();
    };
    let port = endpoint.value.port;
    let here = |it: &&Value| {
        namespace(it) == candidate.namespace
            && selects(&it["spec"]["selector"], &candidate.pod_labels)
    };
    let services: Vec<&Value> = facts.objects.services.iter().filter(here).collect();
    let set = facts
        .objects
        .stateful_sets
        .iter()
        .find(|it| name(it) == candidate.stateful_set && namespace(it) == candidate.namespace);
    let container = set.and_then(|set| {
        let mut containers = items(&set["spec"]["template"]["spec"]["containers"]);
        containers.find(|it| it["name"] == candidate.container.as_str())
    });
    let pod_port = |wanted: &str| {
        let ports = container.map(|it| items(&it["ports"]));
        let mut ports = ports.into_iter().flatten();
        let found = ports.find(|it| it["name"] == wanted);
        found.and_then(|it| it["containerPort"].as_u64())
    };
    let mut broken = Vec::new();
    for service in &services {
        for it in items(&service["spec"]["ports"]) {
            match &it["targetPort"] {
                Value::Number(number) if number.as_u64() == Some(port) => return Seen::Well,
                Value::String(wanted) => match pod_port(wanted) {
                    Some(number) if number == port => return Seen::Well,
                    None => broken.push(Amiss::new(
                        super::named(service),
                        format!(
                            "its targetPort `{wanted}` is no port of container {} of StatefulSet {}/{}",
                            candidate.container, candidate.namespace, candidate.stateful_set
                        ),
                    )),
                    Some(_) => {}
                },
                _ if it["port"].as_u64() == Some(port) => return Seen::Well,
                _ => {}
            }
        }
    }
    if broken.is_empty() {
        broken.push(Amiss::new(
            format!(
                "StatefulSet {}/{}",
                candidate.namespace, candidate.stateful_set
            ),
            format!("no Service leads to port {port} of its pods, where the bundle endpoint is"),
        ));
    }
    broken.into()
}

fn exposed(facts: &ClusterFacts) -> Seen {
    let Ok((candidate, installation)) = facts.installation() else {
        return unfound();
    };
    if installation.configuration.endpoint.is_none() {
        return unserved();
    }
    let amiss = installation.exposures.is_empty().then(|| {
        Amiss::new(
            format!(
                "StatefulSet {}/{}",
                candidate.namespace, candidate.stateful_set
            ),
            "nothing leads to its bundle endpoint from outside the cluster",
        )
    });
    amiss.into()
}

fn passthrough(facts: &ClusterFacts) -> Seen {
    let Ok((_, installation)) = facts.installation() else {
        return unfound();
    };
    let Some(endpoint) = &installation.configuration.endpoint else {
        return unserved();
    };
    if endpoint.value.profile != Profile::HttpsSpiffe {
        return Seen::Well;
    }
    let exposures = installation.exposures.iter();
    let amiss = exposures.filter_map(|it| Some(Amiss::new(&it.place, it.problem.clone()?)));
    amiss.collect::<Vec<_>>().into()
}

fn unserved() -> Seen {
    Seen::Unknown("no bundle endpoint is configured".to_owned())
}
