//! The Service of the endpoint, and what exposes it outside the cluster.
//!
//! What is there already and leads to the endpoint is adopted as it is. What the agent makes carries
//! its label, and only that is ever deleted.

use serde_json::{Map, Value, json};

use super::{
    Decision, Draft, ENDPOINT_EXPOSED, Facts, Piece, TLS_ROUTE, Wanted, Write,
    objects::{self, bare},
};
use crate::{
    federation::objects::MANAGED_BY,
    model::{
        bundle_endpoint::{Expose, IngressController, IngressOptions},
        manifest::{Gvk, ObjectRef},
    },
};

/// What the objects are called.
const NAME: &str = "spire-server-federation";

/// What the Service's port is called.
const PORT: &str = "federation";

/// The port of a URL that names none.
const HTTPS: u16 = 443;

/// The objects that are wanted.
pub(super) fn references(wanted: &Wanted) -> Vec<ObjectRef> {
    let outer = outer_kind(wanted).map(|gvk| reference(wanted, gvk));
    std::iter::once(service(wanted)).chain(outer).collect()
}

fn reference(wanted: &Wanted, gvk: Gvk) -> ObjectRef {
    ObjectRef {
        gvk,
        namespace: Some(wanted.installation.namespace.clone()),
        name: NAME.to_owned(),
    }
}

fn service(wanted: &Wanted) -> ObjectRef {
    reference(wanted, Gvk::new("v1", "Service"))
}

/// The kind of what leads to the Service, if there is to be something.
fn outer_kind(wanted: &Wanted) -> Option<Gvk> {
    match wanted.endpoint.expose.as_ref()? {
        Expose::Route => Some(Gvk::new("route.openshift.io/v1", "Route")),
        Expose::Ingress(_) => Some(Gvk::new("networking.k8s.io/v1", "Ingress")),
        Expose::Gateway(_) => wanted.tls_route.clone(),
        Expose::LoadBalancer(_) | Expose::None => None,
    }
}

/// Host and port of the declared URL; a declaration is checked for being one.
fn address(wanted: &Wanted) -> (String, u16) {
    let address = wanted.endpoint.host_and_port();
    address.unwrap_or_else(|| (String::new(), HTTPS))
}

/// Keeps the Service, and what leads to it, as declared.
pub(super) fn manage(facts: &Facts<'_>, wanted: &Wanted, decision: &mut Decision) {
    let kept = references(wanted);
    remove(facts, &kept, decision);
    let reference = objects::stateful_set(&wanted.installation);
    let selector = facts
        .live
        .get(&reference)
        .map(|set| &set["spec"]["selector"]["matchLabels"]);
    let Some(selector) = selector.and_then(Value::as_object) else {
        let message = format!("there is no {reference} whose pods a Service could select");
        decision.tell(ENDPOINT_EXPOSED, false, "NotFound", message);
        return;
    };
    let told = decision.conditions.len();
    let live = facts.live.get(&service(wanted));
    let desired = service_object(wanted, selector);
    let right = live.is_some_and(|live| {
        if is_made(live) {
            agrees(live, &desired) && decision.asked_for(Piece::Service, &asked(&desired))
        } else {
            agrees(live, &desired) || leads_to_server(live, wanted, facts)
        }
    });
    if !right {
        keep(facts, Piece::Service, desired, decision);
    }
    match outer_object(wanted) {
        Ok(None) => {}
        Ok(Some(desired)) => {
            let Some(reference) = ObjectRef::of(&desired) else {
                return;
            };
            if facts.live.is_unknown(&reference.gvk) {
                let kind = reference.gvk.group_kind();
                let message = format!("the cluster has no kind {kind}: declare another `expose`");
                decision.tell(ENDPOINT_EXPOSED, false, "UnknownKind", message);
                return;
            }
            let right = facts.live.get(&reference).is_some_and(|live| {
                let asked_for = decision.asked_for(Piece::Exposure, &asked(&desired));
                agrees(live, &desired) && (asked_for || !is_made(live))
            });
            if !right {
                keep(facts, Piece::Exposure, desired, decision);
            }
        }
        Err(message) => decision.tell(ENDPOINT_EXPOSED, false, "UnknownKind", message),
    }
    if decision.conditions.len() == told {
        let (holds, reason, message) = standing(facts, wanted);
        decision.tell(ENDPOINT_EXPOSED, holds, reason, message);
    }
}

/// Writes an object; one that is not there yet gets the label of what the agent makes.
fn keep(facts: &Facts<'_>, piece: Piece, mut desired: Value, decision: &mut Decision) {
    let Some(reference) = ObjectRef::of(&desired) else {
        return;
    };
    let live = facts.live.get(&reference);
    if live.is_none_or(is_made) {
        desired["metadata"]["labels"] = json!({MANAGED_BY.0: MANAGED_BY.1});
        decision.memory.objects.insert(reference.clone());
    }
    let why = format!("wrote {reference}");
    let draft = Draft {
        piece,
        object: &reference,
        live,
        path: &[],
        asked: asked(&desired),
        write: Write::Apply(desired),
        why,
        restarts: false,
    };
    decision.write(facts, ENDPOINT_EXPOSED, draft);
}

