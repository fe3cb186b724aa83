//! Port-forward, the server's end: a session yields one [`Forward`] for each connection that the client wants.
//!
//! ```text
//! SPDY (bare or tunnelled)   a pair of streams with headers streamtype: error | data, port, requestid
//! WebSocket v4               for the n-th `ports` of the query: channel 2n data, 2n+1 error; each begins with the
//!                            port as u16, little-endian
//! ```

use std::collections::HashMap;

use bytes::Bytes;
use http::Request;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use crate::{
    Error, INPUT_FRAMES, Input, Output, Response, Wire, spdy,
    upgrade::{self, Kind},
    websocket::{Channels, Tunnel},
};

const SPDY: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const V4: &str = "v4.channel.k8s.io";
/// Half-open pairs kept while their other stream is on its way.
const PAIRS_MAX: usize = 128;

/// One connection to make to a port inside the pod.
pub struct Forward {
    pub port: u16,
    pub from_client: Input,
    pub to_client: Output,
    /// Why the connection could not be made or broke, as text; close it when all went well.
    pub error: Output,
}

/// A port-forward connection.
pub struct Session(Inner);

enum Inner {
    Spdy { connection: spdy::Connection, halves: HashMap<String, spdy::Stream> },
    WebSocket { channels: Channels, waiting: std::vec::IntoIter<Forward> },
}

/// An upgrade that was agreed to: send [`Accepted::response`], then await [`Accepted::session`].
pub struct Accepted {
    pub response: Response,
    upgrade: hyper::upgrade::OnUpgrade,
    kind: Kind,
    subprotocol: &'static str,
    ports: Vec<u16>,
}

/// Agrees to a port-forward request, or says what to answer instead. `ports`: those named in the query, needed by
/// WebSocket v4 only.
pub fn accept<B>(request: &mut Request<B>, ports: Vec<u16>) -> Result<Accepted, Box<Response>> {
    let accepted = upgrade::accept(request, &[SPDY], &[TUNNEL, V4])?;
    Ok(Accepted {
        response: accepted.response,
        upgrade: hyper::upgrade::on(request),
        kind: accepted.kind,
        subprotocol: accepted.subprotocol,
        ports,
    })
}

impl Accepted {
    /// Waits for the upgrade. Poll it only after the response is on its way.
    pub async fn session(self) -> Result<Session, Error> {
        let io = TokioIo::new(self.upgrade.await.map_err(Error::Upgrade)?);
        match (self.kind, self.subprotocol) {
            (Kind::Spdy, _) => over_spdy(io),
            (Kind::WebSocket, TUNNEL) => over_spdy(Tunnel::server(io).await),
            (Kind::WebSocket, _) => over_websocket(io, &self.ports).await,
        }
    }
}

fn over_spdy(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Result<Session, Error> {
    Ok(Session(Inner::Spdy { connection: spdy::Connection::server(io)?, halves: HashMap::new() }))
}

async fn over_websocket<IO>(io: IO, ports: &[u16]) -> Result<Session, Error>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (senders, inputs): (Vec<_>, Vec<_>) = ports.iter().map(|_| mpsc::channel::<Bytes>(INPUT_FRAMES)).unzip();
    // Only the data channels, the even ones, have input.
    let by_channel = senders.into_iter().flat_map(|sender| [Some(sender), None]).collect();
    let channels = Channels::start(io, by_channel, false).await;
    let mut waiting = Vec::with_capacity(ports.len());
    for (index, (&port, from_client)) in ports.iter().zip(inputs).enumerate() {
        let channel = u8::try_from(index * 2)
            .ok()
            .filter(|channel| *channel < u8::MAX)
            .ok_or_else(|| Error::Protocol { protocol: V4, why: format!("{} ports in one request", ports.len()) })?;
        let output = |channel| Output(Wire::WebSocket { channel, socket: channels.writer.clone() });
        let (to_client, error) = (output(channel), output(channel + 1));
        for output in [&to_client, &error] {
            output.write(Bytes::copy_from_slice(&port.to_le_bytes())).await?;
        }
        waiting.push(Forward { port, from_client, to_client, error });
    }
    Ok(Session(Inner::WebSocket { channels, waiting: waiting.into_iter() }))
}

impl Session {
    /// The next connection to make; `None` once there will be no more.
    pub async fn next(&mut self) -> Option<Result<Forward, Error>> {
        match &mut self.0 {
            Inner::WebSocket { waiting, .. } => waiting.next().map(Ok),
            Inner::Spdy { connection, halves } => loop {
                let stream = connection.accept().await?;
                match pair(halves, stream) {
                    Ok(Some(forward)) => return Some(Ok(forward)),
                    Ok(None) => {}
                    Err(error) => return Some(Err(error)),
                }
            },
        }
    }

    /// Closes the connection once everything is written; all [`Forward`]s must be dropped before.
    pub async fn close(self) {
        match self.0 {
            Inner::Spdy { connection, .. } => connection.close().await,
            Inner::WebSocket { channels, waiting } => {
                drop(waiting);
                channels.close().await;
            }
        }
    }
}

/// Keeps the first stream of a request until the second one is there. Clients without request ids number their
/// streams: the error stream comes right before its data stream, on the same port.
fn pair(halves: &mut HashMap<String, spdy::Stream>, stream: spdy::Stream) -> Result<Option<Forward>, Error> {
    let broken = |why: String| Error::Protocol { protocol: SPDY, why };
    let kind = stream.headers.get("streamtype").unwrap_or_default().to_string();
    let port_text = stream.headers.get("port").unwrap_or_default().to_string();
    let port: u16 = port_text
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| broken(format!("stream for port {port_text:?}: must be 1 to 65535")))?;
    let id = stream.headers.get("requestid").map_or_else(|| format!("port {port}"), str::to_string);
    let Some(other) = halves.remove(&id) else {
        if halves.len() >= PAIRS_MAX {
            return Err(broken(format!("more than {PAIRS_MAX} half-open requests")));
        }
        halves.insert(id, stream);
        return Ok(None);
    };
    let (error, data) = match kind.as_str() {
        "data" if other.headers.get("streamtype") == Some("error") => (other, stream),
        "error" if other.headers.get("streamtype") == Some("data") => (stream, other),
        _ => {
            return Err(broken(format!("request {id}: two streams of type {kind:?}")));
        }
    };
    Ok(Some(Forward {
        port,
        from_client: data.input,
        to_client: Output(Wire::Spdy(data.output)),
        error: Output(Wire::Spdy(error.output)),
    }))
}

#[cfg(test)]
mod tests;
