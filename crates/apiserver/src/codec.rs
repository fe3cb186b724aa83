//! Bytes to objects and back, in every encoding the API speaks.

use api::status::Status;
use bytes::Bytes;
use serde_json::Value;

use crate::pipeline::accept::Format;

/// What is done about unknown and duplicate fields while decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// Dropped without a word.
    Lenient,
    /// Dropped and reported.
    Strict,
}

/// A decoded object and what a strict reader minds about it.
pub(crate) struct Decoded {
    pub(crate) object: Value,
    pub(crate) problems: Vec<String>,
}

/// Decodes an object of `definition` in the schema tables (empty: a custom resource, whose fields are not judged here).
pub(crate) fn decode(
    bytes: &[u8],
    format: Format,
    _definition: &str,
    _strictness: Strictness,
    kind: &str,
    version: &str,
) -> Result<Decoded, Status> {
    let fail = |why: &dyn std::fmt::Display| {
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
    };
    let object = match format {
        Format::Json => serde_json::from_slice(bytes).map_err(|error| fail(&error))?,
        Format::Yaml => {
            let text = std::str::from_utf8(bytes).map_err(|error| fail(&error))?;
            serde_saphyr::from_str(text).map_err(|error| fail(&error))?
        }
        Format::Protobuf => return Err(Status::unsupported_media_type("application/json, application/yaml")),
    };
    Ok(Decoded { object, problems: Vec::new() })
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
        Format::Protobuf => Err(Status::not_acceptable("application/json, application/yaml")),
    }
}

/// One length-delimited frame of a protobuf watch.
pub(crate) fn protobuf_event(_kind: &str, _object: &Value) -> Result<Bytes, Status> {
    Err(Status::not_acceptable("application/json, application/yaml"))
}
