//! JSON patches (RFC 6902), as kustomize's library reads them: `replace` also adds a member that
//! is missing, a negative index counts from the end, and what is missing passes a `test` for null.

use json_patch::{
    AddOperation, Patch, PatchOperation,
    jsonptr::{Pointer, PointerBuf, Token},
};
use serde_json::Value;

use super::resource::{IDENTITY, Resource, missing};
use crate::model::{manifest::ObjectRef, scalar};

/// Applies the patch to an object: in full, or not at all. As in kustomize, scalars get their
/// meaning before, and the patch may change the name and the kind; what named the object follows if
/// its identity was remembered before.
pub(super) fn apply(resource: &mut Resource, patch: &Patch) -> Result<(), String> {
    let mut changed = resource.clone();
    scalar::settle(&mut changed.object);
    for (index, operation) in patch.iter().enumerate() {
        let Some(operation) = plain(operation.clone(), &changed.object) else {
            continue;
        };
        json_patch::patch(&mut changed.object, &[operation])
            .map_err(|error| format!("operation {index} at `{}`: {}", error.path, error.kind))?;
    }
    if ObjectRef::of(&changed.object).is_none() || changed.api_version().is_empty() {
        return Err(format!(
            "a patch must not take `{}` away",
            missing(&changed.object, &IDENTITY)
        ));
    }
    *resource = changed;
    Ok(())
}

/// The operation in the terms of RFC 6902; `None` if there is nothing to do.
fn plain(mut operation: PatchOperation, document: &Value) -> Option<PatchOperation> {
    match &mut operation {
        PatchOperation::Add(add) => add.path = counted(&add.path, document, 1),
        PatchOperation::Remove(remove) => remove.path = counted(&remove.path, document, 0),
        PatchOperation::Replace(replace) => {
            replace.path = counted(&replace.path, document, 0);
            let is_missing = replace.path.resolve(document).is_err();
            if is_missing && parent(&replace.path, document).is_some_and(Value::is_object) {
                return Some(PatchOperation::Add(AddOperation {
                    path: replace.path.clone(),
                    value: replace.value.take(),
                }));
            }
        }
        PatchOperation::Move(moved) => {
            moved.from = counted(&moved.from, document, 0);
            moved.path = counted(&moved.path, document, 1);
        }
        PatchOperation::Copy(copy) => {
            copy.from = counted(&copy.from, document, 0);
            copy.path = counted(&copy.path, document, 1);
        }
        PatchOperation::Test(test) => {
            test.path = counted(&test.path, document, 0);
            let is_missing = test.path.resolve(document).is_err();
            let is_member = parent(&test.path, document).is_some_and(Value::is_object);
            if test.value.is_null() && is_missing && is_member {
                return None;
            }
        }
    }
    Some(operation)
}

fn parent<'a>(path: &Pointer, document: &'a Value) -> Option<&'a Value> {
    path.parent()?.resolve(document).ok()
}

/// The path with negative indexes counted from the end; a list that is added to is `grown` longer
/// at the path's last part.
fn counted(path: &Pointer, document: &Value, grown: usize) -> PointerBuf {
    let last = path.count().saturating_sub(1);
    let mut here = Some(document);
    let tokens: Vec<Token<'static>> = path
        .tokens()
        .enumerate()
        .map(|(depth, token)| {
            let token = token.into_owned();
            let length = here.and_then(Value::as_array).map(Vec::len);
            let back: Option<usize> = token
                .encoded()
                .strip_prefix('-')
                .and_then(|digits| digits.parse().ok());
            let token = match (length, back) {
                (Some(length), Some(back)) => {
                    let length = length + if depth == last { grown } else { 0 };
                    length.checked_sub(back).map_or(token.clone(), Token::from)
                }
                _ => token,
            };
            here = here.and_then(|value| match value {
                Value::Array(items) => items.get(token.encoded().parse::<usize>().ok()?),
                value => value.get(token.decoded().as_ref()),
            });
            token
        })
        .collect();
    PointerBuf::from_tokens(tokens)
}