/// What is asked for with an object: what is no longer in it has to go.
fn asked(desired: &Value) -> Value {
    json!([desired["spec"], desired["metadata"]["annotations"]])
}

fn is_made(live: &Value) -> bool {
    live["metadata"]["labels"][MANAGED_BY.0] == MANAGED_BY.1
}

/// Deletes what the agent made and nobody asks for any more.
pub(super) fn release(facts: &Facts<'_>, decision: &mut Decision) {
    remove(facts, &[], decision);
}

fn remove(facts: &Facts<'_>, kept: &[ObjectRef], decision: &mut Decision) {
    let gone = |it: &&ObjectRef| !kept.iter().any(|kept| kept.key() == it.key());
    for reference in facts.memory.objects.iter().filter(gone) {
        match facts.live.get(reference) {
            Some(live) if is_made(live) => {
                let piece = if reference.gvk.kind == "Service" {
                    Piece::Service
                } else {
                    Piece::Exposure
                };
                decision.steps.push(objects::giving_back(
                    piece,
                    Write::Delete(live.clone()),
                    format!("deleted {reference}"),
                    false,
                ));
            }
            // It is not there, or somebody made it his own.
            _ => {
                decision.memory.objects.remove(reference);
            }
        }
    }
}

fn service_object(wanted: &Wanted, selector: &Map<String, Value>) -> Value {
    let port = wanted.endpoint.server_port();
    let mut object = bare(&service(wanted));
    let (kind, outer) = match &wanted.endpoint.expose {
        Some(Expose::LoadBalancer(options)) => {
            if !options.annotations.is_empty() {
                object["metadata"]["annotations"] = json!(options.annotations);
            }
            ("LoadBalancer", address(wanted).1)
        }
        _ => ("ClusterIP", port),
    };
    object["spec"] = json!({
        "type": kind,
        "selector": selector,
        "ports": [{"name": PORT, "port": outer, "protocol": "TCP", "targetPort": port}],
    });
    object
}

/// Whether a Service leads to the server's endpoint, whoever made it and however.
fn leads_to_server(live: &Value, wanted: &Wanted, facts: &Facts<'_>) -> bool {
    let set = facts.live.get(&objects::stateful_set(&wanted.installation));
    let template = set.map_or(&Value::Null, |set| &set["spec"]["template"]);
    let labels = &template["metadata"]["labels"];
    let selector = live["spec"]["selector"].as_object();
    let selects = selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(name, value)| labels[name] == *value)
    });
    let target = wanted.endpoint.server_port();
    let named = named_port(template, target);
    let outer = match &wanted.endpoint.expose {
        Some(Expose::LoadBalancer(options)) => {
            let annotations = &live["metadata"]["annotations"];
            let annotated = options
                .annotations
                .iter()
                .all(|(name, value)| annotations[name] == *value);
            if live["spec"]["type"] != "LoadBalancer" || !annotated {
                return false;
            }
            Some(address(wanted).1)
        }
        _ => None,
    };
    let ports = live["spec"]["ports"].as_array();
    selects
        && ports.into_iter().flatten().any(|port| {
            let to = port.get("targetPort").unwrap_or(&port["port"]);
            let leads = to.as_u64() == Some(target.into())
                || to.as_str().is_some_and(|name| named.contains(&name));
            let tcp = port.get("protocol").is_none_or(|it| it == "TCP");
            // A Route finds the port by this name.
            let called = outer.is_some() || port["name"] == PORT;
            leads && tcp && called && outer.is_none_or(|outer| port["port"] == outer)
        })
}

/// The names of a number among the ports of a pod.
fn named_port(template: &Value, number: u16) -> Vec<&str> {
    let containers = template["spec"]["containers"].as_array();
    let ports = containers
        .into_iter()
        .flatten()
        .filter_map(|container| container["ports"].as_array())
        .flatten();
    ports
        .filter(|port| port["containerPort"] == number)
        .filter_map(|port| port["name"].as_str())
        .collect()
}

