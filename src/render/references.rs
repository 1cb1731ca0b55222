//! References by name follow the objects that they name into their new names and namespaces.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::{
    field::{Field, Leaf},
    reference_table::{NAMED, Named},
    resource::{NO_NAMESPACE, Resource},
};
use crate::model::{manifest::Gvk, scalar};

/// What became of the references of all objects.
#[derive(Default)]
pub(super) struct Outcome {
    /// The indexes of objects with references that can't be followed, each with the reason.
    pub(super) failed: Vec<(usize, String)>,
    /// The indexes of objects that name something that is not there, each with the name.
    pub(super) dangling: Vec<(usize, String)>,
}

/// Updates every reference.
pub(super) fn update(resources: &mut [Resource]) -> Outcome {
    let table: Vec<(&Named, Vec<(Field<'_>, String)>)> =
        NAMED.iter().map(|named| (named, named.fields())).collect();
    let renamed = by_former_names(resources);
    let mut outcome = Outcome::default();
    for index in 0..resources.len() {
        let referrer = &resources[index];
        let original = Gvk {
            kind: referrer.original().kind,
            ..referrer.gvk()
        };
        // The object apart from the list, so that candidates can be read while it is written.
        let mut object = referrer.object.clone();
        let mut changed = false;
        let mut result = Ok(());
        let namespaces = account_namespaces(referrer);
        for (named, fields) in &table {
            for (field, path) in fields.iter().filter(|(field, _)| field.is_of(&original)) {
                let search = Search {
                    resources,
                    renamed: &renamed,
                    referrer,
                    namespaces: &namespaces,
                    named,
                    is_role: path.ends_with("roleRef/name"),
                };
                let field = Field { path, ..*field };
                let visited = field.visit_all(&mut object, Leaf::Existing, &mut |value| {
                    let (hit, dangling) = search.follow(value)?;
                    changed |= hit;
                    outcome.dangling.extend(dangling.map(|name| (index, name)));
                    Ok(())
                });
                result = result.and(visited);
            }
        }
        match result {
            Ok(()) if changed => resources[index].object = object,
            Ok(()) => {}
            Err(reason) => outcome.failed.push((index, reason)),
        }
    }
    outcome
}

/// The indexes of objects by the names that they once had.
fn by_former_names(resources: &[Resource]) -> HashMap<String, Vec<usize>> {
    let mut found: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, resource) in resources.iter().enumerate() {
        let names: BTreeSet<&str> = resource
            .previous
            .iter()
            .map(|id| id.name.as_str())
            .collect();
        for name in names {
            found.entry(name.to_owned()).or_default().push(index);
        }
    }
    found
}

/// The namespaces of the service accounts that a `RoleBinding` names.
fn account_namespaces(referrer: &Resource) -> BTreeSet<String> {
    if referrer.kind() != "RoleBinding" {
        return BTreeSet::new();
    }
    let subjects = referrer.object["subjects"].as_array();
    subjects
        .into_iter()
        .flatten()
        .filter(|subject| scalar::text(&subject["kind"]) == "ServiceAccount")
        .filter_map(|subject| scalar::string(&subject["namespace"]))
        .map(str::to_owned)
        .collect()
}

/// The search for what the references in one field of one object mean.
struct Search<'a> {
    resources: &'a [Resource],
    renamed: &'a HashMap<String, Vec<usize>>,
    referrer: &'a Resource,
    namespaces: &'a BTreeSet<String>,
    named: &'a Named,
    is_role: bool,
}

/// What a reference is made of.
#[derive(Clone, Copy)]
enum Parts<'p> {
    /// A name alone.
    Name,
    /// A mapping with a name, and a namespace if one is written.
    Mapping(Option<&'p str>),
}

/// Whether something changed, and the name of what was not found.
type Followed = (bool, Option<String>);

