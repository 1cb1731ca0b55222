//! What was applied and stayed as it was: remembered as digests, so that it costs no request.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::ownership;
use crate::model::{bundle::Digest, manifest::ObjectKey};

/// What is remembered is checked by a dry run after this long, plus up to as much again: each object
/// at a moment of its own, which only its name decides.
const VERIFY_AFTER: SignedDuration = SignedDuration::from_hours(3);

/// Objects that need no look: what was desired, and what the server made of it.
#[derive(Clone, Debug, Default)]
pub struct Settled(BTreeMap<ObjectKey, Standing>);

#[derive(Clone, Debug)]
struct Standing {
    desired: Digest,
    live: Digest,
    /// The `resourceVersion`: while it is the same, so is the rest.
    version: Value,
    verify_at: Timestamp,
}

impl Settled {
    /// Remembers what an apply led to. The server may have defaulted and normalised: whatever it
    /// made of the object is what is expected from now on.
    pub fn remember(&mut self, key: ObjectKey, desired: &Value, live: &Value, now: Timestamp) {
        let spread = Digest::of(format!("{key:?}").as_bytes());
        let spread = u32::from_str_radix(&spread.as_str()[..4], 16).unwrap_or(0);
        let share = VERIFY_AFTER * i32::try_from(spread).unwrap_or(0) / 0x1_0000;
        let standing = Standing {
            desired: digest(desired),
            live: live_digest(live),
            version: live["metadata"]["resourceVersion"].clone(),
            verify_at: now + VERIFY_AFTER + share,
        };
        self.0.insert(key, standing);
    }

    /// Forgets an object.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.0.remove(key);
    }

    /// Whether the same was applied before.
    pub fn was_applied(&self, key: &ObjectKey, desired: &Value) -> bool {
        let known = self.0.get(key);
        known.is_some_and(|known| known.desired == digest(desired))
    }

    /// Whether the same was applied before and nobody changed it since.
    pub fn remembers(&self, key: &ObjectKey, desired: &Value, live: &Value) -> bool {
        let version = &live["metadata"]["resourceVersion"];
        self.0.get(key).is_some_and(|known| {
            known.desired == digest(desired)
                && ((!version.is_null() && known.version == *version)
                    || known.live == live_digest(live))
        })
    }

    /// Whether the object needs no apply: the same was applied before and nobody changed it since,
    /// or, as after a restart, the fields that we own say so.
    pub fn stands(&self, key: &ObjectKey, desired: &Value, live: &Value) -> bool {
        self.remembers(key, desired, live) || ownership::in_force(desired, live)
    }

    /// Whether it is time to ask the server about what is remembered.
    pub fn is_to_be_verified(&self, key: &ObjectKey, now: Timestamp) -> bool {
        self.0.get(key).is_some_and(|known| known.verify_at <= now)
    }
}

/// Whether two states of an object are the same to others than its own controller.
pub fn is_same(one: &Value, other: &Value) -> bool {
    live_digest(one) == live_digest(other)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_remembered_is_verified_at_a_moment_of_its_own() {
        let key = |name: &str| ObjectKey {
            group_kind: "K".to_owned(),
            namespace: None,
            name: name.to_owned(),
        };
        let live = |version: &str, value: u8| json!({"metadata": {"resourceVersion": version}, "spec": value, "status": version});
        let start = Timestamp::UNIX_EPOCH;
        let mut settled = Settled::default();
        let desired = json!({"spec": 1});
        for name in ["a", "b"] {
            settled.remember(key(name), &desired, &live("1", 1), start);
        }
        assert!(settled.remembers(&key("a"), &desired, &live("1", 1)));
        // The status is its controller's business.
        assert!(settled.remembers(&key("a"), &desired, &live("2", 1)));
        assert!(!settled.remembers(&key("a"), &desired, &live("2", 2)));
        assert!(!settled.remembers(&key("a"), &json!({}), &live("1", 1)));
        let due = |name: &str| {
            let minutes = (0..400).find(|minute| {
                let now = start + SignedDuration::from_mins(*minute);
                settled.is_to_be_verified(&key(name), now)
            });
            minutes.unwrap()
        };
        assert!((180..=360).contains(&due("a")) && (180..=360).contains(&due("b")));
        assert_ne!(due("a"), due("b"));
    }
}
