//! Which workload is SPIRE's server, what its objects are called, and who installed it.

use serde_json::Value;

use super::{
    Found,
    meaning::{items, label, name, namespace},
};
use crate::model::declaration::{Distribution, Server};

/// The labels' value, and the namespace, of the zero trust workload identity manager.
const OPERATOR: &str = "zero-trust-workload-identity-manager";

/// A `StatefulSet` that runs a SPIRE server.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub stateful_set: String,
    /// The container of the server.
    pub container: String,
    /// The file that the server reads its configuration from, without its directory.
    pub config_file: String,
    /// The `ConfigMap`s that its pods mount.
    pub config_maps: Vec<String>,
    /// The labels of its pods.
    pub pod_labels: Value,
    /// Its own metadata.
    pub metadata: Value,
    /// What is odd about it.
    pub notes: Vec<String>,
}

/// The `StatefulSet`s that run a SPIRE server: those with a container that has its image, or is called
/// as all distributions call it.
pub fn candidates(stateful_sets: &[Value]) -> Vec<Candidate> {
    stateful_sets.iter().filter_map(candidate).collect()
}

fn candidate(stateful_set: &Value) -> Option<Candidate> {
    let pod = &stateful_set["spec"]["template"];
    let containers = || items(&pod["spec"]["containers"]);
    let container = containers()
        .find(|it| is_program(it, "spire-server"))
        .or_else(|| containers().find(|it| it["name"] == "spire-server"))?;
    Some(Candidate {
        namespace: namespace(stateful_set).to_owned(),
        stateful_set: name(stateful_set).to_owned(),
        container: container["name"].as_str()?.to_owned(),
        config_file: config_file(container),
        config_maps: mounted(&pod["spec"]),
        pod_labels: pod["metadata"]["labels"].clone(),
        metadata: stateful_set["metadata"].clone(),
        notes: Vec::new(),
    })
}

/// Whether a container's image is called like a program of SPIRE, whatever registry it comes from.
pub(super) fn is_program(container: &Value, program: &str) -> bool {
    let image = container["image"].as_str().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let repository = last.split([':', '@']).next().unwrap_or_default();
    repository.starts_with(program)
}

/// The file name after `-config`; all distributions call it `server.conf`.
fn config_file(container: &Value) -> String {
    let words = items(&container["command"]).chain(items(&container["args"]));
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    let path = words.iter().enumerate().find_map(|(index, word)| {
        let flag = word.trim_start_matches('-');
        match flag.split_once('=') {
            Some(("config", path)) => Some(path),
            None if flag == "config" => words.get(index + 1).copied(),
            _ => None,
        }
    });
    let path = path.unwrap_or("server.conf");
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// The `ConfigMap`s that a pod mounts.
pub(super) fn mounted(pod: &Value) -> Vec<String> {
    let volumes = || items(&pod["volumes"]);
    let projected = volumes().flat_map(|volume| items(&volume["projected"]["sources"]));
    volumes()
        .chain(projected)
        .filter_map(|it| it["configMap"]["name"].as_str())
        .map(str::to_owned)
        .collect()
}

impl Candidate {
    /// The names of its objects, given where its configuration was found.
    pub(super) fn server(&self, configuration: Option<&(String, String)>) -> Server {
        let usual = Server::default();
        let (config_map, config_key) = configuration
            .cloned()
            .unwrap_or((usual.config_map, usual.config_key));
        Server {
            stateful_set: self.stateful_set.clone(),
            container: self.container.clone(),
            config_map,
            config_key,
        }
    }
}

/// Who installed it; and of an operator, whether its `SpireServer` has `spec.federation`.
pub(super) fn distribution(
    candidate: &Candidate,
    definition: Option<&Value>,
) -> (Found<Distribution>, Option<bool>) {
    let object = serde_json::json!({"metadata": candidate.metadata});
    let place = format!(
        "StatefulSet {}/{}",
        candidate.namespace, candidate.stateful_set
    );
    let managed_by = label(&object, "app.kubernetes.io/managed-by");
    let part_of = label(&object, "app.kubernetes.io/part-of");
    let mut owners = items(&object["metadata"]["ownerReferences"]);
    let owned = owners.any(|owner| owner["kind"] == "SpireServer");
    if owned || managed_by == Some(OPERATOR) || part_of == Some(OPERATOR) {
        let federates = definition.map(has_federation);
        let version = match federates {
            Some(true) => ", and SpireServer has spec.federation: version 1.0 or newer",
            Some(false) => ", and SpireServer has no spec.federation: older than version 1.0",
            None => "",
        };
        let place = format!("the labels of {place}{version}");
        return (Found::new(Distribution::Ztwim, place), federates);
    }
    if managed_by == Some("Helm") {
        let chart = label(&object, "helm.sh/chart").unwrap_or("a chart without a name");
        let place = format!("{place} is of {chart}");
        return (Found::new(Distribution::Helm, place), None);
    }
    let place = format!("{place} has neither the labels of Helm nor of an operator");
    (Found::new(Distribution::Custom, place), None)
}

fn has_federation(definition: &Value) -> bool {
    items(&definition["spec"]["versions"]).any(|version| {
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["federation"]
            .is_object()
    })
}
