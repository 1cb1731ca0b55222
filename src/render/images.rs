//! `images`: other names, tags and digests for images.

use regex::Regex;
use serde_json::Value;

use super::{
    field::{Field, Leaf},
    kustomization::Image,
    resource::Resource,
};
use crate::model::scalar;

const FIELDS: [Field<'_>; 6] = [
    Field::everywhere("spec/containers[]/image"),
    Field::everywhere("spec/initContainers[]/image"),
    Field::everywhere("spec/volumes[]/image/reference"),
    Field::everywhere("spec/template/spec/containers[]/image"),
    Field::everywhere("spec/template/spec/initContainers[]/image"),
    Field::everywhere("spec/template/spec/volumes[]/image/reference"),
];

/// An entry of `images`, ready to be used.
pub(super) struct Replacer<'a> {
    image: &'a Image,
    pattern: Regex,
}

impl<'a> Replacer<'a> {
    /// Fails if the name, which is a regular expression, is none.
    pub(super) fn new(image: &'a Image) -> Result<Self, String> {
        // Braces: some tools write templates there.
        let pattern = format!(
            "^{}(:[a-zA-Z0-9_.{{}}-]*)?(@sha256:[a-zA-Z0-9_.{{}}-]*)?$",
            image.name
        );
        Regex::new(&pattern)
            .map(|pattern| Self { image, pattern })
            .map_err(|_| format!("`{}` is not a regular expression", image.name))
    }

    /// Changes the images of an object, as kustomize does: first in every list of containers,
    /// wherever it is; then in the fields of pods and of workloads, so that there `tagSuffix`
    /// counts twice.
    pub(super) fn apply(&self, resource: &mut Resource) -> Result<(), String> {
        if resource.kind() == "CustomResourceDefinition" {
            return Ok(());
        }
        self.walk(&mut resource.object)?;
        FIELDS.iter().try_for_each(|field| {
            field.visit(resource, Leaf::Existing, &mut |value| self.replace(value))
        })
    }

    fn walk(&self, value: &mut Value) -> Result<(), String> {
        match value {
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.walk(item)),
            Value::Object(members) => members.iter_mut().try_for_each(|(name, value)| {
                self.walk(value)?;
                match value {
                    Value::Array(items)
                        if matches!(name.as_str(), "containers" | "initContainers") =>
                    {
                        items.iter_mut().try_for_each(|item| match item {
                            Value::Object(container) => container
                                .get_mut("image")
                                .map_or(Ok(()), |image| self.replace(image)),
                            Value::Null => Ok(()),
                            _ => Err(format!("`{name}` has an item that is no mapping")),
                        })
                    }
                    _ => Ok(()),
                }
            }),
            _ => Ok(()),
        }
    }

    fn replace(&self, value: &mut Value) -> Result<(), String> {
        if value.is_object() || value.is_array() {
            return Err("an image is no single value".to_owned());
        }
        let written = scalar::text(value);
        if value.is_null() || !self.pattern.is_match(&written) {
            return Ok(());
        }
        let (name, mut tag, mut digest) = split(&written);
        let name = if self.image.new_name.is_empty() {
            name
        } else {
            &self.image.new_name
        };
        let suffixed;
        match self.image {
            Image {
                new_tag,
                digest: new,
                ..
            } if !new_tag.is_empty() || !new.is_empty() => {
                (tag, digest) = (new_tag, new);
            }
            Image { tag_suffix, .. } if !tag_suffix.is_empty() => {
                suffixed = format!("{tag}{tag_suffix}");
                (tag, digest) = (&suffixed, "");
            }
            _ => {}
        }
        let mut image = name.to_owned();
        if !tag.is_empty() {
            image = format!("{image}:{tag}");
        }
        if !digest.is_empty() {
            image = format!("{image}@{digest}");
        }
        *value = if scalar::is_quoted(value) {
            scalar::quoted(&image)
        } else {
            scalar::literal(&image)
        };
        Ok(())
    }
}

/// The name, tag and digest of an image; empty if there is none. A colon before the first slash
/// belongs to a host.
fn split(image: &str) -> (&str, &str, &str) {
    let host = image.find('/').filter(|slash| *slash > 0).unwrap_or(0);
    let find = |c: char| image[host..].find(c).map(|index| index + host);
    match (find(':'), find('@')) {
        (None, None) => (image, "", ""),
        (Some(colon), Some(at)) if colon < at => {
            (&image[..colon], &image[colon + 1..at], &image[at + 1..])
        }
        (_, Some(at)) => (&image[..at], "", &image[at + 1..]),
        (Some(colon), None) => (&image[..colon], &image[colon + 1..], ""),
    }
}
