//! `meta/v1.Status`: the one form in which every failure reaches a client, and the field errors inside it.
//!
//! The constructors give the code, reason and message wording class that upstream's apimachinery `errors` package
//! gives; nothing else in the house builds a `Status`.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A failed (or, for deletes, successful) request, as the API answers it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// `Success` or `Failure`.
    pub status: String,
    /// CamelCase reason (`NotFound`, `Conflict`, `Invalid`, ...); empty when upstream gives none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What went wrong, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// About which object, with the causes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
    /// `metadata.continue`: lets a client go on with a list whose revision is gone. Usually empty.
    #[serde(skip)]
    pub continue_token: String,
}

/// `meta/v1.StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource (plural) or, for field errors, the kind: as upstream.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// `meta/v1.StatusCause`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, ...
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What a `Status` is about: group and resource (or kind), and a name.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    pub group: &'a str,
    /// Plural resource name; the kind for `Invalid`.
    pub resource: &'a str,
    pub name: &'a str,
}

impl About<'_> {
    fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.to_string() } else { format!("{}.{}", self.resource, self.group) }
    }
}

impl Status {
    /// Any failure by its parts.
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Status {
        Status { code, status: "Failure".into(), reason: reason.into(), message: message.into(), ..Status::default() }
    }

    fn about(mut self, about: About<'_>) -> Status {
        self.details = Some(Box::new(Details {
            name: about.name.into(),
            group: about.group.into(),
            kind: about.resource.into(),
            ..Details::default()
        }));
        self
    }

    /// 404: no such object.
    pub fn not_found(about: About<'_>) -> Status {
        Status::failure(404, "NotFound", format!("{} \"{}\" not found", about.qualified(), about.name)).about(about)
    }

