//! The way of the distribution `ztwim`, `OpenShift`'s zero trust workload identity manager: an operator
//! keeps the server's objects, and puts back whatever others write there.
//!
//! Since 1.0 its `SpireServer` has `spec.federation`: the agent applies that, and the operator does the
//! rest. Some of it can't be taken back, so it must be accepted first. Before 1.0 there is no such field:
//! the agent's way is that of [`objects`], and only if the operator was told to leave alone what exists.
//! Which of the two it is shows in the definition of the kind, and is looked up in every pass.

use serde_json::{Value, json};

use super::{
    Decision, Draft, ENDPOINT_EXPOSED, Facts, Installation, Live, Memory, Piece, SERVER_CONFIGURED,
    Wanted, Write, configuration,
    exposure::{self, agrees},
    objects,
};
use crate::model::{
    declaration::{Expose, Profile, ServedEndpoint},
    field_owners::{applied_fields, last_other_writer},
    manifest::{Gvk, ObjectRef},
    repository::trust_domain_path,
    trust_domain::TrustDomain,
};

/// How many peers `spec.federation.federatesWith` takes.
const STATIC_PEERS: usize = 50;

/// On `SpireServer`, before 1.0: the operator creates what is missing and updates nothing.
const CREATE_ONLY: &str = "ztwim.openshift.io/create-only";

/// The Route that the operator makes.
const ROUTE: &str = "spire-server-federation";

/// Whether the operator knows federation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generation {
    /// Before 1.0.
    Without,
    /// 1.0 and later.
    With,
}

impl Generation {
    /// By the definition of `SpireServer`; `None` if there is none.
    fn of(live: &Live) -> Option<Self> {
        let definition = live.get(&definition())?;
        let versions = definition["spec"]["versions"].as_array();
        let knows = versions.into_iter().flatten().any(|version| {
            let schema = &version["schema"]["openAPIV3Schema"];
            version["served"] == true
                && schema["properties"]["spec"]["properties"]["federation"].is_object()
        });
        Some(if knows { Self::With } else { Self::Without })
    }
}

