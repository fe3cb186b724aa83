//! Answers: statuses and objects in the negotiated encoding, with warnings.

use api::status::Status;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use super::accept::{self, Accepted, Format};
use crate::{
    body::{self, Body},
    codec,
};

pub(crate) type Answer = Result<Response<Body>, Status>;

/// A response of known bytes.
pub(crate) fn bytes(code: u16, media_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let bytes = bytes.into();
    let mut response = Response::new(body::empty());
    let length = HeaderValue::from(bytes.len());
    *response.body_mut() = body::full(bytes);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}

/// Plain text, as health checks answer.
pub(crate) fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    bytes(code, "text/plain; charset=utf-8", text.into())
}

/// A document or object, encoded as negotiated.
pub(crate) fn value(code: u16, value: &Value, accepted: Accepted) -> Answer {
    let encoded = codec::encode(value, accepted.format, accepted.pretty)?;
    Ok(bytes(code, accepted.format.media_type(), encoded))
}

/// A failure (or a delete's success), in a format that the client accepts or else JSON.
pub(crate) fn status(status: &Status, accepted: Option<Accepted>) -> Response<Body> {
    let accepted = accepted.unwrap_or_default();
    let code = if status.code == 0 { 200 } else { status.code };
    let document = status.to_value();
    let mut response =
        value(code, &document, accepted).unwrap_or_else(|_| bytes(code, accept::JSON, document.to_string()));
    if let Some(seconds) = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning` headers (RFC 7234 5.5, code 299).
pub(crate) fn add_warnings(response: &mut Response<Body>, warnings: Vec<String>) {
    for text in warnings {
        let quoted: String = text
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        if let Ok(value) = HeaderValue::try_from(format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// The content type of a watch stream.
pub(crate) fn watch_media_type(accepted: Accepted) -> &'static str {
    match (accepted.format, accepted.stream) {
        (Format::Protobuf, _) => "application/vnd.kubernetes.protobuf;stream=watch",
        (Format::Yaml, _) => accept::YAML,
        (Format::Json, true) => "application/json;stream=watch",
        (Format::Json, false) => accept::JSON,
    }
}
