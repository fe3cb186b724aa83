//! WebSocket connections: numbered channels, and a byte tunnel.
//!
//! ```text
//! channel message:   channel:u8 payload          binary; v5 clients add 255 channel:u8 "this channel is closed"
//! tunnel message:    payload                     binary; the payloads one after the other are a byte stream
//! ```

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{Error, INPUT_FRAMES};

/// A message longer than this ends the connection.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Output is cut into messages of at most this size.
const OUTPUT_BYTES_MAX: usize = 32 * 1024;
const CLOSE_CHANNEL: u8 = 255;

/// Whether `io` is one of a server's or a client's ends does matter to WebSocket: clients mask.
pub(crate) async fn upgraded<IO>(io: IO, role: Role) -> WebSocketStream<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .read_buffer_size(16 * 1024);
    WebSocketStream::from_raw_socket(io, role, Some(config)).await
}

/// The server's end of a connection of numbered channels. Dropping it ends the reader.
pub struct Channels {
    pub(crate) writer: Writer,
    reader: JoinHandle<()>,
    flusher: JoinHandle<()>,
}

/// The sending half, for all channels.
#[derive(Clone, Debug)]
pub struct Writer {
    out: mpsc::Sender<Message>,
}

impl Channels {
    /// Takes the connection over. `inputs[n]` gets what the client sends on channel `n`; channels without a sender are
    /// ignored. `signals_close`: the subprotocol knows the close-channel message (v5).
    pub(crate) async fn start<IO>(io: IO, inputs: Vec<Option<mpsc::Sender<Bytes>>>, signals_close: bool) -> Self
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sink, source) = upgraded(io, Role::Server).await.split();
        let (out, mut queued) = mpsc::channel::<Message>(INPUT_FRAMES);
        let flusher = tokio::spawn(async move {
            while let Some(message) = queued.recv().await {
                if sink.feed(message).await.is_err() || queued.is_empty() && sink.flush().await.is_err() {
                    return;
                }
            }
            // Clients take a close without a code for a failure.
            let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            let _ = sink.send(Message::Close(Some(frame))).await; // the peer may be gone already
        });
        let reader = tokio::spawn(read(source, inputs, signals_close, out.downgrade()));
        Self { writer: Writer { out }, reader, flusher }
    }

    /// Returns once everything queued was sent and the close frame behind it, if all [`Writer`]s are dropped by then.
    pub(crate) async fn close(self) {
        let Self { writer, reader, flusher } = self;
        drop(writer);
        let _ = flusher.await;
        reader.abort();
    }
}

async fn read<S>(
    mut source: S,
    mut inputs: Vec<Option<mpsc::Sender<Bytes>>>,
    signals_close: bool,
    pong: mpsc::WeakSender<Message>,
) where
    S: Stream<Item = Result<Message, tungstenite::Error>> + Unpin,
{
    while let Some(message) = source.next().await {
        let mut bytes = match message {
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Text(text)) => Bytes::from(text),
            Ok(Message::Ping(bytes)) => {
                if let Some(pong) = pong.upgrade() {
                    let _ = pong.send(Message::Pong(bytes)).await;
                }
                continue;
            }
            Ok(Message::Close(_)) | Err(_) => return,
            Ok(_) => continue,
        };
        if bytes.is_empty() {
            continue;
        }
        let channel = bytes.get_u8();
        if channel == CLOSE_CHANNEL && signals_close {
            if let Some(input) = bytes.first().and_then(|&closed| inputs.get_mut(usize::from(closed))) {
                *input = None;
            }
        } else if let Some(Some(input)) = inputs.get(usize::from(channel))
            && !bytes.is_empty()
        {
            // A reader that dropped its channel wants no more of it; the others go on.
            let _ = input.send(bytes).await;
        }
    }
}

impl Writer {
    pub(crate) async fn write(&self, channel: u8, bytes: &[u8]) -> Result<(), Error> {
        for part in bytes.chunks(OUTPUT_BYTES_MAX) {
            let mut message = BytesMut::with_capacity(part.len() + 1);
            message.extend_from_slice(&[channel]);
            message.extend_from_slice(part);
            self.send(message.freeze()).await?;
        }
        Ok(())
    }

    /// An empty message on a channel: what upstream's servers send first on each output.
    pub(crate) async fn announce(&self, channel: u8) -> Result<(), Error> {
        self.send(Bytes::copy_from_slice(&[channel])).await
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Error> {
        self.out.send(Message::Binary(bytes)).await.map_err(|_| Error::Closed)
    }
}

/// A byte stream inside binary messages: what carries SPDY for port-forward.
pub struct Tunnel<IO> {
    socket: WebSocketStream<IO>,
    unread: Bytes,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Tunnel<IO> {
    pub(crate) async fn server(io: IO) -> Self {
        Self { socket: upgraded(io, Role::Server).await, unread: Bytes::new() }
    }

    /// The end that asked for the upgrade.
    pub async fn client(io: IO) -> Self {
        Self { socket: upgraded(io, Role::Client).await, unread: Bytes::new() }
    }
}

fn broken(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::other(other),
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.socket.poll_next_unpin(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                Some(Ok(Message::Text(text))) => self.unread = Bytes::from(text),
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(tungstenite::Error::ConnectionClosed)) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let count = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_ready_unpin(cx)).map_err(broken)?;
        let part = &buf[..buf.len().min(OUTPUT_BYTES_MAX)];
        Pin::new(&mut self.socket).start_send(Message::Binary(Bytes::copy_from_slice(part))).map_err(broken)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_flush_unpin(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_close_unpin(cx).map_err(broken)
    }
}
