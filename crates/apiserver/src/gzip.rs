//! Compression of large answers for clients that ask for it.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{StreamExt, stream};
use http::{HeaderValue, Response, header};
use http_body_util::BodyExt;

use crate::{
    body::{self, Body, BoxError},
    pipeline::call::Call,
};

/// Answers below this size are sent as they are (upstream's threshold).
const MIN_BYTES: usize = 128 * 1024;

/// Compresses the answer if the client accepts gzip and the answer is large (or of unknown size: a stream).
pub(crate) fn maybe(call: &Call, response: Response<Body>) -> Response<Body> {
    let wanted = call
        .header(header::ACCEPT_ENCODING.as_str())
        .is_some_and(|encodings| encodings.split(',').any(|encoding| encoding.trim().starts_with("gzip")));
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if !wanted || length.is_some_and(|length| length < MIN_BYTES) {
        return response;
    }
    let (mut parts, plain) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let state = Some((plain, GzEncoder::new(Vec::new(), Compression::new(1))));
    let chunks = stream::unfold(state, |state| async move {
        let (plain, encoder) = state?;
        match compress(plain, encoder).await {
            Ok((chunk, next)) => Some((Ok(chunk), next)),
            Err(error) => Some((Err(error), None)),
        }
    });
    Response::from_parts(parts, body::stream(chunks.boxed()))
}

type State = (Body, GzEncoder<Vec<u8>>);

/// Reads until there is compressed output; no next state after the end.
async fn compress(mut plain: Body, mut encoder: GzEncoder<Vec<u8>>) -> Result<(Bytes, Option<State>), BoxError> {
    loop {
        match plain.frame().await {
            Some(Err(error)) => return Err(error),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    encoder.write_all(&data)?;
                }
                if !encoder.get_ref().is_empty() {
                    let chunk = std::mem::take(encoder.get_mut());
                    return Ok((chunk.into(), Some((plain, encoder))));
                }
            }
            None => return Ok((encoder.finish()?.into(), None)),
        }
    }
}
