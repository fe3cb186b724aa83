//! Exec, attach and port-forward: the runtime speaks the protocol, this server only connects both ends.
//!
//! The caller's request, headers and all, is sent to the URL that CRI returned; when both sides have switched
//! protocols, bytes are copied until one of them ends.

use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tracing::debug;

use super::{Context, say};
use crate::cri::{self, v1};
use crate::labels;
use crate::pod::PodExt;

/// Path parts of exec, attach and run.
#[derive(serde::Deserialize)]
pub(super) struct Target {
    namespace: String,
    pod: String,
    uid: Option<String>,
    container: String,
}

#[derive(serde::Deserialize)]
pub(super) struct PodTarget {
    namespace: String,
    pod: String,
    uid: Option<String>,
}

/// Query of exec and attach, under the names that old and new callers use.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    ports: Vec<i32>,
}

impl Options {
    fn parse(query: &str) -> Self {
        let mut options = Self::default();
        for (name, value) in pairs(query) {
            let on = matches!(value.as_str(), "1" | "true");
            match name.as_str() {
                "command" => options.command.push(value),
                "input" | "stdin" => options.stdin |= on,
                "output" | "stdout" => options.stdout |= on,
                "error" | "stderr" => options.stderr |= on,
                "tty" => options.tty |= on,
                "port" | "ports" => options.ports.extend(value.split(',').filter_map(|port| port.parse::<i32>().ok())),
                _ => {}
            }
        }
        // A terminal has one output.
        options.stderr &= !options.tty;
        options
    }
}

/// Names and values of a query, decoded.
pub(super) fn pairs(query: &str) -> Vec<(String, String)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name, true), decode(value, true))
        })
        .collect()
}

/// Undoes percent encoding; `+` is a space in queries.
fn decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 2;
            }
            None if bytes[at] == b'+' && plus => out.push(b' '),
            None => out.push(bytes[at]),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn broken(error: &cri::Error) -> Response {
    say(StatusCode::INTERNAL_SERVER_ERROR, error.message())
}

pub(super) async fn exec(
    State(context): State<Context>,
    Path(target): Path<Target>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let options = Options::parse(query.as_deref().unwrap_or_default());
    if options.command.is_empty() {
        return say(StatusCode::BAD_REQUEST, "you must specify at least one command for the container");
    }
    let instance = match running(&context, &target).await {
        Ok(instance) => instance,
        Err(answer) => return answer,
    };
    let asked = v1::ExecRequest {
        container_id: instance.id,
        cmd: options.command,
        tty: options.tty,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr,
    };
    match context.shared.runtime.exec(asked).await {
        Ok(url) => connect(&url, request).await,
        Err(error) => broken(&error),
    }
}

pub(super) async fn attach(
    State(context): State<Context>,
    Path(target): Path<Target>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let options = Options::parse(query.as_deref().unwrap_or_default());
    let instance = match running(&context, &target).await {
        Ok(instance) => instance,
        Err(answer) => return answer,
    };
    // Whether there is a terminal is the container's to say, not the caller's.
    let pod = context.pods.find(&target.namespace, &target.pod, target.uid.as_deref());
    let tty =
        pod.is_some_and(|seen| seen.pod.container(&target.container).is_some_and(|(_, spec)| spec.tty == Some(true)));
    let asked = v1::AttachRequest {
        container_id: instance.id,
        stdin: options.stdin,
        tty,
        stdout: options.stdout,
        stderr: options.stderr && !tty,
    };
    match context.shared.runtime.attach(asked).await {
        Ok(url) => connect(&url, request).await,
        Err(error) => broken(&error),
    }
}

pub(super) async fn port_forward(
    State(context): State<Context>,
    Path(target): Path<PodTarget>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let options = Options::parse(query.as_deref().unwrap_or_default());
    let Some(seen) = context.pods.find(&target.namespace, &target.pod, target.uid.as_deref()) else {
        return say(StatusCode::NOT_FOUND, format!("pod \"{}\" not found", target.pod));
    };
    let of_pod = std::collections::HashMap::from([(labels::POD_UID.to_owned(), seen.pod.uid().to_owned())]);
    let sandboxes = match context.shared.runtime.sandboxes(of_pod).await {
        Ok(sandboxes) => sandboxes,
        Err(error) => return broken(&error),
    };
    let ready = sandboxes.into_iter().filter(|sandbox| sandbox.state() == v1::PodSandboxState::SandboxReady);
    let Some(sandbox) = ready.max_by_key(|sandbox| sandbox.created_at) else {
        return say(StatusCode::NOT_FOUND, format!("no running sandbox of pod \"{}\"", target.pod));
    };
    match context.shared.runtime.port_forward(&sandbox.id, options.ports).await {
        Ok(url) => connect(&url, request).await,
        Err(error) => broken(&error),
    }
}

