//! The streaming server: exec, attach and port-forward.
//!
//! CRI answers a request for a stream with a URL, `http+unix://PERCENT-ENCODED-SOCKET-PATH/TOKEN`; whoever connects to
//! the socket and sends the client's upgrade request for `/TOKEN` gets the stream. A token is good for one connection
//! and one minute.

mod forward;
mod process;

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use streaming::exec::Streams;
use streaming::port_forward;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::runtime::{Error, Runtime};

const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// Tokens that may wait to be used.
const TOKENS_MAX: usize = 1000;

/// What a token stands for.
pub(crate) enum Ticket {
    Exec { container: String, command: Vec<String>, streams: Streams },
    Attach { container: String, streams: Streams },
    PortForward { sandbox: String, ports: Vec<u16> },
}

/// Tokens handed out and not used yet.
#[derive(Default)]
pub(crate) struct Tokens(Arc<Mutex<HashMap<String, Ticket>>>);

impl Tokens {
    /// The URL for `ticket`.
    pub(crate) fn issue(&self, socket: &Path, ticket: Ticket) -> Result<String, Error> {
        let token = crate::id::random();
        {
            let mut tickets = self.0.lock();
            if tickets.len() >= TOKENS_MAX {
                return Err(Error::State(format!("{TOKENS_MAX} streams have been asked for and not begun")));
            }
            tickets.insert(token.clone(), ticket);
        }
        let (tickets, expired) = (Arc::clone(&self.0), token.clone());
        tokio::spawn(async move {
            tokio::time::sleep(TOKEN_LIFE).await;
            tickets.lock().remove(&expired);
        });
        Ok(format!("http+unix://{}/{token}", percent_encode(&socket.to_string_lossy())))
    }

    fn redeem(&self, token: &str) -> Option<Ticket> {
        self.0.lock().remove(token)
    }
}

fn percent_encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Serves until `cancel`.
pub(crate) async fn serve(runtime: Runtime, listener: UnixListener, cancel: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (runtime, cancel) = (runtime.clone(), cancel.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| {
                let response = answer(runtime.clone(), request, cancel.clone());
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            if let Some(Err(error)) = cancel.run_until_cancelled(connection).await {
                tracing::debug!(%error, "a streaming connection broke");
            }
        });
    }
}

fn answer(runtime: Runtime, mut request: Request<Incoming>, cancel: CancellationToken) -> Response<Full<Bytes>> {
    let token = request.uri().path().trim_start_matches('/').to_owned();
    let Some(ticket) = runtime.inner.tokens.redeem(&token) else {
        let mut response = Response::new(Full::from("unknown or expired token\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    match ticket {
        Ticket::PortForward { sandbox, ports } => match port_forward::accept(&mut request, ports) {
            Err(refused) => *refused,
            Ok(mut accepted) => {
                let response = std::mem::take(&mut accepted.response);
                tokio::spawn(async move {
                    let done = cancel.run_until_cancelled(forward::forward(&runtime, &sandbox, accepted)).await;
                    log_end("port-forward", done);
                });
                response
            }
        },
        Ticket::Exec { streams, .. } | Ticket::Attach { streams, .. } => {
            match streaming::exec::accept(&mut request, streams) {
                Err(refused) => *refused,
                Ok(mut accepted) => {
                    let response = std::mem::take(&mut accepted.response);
                    tokio::spawn(async move {
                        let run = async {
                            let session = accepted.session().await?;
                            process::run(&runtime, ticket, session).await
                        };
                        log_end("exec or attach", cancel.run_until_cancelled(run).await);
                    });
                    response
                }
            }
        }
    }
}

fn log_end(what: &str, result: Option<Result<(), streaming::Error>>) {
    if let Some(Err(error)) = result {
        tracing::debug!(error = %crate::chain(&error), "{what} ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_once_and_for_a_minute() {
        let tokens = Tokens::default();
        let ticket = || Ticket::PortForward { sandbox: "s".into(), ports: vec![80] };
        let url = tokens.issue(Path::new("/run/a b.sock"), ticket()).unwrap();
        let token = url.strip_prefix("http+unix://%2Frun%2Fa%20b.sock/").unwrap();
        assert!(tokens.redeem(token).is_some());
        assert!(tokens.redeem(token).is_none());
        let url = tokens.issue(Path::new("/s"), ticket()).unwrap();
        tokio::time::sleep(TOKEN_LIFE * 2).await;
        assert!(tokens.redeem(url.rsplit('/').next().unwrap()).is_none());
    }
}
