//! What was applied and stayed as it was: remembered as digests, so that it costs no request.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ownership;
use crate::model::{bundle::Digest, manifest::ObjectKey};

/// Objects that need no look: what was desired, and what the server made of it.
#[derive(Clone, Debug, Default)]
pub struct Settled(BTreeMap<ObjectKey, (Digest, Digest)>);

impl Settled {
    /// Remembers what an apply led to. The server may have defaulted and normalised: whatever it
    /// made of the object is what is expected from now on.
    pub fn remember(&mut self, key: ObjectKey, desired: &Value, live: &Value) {
        self.0.insert(key, (digest(desired), live_digest(live)));
    }

    /// Forgets an object.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.0.remove(key);
    }

    /// Whether the object needs no apply: the same was applied before and nobody changed it since,
    /// or, as after a restart, the fields that we own say so.
    pub fn stands(&self, key: &ObjectKey, desired: &Value, live: &Value) -> bool {
        let remembered = self.0.get(key).is_some_and(|(applied, standing)| {
            *applied == digest(desired) && *standing == live_digest(live)
        });
        remembered || ownership::in_force(desired, live)
    }
}

fn digest(value: &Value) -> Digest {
    Digest::of(value.to_string().as_bytes())
}

/// The digest of what others than the object's own controller see: without status and book-keeping.
fn live_digest(live: &Value) -> Digest {
    let mut live = live.clone();
    strip_bookkeeping(&mut live);
    digest(&live)
}

/// Removes what changes by itself: status, counters, times and the record of managers.
pub fn strip_bookkeeping(object: &mut Value) {
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in [
            "managedFields",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "uid",
            "selfLink",
        ] {
            metadata.remove(field);
        }
    }
}