    /// 404: no such path or resource.
    pub fn no_such_path() -> Status {
        let mut status = Status::failure(404, "NotFound", "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 409: the name is taken.
    pub fn already_exists(about: About<'_>) -> Status {
        Status::failure(409, "AlreadyExists", format!("{} \"{}\" already exists", about.qualified(), about.name))
            .about(about)
    }

    /// 409: the object changed since it was read, or a precondition failed.
    pub fn conflict(about: About<'_>, why: impl fmt::Display) -> Status {
        Status::failure(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {} \"{}\": {why}", about.qualified(), about.name),
        )
        .about(about)
    }

    /// 422: field errors; `about.resource` is the kind.
    pub fn invalid(about: About<'_>, errors: Vec<FieldError>) -> Status {
        let texts: Vec<String> = errors.iter().map(FieldError::to_string).collect();
        let all = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
        let mut status =
            Status::failure(422, "Invalid", format!("{} \"{}\" is invalid: {all}", about.qualified(), about.name))
                .about(about);
        if let Some(details) = &mut status.details {
            details.causes = errors
                .into_iter()
                .map(|error| Cause { reason: error.kind.reason().into(), message: error.body(), field: error.field })
                .collect();
        }
        status
    }

    /// 400.
    pub fn bad_request(why: impl Into<String>) -> Status {
        Status::failure(400, "BadRequest", why)
    }

    /// 401.
    pub fn unauthorized() -> Status {
        Status::failure(401, "Unauthorized", "Unauthorized")
    }

    /// 403; `why` follows the colon.
    pub fn forbidden(about: About<'_>, why: impl fmt::Display) -> Status {
        let message = if about.resource.is_empty() {
            format!("forbidden: {why}")
        } else if about.name.is_empty() {
            format!("{} is forbidden: {why}", about.qualified())
        } else {
            format!("{} \"{}\" is forbidden: {why}", about.qualified(), about.name)
        };
        Status::failure(403, "Forbidden", message).about(about)
    }

    /// 405.
    pub fn method_not_allowed(about: About<'_>, verb: &str) -> Status {
        Status::failure(
            405,
            "MethodNotAllowed",
            format!("{verb} is not supported on resources of kind \"{}\"", about.qualified()),
        )
        .about(about)
    }

    /// 405: the path exists, the method has no handler there.
    pub fn method_not_allowed_on_path() -> Status {
        let mut status =
            Status::failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 406.
    pub fn not_acceptable(accepted: &str) -> Status {
        Status::failure(406, "NotAcceptable", format!("only the following media types are accepted: {accepted}"))
    }

    /// 415.
    pub fn unsupported_media_type(accepted: &str) -> Status {
        Status::failure(
            415,
            "UnsupportedMediaType",
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}"),
        )
    }

    /// 410: the revision was compacted, or the continue token expired.
    pub fn expired(why: impl Into<String>) -> Status {
        Status::failure(410, "Expired", why)
    }

    /// 413.
    pub fn too_large(why: impl Into<String>) -> Status {
        Status::failure(413, "RequestEntityTooLarge", why)
    }

    /// 429 with `Retry-After`.
    pub fn too_many_requests(why: impl Into<String>, retry_after_s: u32) -> Status {
        let mut status = Status::failure(429, "TooManyRequests", why);
        status.details = Some(Box::new(Details { retry_after_seconds: retry_after_s, ..Details::default() }));
        status
    }

    /// 500.
    pub fn internal(why: impl fmt::Display) -> Status {
        let mut status = Status::failure(500, "InternalError", format!("Internal error occurred: {why}"));
        status.details = Some(Box::new(Details {
            causes: vec![Cause { message: why.to_string(), ..Cause::default() }],
            ..Details::default()
        }));
        status
    }

    /// 503.
    pub fn unavailable(why: impl Into<String>) -> Status {
        Status::failure(503, "ServiceUnavailable", why)
    }

    /// 504.
    pub fn timeout(why: impl Into<String>) -> Status {
        Status::failure(504, "Timeout", why)
    }

    /// The success answer of a delete that left nothing.
    pub fn deleted(about: About<'_>, uid: &str) -> Status {
        let mut status = Status { code: 200, status: "Success".into(), ..Status::default() }.about(about);
        status.code = 0;
        if let Some(details) = &mut status.details {
            details.uid = uid.into();
        }
        status
    }

    /// The object form, with kind and apiVersion.
    pub fn to_value(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value["kind"] = "Status".into();
        value["apiVersion"] = "v1".into();
        value["metadata"] = Value::Object(serde_json::Map::new());
        if !self.continue_token.is_empty() {
            value["metadata"]["continue"] = self.continue_token.as_str().into();
        }
        if self.code == 0
            && let Some(members) = value.as_object_mut()
        {
            members.remove("code");
        }
        value
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

/// One wrong field: upstream's `field.Error`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub kind: FieldErrorKind,
    /// Path as upstream prints it: `spec.containers[0].image`, `metadata.labels[a/b]`.
    pub field: String,
    /// The offending value; printed for `Invalid`, `NotSupported`, `Duplicate`, `NotFound`, `TooLong`.
    pub value: Value,
    pub detail: String,
}

/// The classes of upstream's `field.ErrorType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    /// Invalid, but the value (an object or a list) is not quoted.
    InvalidUnquoted,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl FieldErrorKind {
    /// The cause reason in a `Status`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid | Self::InvalidUnquoted => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::InvalidUnquoted | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

impl FieldError {
    pub fn new(
        kind: FieldErrorKind,
        field: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, field: field.into(), value: value.into(), detail: detail.into() }
    }

    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, field, Value::Null, detail)
    }

    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, field, value, detail)
    }

    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, field, Value::Null, detail)
    }

    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, field, value, "")
    }

    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, field, value, "")
    }

    /// A value outside an enumeration; `supported` is listed in its order.
    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let names: Vec<String> = supported.iter().map(|name| format!("{name:?}")).collect();
        Self::new(FieldErrorKind::NotSupported, field, value, format!("supported values: {}", names.join(", ")))
    }

    pub fn too_long(field: impl Into<String>, max_bytes: usize) -> Self {
        Self::new(FieldErrorKind::TooLong, field, Value::Null, format!("may not be more than {max_bytes} bytes"))
    }

    /// Everything behind the field path: class, value and detail.
    pub fn body(&self) -> String {
        let mut out = self.kind.text().to_string();
        match self.kind {
            FieldErrorKind::Required
            | FieldErrorKind::Forbidden
            | FieldErrorKind::TooLong
            | FieldErrorKind::InvalidUnquoted
            | FieldErrorKind::Internal => {}
            FieldErrorKind::TooMany if self.value.is_null() => {}
            _ => match &self.value {
                Value::String(text) => out += &format!(": {text:?}"),
                Value::Null => out += ": null",
                other => out += &format!(": {other}"),
            },
        }
        if !self.detail.is_empty() {
            out += ": ";
            out += &self.detail;
        }
        out
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}
