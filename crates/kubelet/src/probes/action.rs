//! What a probe or a lifecycle hook does: run a command, ask over HTTP, TCP or gRPC.

use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{grpc, http};
use crate::cri::Runtime;

/// Longest part of an answer that is shown.
const SHOWN: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// Good, but worth a word: a redirect to another host.
    Warning(String),
    Failure(String),
    /// The question could not be asked.
    Unknown(String),
}

impl Outcome {
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Success | Self::Warning(_) => "successful",
            Self::Failure(_) => "failed",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// The container that is asked, and how.
pub(crate) struct Target<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) container: &'a core::Container,
    pub(crate) id: &'a str,
    /// The pod's address.
    pub(crate) address: &'a str,
    pub(crate) timeout: Duration,
    /// `User-Agent` of HTTP requests.
    pub(crate) agent: &'a str,
}

impl Target<'_> {
    pub(crate) async fn probe(&self, probe: &core::Probe) -> Outcome {
        if let Some(exec) = &probe.exec {
            return self.exec(exec).await;
        }
        if let Some(get) = &probe.http_get {
            return self.http(get).await;
        }
        if let Some(tcp) = &probe.tcp_socket {
            return self.tcp(tcp).await;
        }
        if let Some(grpc) = &probe.grpc {
            let port = u16::try_from(grpc.port).unwrap_or(0);
            return grpc::check(self.address, port, grpc.service.as_deref().unwrap_or_default(), self.timeout).await;
        }
        Outcome::Unknown("missing probe handler".to_owned())
    }

    pub(crate) async fn exec(&self, action: &core::ExecAction) -> Outcome {
        let command: Vec<String> = action.command.clone().unwrap_or_default();
        match self.runtime.exec_sync(self.id, &command, self.timeout).await {
            Ok(answer) if answer.exit_code == 0 => Outcome::Success,
            Ok(answer) => {
                let mut output = answer.stdout;
                output.extend_from_slice(&answer.stderr);
                Outcome::Failure(shorten(&String::from_utf8_lossy(&output)))
            }
            Err(error) if matches!(error.status.code(), tonic::Code::DeadlineExceeded) => {
                Outcome::Failure(format!("command timed out: {command:?} timed out after {}s", self.timeout.as_secs()))
            }
            Err(error) => Outcome::Unknown(error.message()),
        }
    }

    pub(crate) async fn http(&self, action: &core::HTTPGetAction) -> Outcome {
        let Some(port) = port(&action.port, self.container) else { return no_port(&action.port) };
        let request = http::Get {
            host: action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(self.address),
            port,
            path: action.path.as_deref().unwrap_or("/"),
            tls: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            headers: action.http_headers.as_deref().unwrap_or_default(),
            agent: self.agent,
        };
        match timeout(self.timeout, request.send()).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failure(format!(
                "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                request.url()
            )),
        }
    }

    pub(crate) async fn tcp(&self, action: &core::TCPSocketAction) -> Outcome {
        let Some(port) = port(&action.port, self.container) else { return no_port(&action.port) };
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(self.address);
        match timeout(self.timeout, TcpStream::connect((host, port))).await {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(error)) => Outcome::Failure(format!("dial tcp {host}:{port}: {error}")),
            Err(_) => Outcome::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
        }
    }
}

/// A port number, or the number of the container's port of that name.
fn port(port: &IntOrString, container: &core::Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port);
            named.or_else(|| name.parse().ok())?
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0)
}

fn no_port(port: &IntOrString) -> Outcome {
    let text = match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    Outcome::Unknown(format!("couldn't find port: {text}"))
}

pub(super) fn shorten(text: &str) -> String {
    let mut end = text.len().min(SHOWN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_by_number_and_name() {
        let container: core::Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]})).unwrap();
        for (asked, expect) in [
            (IntOrString::Int(80), Some(80)),
            (IntOrString::String("web".into()), Some(8080)),
            (IntOrString::String("81".into()), Some(81)),
            (IntOrString::String("none".into()), None),
            (IntOrString::Int(70_000), None),
            (IntOrString::Int(0), None),
        ] {
            assert_eq!(port(&asked, &container), expect, "{asked:?}");
        }
    }
}
