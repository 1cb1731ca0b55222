//! Registrations that give SPIFFE IDs to others than before, or other ones.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    sentence::{Sentence, named, sentence},
    workloads,
};
use crate::{
    federation::resolve::is_registration,
    model::{
        manifest::{Manifest, ObjectKey},
        trust_domain::{ClusterName, TrustDomain},
    },
};

/// What `federatesWith` says is told with the peers that it names.
const FEDERATION: &str = "federatesWith";

/// Fields of a registration that give a workload power over SPIRE itself, and which.
const PRIVILEGES: [(&str, &str); 2] = [
    (
        "admin",
        "may call the administrative APIs of the SPIRE server",
    ),
    (
        "downstream",
        "may sign SVIDs of the whole trust domain, as a downstream SPIRE server",
    ),
];

/// What becomes of a registration, as far as it decides who gets which SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityChange {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The cluster.
    pub cluster: ClusterName,
    /// The registration, as `Kind.group name`.
    pub registration: String,
    /// The SPIFFE ID, or the template of it, that it gave; `None` if the registration is new.
    pub before: Option<String>,
    /// The one that it will give; `None` if the registration goes.
    pub after: Option<String>,
    /// The fields of `spec` that differ, but for `federatesWith`.
    pub fields: BTreeSet<String>,
    /// The workloads of the overlay that it was for. Pods that nothing in the overlay makes are not
    /// known here.
    pub workloads_before: Vec<String>,
    /// The workloads of the overlay that it will be for.
    pub workloads_after: Vec<String>,
    /// Fields that give power over SPIRE, and did not before.
    pub privileges: Vec<String>,
}

impl IdentityChange {
    pub(super) fn sentence(&self) -> Sentence {
        let place = sentence!(
            &self.trust_domain,
            ": in ",
            &self.cluster,
            ", ",
            named(&self.registration),
        );
        let told = match (&self.before, &self.after) {
            (None, Some(id)) => sentence!(
                place,
                " is new, and gives the SPIFFE ID ",
                named(id),
                " to ",
                whom(&self.workloads_after),
            ),
            (Some(_), None) => sentence!(
                place,
                " goes: it gives no SPIFFE ID any more to ",
                whom(&self.workloads_before),
            ),
            (Some(old), Some(new)) if old != new => sentence!(
                place,
                " gave the SPIFFE ID ",
                named(old),
                ", and will give ",
                named(new),
                " to ",
                whom(&self.workloads_after),
            ),
            (_, _) => sentence!(
                place,
                " changes in ",
                Sentence::names(&self.fields),
                self.moved(),
            ),
        };
        let meaning = |field: &String| {
            let (_, meaning) = PRIVILEGES.iter().find(|(name, _)| name == field)?;
            Some(sentence!(*meaning, " (", named(field), ")"))
        };
        let powers = Sentence::join(self.privileges.iter().filter_map(meaning), " and ");
        if powers.is_empty() {
            told
        } else {
            sentence!(told, "; whoever has it ", powers)
        }
    }

    /// For whom it is, and was.
    fn moved(&self) -> Sentence {
        let (before, after) = (&self.workloads_before, &self.workloads_after);
        if before == after {
            sentence!(", and is for ", whom(after))
        } else {
            sentence!(
                ": it was for ",
                whom(before),
                ", and will be for ",
                whom(after)
            )
        }
    }
}

fn whom(workloads: &[String]) -> Sentence {
    if workloads.is_empty() {
        sentence!("pods that this overlay does not make")
    } else {
        Sentence::names(workloads)
    }
}

