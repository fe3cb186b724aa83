//! JSON and YAML to objects, as strictly as Kubernetes reads them.
//!
//! Built-in types are read in one pass along their schema: unknown members are dropped and told, duplicate members told
//! (the last one wins), wrong types refused, `null` taken as absent, quantities and timestamps made canonical. Custom
//! resources are read as they are and then pruned by their schema.
//!
//! Invariant: problems come in the order in which upstream reports them, each once.

use serde_json::Value;

use crate::{
    schema::{Schema, TypeRef},
    status::Status,
};

mod prune;
mod reader;
mod syntax;
mod yaml;

pub use prune::{default, drop_nulls, prune};

/// How the bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
}

/// An object, and what a strict reader minds about it: `unknown field "spec.foo"`, `duplicate field "spec.bar"`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    pub object: Value,
    pub problems: Vec<String>,
}

/// Decodes an object of type `of` that the endpoint of `kind` and `version` was sent.
///
/// # Errors
/// 400 for what is no JSON or YAML, or not of the type.
pub fn decode(bytes: &[u8], encoding: Encoding, of: TypeRef<'_>, kind: &str, version: &str) -> Result<Decoded, Status> {
    let unrecognized = |why: &str| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why} ({})",
            syntax::summary(bytes)
        ))
    };
    let mut report = reader::Report::default();
    let root = if of.is_builtin() { of } else { TypeRef::deduced() };
    let object = match encoding {
        Encoding::Json => reader::json(bytes, root, &mut report)
            .map_err(|why| format!("couldn't get version/kind; json parse error: {why}")),
        Encoding::Yaml => yaml::read(bytes, root, &mut report),
    };
    let mut object = object.map_err(|why| unrecognized(&why))?;
    if !object.is_object() {
        let found = reader::kind_of(&object);
        return Err(unrecognized(&format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into Go value of type struct \
             {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        )));
    }
    if !of.is_builtin() {
        custom(&mut object, of, &mut report);
    }
    match report.failure() {
        Some(why) => Err(unreadable(kind, version, why)),
        None => Ok(Decoded { object, problems: report.problems }),
    }
}

/// Reads an object that is already JSON as a value of `of`, such as a patch's result. The error is what the type
/// minds, without the words about the endpoint.
pub fn conform(object: Value, of: TypeRef<'_>) -> Result<Decoded, String> {
    let mut report = reader::Report::default();
    let mut object = object;
    if of.is_builtin() {
        object = reader::value(object, of, &mut report);
    } else {
        custom(&mut object, of, &mut report);
    }
    match report.failure() {
        Some(why) => Err(why.to_string()),
        None => Ok(Decoded { object, problems: report.problems }),
    }
}

/// Reads any JSON, telling duplicate members. The error is Go's text about the syntax.
pub fn json(bytes: &[u8]) -> Result<Decoded, String> {
    let mut report = reader::Report::default();
    let object = reader::json(bytes, TypeRef::deduced(), &mut report)?;
    Ok(Decoded { object, problems: report.problems })
}

/// Go's name of a JSON value's kind.
pub(crate) use reader::kind_of;

/// The 400 for an object that strict validation refuses.
pub fn strict_error(kind: &str, version: &str, problems: &[String]) -> Status {
    unreadable(kind, version, &format!("strict decoding error: {}", problems.join(", ")))
}

fn unreadable(kind: &str, version: &str, why: &str) -> Status {
    Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
}

/// Metadata is typed in custom resources too; the rest is pruned.
fn custom(object: &mut Value, of: TypeRef<'_>, report: &mut reader::Report) {
    let meta = Schema::builtin().find("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    if let (Some(meta), Some(metadata)) = (meta, object.get_mut("metadata")) {
        *metadata = reader::member(metadata.take(), meta, "metadata", report);
        if metadata.is_null()
            && let Some(members) = object.as_object_mut()
        {
            members.remove("metadata");
        }
    }
    let mut unknown = prune(object, of);
    unknown.sort();
    report.problems.extend(unknown.into_iter().map(|path| format!("unknown field \"{path}\"")));
}

#[cfg(test)]
mod tests;