impl Search<'_> {
    /// Updates the references at one place.
    fn follow(&self, value: &mut Value) -> Result<Followed, String> {
        match value {
            Value::Null => Ok((false, None)),
            Value::Array(items) => {
                let mut followed = (false, None);
                for item in items {
                    let (changed, dangling) = match item {
                        Value::Null => continue,
                        Value::Array(_) => return Err("a list in a list".to_owned()),
                        item => self.follow(item)?,
                    };
                    followed = (followed.0 | changed, followed.1.or(dangling));
                }
                Ok(followed)
            }
            Value::Object(_) => self.follow_mapping(value),
            _ => self.follow_name(value),
        }
    }

    fn follow_name(&self, value: &mut Value) -> Result<Followed, String> {
        let name = scalar::text(value).into_owned();
        let Some(target) = self.target(&name, Parts::Name)? else {
            return Ok((false, Some(name)));
        };
        let changed = target.name() != name;
        if changed {
            *value = target.name().into();
        }
        Ok((changed, None))
    }

    fn follow_mapping(&self, value: &mut Value) -> Result<Followed, String> {
        let Some(name) = value
            .get("name")
            .map(|name| scalar::text(name).into_owned())
        else {
            return Err("a reference lacks `name`".to_owned());
        };
        let namespace = value
            .get("namespace")
            .map(|text| scalar::text(text).into_owned());
        let Some(target) = self.target(&name, Parts::Mapping(namespace.as_deref()))? else {
            return Ok((false, Some(name)));
        };
        if target.name() == name && target.namespace().is_empty() {
            return Ok((false, None));
        }
        value["name"] = target.name().into();
        if !target.namespace().is_empty() {
            value["namespace"] = target.namespace().into();
        }
        Ok((true, None))
    }

    /// The object that a reference means.
    fn target(&self, name: &str, parts: Parts<'_>) -> Result<Option<&Resource>, String> {
        let indexes = self.renamed.get(name).map_or(&[][..], Vec::as_slice);
        let reachable: Vec<&Resource> = indexes
            .iter()
            .map(|index| &self.resources[*index])
            .filter(|candidate| self.reaches(candidate))
            .collect();
        let mut candidates: Vec<&Resource> = match parts {
            Parts::Mapping(Some(namespace)) => self.of_namespace(namespace, reachable),
            _ => reachable,
        };
        candidates.retain(|candidate| {
            self.was_named_kind(candidate) && self.fits_role(candidate) && self.is_near(candidate)
        });
        if candidates.len() > 1 {
            candidates.retain(|candidate| self.same_affixes(candidate, true));
        }
        if candidates.len() > 1 {
            candidates.retain(|candidate| self.same_affixes(candidate, false));
        }
        let Some((first, others)) = candidates.split_first() else {
            return Ok(None);
        };
        let same = |other: &&Resource| {
            other.name() == first.name()
                && (matches!(parts, Parts::Name) || other.namespace() == first.namespace())
        };
        if others.iter().all(same) {
            Ok(Some(first))
        } else {
            Err(format!("`{name}` may be one of several objects"))
        }
    }

    /// Whether the referrer can name objects where this one is.
    fn reaches(&self, candidate: &Resource) -> bool {
        self.referrer.is_cluster_scoped()
            || candidate.is_cluster_scoped()
            || candidate.effective_namespace() == self.referrer.effective_namespace()
            || self.namespaces.contains(candidate.namespace())
    }

    /// Those that were in the namespace at first; if nothing at all was, those that are in it now.
    fn of_namespace<'r>(&self, namespace: &str, reachable: Vec<&'r Resource>) -> Vec<&'r Resource> {
        let was_there = |resource: &Resource| {
            namespace != NO_NAMESPACE && resource.original().namespace == namespace
        };
        let any = self
            .resources
            .iter()
            .any(|resource| was_there(resource) && self.reaches(resource));
        let is_there = |resource: &Resource| {
            namespace != NO_NAMESPACE && resource.effective_namespace() == namespace
        };
        reachable
            .into_iter()
            .filter(|one| if any { was_there(one) } else { is_there(one) })
            .collect()
    }

    /// Whether it was once of the kind that the field names.
    fn was_named_kind(&self, candidate: &Resource) -> bool {
        let gvk = candidate.gvk();
        self.named.group.is_none_or(|group| group == gvk.group)
            && self
                .named
                .version
                .is_none_or(|version| version == gvk.version)
            && candidate
                .previous
                .iter()
                .any(|id| id.kind == self.named.kind)
    }

    /// A `roleRef` says which kind it means.
    fn fits_role(&self, candidate: &Resource) -> bool {
        if !self.is_role {
            return true;
        }
        let role = &self.referrer.object["roleRef"];
        match (role.get("apiGroup"), role.get("kind")) {
            (Some(group), Some(kind)) => {
                let (group, kind) = (scalar::text(group), scalar::text(kind));
                (group.is_empty() || group == candidate.gvk().group)
                    && (kind.is_empty() || candidate.previous.iter().any(|id| id.kind == kind))
            }
            _ => true,
        }
    }

    fn is_near(&self, candidate: &Resource) -> bool {
        self.referrer.is_cluster_scoped()
            || candidate.is_cluster_scoped()
            || candidate.kind() == "ServiceAccount"
            || candidate.effective_namespace() == self.referrer.effective_namespace()
    }

    /// Whether the two went through the same kustomizations, as far as affixes tell.
    fn same_affixes(&self, candidate: &Resource, allow_none: bool) -> bool {
        let same = |a: &[String], b: &[String]| {
            if a.is_empty() || b.is_empty() {
                return allow_none || a.len() == b.len();
            }
            a.ends_with(b) || b.ends_with(a)
        };
        same(&self.referrer.prefixes, &candidate.prefixes)
            && same(&self.referrer.suffixes, &candidate.suffixes)
    }
}
