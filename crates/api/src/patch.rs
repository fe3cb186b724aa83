//! The three kinds of patches that change an object in place: JSON patch, merge patch and strategic merge patch.
//!
//! A [`Patch`] is parsed once and applied as often as a conflict asks. What comes out is read along the object's type
//! again, so that a patch can put in nothing that an update could not. Server-side apply is `apply`'s.

use serde_json::Value;

use crate::{
    codec::{self, Decoded},
    schema::TypeRef,
    status::{Cause, Details, FieldError, Status},
};

mod json;
mod merge;
mod strategic;

pub use merge::merge;

/// Most operations of a JSON patch.
const MOST_OPERATIONS: usize = 10_000;

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `application/json-patch+json` (RFC 6902).
    Json,
    /// `application/merge-patch+json` (RFC 7386).
    Merge,
    /// `application/strategic-merge-patch+json`: built-in types only.
    Strategic,
}

/// A parsed patch.
#[derive(Clone, Debug)]
pub struct Patch {
    body: Body,
    /// What a strict reader minds about the patch itself.
    problems: Vec<String>,
}

#[derive(Clone, Debug)]
enum Body {
    Json(Vec<json::Operation>),
    Merge(Value),
    Strategic(Value),
}

/// A patched object, and what a strict reader minds about it.
#[derive(Clone, Debug)]
pub struct Patched {
    pub object: Value,
    pub problems: Vec<String>,
    /// What upstream quotes in errors: the object, or a strategic patch.
    quoted: String,
}

impl Patched {
    /// The 422 for a patch whose problems strict validation refuses.
    pub fn strict_error(&self) -> Status {
        invalid(&self.quoted, &format!("strict decoding error: {}", self.problems.join(", ")))
    }
}

impl Patch {
    /// Parses a patch.
    ///
    /// # Errors
    /// 400 for what is no such patch, 413 for too many operations.
    pub fn parse(kind: Kind, bytes: &[u8]) -> Result<Patch, Status> {
        let prefix = if kind == Kind::Strategic { "" } else { "error decoding patch: " };
        let fail = |why: String| Status::bad_request(format!("{prefix}{why}"));
        let Decoded { object: body, problems } = codec::json(bytes).map_err(fail)?;
        let wrong =
            |into: &str| fail(format!("json: cannot unmarshal {} into Go value of type {into}", codec::kind_of(&body)));
        match kind {
            Kind::Json => {
                let Value::Array(items) = &body else { return Err(wrong("[]handlers.jsonPatchOp")) };
                if items.len() > MOST_OPERATIONS {
                    return Err(Status::too_large(format!(
                        "The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {}",
                        items.len()
                    )));
                }
                if let Some(item) = items.iter().find(|item| !item.is_object()) {
                    let found = codec::kind_of(item);
                    return Err(fail(format!(
                        "json: cannot unmarshal {found} into Go value of type handlers.jsonPatchOp"
                    )));
                }
                let problems = problems.into_iter().map(|problem| format!("json patch {problem}")).collect();
                Ok(Patch { body: Body::Json(items.iter().map(json::Operation::read).collect()), problems })
            }
            Kind::Merge | Kind::Strategic if !body.is_object() => Err(wrong("map[string]interface {}")),
            Kind::Merge => Ok(Patch { body: Body::Merge(body), problems }),
            Kind::Strategic => Ok(Patch { body: Body::Strategic(body), problems }),
        }
    }

    /// Patches an object of type `of`.
    ///
    /// # Errors
    /// 422 when the patch does not fit the object or the result does not fit the type, 400 for wrong directives.
    pub fn apply(&self, object: &Value, of: TypeRef<'_>) -> Result<Patched, Status> {
        let mut quoted = None;
        let patched = match &self.body {
            Body::Json(operations) => json::apply(object.clone(), operations).map_err(|_| rejected())?,
            Body::Merge(patch) => {
                let mut object = object.clone();
                merge(&mut object, patch);
                object
            }
            Body::Strategic(patch) => {
                quoted = Some(go_text(patch));
                strategic::apply(object, patch, of)?
            }
        };
        let quoted = quoted.unwrap_or_else(|| patched.to_string());
        let decoded = codec::conform(patched, of).map_err(|why| invalid(&quoted, &why))?;
        let mut problems = self.problems.clone();
        problems.extend(decoded.problems);
        Ok(Patched { object: decoded.object, problems, quoted })
    }
}

/// 422 without a word on the cause, which upstream keeps to itself.
fn rejected() -> Status {
    let mut status = Status::failure(422, "Invalid", "the server rejected our request due to an error in our request");
    status.details = Some(Box::default());
    status
}

/// 422 for a patch whose result cannot be read.
fn invalid(quoted: &str, why: &str) -> Status {
    let error = FieldError::invalid("patch", quoted, why);
    let mut status = Status::failure(422, "Invalid", format!(" \"\" is invalid: {error}"));
    let cause = Cause { reason: error.kind.reason().into(), message: error.body(), field: error.field };
    status.details = Some(Box::new(Details { causes: vec![cause], ..Details::default() }));
    status
}

/// A value as Go prints it: `map[a:1 b:[x y]]`.
pub(crate) fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(members) => {
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("{name}:{}", go_text(value))).collect();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
