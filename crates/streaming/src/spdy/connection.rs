//! One SPDY connection: a reader task that sorts frames to streams, and a writer task that all streams queue into.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    task::JoinHandle,
};

use super::{
    Headers,
    frame::{self, Frame},
    headers::{Deflater, Inflater},
};
use crate::{Error, INPUT_FRAMES, Input};

/// Data is cut into frames of at most this size, like upstream's peers do.
const DATA_BYTES_MAX: usize = 32 * 1024;
/// Streams that may wait to be accepted, and open at once.
const STREAMS_MAX: usize = 512;

/// A connection on which both sides may open streams. Dropping it ends both tasks.
pub struct Connection {
    incoming: mpsc::Receiver<Stream>,
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    out: mpsc::Sender<Bytes>,
    deflater: Mutex<Deflater>,
    streams: Mutex<Streams>,
}

struct Streams {
    next_id: u32,
    inputs: HashMap<u32, mpsc::Sender<Bytes>>,
}

/// A stream: what the peer said of it when opening, what the peer sends, and a way back.
pub struct Stream {
    pub headers: Headers,
    pub input: Input,
    pub output: Writer,
}

/// The sending half of a stream.
#[derive(Clone, Debug)]
pub struct Writer {
    id: u32,
    out: mpsc::Sender<Bytes>,
}

impl Writer {
    pub async fn write(&self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(DATA_BYTES_MAX));
            self.send(&Frame::Data { stream: self.id, fin: false, bytes: part }).await?;
        }
        Ok(())
    }

    /// Half-closes: the peer reads end of stream.
    pub async fn close(&self) -> Result<(), Error> {
        self.send(&Frame::Data { stream: self.id, fin: true, bytes: Bytes::new() }).await
    }

    async fn send(&self, frame: &Frame) -> Result<(), Error> {
        self.out.send(frame::put(frame)).await.map_err(|_| Error::Closed)
    }
}

