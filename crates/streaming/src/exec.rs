//! Exec and attach, the server's end: standard streams, terminal sizes and the outcome.
//!
//! ```text
//! WebSocket channels   0 stdin  1 stdout  2 stderr  3 outcome (Status)  4 terminal size (JSON)
//! SPDY streams         header streamtype: stdin | stdout | stderr | error | resize
//! ```

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::sync::mpsc;

pub use crate::status::Outcome;
use crate::{
    Error, INPUT_FRAMES, Input, Output, Response, Wire, spdy,
    upgrade::{self, Kind},
    websocket::Channels,
};

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
/// How long a SPDY client may take to open the streams that it asked for.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Which streams the client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    /// Never together with `tty`.
    pub stderr: bool,
    pub tty: bool,
}

/// A terminal size in character cells.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    pub width: u16,
    pub height: u16,
}

/// The streams of one command.
pub struct Session {
    pub stdin: Option<Input>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    /// Terminal sizes; closes with the client. `None` without a terminal.
    pub resize: Option<Resize>,
    outcome: Output,
    connection: Connection,
}

enum Connection {
    Spdy(spdy::Connection),
    WebSocket(Channels),
}

/// Terminal sizes as the client reports them.
pub struct Resize {
    input: Input,
    partial: Vec<u8>,
}

impl Resize {
    /// The next size; `None` once the client is gone.
    pub async fn next(&mut self) -> Option<Size> {
        loop {
            let mut sizes = serde_json::Deserializer::from_slice(&self.partial).into_iter::<Size>();
            match sizes.next() {
                Some(Ok(size)) => {
                    let used = sizes.byte_offset();
                    self.partial.drain(..used);
                    return Some(size);
                }
                Some(Err(error)) if !error.is_eof() => self.partial.clear(),
                _ => {}
            }
            self.partial.extend_from_slice(&self.input.recv().await?);
        }
    }
}

/// An upgrade that was agreed to: send [`Accepted::response`], then await [`Accepted::session`].
pub struct Accepted {
    pub response: Response,
    upgrade: hyper::upgrade::OnUpgrade,
    kind: Kind,
    subprotocol: &'static str,
    streams: Streams,
}

/// Agrees to an exec or attach request, or says what to answer instead.
pub fn accept<B>(request: &mut Request<B>, streams: Streams) -> Result<Accepted, Box<Response>> {
    let accepted = upgrade::accept(request, &[V4], &[V5, V4])?;
    Ok(Accepted {
        response: accepted.response,
        upgrade: hyper::upgrade::on(request),
        kind: accepted.kind,
        subprotocol: accepted.subprotocol,
        streams,
    })
}

impl Accepted {
    /// Waits for the upgrade and for the client's streams. Poll it only after the response is on its way.
    pub async fn session(self) -> Result<Session, Error> {
        let io = TokioIo::new(self.upgrade.await.map_err(Error::Upgrade)?);
        match self.kind {
            Kind::Spdy => {
                let connection = spdy::Connection::server(io)?;
                match tokio::time::timeout(STREAMS_TIMEOUT, over_spdy(connection, self.streams)).await {
                    Ok(session) => session,
                    Err(_) => Err(Error::Incomplete { got: 0, want: self.streams.count() }),
                }
            }
            Kind::WebSocket => over_websocket(io, self.streams, self.subprotocol == V5).await,
        }
    }
}

impl Streams {
    fn count(self) -> usize {
        1 + usize::from(self.stdin) + usize::from(self.stdout) + usize::from(self.stderr) + usize::from(self.tty)
    }
}

async fn over_spdy(mut connection: spdy::Connection, wanted: Streams) -> Result<Session, Error> {
    let mut got = 0;
    let (mut stdin, mut stdout, mut stderr, mut resize, mut outcome) = (None, None, None, None, None);
    while got < wanted.count() {
        let Some(stream) = connection.accept().await else {
            return Err(Error::Incomplete { got, want: wanted.count() });
        };
        got += 1;
        let output = Output(Wire::Spdy(stream.output));
        match stream.headers.get("streamtype").unwrap_or_default() {
            "stdin" => stdin = Some(stream.input),
            "stdout" => stdout = Some(output),
            "stderr" => stderr = Some(output),
            "error" => outcome = Some(output),
            "resize" => resize = Some(Resize { input: stream.input, partial: Vec::new() }),
            other => {
                return Err(Error::Protocol { protocol: "exec", why: format!("unknown streamtype {other:?}") });
            }
        }
    }
    let outcome = outcome.ok_or_else(|| Error::Protocol { protocol: "exec", why: "no error stream".to_string() })?;
    Ok(Session { stdin, stdout, stderr, resize, outcome, connection: Connection::Spdy(connection) })
}

async fn over_websocket<IO>(io: IO, wanted: Streams, v5: bool) -> Result<Session, Error>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut inputs: Vec<Option<mpsc::Sender<Bytes>>> = vec![None; usize::from(RESIZE) + 1];
    let mut input = |wanted: bool, channel: u8| {
        wanted.then(|| {
            let (sender, input) = mpsc::channel(INPUT_FRAMES);
            inputs[usize::from(channel)] = Some(sender);
            input
        })
    };
    let stdin = input(wanted.stdin, STDIN);
    let resize = input(wanted.tty, RESIZE).map(|input| Resize { input, partial: Vec::new() });
    let channels = Channels::start(io, inputs, v5).await;
    let output = |channel| Output(Wire::WebSocket { channel, socket: channels.writer.clone() });
    for (wanted, channel) in [(wanted.stdout, STDOUT), (wanted.stderr, STDERR), (true, ERROR)] {
        if wanted {
            channels.writer.announce(channel).await?;
        }
    }
    Ok(Session {
        stdin,
        stdout: wanted.stdout.then(|| output(STDOUT)),
        stderr: wanted.stderr.then(|| output(STDERR)),
        resize,
        outcome: output(ERROR),
        connection: Connection::WebSocket(channels),
    })
}

impl Session {
    /// Reports how the command ended and closes the connection once all output is written.
    ///
    /// Clones of the outputs must be dropped before, or this waits for them.
    pub async fn finish(self, outcome: Outcome) -> Result<(), Error> {
        let Self { stdin, stdout, stderr, resize, outcome: status, connection } = self;
        for output in [stdout, stderr].into_iter().flatten() {
            output.close().await?;
        }
        status.write(outcome.to_status().into()).await?;
        status.close().await?;
        drop((status, stdin, resize));
        match connection {
            Connection::Spdy(connection) => connection.close().await,
            Connection::WebSocket(channels) => channels.close().await,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
