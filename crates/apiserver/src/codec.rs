//! Bytes to objects and back, in every encoding the API speaks.

use api::{
    codec::{self, Decoded, Encoding},
    protobuf,
    schema::{Schema, TypeRef},
    status::Status,
};
use bytes::Bytes;
use serde_json::Value;

use crate::pipeline::accept::Format;

/// Decodes an object of type `of`; unknown and duplicate fields are dropped and told.
pub(crate) fn decode(
    bytes: &[u8],
    format: Format,
    of: TypeRef<'_>,
    kind: &str,
    api_version: &str,
) -> Result<Decoded, Status> {
    let version = api_version.rsplit('/').next().unwrap_or(api_version);
    match format {
        Format::Json => codec::decode(bytes, Encoding::Json, of, kind, version),
        Format::Yaml => codec::decode(bytes, Encoding::Yaml, of, kind, version),
        Format::Protobuf => protobuf::decode(bytes, api_version, kind)
            .map(|object| Decoded { object, problems: Vec::new() })
            .map_err(|error| {
                Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}"))
            }),
    }
}

/// A built-in type of the schema tables.
pub(crate) fn builtin(definition: &str) -> TypeRef<'static> {
    Schema::builtin().find(definition).unwrap_or_else(TypeRef::deduced)
}

/// Encodes an object or document.
pub(crate) fn encode(value: &Value, format: Format, pretty: bool) -> Result<Vec<u8>, Status> {
    let fail = |error: &dyn std::fmt::Display| Status::internal(format!("cannot encode the answer: {error}"));
    match format {
        Format::Json => {
            let mut out = Vec::with_capacity(1024);
            let written = if pretty {
                serde_json::to_writer_pretty(&mut out, value)
            } else {
                serde_json::to_writer(&mut out, value)
            };
            written.map_err(|error| fail(&error))?;
            out.push(b'\n');
            Ok(out)
        }
        Format::Yaml => serde_saphyr::to_string(value).map(String::into_bytes).map_err(|error| fail(&error)),
        Format::Protobuf => protobuf::encode(value).map_err(|error| fail(&error)),
    }
}

/// One length-delimited frame of a protobuf watch.
pub(crate) fn protobuf_event(kind: &str, object: &Value) -> Result<Bytes, Status> {
    let object = encode(object, Format::Protobuf, false)?;
    Ok(protobuf::watch_frame(kind, &object).into())
}
