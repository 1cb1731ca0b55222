//! How the bundle endpoint of a SPIRE server can be reached from outside its cluster.

use serde_json::Value;

use super::{
    Candidate, Objects,
    configuration::ServerConfiguration,
    meaning::{items, name, namespace, selects},
};
use crate::model::declaration::Expose;

/// A way from outside to the bundle endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Its kind.
    pub expose: Expose,
    /// `https://<host>[:port]`.
    pub url: String,
    /// The object that makes it.
    pub place: String,
    /// What keeps it from working, if something does.
    pub problem: Option<String>,
}

/// Finds the ways: routes before ingresses before gateways before load balancers.
pub(super) fn find(
    candidate: &Candidate,
    configuration: &ServerConfiguration,
    services: &[&Value],
    objects: &Objects,
) -> Vec<Exposure> {
    let Some(endpoint) = &configuration.endpoint else {
        return Vec::new();
    };
    let port = endpoint.value.port;
    let serving: Vec<&Value> = services
        .iter()
        .copied()
        .filter(|it| selects(&it["spec"]["selector"], &candidate.pod_labels))
        .filter(|it| port_of(it, port).is_some())
        .collect();
    let is_serving = |service: &Value| {
        let name_of = service.as_str();
        serving.iter().any(|it| Some(name(it)) == name_of)
    };
    let here = |it: &&Value| namespace(it) == candidate.namespace;
    let mut found = Vec::new();
    for route in objects.routes.iter().filter(here) {
        let to_port = &route["spec"]["port"]["targetPort"];
        let service = &route["spec"]["to"]["name"];
        if is_serving(service) && leads(&serving, service, to_port, port) {
            found.extend(of_route(route));
        }
    }
    for ingress in objects.ingresses.iter().filter(here) {
        for rule in items(&ingress["spec"]["rules"]) {
            let leads = items(&rule["http"]["paths"]).any(|path| {
                let service = &path["backend"]["service"];
                let by_name = &service["port"]["name"];
                let to_port = if by_name.is_string() {
                    by_name
                } else {
                    &service["port"]["number"]
                };
                is_serving(&service["name"]) && leads(&serving, &service["name"], to_port, port)
            });
            if let Some(host) = rule["host"].as_str().filter(|_| leads) {
                found.push(Exposure {
                    expose: Expose::Ingress,
                    url: format!("https://{}", host.to_lowercase()),
                    place: place("Ingress", ingress),
                    problem: None,
                });
            }
        }
    }
    for route in objects.tls_routes.iter().filter(here) {
        let leads = items(&route["spec"]["rules"])
            .flat_map(|rule| items(&rule["backendRefs"]))
            .any(|it| is_serving(&it["name"]) && leads(&serving, &it["name"], &it["port"], port));
        let hosts = items(&route["spec"]["hostnames"]).filter_map(Value::as_str);
        found.extend(hosts.filter(|_| leads).map(|host| Exposure {
            expose: Expose::Gateway,
            url: format!("https://{}", host.to_lowercase()),
            place: place("TLSRoute", route),
            problem: None,
        }));
    }
    let balanced = serving
        .iter()
        .filter(|it| it["spec"]["type"] == "LoadBalancer");
    for service in balanced {
        let outside = port_of(service, port).unwrap_or(port);
        for ingress in items(&service["status"]["loadBalancer"]["ingress"]) {
            let host = ingress["hostname"].as_str().or(ingress["ip"].as_str());
            found.extend(host.map(|host| Exposure {
                expose: Expose::LoadBalancer,
                url: match outside {
                    443 => format!("https://{}", host.to_lowercase()),
                    outside => format!("https://{}:{outside}", host.to_lowercase()),
                },
                place: place("Service", service),
                problem: None,
            }));
        }
    }
    found
}

fn place(kind: &str, object: &Value) -> String {
    format!("{kind} {}/{}", namespace(object), name(object))
}

/// The Service's port behind which the server listens on `target`: by number, or by the name that all
/// distributions give it.
fn port_of(service: &Value, target: u64) -> Option<u64> {
    items(&service["spec"]["ports"])
        .find(|it| match &it["targetPort"] {
            Value::Number(number) => number.as_u64() == Some(target),
            Value::String(name) => name == "federation",
            _ => it["port"].as_u64() == Some(target),
        })
        .and_then(|it| it["port"].as_u64())
}

/// Whether a reference to a Service's port, by name, number or not at all, means the endpoint's.
fn leads(serving: &[&Value], service: &Value, port: &Value, target: u64) -> bool {
    let Some(service) = serving
        .iter()
        .find(|it| name(it) == service.as_str().unwrap_or_default())
    else {
        return false;
    };
    let Some(number) = port_of(service, target) else {
        return false;
    };
    match port {
        Value::String(wanted) => items(&service["spec"]["ports"])
            .any(|it| it["name"] == wanted.as_str() && it["port"].as_u64() == Some(number)),
        // A Route's target port is the pod's, any other's the Service's.
        Value::Number(wanted) => [Some(number), Some(target)].contains(&wanted.as_u64()),
        _ => items(&service["spec"]["ports"]).count() == 1,
    }
}

fn of_route(route: &Value) -> Option<Exposure> {
    let spec = &route["spec"];
    let admitted = items(&route["status"]["ingress"]).find_map(|it| it["host"].as_str());
    let host = spec["host"].as_str().filter(|host| !host.is_empty());
    let host = host.or(admitted)?;
    let termination = spec["tls"]["termination"].as_str();
    let problem = (termination != Some("passthrough")).then(|| {
        format!(
            "its termination is {}: only a passthrough leaves the proof of https_spiffe intact",
            termination.unwrap_or("not set")
        )
    });
    Some(Exposure {
        expose: Expose::Route,
        url: format!("https://{}", host.to_lowercase()),
        place: place("Route", route),
        problem,
    })
}