/// Compares the registrations of a cluster. `complete` is false while the overlay after the change is
/// known to lack something: then none is said to go.
pub fn identities(
    trust_domain: &TrustDomain,
    cluster: &ClusterName,
    before: &[Manifest],
    after: &[Manifest],
    complete: bool,
) -> Vec<IdentityChange> {
    let (old, new) = (registrations(before), registrations(after));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let change = |key: &ObjectKey| {
        let (was, is) = (old.get(key), new.get(key));
        if is.is_none() && !complete {
            return None;
        }
        let fields = differing(was.map(|it| &it.object), is.map(|it| &it.object));
        if fields.is_empty() {
            return None;
        }
        let reference = &is.or(was)?.reference;
        let workloads = |side: Option<&&Manifest>, overlay: &[Manifest]| -> Vec<String> {
            let selected = side.map(|it| workloads::selected(&it.object, overlay));
            let selected = selected.unwrap_or_default();
            selected.iter().map(ToString::to_string).collect()
        };
        let has = |side: Option<&&Manifest>, field: &str| {
            side.is_some_and(|it| it.object["spec"][field] == true)
        };
        let gained = PRIVILEGES
            .iter()
            .filter(|(field, _)| has(is, field) && !has(was, field));
        Some(IdentityChange {
            trust_domain: trust_domain.clone(),
            cluster: cluster.clone(),
            registration: reference.to_string(),
            before: was.map(|it| spiffe_id(&it.object)),
            after: is.map(|it| spiffe_id(&it.object)),
            fields,
            workloads_before: workloads(was, before),
            workloads_after: workloads(is, after),
            privileges: gained.map(|(field, _)| (*field).to_owned()).collect(),
        })
    };
    keys.into_iter().filter_map(change).collect()
}

fn registrations(manifests: &[Manifest]) -> BTreeMap<ObjectKey, &Manifest> {
    let registrations = manifests.iter().filter(|it| is_registration(&it.reference));
    registrations.map(|it| (it.reference.key(), it)).collect()
}

/// The fields of `spec` that only one side has, or both with other values.
fn differing(before: Option<&Value>, after: Option<&Value>) -> BTreeSet<String> {
    let member = |side: Option<&Value>, name: &str| side.map(|it| it["spec"][name].clone());
    let specs = [before, after].into_iter().flatten();
    let names = specs
        .filter_map(|it| it["spec"].as_object())
        .flat_map(Map::keys);
    names
        .filter(|name| name.as_str() != FEDERATION && member(before, name) != member(after, name))
        .cloned()
        .collect()
}

fn spiffe_id(registration: &Value) -> String {
    let spec = &registration["spec"];
    let fields = [&spec["spiffeIDTemplate"], &spec["spiffeID"]];
    let id = fields.into_iter().find_map(Value::as_str);
    id.unwrap_or("none").to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{manifest::Origin, repository::RepoPath};

    fn manifest(spec: &Value) -> Manifest {
        let object = json!({
            "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID",
            "metadata": {"name": "api"}, "spec": spec,
        });
        let origin = Origin {
            path: RepoPath::ROOT,
            position: None,
        };
        Manifest::new(object, origin).unwrap()
    }

    fn check(before: Option<Value>, after: Option<Value>, expected: &[&str]) {
        let side = |spec: Option<Value>| -> Vec<Manifest> { spec.iter().map(manifest).collect() };
        let (trust_domain, cluster) = (
            TrustDomain::parse("a.test").unwrap(),
            ClusterName::parse("cluster-1").unwrap(),
        );
        let found = identities(&trust_domain, &cluster, &side(before), &side(after), true);
        let told: Vec<_> = found.iter().map(|it| it.sentence().to_string()).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn who_gets_which_id_is_told() {
        let place = "a.test: in cluster-1, ClusterSPIFFEID.spire.spiffe.io api";
        let others = "pods that this overlay does not make";
        let one = || json!({"spiffeIDTemplate": "spiffe://a.test/x", "federatesWith": ["b.test"]});
        let with = |field: &str, value: Value| {
            let mut spec = one();
            spec[field] = value;
            Some(spec)
        };
        check(
            None,
            Some(one()),
            &[&format!(
                "{place} is new, and gives the SPIFFE ID spiffe://a.test/x to {others}"
            )],
        );
        check(
            Some(one()),
            None,
            &[&format!(
                "{place} goes: it gives no SPIFFE ID any more to {others}"
            )],
        );
        check(
            Some(one()),
            with("spiffeIDTemplate", json!("spiffe://a.test/y")),
            &[&format!(
                "{place} gave the SPIFFE ID spiffe://a.test/x, and will give spiffe://a.test/y to {others}"
            )],
        );
        check(
            Some(one()),
            with("admin", json!(true)),
            &[&format!(
                "{place} changes in admin, and is for {others}; whoever has it may call the administrative APIs of the SPIRE server (admin)"
            )],
        );
        check(Some(one()), with("federatesWith", json!([])), &[]);
    }
}
