//! What people ask for in an object's annotations.

use std::fmt;

use serde_json::Value;

use super::fields::FieldPath;
use crate::model::{
    diagnostic::{Code, Diagnostic},
    manifest::Manifest,
};

/// For people, on an overlay's object, in the repository or live: `disabled` leaves the object alone.
pub const RECONCILE: &str = "trustweave.dev/reconcile";

/// For people, on an overlay's object: `disabled` has the object stay when it is no longer declared.
pub const PRUNE: &str = "trustweave.dev/prune";

/// For people, on an overlay's object: `take`, `yield`, `take <field>` or `yield <field>`, separated by
/// commas, say what happens to fields that a controller owns with another value.
pub const CONFLICTS: &str = "trustweave.dev/conflicts";

/// For people, on an overlay's object: `allowed` lets it be deleted and made anew, if a change is refused
/// because a field can't be changed.
pub const RECREATE: &str = "trustweave.dev/recreate";

/// What happens to a field that a controller owns with another value than is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The declared value wins.
    Take,
    /// The controller's value stays, and the declared one is left out.
    Yield,
}

/// What the annotations of one object ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// It is left alone.
    pub left_alone: bool,
    /// It may be deleted and made anew.
    pub recreate: bool,
    /// By field, as [`FieldPath::words`] has it; empty for all.
    conflicts: Vec<(String, Resolution)>,
}

/// An annotation with a value that it can't have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    annotation: &'static str,
    value: String,
    allowed: &'static str,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            annotation,
            value,
            allowed,
        } = self;
        write!(f, "`{annotation}: {value}`: the value is {allowed}")
    }
}

impl Policy {
    /// Reads the annotations of a declared object. What is mistaken asks for nothing.
    pub fn of(desired: &Value) -> (Self, Vec<Mistake>) {
        let mut mistakes = Vec::new();
        let mut flag =
            |annotation, set: &str, unset: &str, allowed| match annotated(desired, annotation) {
                None => false,
                Some(value) if value == set => true,
                Some(value) => {
                    if value != unset {
                        mistakes.push(Mistake {
                            annotation,
                            value: value.to_owned(),
                            allowed,
                        });
                    }
                    false
                }
            };
        let switch = "`disabled` or `enabled`";
        flag(PRUNE, "disabled", "enabled", switch);
        let left_alone = flag(RECONCILE, "disabled", "enabled", switch);
        let recreate = flag(RECREATE, "allowed", "refused", "`allowed` or `refused`");
        let conflicts = annotated(desired, CONFLICTS).map(|text| (text, resolutions(text)));
        let conflicts = match conflicts {
            None => Vec::new(),
            Some((_, Some(conflicts))) => conflicts,
            Some((text, None)) => {
                mistakes.push(Mistake {
                    annotation: CONFLICTS,
                    value: text.to_owned(),
                    allowed: "`take` or `yield`, or `take .some.field, yield .another.field`",
                });
                Vec::new()
            }
        };
        let policy = Self {
            left_alone,
            recreate,
            conflicts,
        };
        (policy, mistakes)
    }

    /// What happens to a field that a controller owns: the longest field that covers it decides.
    pub fn resolution(&self, path: &FieldPath) -> Option<Resolution> {
        let covering = self.conflicts.iter();
        let covering = covering.filter(|(field, _)| field.is_empty() || path.is_within(field));
        let decides = covering.max_by_key(|(field, _)| field.len());
        decides.map(|(_, resolution)| *resolution)
    }
}

/// Whether somebody said on a live object that it is to be left alone. Anything but `enabled` does.
pub fn is_left_alone(live: &Value) -> bool {
    annotated(live, RECONCILE).is_some_and(|value| value != "enabled")
}

/// Whether a live object is to stay when it is no longer declared. Anything but `enabled` does.
pub fn is_kept(live: &Value) -> bool {
    annotated(live, PRUNE).is_some_and(|value| value != "enabled")
}

/// What is wrong with the annotations of an overlay's objects.
pub fn check(manifests: &[Manifest]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for manifest in manifests {
        for mistake in Policy::of(&manifest.object).1 {
            let message = format!("{}: {mistake}", manifest.reference);
            let origin = &manifest.origin;
            found.push(
                Diagnostic::error(Code::InvalidValue, &origin.path, message).at(origin.position),
            );
        }
    }
    found
}

fn annotated<'a>(object: &'a Value, annotation: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][annotation].as_str()
}

fn resolutions(text: &str) -> Option<Vec<(String, Resolution)>> {
    let one = |part: &str| {
        let mut words = part.split_whitespace();
        let resolution = match words.next()? {
            "take" => Resolution::Take,
            "yield" => Resolution::Yield,
            _ => return None,
        };
        let field = words.next().unwrap_or_default().to_owned();
        let well_formed = field.is_empty() || field.starts_with('.');
        (well_formed && words.next().is_none()).then_some((field, resolution))
    };
    text.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::fields;

    fn annotated(name: &str, value: &str) -> Value {
        json!({"metadata": {"annotations": {name: value}}})
    }

    #[test]
    fn the_longest_field_decides() {
        let asked = annotated(CONFLICTS, "take, yield .spec.replicas");
        let (policy, mistakes) = Policy::of(&asked);
        assert_eq!(mistakes, []);
        let fields = json!({"f:spec": {"f:replicas": {}, "f:paused": {}}});
        let found: Vec<_> = fields::leaves(&fields)
            .iter()
            .map(|path| policy.resolution(path).unwrap())
            .collect();
        assert_eq!(found, [Resolution::Yield, Resolution::Take]);
        assert_eq!(
            Policy::default().resolution(&fields::leaves(&fields)[0]),
            None
        );
    }

    #[test]
    fn a_mistake_is_told_and_asks_for_nothing_but_keeps_what_is_there() {
        for (name, value) in [
            (PRUNE, "disable"),
            (RECONCILE, "false"),
            (RECREATE, "yes"),
            (CONFLICTS, "keep"),
            (CONFLICTS, "take spec.replicas"),
        ] {
            let (policy, mistakes) = Policy::of(&annotated(name, value));
            assert_eq!(policy, Policy::default());
            assert_eq!(mistakes.len(), 1, "{name}: {value}");
        }
        assert!(is_kept(&annotated(PRUNE, "disable")));
        assert!(is_left_alone(&annotated(RECONCILE, "false")));
        assert!(!is_kept(&annotated(PRUNE, "enabled")));
        let told = Policy::of(&annotated(PRUNE, "disable")).1[0].to_string();
        assert_eq!(
            told,
            "`trustweave.dev/prune: disable`: the value is `disabled` or `enabled`"
        );
    }
}
