//! Objects on their way in: the body's bytes, decoded and checked against the schema.

use api::status::Status;
use bytes::{Bytes, BytesMut};
use http::header;
use http_body_util::BodyExt;
use serde_json::Value;

use super::options::{self, FieldValidation};
use crate::{
    body::Body,
    catalog::Served,
    codec,
    pipeline::{
        accept::{self, Format},
        call::Call,
    },
};

/// Reads a whole body of at most the configured size.
pub(crate) async fn read(call: &Call, mut body: Body) -> Result<Bytes, Status> {
    let limit = call.server.config().max_body_bytes;
    let too_large = || Status::too_large(format!("Request entity too large: limit is {limit}"));
    let declared = call.header("content-length").and_then(|length| length.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut read = BytesMut::with_capacity(declared.unwrap_or_default());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let Ok(data) = frame.into_data() else { continue };
                if read.len() + data.len() > limit {
                    return Err(too_large());
                }
                read.extend_from_slice(&data);
            }
            Err(error) => return Err(Status::bad_request(format!("cannot read the request's body: {error}"))),
        }
    }
    Ok(read.freeze())
}

/// The media type of the body, without parameters; JSON when there is none.
pub(crate) fn media_type(call: &Call) -> &str {
    let text = call.header(header::CONTENT_TYPE.as_str()).unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim() {
        "" => accept::JSON,
        media => media,
    }
}

fn format(call: &Call, protobuf: bool) -> Result<Format, Status> {
    match media_type(call) {
        accept::JSON => Ok(Format::Json),
        accept::YAML | "application/x-yaml" | "text/yaml" => Ok(Format::Yaml),
        accept::PROTOBUF if protobuf => Ok(Format::Protobuf),
        _ if protobuf => Err(Status::unsupported_media_type(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
        _ => Err(Status::unsupported_media_type("application/json, application/yaml")),
    }
}

/// Decodes an object of the resource; unknown and duplicate fields are dropped, warned about or refused as the request
/// says.
pub(crate) async fn object(call: &Call, served: &Served, body: Body, options_kind: &str) -> Result<Value, Status> {
    let bytes = read(call, body).await?;
    let format = format(call, !served.is_custom())?;
    let validation = options::field_validation(call, options_kind)?;
    let (kind, version) = (&served.resource.kind, &served.version().name);
    let decoded = codec::decode(&bytes, format, served.schema(), kind, &served.api_version())?;
    report(call, validation, decoded.problems, kind, version)?;
    Ok(decoded.object)
}

/// Decodes an object of another type than the endpoint's resource: options, bindings, reviews. Null without a body.
pub(crate) async fn other(
    call: &Call,
    body: Body,
    definition: &str,
    kind: &str,
    version: &str,
) -> Result<Value, Status> {
    let bytes = read(call, body).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let format = format(call, true)?;
    let validation = options::field_validation(call, "CreateOptions")?;
    let decoded = codec::decode(&bytes, format, codec::builtin(definition), kind, version)?;
    report(call, validation, decoded.problems, kind, version)?;
    Ok(decoded.object)
}

/// Turns decoding problems into warnings or a 400, as the request wants it.
pub(crate) fn report(
    call: &Call,
    validation: FieldValidation,
    problems: Vec<String>,
    kind: &str,
    version: &str,
) -> Result<(), Status> {
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => problems.into_iter().for_each(|problem| call.warn(problem)),
        FieldValidation::Strict if problems.is_empty() => {}
        FieldValidation::Strict => return Err(api::codec::strict_error(kind, version, &problems)),
    }
    Ok(())
}
