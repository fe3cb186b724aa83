//! Objects in Kubernetes' protobuf encoding, straight from and to their JSON form.
//!
//! ```text
//! object   "k8s\0"  runtime.Unknown
//! Unknown  1 typeMeta { 1 apiVersion, 2 kind }   2 raw: the kind's own message   3, 4 content encoding and type
//! watch    u32 BE length, WatchEvent { 1 type, 2 object { 1 raw: an object as above } }   and so on
//! ```
//!
//! One table of messages, compiled from the schema's protobuf numbers on first use, drives both ways. A field that is
//! absent in JSON is not written. Reading, a zero that Go writes for every plain field that has no value is dropped
//! again; fields that tell zero from nothing (pointers in Go, `data/pointers.txt`) and required ones keep it.

use serde_json::{Map, Value};

use crate::{kinds, schema::Schema};

mod decode;
mod encode;
mod messages;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

use messages::Table;
use wire::{Reader, Writer};

/// What every encoded object begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";
/// Messages may be nested this deep: far more than any type, little enough for any stack.
const MAX_DEPTH: usize = 64;

/// Why bytes are no object, or an object has no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the body does not begin like an object in protobuf encoding")]
    NoMagic,
    #[error("malformed protobuf: {0}")]
    Malformed(&'static str),
    #[error("no kind \"{kind}\" in version \"{api_version}\" has a protobuf form")]
    NoMessage { api_version: String, kind: String },
    #[error("field {field} has no protobuf form: it should be {wanted}")]
    Mismatch { field: String, wanted: &'static str },
}

/// Objects of this kind can be sent as protobuf.
pub fn supports(api_version: &str, kind: &str) -> bool {
    message_of(api_version, kind).is_some()
}

/// Encodes an object, list, `Status` or options by its `apiVersion` and `kind`.
pub fn encode(object: &Value) -> Result<Vec<u8>, Error> {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let message = message_of(api_version, kind)
        .ok_or_else(|| Error::NoMessage { api_version: api_version.to_string(), kind: kind.to_string() })?;
    let empty = Map::new();
    let members = object.as_object().unwrap_or(&empty);
    let mut out = Writer::new(MAGIC);
    out.nested(1, |meta| {
        meta.text(1, api_version);
        meta.text(2, kind);
        Ok::<(), Error>(())
    })?;
    out.nested(2, |raw| encode::message(Table::get(), message, members, raw))?;
    out.text(3, "");
    out.text(4, "");
    Ok(out.finish())
}

/// Decodes an object; `apiVersion` and `kind` are what the envelope says, or else the given ones.
pub fn decode(bytes: &[u8], api_version: &str, kind: &str) -> Result<Value, Error> {
    let body = bytes.strip_prefix(MAGIC).ok_or(Error::NoMagic)?;
    let (mut given_version, mut given_kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader::new(body);
    while let Some((number, value)) = reader.field()? {
        match number {
            1 => {
                let mut meta = Reader::new(value.bytes()?);
                while let Some((number, value)) = meta.field()? {
                    match number {
                        1 => given_version = value.text()?.to_string(),
                        2 => given_kind = value.text()?.to_string(),
                        _ => {}
                    }
                }
            }
            2 => raw = value.bytes()?,
            _ => {}
        }
    }
    let or = |given: String, wanted: &str| if given.is_empty() { wanted.to_string() } else { given };
    let (api_version, kind) = (or(given_version, api_version), or(given_kind, kind));
    let Some(message) = message_of(&api_version, &kind) else {
        return Err(Error::NoMessage { api_version, kind });
    };
    let mut members = decode::message(Table::get(), message, raw, MAX_DEPTH)?;
    members.insert("apiVersion".into(), api_version.into());
    members.insert("kind".into(), kind.into());
    Ok(members.into())
}

/// One frame of a watch: `kind` is `ADDED`, `MODIFIED`, ..., `object` what [`encode`] gave.
pub fn watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut event = Writer::new(&[0; 4]);
    event.text(1, kind);
    // Closures of this module fail only by their own fault, and this one cannot.
    let _: Result<(), Error> = event.nested(2, |raw| {
        raw.blob(1, object);
        Ok(())
    });
    let mut frame = event.finish();
    // The length of an event in memory fits: objects are a few megabytes at most.
    let len = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame
}

/// The message of a kind: of its own group, or of those that all groups have (`Status`, `DeleteOptions`, ...).
fn message_of(api_version: &str, kind: &str) -> Option<usize> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let table = Table::get();
    let own = kinds::definition(group, version, kind);
    let common = || {
        let version = if group == "meta.k8s.io" { version } else { "v1" };
        format!("io.k8s.apimachinery.pkg.apis.meta.{version}.{kind}")
    };
    let found = table.find(&own).or_else(|| table.find(&own.replace('-', "_")));
    found.or_else(|| table.find(&common()).filter(|_| !kind.is_empty()))
}

/// Where the table comes from.
fn schema() -> &'static Schema {
    Schema::builtin()
}