/// Runs a command to its end and answers with its output.
pub(super) async fn run(
    State(context): State<Context>,
    Path(target): Path<Target>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.unwrap_or_default();
    let given = pairs(&query).into_iter().find(|(name, _)| name == "cmd").map(|(_, value)| value);
    let command: Vec<String> = given.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    if command.is_empty() {
        return say(StatusCode::BAD_REQUEST, "the query must have a cmd");
    }
    let instance = match running(&context, &target).await {
        Ok(instance) => instance,
        Err(answer) => return answer,
    };
    match context.shared.runtime.exec_sync(&instance.id, &command, Duration::ZERO).await {
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            let code = if answer.exit_code == 0 { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
            (code, output).into_response()
        }
        Err(error) => broken(&error),
    }
}

async fn running(context: &Context, target: &Target) -> Result<v1::ContainerStatus, Response> {
    let instance = context.instance(&target.namespace, &target.pod, target.uid.as_deref(), &target.container).await?;
    if instance.state() == v1::ContainerState::ContainerRunning {
        return Ok(instance);
    }
    Err(say(StatusCode::NOT_FOUND, format!("container not found (\"{}\")", target.container)))
}

/// Where a URL of the runtime leads.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Tcp { authority: String, path: String },
    Unix { socket: PathBuf, path: String },
}

/// Reads `http://HOST:PORT/PATH` and `http+unix://PERCENT-ENCODED-SOCKET/PATH`.
fn place(url: &str) -> Option<Place> {
    if let Some(rest) = url.strip_prefix("http+unix://") {
        let (socket, path) = rest.split_once('/').unwrap_or((rest, ""));
        return Some(Place::Unix { socket: decode(socket, false).into(), path: format!("/{path}") });
    }
    let uri: Uri = url.parse().ok().filter(|uri: &Uri| uri.scheme_str() == Some("http"))?;
    let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    Some(Place::Tcp { authority: format!("{}:{}", uri.host()?, uri.port_u16().unwrap_or(80)), path })
}

/// Sends the caller's request to `url` and joins both connections once they are upgraded.
async fn connect(url: &str, request: Request) -> Response {
    let answer = match place(url) {
        None => {
            return say(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the runtime returned a URL of an unknown kind: {url}"),
            );
        }
        Some(Place::Tcp { authority, path }) => match TcpStream::connect(&authority).await {
            Ok(stream) => {
                // Keystrokes must not wait for more of them.
                let _ = stream.set_nodelay(true);
                exchange(stream, &authority, &path, request).await
            }
            Err(error) => Err(error.into()),
        },
        Some(Place::Unix { socket, path }) => match UnixStream::connect(&socket).await {
            Ok(stream) => exchange(stream, "localhost", &path, request).await,
            Err(error) => Err(error.into()),
        },
    };
    answer.unwrap_or_else(|error| {
        say(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("failed to reach the runtime's streaming server: {}", crate::chain(error.as_ref())),
        )
    })
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    authority: &str,
    path: &str,
    mut request: Request,
) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "the runtime's streaming connection ended badly");
        }
    });
    let caller = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let mut forward = http::Request::builder().method(parts.method).uri(path).body(body)?;
    *forward.headers_mut() = parts.headers;
    forward.headers_mut().insert(header::HOST, authority.parse()?);
    // What proves the caller to this server is not for the runtime to see.
    forward.headers_mut().remove(header::AUTHORIZATION);
    let mut answer = sender.send_request(forward).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer.map(Body::new).into_response());
    }
    let headers: HeaderMap = answer.headers().clone();
    let runtime = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        match tokio::try_join!(caller, runtime) {
            Ok((caller, runtime)) => {
                let (mut caller, mut runtime) = (TokioIo::new(caller), TokioIo::new(runtime));
                // Either end may vanish at any time; there is nobody left to tell.
                let _ = tokio::io::copy_bidirectional(&mut caller, &mut runtime).await;
            }
            Err(error) => debug!(%error, "a connection was not upgraded"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    *response.headers_mut() = headers;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let options = Options::parse(
            "command=sh&command=-c&command=echo+a%20b&input=1&output=1&error=1&tty=1&port=80,81&port=82",
        );
        let expect = Options {
            command: vec!["sh".into(), "-c".into(), "echo a b".into()],
            stdin: true,
            stdout: true,
            stderr: false,
            tty: true,
            ports: vec![80, 81, 82],
        };
        assert_eq!(options, expect);
        assert!(Options::parse("stdin=true&stdout=false").stdin && !Options::parse("stdout=false").stdout);
    }

    #[test]
    fn urls() {
        assert_eq!(
            place("http+unix://%2Frun%2Fx.sock/token?a=1"),
            Some(Place::Unix { socket: "/run/x.sock".into(), path: "/token?a=1".into() })
        );
        assert_eq!(
            place("http://127.0.0.1:4000/exec/t"),
            Some(Place::Tcp { authority: "127.0.0.1:4000".into(), path: "/exec/t".into() })
        );
        assert_eq!(place("https://127.0.0.1/x"), None);
    }
}
