//! `namePrefix` and `nameSuffix`: longer names for everything but what is named by its content.

use super::resource::Resource;

/// Kinds whose names kustomize leaves as they are.
fn keeps_its_name(resource: &Resource) -> bool {
    match resource.original().kind.as_str() {
        "CustomResourceDefinition" | "Namespace" => true,
        "APIService" => resource.gvk().group == "apiregistration.k8s.io",
        _ => false,
    }
}

/// Puts the prefix before the object's name.
pub(super) fn prefix(resource: &mut Resource, prefix: &str) {
    if !keeps_its_name(resource) {
        let name = format!("{prefix}{}", resource.name());
        resource.prefixes.push(prefix.to_owned());
        resource.rename(&name);
    }
}

/// Puts the suffix behind the object's name.
pub(super) fn suffix(resource: &mut Resource, suffix: &str) {
    if !keeps_its_name(resource) {
        let name = format!("{}{suffix}", resource.name());
        resource.suffixes.push(suffix.to_owned());
        resource.rename(&name);
    }
}
