//! Sending a request on, and its answer back: streamed bodies, or raw bytes after an upgrade.

use std::{io, sync::Arc, time::Duration};

use api::status::Status;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::{body::Incoming, client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::backend::Backend;
use crate::{
    body::{self, Body},
    pipeline::call::Call,
};

const CONNECT: Duration = Duration::from_secs(10);

/// Headers that belong to one connection, or to this one's user.
const OWN: [&str; 11] = [
    "authorization",
    "connection",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-remote-user",
];

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Sends the call's request to `path_and_query` of the backend and returns its answer.
pub(crate) async fn forward(
    call: &Call,
    backend: &Backend,
    path_and_query: &str,
    extra: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Status> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Status::unavailable(format!("error trying to reach {}:{}: {what}: {error}", backend.host, backend.port))
    };
    let stream = tokio::time::timeout(CONNECT, dial(backend))
        .await
        .map_err(|_| failed("dial", &"connection timed out"))?
        .map_err(|error| failed("dial", &error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed("handshake", &error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a backend ended");
        }
    });
    let upgrade = upgrade_of(&call.headers);
    let request = request(call, backend, path_and_query, extra, upgrade.clone(), body)?;
    let answer = sender.send_request(request).await.map_err(|error| failed("request", &error))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(call, answer);
    }
    let (mut parts, incoming) = answer.into_parts();
    for name in ["connection", "keep-alive", "transfer-encoding", "upgrade"] {
        parts.headers.remove(name);
    }
    // The body keeps the connection: it ends with it.
    Ok(Response::from_parts(parts, body::wrap(incoming)))
}

async fn dial(backend: &Backend) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect((backend.host.as_str(), backend.port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = &backend.tls else { return Ok(Box::new(stream)) };
    let name = backend.server_name.clone().unwrap_or_else(|| backend.host.clone());
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?))
}

/// The protocol that the client wants to switch to.
fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let wants = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")));
    headers.get(header::UPGRADE).filter(|_| wants).cloned()
}

fn request(
    call: &Call,
    backend: &Backend,
    path_and_query: &str,
    extra: HeaderMap,
    upgrade: Option<HeaderValue>,
    body: Body,
) -> Result<Request<Body>, Status> {
    let uri: Uri = path_and_query
        .parse()
        .map_err(|error| Status::bad_request(format!("invalid path {path_and_query:?} to proxy to: {error}")))?;
    let mut request = Request::new(body);
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    for (name, value) in &call.headers {
        let own = OWN.contains(&name.as_str()) || name.as_str().starts_with("impersonate-");
        if !own {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.extend(extra);
    let bracketed = if backend.host.contains(':') { format!("[{}]", backend.host) } else { backend.host.clone() };
    let host = HeaderValue::try_from(format!("{bracketed}:{}", backend.port))
        .map_err(|_| Status::internal("the backend's name is no host name"))?;
    headers.insert(header::HOST, host);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
        headers.remove(header::CONTENT_LENGTH);
    }
    headers.insert(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static("https"));
    Ok(request)
}

/// Joins the two connections once both have switched.
fn switch(call: &Call, mut answer: Response<Incoming>) -> Result<Response<Body>, Status> {
    let client = call
        .extensions
        .lock()
        .remove::<OnUpgrade>()
        .ok_or_else(|| Status::bad_request("the connection cannot be upgraded: use HTTP/1.1"))?;
    let backend = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        let (client, backend) = match tokio::try_join!(client, backend) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "an upgraded connection ended before it began");
                return;
            }
        };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        // Either side may go at any time; there is nobody to tell.
        if let Err(error) = copy_bidirectional(&mut client, &mut backend).await {
            tracing::debug!(%error, "an upgraded connection was cut");
        }
    });
    let (parts, _) = answer.into_parts();
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = parts.headers;
    Ok(response)
}
