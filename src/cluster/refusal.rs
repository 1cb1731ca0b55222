//! Refused applies, in words that say which fields are meant.

use kube::core::Status;

use super::Error;
use crate::model::manifest::ObjectRef;

/// What API servers say of fields that can't be changed: validation says most of them in one way
/// (`k8s.io/apimachinery/pkg/api/validation.FieldImmutableErrorMsg`), some in their own, and rules of
/// custom resources as their authors like, by custom that way too.
const IMMUTABLE: [&str; 6] = [
    "immutable",
    "may not change once set",
    "cannot change roleRef",
    "updates to statefulset spec",
    "may not be changed",
    "cannot be changed",
];

/// A refusal that names fields: owned by others, or not to be changed. `None` for any other: that
/// something is invalid does not mean that it would be valid anew.
pub(super) fn explained(reference: &ObjectRef, status: &Status) -> Option<Error> {
    let causes = status.details.as_ref().map(|details| &details.causes)?;
    let fields = |counts: &dyn Fn(&str, &str) -> bool| -> Vec<String> {
        let causes = causes.iter();
        let causes = causes.filter(|cause| counts(&cause.reason, &cause.message));
        causes
            .map(|cause| format!("{}: {}", cause.field.trim_start_matches('.'), cause.message))
            .collect()
    };
    let reference = Box::new(reference.clone());
    if status.is_conflict() {
        let fields = fields(&|reason, _| reason == "FieldManagerConflict");
        return (!fields.is_empty()).then_some(Error::Conflict { reference, fields });
    }
    // All of them: what is wrong otherwise too stays wrong when the object is made anew.
    let fields = fields(&|_, message| IMMUTABLE.iter().any(|words| message.contains(words)));
    let is_immutable = status.code == 422 && !fields.is_empty() && fields.len() == causes.len();
    is_immutable.then_some(Error::Immutable { reference, fields })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::manifest::Gvk;

    fn refused(code: u16, causes: &[(&str, &str, &str)]) -> Option<Error> {
        let causes = causes.iter().map(|(reason, field, message)| {
            json!({"reason": reason, "field": field, "message": message})
        });
        let reason = if code == 409 { "Conflict" } else { "Invalid" };
        let status = json!({
            "status": "Failure", "code": code, "reason": reason, "message": "m",
            "details": {"causes": causes.collect::<Vec<_>>()},
        });
        let reference = ObjectRef {
            gvk: Gvk::new("v1", "Service"),
            namespace: Some("n".to_owned()),
            name: "x".to_owned(),
        };
        explained(&reference, &serde_json::from_value(status).unwrap())
    }

    #[test]
    fn only_what_is_only_immutable_is() {
        let fixed = (
            "FieldValueInvalid",
            "spec.selector",
            "Invalid value: x: field is immutable",
        );
        let typo = (
            "FieldValueInvalid",
            "spec.ports",
            "Invalid value: 0: must be between 1 and 2",
        );
        let told = refused(422, &[fixed]).unwrap().to_string();
        assert_eq!(
            told,
            "Service n/x: spec.selector: Invalid value: x: field is immutable"
        );
        assert!(refused(422, &[typo]).is_none());
        assert!(refused(422, &[fixed, typo]).is_none());
        assert!(refused(422, &[]).is_none());
        let conflict = (
            "FieldManagerConflict",
            ".spec.replicas",
            "conflict with \"hpa\"",
        );
        let told = refused(409, &[conflict]).unwrap();
        assert!(matches!(told, Error::Conflict { .. }), "{told}");
        // A name that was taken meanwhile, say.
        assert!(refused(409, &[fixed]).is_none());
    }
}