/// What leads to the Service from outside, if it is an object of its own.
fn outer_object(wanted: &Wanted) -> Result<Option<Value>, String> {
    let (host, _) = address(wanted);
    let port = wanted.endpoint.server_port();
    let (metadata, spec) = match &wanted.endpoint.expose {
        None | Some(Expose::None | Expose::LoadBalancer(_)) => return Ok(None),
        Some(Expose::Route) => (
            json!({}),
            json!({
                "host": host,
                "to": {"kind": "Service", "name": NAME},
                "port": {"targetPort": PORT},
                "tls": {
                    "termination": "passthrough",
                    "insecureEdgeTerminationPolicy": "Redirect",
                },
            }),
        ),
        Some(Expose::Ingress(options)) => ingress(options, &host, port),
        Some(Expose::Gateway(options)) => (
            json!({}),
            json!({
                "parentRefs": options.parent_refs,
                "hostnames": [host],
                "rules": [{"backendRefs": [{"name": NAME, "port": port}]}],
            }),
        ),
    };
    let Some(gvk) = outer_kind(wanted) else {
        return Err(format!(
            "the cluster has no kind {TLS_ROUTE}: install the Gateway API, or declare another `expose`"
        ));
    };
    let mut object = bare(&reference(wanted, gvk));
    if let (Some(object), Value::Object(more)) = (object["metadata"].as_object_mut(), metadata) {
        object.extend(more);
    }
    object["spec"] = spec;
    Ok(Some(object))
}

/// An Ingress that passes TLS through, in the words of its controller.
fn ingress(options: &IngressOptions, host: &str, port: u16) -> (Value, Value) {
    let controller = options.known_controller();
    let said: &[(&str, &str)] = match controller {
        Some(IngressController::Nginx) => &[
            ("nginx.ingress.kubernetes.io/ssl-passthrough", "true"),
            ("nginx.ingress.kubernetes.io/backend-protocol", "HTTPS"),
        ],
        Some(IngressController::Haproxy) => &[
            ("haproxy.org/ssl-passthrough", "true"),
            ("haproxy-ingress.github.io/ssl-passthrough", "true"),
        ],
        Some(IngressController::Openshift) => &[("route.openshift.io/termination", "passthrough")],
        None => &[],
    };
    let mut annotations: Map<String, Value> = said
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).into()))
        .collect();
    let further = options.annotations.iter();
    annotations.extend(further.map(|(name, value)| (name.clone(), value.as_str().into())));
    let backend = json!({"service": {"name": NAME, "port": {"number": port}}});
    // OpenShift makes no passthrough Route of a path.
    let path = if controller == Some(IngressController::Openshift) {
        json!({"pathType": "ImplementationSpecific", "backend": backend})
    } else {
        json!({"path": "/", "pathType": "Prefix", "backend": backend})
    };
    let mut spec = json!({
        "tls": [{"hosts": [host]}],
        "rules": [{"host": host, "http": {"paths": [path]}}],
    });
    if let Some(class_name) = &options.class_name {
        spec["ingressClassName"] = json!(class_name);
    }
    (json!({"annotations": annotations}), spec)
}

/// Whether a live object has everything that is desired of it; items of lists may have more, a list
/// may not.
pub(super) fn agrees(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired
            .iter()
            .all(|(name, desired)| live.get(name).is_some_and(|live| agrees(live, desired))),
        (Value::Array(live), Value::Array(desired)) => {
            live.len() == desired.len()
                && live
                    .iter()
                    .zip(desired)
                    .all(|(live, desired)| agrees(live, desired))
        }
        (live, desired) => live == desired,
    }
}

/// How the endpoint stands once the objects are as declared.
fn standing(facts: &Facts<'_>, wanted: &Wanted) -> (Option<bool>, &'static str, String) {
    let url = &wanted.endpoint.url;
    if let Some(outer) = outer_kind(wanted).map(|gvk| reference(wanted, gvk)) {
        let live = facts.live.get(&outer);
        return match live.and_then(refusal) {
            Some(why) => (Some(false), "NotAdmitted", format!("{outer}: {why}")),
            None => (
                Some(true),
                "Exposed",
                format!("{url} leads to it by {outer}"),
            ),
        };
    }
    if let Some(Expose::LoadBalancer(_)) = &wanted.endpoint.expose {
        let live = facts.live.get(&service(wanted));
        let given = live.and_then(|it| it["status"]["loadBalancer"]["ingress"].get(0));
        let given = given.and_then(|it| it.get("hostname").or_else(|| it.get("ip"))?.as_str());
        return if let Some(given) = given {
            let message = format!("{url} leads to it if its host is {given}");
            (Some(true), "Exposed", message)
        } else {
            let message = "the cloud has given the Service no address yet".to_owned();
            (None, "NoAddress", message)
        };
    }
    let service = service(wanted);
    let message =
        format!("{service} leads to it in the cluster; nothing is asked for outside of it");
    (Some(true), "InCluster", message)
}

/// Why a router or gateway does not serve an object, if it says so.
pub(super) fn refusal(live: &Value) -> Option<String> {
    let status = &live["status"];
    let parents = [&status["ingress"], &status["parents"]];
    let parents = parents.into_iter().filter_map(Value::as_array).flatten();
    let mut conditions = parents
        .filter_map(|parent| parent["conditions"].as_array())
        .flatten();
    let refused = conditions.find(|it| {
        it["status"] == "False" && (it["type"] == "Admitted" || it["type"] == "Accepted")
    })?;
    let text = |name: &str| refused[name].as_str().unwrap_or_default();
    Some(format!("{}: {}", text("reason"), text("message")))
}

#[cfg(test)]
mod tests;
