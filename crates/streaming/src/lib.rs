//! The wire of exec, attach and port-forward: SPDY/3.1 and WebSocket, as `kubectl` and client libraries speak them.
//!
//! A server hands an upgrade request to [`exec::accept`] or [`port_forward::accept`] and gets the 101 answer and a
//! session of plain byte streams; which of the two protocols carries them does not show.
//!
//! ```text
//! kubectl ≥ 1.31   WebSocket v5.channel.k8s.io               one byte of channel number before each message
//! older clients    SPDY/3.1  v4.channel.k8s.io               one SPDY stream for each of stdin, stdout, stderr, ...
//! port-forward     WebSocket SPDY/3.1+portforward.k8s.io     a SPDY connection inside binary messages
//!                  SPDY/3.1  portforward.k8s.io              an error and a data stream for each connection
//!                  WebSocket v4.channel.k8s.io               two channels for each port named in the query
//! ```
//!
//! Absent on purpose: who is at either end, authentication, and dialing.

pub mod exec;
pub mod port_forward;
pub mod spdy;
mod status;
mod upgrade;
pub mod websocket;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes from the client, in order; the channel closes at the client's end of stream.
pub type Input = mpsc::Receiver<Bytes>;

/// An HTTP answer whose body is known in full.
pub type Response = http::Response<http_body_util::Full<Bytes>>;

/// Frames buffered for a reader that is slower than the client; behind it the connection waits.
const INPUT_FRAMES: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the connection was not upgraded")]
    Upgrade(#[source] hyper::Error),
    #[error("the client broke the {protocol} protocol: {why}")]
    Protocol { protocol: &'static str, why: String },
    #[error("the client opened {got} of {want} streams and went away")]
    Incomplete { got: usize, want: usize },
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    #[error("the other side is gone")]
    Closed,
}

/// Bytes to the client on one stream.
#[derive(Clone, Debug)]
pub struct Output(Wire);

#[derive(Clone, Debug)]
enum Wire {
    Spdy(spdy::Writer),
    WebSocket { channel: u8, socket: websocket::Writer },
}

impl Output {
    /// Sends `bytes`; returns once they are queued behind a bounded buffer.
    pub async fn write(&self, bytes: Bytes) -> Result<(), Error> {
        match &self.0 {
            Wire::Spdy(writer) => writer.write(bytes).await,
            Wire::WebSocket { channel, socket } => socket.write(*channel, &bytes).await,
        }
    }

    /// Tells the client that nothing more follows on this stream; over WebSocket only the end of all says that.
    pub async fn close(&self) -> Result<(), Error> {
        match &self.0 {
            Wire::Spdy(writer) => writer.close().await,
            Wire::WebSocket { .. } => Ok(()),
        }
    }
}
