//! What one kustomization yields.

use std::collections::{HashMap, hash_map};

use super::{
    accumulate::Renderer,
    resource::{Key, Resource},
};
use crate::model::diagnostic::{Code, Diagnostic};

/// The objects of one kustomization, of what it includes, and of what it works on if it is a
/// component.
#[derive(Default)]
pub(super) struct Layer {
    pub(super) resources: Vec<Resource>,
    /// Where each object was written, by its present identity.
    places: HashMap<Key, String>,
    /// Whether something below could not be read, so that objects are missing.
    pub(super) incomplete: bool,
}

impl Layer {
    /// Adds resources; of two that are one object the second is refused.
    pub(super) fn add(&mut self, renderer: &mut Renderer<'_>, resources: Vec<Resource>) {
        for resource in resources {
            match self.places.entry(resource.key()) {
                hash_map::Entry::Occupied(first) => {
                    renderer.diagnostics.push(duplicate(&resource, first.get()));
                    self.incomplete = true;
                }
                hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(place(&resource));
                    self.resources.push(resource);
                }
            }
        }
    }

    /// Looks at everything's identity anew; of two that became one object the second is refused.
    pub(super) fn reindex(&mut self, renderer: &mut Renderer<'_>) {
        self.places.clear();
        let resources = std::mem::take(&mut self.resources);
        self.add(renderer, resources);
    }

    /// Changes every object; one that can't be changed is left out.
    pub(super) fn each(
        &mut self,
        renderer: &mut Renderer<'_>,
        mut change: impl FnMut(&mut Resource) -> Result<(), String>,
    ) {
        for mut resource in std::mem::take(&mut self.resources) {
            match change(&mut resource) {
                Ok(()) => self.resources.push(resource),
                Err(reason) => {
                    renderer.left_out(&resource, Code::InvalidValue, &reason);
                    self.incomplete = true;
                }
            }
        }
    }

    /// Leaves out everything that a mistake could have changed, and says so in its diagnostic.
    pub(super) fn leave_out(
        &mut self,
        renderer: &mut Renderer<'_>,
        mut diagnostic: Diagnostic,
        mut concerns: impl FnMut(usize, &Resource) -> bool,
    ) {
        let before = self.resources.len();
        let mut index = 0;
        self.resources.retain(|resource| {
            index += 1;
            !concerns(index - 1, resource)
        });
        self.incomplete = true;
        let lost = before - self.resources.len();
        if lost > 0 {
            diagnostic.message = format!(
                "{}; {lost} objects of {} that it may change are left out",
                diagnostic.message,
                diagnostic.path.parent()
            );
        }
        renderer.diagnostics.push(diagnostic);
    }
}

fn duplicate(resource: &Resource, first: &str) -> Diagnostic {
    Diagnostic::error(
        Code::DuplicateObject,
        &resource.origin.path,
        format!("{} is declared twice, first at {first}", resource.title()),
    )
    .at(resource.origin.position)
    .help("keep one of the two, or list its file or base only once")
}

fn place(resource: &Resource) -> String {
    match resource.origin.position {
        Some(position) => format!("{}:{position}", resource.origin.path),
        None => resource.origin.path.to_string(),
    }
}
