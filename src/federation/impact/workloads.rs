//! Which workloads of an overlay a registration is for, and which of them start anew.

use serde_json::Value;

use crate::{
    federation::objects::CLUSTER_SPIFFE_ID,
    model::manifest::{Manifest, ObjectRef},
};

/// Controllers that replace their pods when the template changes.
const ROLLED_OUT: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];

/// The workloads among `manifests` whose pods a `ClusterSPIFFEID` selects. Pods that nothing in the
/// overlay makes are not known here, so none found does not mean that there is none.
pub(super) fn selected(registration: &Value, manifests: &[Manifest]) -> Vec<ObjectRef> {
    if registration["kind"] != CLUSTER_SPIFFE_ID {
        return Vec::new();
    }
    let spec = &registration["spec"];
    let workloads = manifests.iter().filter(|manifest| {
        pod_template(&manifest.object).is_some_and(|pod| {
            matches(&spec["podSelector"], &|name| label(pod, name))
                && in_namespace(&spec["namespaceSelector"], &manifest.reference, manifests)
        })
    });
    workloads
        .map(|manifest| manifest.reference.clone())
        .collect()
}

/// The workloads whose pods are replaced, as their template differs.
pub fn restarts(before: &[Manifest], after: &[Manifest]) -> Vec<ObjectRef> {
    let template = |manifest: &Manifest| manifest.object["spec"]["template"].clone();
    let rolled_out = after
        .iter()
        .filter(|new| ROLLED_OUT.contains(&new.reference.gvk.kind.as_str()))
        .filter(|new| {
            let key = new.reference.key();
            let old = before.iter().find(|old| old.reference.key() == key);
            old.is_some_and(|old| template(old) != template(new))
        });
    rolled_out.map(|new| new.reference.clone()).collect()
}

/// The object that carries the labels of a workload's pods; `None` if it makes no pods.
fn pod_template(object: &Value) -> Option<&Value> {
    let path = match object["kind"].as_str()? {
        "Pod" => return Some(object),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => "/spec/template",
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => return None,
    };
    object.pointer(path)
}

fn label<'o>(object: &'o Value, name: &str) -> Option<&'o str> {
    object["metadata"]["labels"].get(name)?.as_str()
}

/// Whether the workload's namespace is selected. Of a namespace outside the overlay only its name is
/// known, which every namespace has as a label.
fn in_namespace(selector: &Value, workload: &ObjectRef, manifests: &[Manifest]) -> bool {
    let Some(namespace) = workload.namespace.as_deref() else {
        return selector.is_null();
    };
    let declared = manifests
        .iter()
        .find(|it| it.reference.gvk.kind == "Namespace" && it.reference.name == namespace);
    matches(selector, &|name| match name {
        "kubernetes.io/metadata.name" => Some(namespace),
        name => label(&declared?.object, name),
    })
}

/// Whether labels satisfy a label selector (`meta/v1 LabelSelector`); an empty one selects everything.
fn matches<'l>(selector: &Value, label: &dyn Fn(&str) -> Option<&'l str>) -> bool {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut labels = labels.map(|(name, value)| label(name) == value.as_str());
    let expressions = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    let mut expressions = expressions.map(|expression| {
        let found = label(expression["key"].as_str().unwrap_or_default());
        let values = expression["values"].as_array().into_iter().flatten();
        let listed = values.filter_map(Value::as_str).any(|it| found == Some(it));
        match expression["operator"].as_str() {
            Some("In") => listed,
            Some("NotIn") => !listed,
            Some("Exists") => found.is_some(),
            Some("DoesNotExist") => found.is_none(),
            _ => false,
        }
    });
    labels.all(|it| it) && expressions.all(|it| it)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{manifest::Origin, repository::RepoPath};

    fn manifest(object: Value) -> Manifest {
        let origin = Origin {
            path: RepoPath::ROOT,
            position: None,
        };
        Manifest::new(object, origin).unwrap()
    }

    fn deployment(name: &str, namespace: &str, app: &str) -> Manifest {
        manifest(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"template": {"metadata": {"labels": {"app": app}}}},
        }))
    }

    #[test]
    fn registrations_select_by_pod_and_namespace() {
        let namespace = manifest(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "n", "labels": {"tier": "web"}},
        }));
        let manifests = [
            namespace,
            deployment("a", "n", "a"),
            deployment("b", "o", "b"),
        ];
        let check = |spec: Value, expected: &[&str]| {
            let registration = json!({"kind": CLUSTER_SPIFFE_ID, "spec": spec});
            let found = selected(&registration, &manifests);
            let names: Vec<_> = found.iter().map(|it| it.name.as_str()).collect();
            assert_eq!(names, expected, "{registration}");
        };
        let expression = |operator: &str, values: &[&str]| {
            json!({"podSelector": {"matchExpressions": [
                {"key": "app", "operator": operator, "values": values},
            ]}})
        };
        check(json!({}), &["a", "b"]);
        check(
            json!({"podSelector": {"matchLabels": {"app": "b"}}}),
            &["b"],
        );
        check(
            json!({"namespaceSelector": {"matchLabels": {"tier": "web"}}}),
            &["a"],
        );
        let named = json!({"matchLabels": {"kubernetes.io/metadata.name": "o"}});
        check(json!({"namespaceSelector": named}), &["b"]);
        check(expression("In", &["a", "c"]), &["a"]);
        check(expression("NotIn", &["a"]), &["b"]);
        check(expression("Exists", &[]), &["a", "b"]);
        check(expression("DoesNotExist", &[]), &[]);
        check(expression("Unheard", &[]), &[]);
    }

    #[test]
    fn only_a_changed_template_replaces_pods() {
        let (old, new) = (deployment("a", "n", "x"), deployment("a", "n", "y"));
        let mut scaled = old.clone();
        scaled.object["spec"]["replicas"] = 3.into();
        let one = std::slice::from_ref;
        let replaced = restarts(one(&old), one(&new));
        assert_eq!(replaced, std::slice::from_ref(&new.reference));
        assert!(restarts(one(&old), one(&scaled)).is_empty());
        assert!(restarts(&[], one(&new)).is_empty());
    }
}