fn definition() -> ObjectRef {
    ObjectRef {
        gvk: Gvk::new("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        namespace: None,
        name: "spireservers.operator.openshift.io".to_owned(),
    }
}

/// The operator's only one.
fn spire_server() -> ObjectRef {
    ObjectRef {
        gvk: Gvk::new("operator.openshift.io/v1alpha1", "SpireServer"),
        namespace: None,
        name: "cluster".to_owned(),
    }
}

fn route(installation: &Installation) -> ObjectRef {
    ObjectRef {
        gvk: Gvk::new("route.openshift.io/v1", "Route"),
        namespace: Some(installation.namespace.clone()),
        name: ROUTE.to_owned(),
    }
}

/// What a decision looks at, as far as that is known from what was read before.
pub(super) fn reads(
    installation: &Installation,
    wanted: Option<&Wanted>,
    live: &Live,
) -> Vec<ObjectRef> {
    let mut references = vec![definition(), spire_server()];
    match Generation::of(live) {
        None => {}
        Some(Generation::Without) => references.extend(objects::reads(installation, wanted)),
        Some(Generation::With) => {
            references.push(route(installation));
            if wanted.is_some_and(|wanted| led_by(wanted, live) == Lead::Agent) {
                references.push(objects::stateful_set(installation));
                references.extend(wanted.into_iter().flat_map(exposure::references));
            }
        }
    }
    references
}

/// Keeps everything as declared.
pub(super) fn manage(facts: &Facts<'_>, wanted: &Wanted) -> Decision {
    let mut decision = Decision {
        memory: facts.memory.clone(),
        ..Decision::default()
    };
    decision.memory.installation = Some(wanted.installation.clone());
    let server = facts.live.get(&spire_server());
    match (Generation::of(facts.live), server) {
        (None, _) => decision.tell(
            SERVER_CONFIGURED,
            false,
            "NotFound",
            "the cluster has no kind SpireServer.operator.openshift.io: declare the `distribution` \
             that SPIRE was installed by",
        ),
        (_, None) => decision.tell(
            SERVER_CONFIGURED,
            false,
            "NotFound",
            format!(
                "there is no {}: its administrator has to make it",
                spire_server()
            ),
        ),
        (Some(Generation::Without), Some(server)) => {
            return without(facts, wanted, server, decision);
        }
        (Some(Generation::With), Some(server)) => with(facts, wanted, server, &mut decision),
    }
    decision
}

/// Before 1.0: by hand, as long as the operator looks on.
fn without(facts: &Facts<'_>, wanted: &Wanted, server: &Value, refused: Decision) -> Decision {
    let annotated = server["metadata"]["annotations"][CREATE_ONLY] == "true";
    if !annotated && !is_create_only(server) {
        let mut decision = refused;
        decision.tell(
            SERVER_CONFIGURED,
            false,
            "OperatorWouldUndo",
            format!(
                "the operator is older than 1.0: it knows no federation, and undoes what others write \
                 into the server's objects; upgrade it, or tell it to leave them alone with `kubectl \
                 annotate spireserver cluster {CREATE_ONLY}=true`: {PRICE}"
            ),
        );
        return decision;
    }
    let mut decision = objects::manage(facts, wanted);
    let told = decision.conditions.iter_mut();
    for condition in told.filter(|it| it.kind == SERVER_CONFIGURED && it.status == Some(true)) {
        condition.message = format!(
            "{}; the operator is in create-only mode: {PRICE}",
            condition.message
        );
    }
    decision
}

/// What create-only mode costs.
const PRICE: &str = "until that ends it updates nothing, neither by new settings of its own objects \
                     nor by its upgrades, and then it takes the endpoint away";

/// Whether the operator says that it is in create-only mode.
fn is_create_only(server: &Value) -> bool {
    let conditions = server["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|it| it["type"] == "CreateOnlyMode" && it["status"] == "True")
}

/// Since 1.0: by the operator.
fn with(facts: &Facts<'_>, wanted: &Wanted, server: &Value, decision: &mut Decision) {
    // What was written by hand before an upgrade is the operator's again.
    for piece in [Piece::Configuration, Piece::Workload] {
        decision.memory.written.remove(&piece);
        decision.memory.reverts.retain(|it| it.piece != piece);
    }
    let live = &server["spec"]["federation"];
    let peers = live["federatesWith"].as_array().into_iter().flatten();
    let names = peers.filter_map(|it| it["trustDomain"].as_str());
    decision.memory.static_names = names.map(str::to_owned).collect();
    let place = format!("`spec.federation.federatesWith` of {}", spire_server());
    if !applied(server, "f:federatesWith") {
        configuration::shadowed(&place, wanted, decision);
    }
    match obstacle(wanted, server) {
        Some((reason, message)) => decision.tell(SERVER_CONFIGURED, false, reason, message),
        None => configure(facts, wanted, server, decision),
    }
    exposed(facts, wanted, decision);
}

/// Why nothing may be written, or could be.
fn obstacle(wanted: &Wanted, server: &Value) -> Option<(&'static str, String)> {
    let live = &server["spec"]["federation"];
    let endpoint = &wanted.endpoint;
    let profile = endpoint.profile.as_str();
    let object = spire_server();
    if is_create_only(server) {
        let message = format!(
            "the operator is in create-only mode: what {object} says reaches the server only once \
             CREATE_ONLY_MODE is taken out of the operator's environment"
        );
        return Some(("CreateOnlyMode", message));
    }
    if endpoint.server_port() != ServedEndpoint::PORT {
        let port = ServedEndpoint::PORT;
        let message =
            format!("the operator has the endpoint on port {port}: declare no other `port`");
        return Some(("PortFixed", message));
    }
    if wanted
        .static_peers
        .as_ref()
        .is_some_and(|it| it.len() > STATIC_PEERS)
    {
        let message = format!(
            "{object} takes {STATIC_PEERS} trust domains in `federatesWith`: do without \
             `staticFederatesWith`, which nothing needs"
        );
        return Some(("TooManyPeers", message));
    }
    match live["bundleEndpoint"]["profile"].as_str() {
        Some(found) if found != profile => {
            let message = format!(
                "{object} has the profile {found}, which its operator lets nobody change: declare \
                 `profile: {found}`"
            );
            return Some(("ProfileImmutable", message));
        }
        _ => {}
    }
    if endpoint.profile == Profile::HttpsWeb && !live["bundleEndpoint"]["httpsWeb"].is_object() {
        let message = format!(
            "where the certificate comes from can't be declared here: set \
             `spec.federation.bundleEndpoint.httpsWeb` of {object} first"
        );
        return Some(("NoCertificate", message));
    }
    if !live.is_object() && !endpoint.accept_irreversible {
        return Some(("Irreversible", irreversible(wanted)));
    }
    None
}

/// What has to be accepted before `spec.federation` is set.
fn irreversible(wanted: &Wanted) -> String {
    format!(
        "`spec.federation` of {} would be set, which can't be taken back: its operator lets nobody \
         remove it, nor change its profile ({}) later; declare `acceptIrreversible: true` if that is \
         meant",
        spire_server(),
        wanted.endpoint.profile.as_str()
    )
}

/// Keeps `spec.federation` as declared.
fn configure(facts: &Facts<'_>, wanted: &Wanted, server: &Value, decision: &mut Decision) {
    let reference = spire_server();
    let live = &server["spec"]["federation"];
    let desired = federation(wanted, server, facts.live);
    let given_up = wanted.static_peers.is_none() && applied(server, "f:federatesWith");
    if agrees(live, &desired) && !given_up {
        let message = format!("{reference} is as declared, and its operator configures the server");
        decision.tell(SERVER_CONFIGURED, true, "Configured", message);
        return;
    }
    let configuration = |federation: &Value| {
        let mut part = federation.clone();
        if let Some(part) = part.as_object_mut() {
            part.remove("managedRoute");
        }
        part
    };
    let restarts = given_up || !agrees(live, &configuration(&desired));
    let mut asked = configuration(&desired);
    asked["expose"] = json!(wanted.endpoint.expose);
    let draft = Draft {
        piece: Piece::Operator,
        object: &reference,
        live: Some(server),
        path: &["f:spec", "f:federation"],
        asked,
        write: Write::Apply(object(&desired)),
        why: format!("set `spec.federation` of {reference}"),
        restarts,
    };
    if decision.write(facts, SERVER_CONFIGURED, draft) {
        let message =
            format!("{reference} says what is declared: its operator configures the server");
        decision.tell(SERVER_CONFIGURED, true, "Configured", message);
        if let Some(peers) = &wanted.static_peers {
            decision.memory.static_names = peers.keys().map(ToString::to_string).collect();
        }
    }
}

fn object(federation: &Value) -> Value {
    let mut object = objects::bare(&spire_server());
    object["spec"] = json!({"federation": federation});
    object
}

/// Whether the agent owns a field of `spec.federation`.
fn applied(server: &Value, field: &str) -> bool {
    let federation = applied_fields(server).and_then(|it| it.get("f:spec")?.get("f:federation"));
    federation.is_some_and(|it| it.get(field).is_some())
}

/// `spec.federation` as declared. What is not declared is not in it.
fn federation(wanted: &Wanted, server: &Value, live: &Live) -> Value {
    let endpoint = &wanted.endpoint;
    let mut bundle_endpoint = json!({"profile": endpoint.profile.as_str()});
    if let Some(hint) = endpoint.refresh_hint {
        // What its API takes.
        bundle_endpoint["refreshHint"] = json!(hint.clamp(60, 3600));
    }
    let mut federation = json!({"bundleEndpoint": bundle_endpoint});
    if let Some(peers) = &wanted.static_peers {
        let peers = peers
            .iter()
            .map(|(peer, endpoint)| static_peer(peer, endpoint));
        federation["federatesWith"] = peers.collect();
    }
    let path = ["f:spec", "f:federation", "f:managedRoute"];
    let standing = &server["spec"]["federation"]["managedRoute"];
    let managed = match led_by(wanted, live) {
        Lead::Operator | Lead::Moved => true,
        // Whether it stays is up to whoever asked for it.
        Lead::Agent | Lead::Nothing => {
            standing == "true" && last_other_writer(server, &path).is_some()
        }
    };
    federation["managedRoute"] = json!(managed.to_string());
    federation
}

fn static_peer(peer: &TrustDomain, endpoint: &ServedEndpoint) -> Value {
    let mut item = json!({
        "trustDomain": peer,
        "bundleEndpointUrl": endpoint.url,
        "bundleEndpointProfile": endpoint.profile.as_str(),
    });
    if let (Profile::HttpsSpiffe, Some(id)) = (endpoint.profile, &endpoint.spiffe_id) {
        item["endpointSpiffeId"] = json!(id);
    }
    item
}

/// What leads to the endpoint from outside the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    /// The Route that the operator makes.
    Operator,
    /// A Route that the operator took over, and gave another host.
    Moved,
    /// Something that the agent makes.
    Agent,
    /// Nothing that is declared.
    Nothing,
}

fn led_by(wanted: &Wanted, live: &Live) -> Lead {
    match &wanted.endpoint.expose {
        None | Some(Expose::None) => return Lead::Nothing,
        Some(Expose::Route) => {}
        Some(Expose::Ingress(_) | Expose::Gateway(_) | Expose::LoadBalancer(_)) => {
            return Lead::Agent;
        }
    }
    let host = wanted.endpoint.host_and_port().map(|(host, _)| host);
    if host == Some(host_of_operator(&wanted.trust_domain)) {
        return Lead::Operator;
    }
    let server = live.get(&spire_server());
    let managed = server.is_some_and(|it| it["spec"]["federation"]["managedRoute"] == "true");
    if managed { Lead::Moved } else { Lead::Agent }
}

/// The only host that the operator gives its Route.
fn host_of_operator(trust_domain: &TrustDomain) -> String {
    format!("federation.{trust_domain}")
}

/// Keeps what leads to the endpoint, or tells of what the operator keeps.
fn exposed(facts: &Facts<'_>, wanted: &Wanted, decision: &mut Decision) {
    let lead = led_by(wanted, facts.live);
    if lead == Lead::Agent {
        exposure::manage(facts, wanted, decision);
        return;
    }
    exposure::release(facts, decision);
    if lead == Lead::Nothing {
        decision.tell(
            ENDPOINT_EXPOSED,
            true,
            "InCluster",
            "the operator's Service leads to it in the cluster; nothing is asked for outside of it",
        );
        return;
    }
    let reference = route(&wanted.installation);
    let url = &wanted.endpoint.url;
    let host = host_of_operator(&wanted.trust_domain);
    let found = facts.live.get(&reference);
    let declared = wanted.endpoint.host_and_port().map(|(host, _)| host);
    match found.and_then(|route| route["spec"]["host"].as_str()) {
        None if lead == Lead::Operator => decision.tell(
            ENDPOINT_EXPOSED,
            None,
            "Awaited",
            format!("the operator has not made {reference} yet"),
        ),
        Some(found) if declared.as_deref() == Some(found) => match found_refusal(facts, &reference) {
            Some(why) => {
                decision.tell(ENDPOINT_EXPOSED, false, "NotAdmitted", format!("{reference}: {why}"));
            }
            None => decision.tell(
                ENDPOINT_EXPOSED,
                true,
                "Exposed",
                format!("{url} leads to it by the operator's {reference}"),
            ),
        },
        found => decision.tell(
            ENDPOINT_EXPOSED,
            false,
            "RouteMoved",
            format!(
                "peers are told {url}, but the operator keeps {reference} at the host {}, as \
                 `managedRoute` is \"true\": change `url` in {} to https://{host}, and every peer's \
                 URL follows; until then they get the bundle by git alone",
                found.unwrap_or(&host),
                trust_domain_path(&wanted.trust_domain)
            ),
        ),
    }
}

fn found_refusal(facts: &Facts<'_>, reference: &ObjectRef) -> Option<String> {
    facts.live.get(reference).and_then(exposure::refusal)
}

/// Gives back what can be given back.
pub(super) fn release(facts: &Facts<'_>, installation: &Installation) -> Decision {
    let server = facts.live.get(&spire_server());
    let (Some(Generation::With), Some(server)) = (Generation::of(facts.live), server) else {
        return objects::release(facts, installation);
    };
    let mut decision = Decision::to_give_back(facts.memory);
    exposure::release(facts, &mut decision);
    let live = &server["spec"]["federation"];
    if applied(server, "f:federatesWith") {
        // Only what costs trust is taken back: a changed hint would restart the server for nothing, and
        // without `managedRoute` the operator makes a Route.
        let rest = json!({
            "bundleEndpoint": {"profile": live["bundleEndpoint"]["profile"]},
            "managedRoute": live["managedRoute"],
        });
        decision.steps.push(objects::giving_back(
            Piece::Operator,
            Write::Apply(object(&rest)),
            format!("took `federatesWith` out of {}", spire_server()),
            true,
        ));
    }
    if facts.memory.written.contains_key(&Piece::Operator) {
        decision.tell(
            SERVER_CONFIGURED,
            false,
            "Irreversible",
            format!(
                "the server is no longer managed, but `spec.federation` of {} stays, and the server \
                 goes on serving its bundle: its operator lets nobody remove it",
                spire_server()
            ),
        );
    }
    if decision.steps.is_empty() && decision.conditions.is_empty() {
        decision.memory = Memory {
            resumed: facts.memory.resumed.clone(),
            ..Memory::default()
        };
    }
    decision
}

#[cfg(test)]
mod tests;