impl Connection {
    /// The side that accepted the upgrade: its streams have even numbers.
    pub fn server(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Result<Self, Error> {
        Self::start(io, 2)
    }

    /// The side that asked for the upgrade.
    pub fn client(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Result<Self, Error> {
        Self::start(io, 1)
    }

    fn start(io: impl AsyncRead + AsyncWrite + Send + 'static, next_id: u32) -> Result<Self, Error> {
        let (mut read_half, mut write_half) = tokio::io::split(io);
        let (out, mut queued) = mpsc::channel::<Bytes>(INPUT_FRAMES);
        let (accept, incoming) = mpsc::channel(STREAMS_MAX);
        let shared = Arc::new(Shared {
            out,
            deflater: Mutex::new(Deflater::new()?),
            streams: Mutex::new(Streams { next_id, inputs: HashMap::new() }),
        });
        let writer = tokio::spawn(async move {
            while let Some(bytes) = queued.recv().await {
                if write_half.write_all(&bytes).await.is_err() || queued.is_empty() && write_half.flush().await.is_err()
                {
                    return;
                }
            }
            let _ = write_half.shutdown().await; // the peer may be gone already
        });
        let state = Arc::clone(&shared);
        let reader = tokio::spawn(async move {
            let mut inflater = Inflater::new();
            let mut buffer = BytesMut::with_capacity(8 * 1024);
            let ended = loop {
                match frame::take(&mut buffer) {
                    Ok(Some(frame)) => {
                        if let Err(error) = state.handle(frame, &mut inflater, &accept).await {
                            break Err(error);
                        }
                    }
                    Ok(None) => match read_half.read_buf(&mut buffer).await {
                        Ok(0) => break Ok(()),
                        Ok(_) => {}
                        Err(error) => break Err(error.into()),
                    },
                    Err(error) => break Err(error),
                }
            };
            if let Err(error) = ended {
                tracing::debug!(error = &error as &dyn std::error::Error, "SPDY connection ended");
            }
            state.streams.lock().inputs.clear();
        });
        Ok(Self { incoming, shared, reader, writer: Some(writer) })
    }

    /// The next stream that the peer opens; `None` once the peer is gone.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.incoming.recv().await
    }

    /// Opens a stream.
    pub async fn open(&self, headers: &Headers) -> Result<Stream, Error> {
        let (id, input) = {
            let mut streams = self.shared.streams.lock();
            let id = streams.next_id;
            streams.next_id += 2;
            (id, streams.register(id))
        };
        // Compressed and queued in one order: the permit comes first, so nothing waits between the two.
        let permit = self.shared.out.reserve().await.map_err(|_| Error::Closed)?;
        {
            let mut deflater = self.shared.deflater.lock();
            let block = deflater.block(headers)?.into();
            permit.send(frame::put(&Frame::SynStream { stream: id, fin: false, block }));
        }
        Ok(Stream { headers: headers.clone(), input, output: Writer { id, out: self.shared.out.clone() } })
    }

    /// Says goodbye and returns once everything queued has been written, if all [`Writer`]s are dropped by then.
    pub async fn close(mut self) {
        let _ = self.shared.out.send(frame::put(&Frame::GoAway)).await; // the peer may be gone already
        self.reader.abort();
        let writer = self.writer.take();
        drop(self);
        if let Some(writer) = writer {
            let _ = writer.await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Streams {
    fn register(&mut self, id: u32) -> Input {
        let (sender, input) = mpsc::channel(INPUT_FRAMES);
        self.inputs.insert(id, sender);
        input
    }
}

impl Shared {
    async fn handle(&self, frame: Frame, inflater: &mut Inflater, accept: &mpsc::Sender<Stream>) -> Result<(), Error> {
        match frame {
            Frame::SynStream { stream: id, fin, block } => {
                let headers = inflater.block(&block)?;
                let input = {
                    let mut streams = self.streams.lock();
                    if streams.inputs.len() >= STREAMS_MAX {
                        return Err(frame::broken(format!("more than {STREAMS_MAX} open streams")));
                    }
                    let input = streams.register(id);
                    if fin {
                        streams.inputs.remove(&id);
                    }
                    input
                };
                let permit = self.out.reserve().await.map_err(|_| Error::Closed)?;
                {
                    let mut deflater = self.deflater.lock();
                    let block = deflater.block(&Headers::default())?.into();
                    permit.send(frame::put(&Frame::SynReply { stream: id, block }));
                }
                let output = Writer { id, out: self.out.clone() };
                accept.send(Stream { headers, input, output }).await.map_err(|_| Error::Closed)
            }
            Frame::SynReply { block, .. } => inflater.block(&block).map(drop),
            Frame::Data { stream, fin, bytes } => {
                let sender = self.streams.lock().inputs.get(&stream).cloned();
                if let Some(sender) = sender
                    && !bytes.is_empty()
                {
                    // A reader that dropped its stream wants no more of it; the others go on.
                    let _ = sender.send(bytes).await;
                }
                if fin {
                    self.streams.lock().inputs.remove(&stream);
                }
                Ok(())
            }
            Frame::Reset { stream } => {
                self.streams.lock().inputs.remove(&stream);
                Ok(())
            }
            Frame::Ping { id } => self.out.send(frame::put(&Frame::Ping { id })).await.map_err(|_| Error::Closed),
            Frame::GoAway | Frame::Other => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_carry_bytes_both_ways_and_half_close() {
        let (near, far) = tokio::io::duplex(4096);
        let mut server = Connection::server(near).unwrap();
        let client = Connection::client(far).unwrap();
        let headers = Headers(vec![("streamtype".into(), "data".into())]);
        let mut ours = client.open(&headers).await.unwrap();
        let mut theirs = server.accept().await.unwrap();
        assert_eq!(theirs.headers.get("streamtype"), Some("data"));

        let big = Bytes::from(vec![7u8; 300_000]);
        let sending = tokio::spawn({
            let (output, big) = (ours.output.clone(), big.clone());
            async move {
                output.write(big).await.unwrap();
                output.close().await.unwrap();
            }
        });
        let mut got = 0;
        while let Some(bytes) = theirs.input.recv().await {
            got += bytes.len();
        }
        sending.await.unwrap();
        assert_eq!(got, big.len());

        theirs.output.write(Bytes::from_static(b"answer")).await.unwrap();
        theirs.output.close().await.unwrap();
        assert_eq!(ours.input.recv().await.unwrap(), "answer");
        assert!(ours.input.recv().await.is_none());
    }

    #[tokio::test]
    async fn close_delivers_what_was_written_before() {
        let (near, far) = tokio::io::duplex(4096);
        let mut server = Connection::server(near).unwrap();
        let client = Connection::client(far).unwrap();
        let mut ours = client.open(&Headers::default()).await.unwrap();
        let theirs = server.accept().await.unwrap();
        theirs.output.write(Bytes::from_static(b"last words")).await.unwrap();
        drop(theirs);
        server.close().await;
        assert_eq!(ours.input.recv().await.unwrap(), "last words");
        assert!(ours.input.recv().await.is_none());
    }
}
