//! A container's standard streams in its shim: output goes to the log and to whoever is attached, input comes from them.
//!
//! ```text
//! container stdout ──> shim ──> log file
//!                        └────> sinks (pipes of attached clients)
//! feeds (pipes of attached clients) ──> shim ──> container stdin
//! ```
//!
//! Invariant: nothing is lost between a container and its clients, nothing is buffered without bound: while a sink or
//! the container's stdin is full, the side that fills it is not read. A client that goes away frees the others.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::unistd::{read, write};

use super::log::{Log, Stream};

/// What is read at once.
pub(super) const CHUNK: usize = 16 * 1024;

pub(super) struct Sink {
    fd: OwnedFd,
    stream: Stream,
    pending: Vec<u8>,
}

impl Sink {
    pub(super) fn new(fd: OwnedFd, stream: Stream) -> Sink {
        let _ = super::set_nonblocking(&fd);
        Sink { fd, stream, pending: Vec::new() }
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn is_full(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether the sink is still of use.
    fn push(&mut self, bytes: &[u8]) -> bool {
        self.pending.extend_from_slice(bytes);
        self.flush()
    }

    pub(super) fn flush(&mut self) -> bool {
        drain(&self.fd, &mut self.pending)
    }
}

/// Writes what fits; false when nobody will ever read more.
fn drain(fd: &OwnedFd, pending: &mut Vec<u8>) -> bool {
    let mut written = 0;
    let alive = loop {
        if written == pending.len() {
            break true;
        }
        match write(fd, &pending[written..]) {
            Ok(n) => written += n,
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::EAGAIN) => break true,
            Err(_) => break false,
        }
    };
    pending.drain(..written);
    if pending.is_empty() {
        *pending = Vec::new();
    }
    alive
}

/// The streams of one container.
pub(super) struct Stdio {
    pub(super) log: Log,
    /// Read ends of stdout and stderr; with a terminal only the first, which is the terminal.
    pub(super) outputs: [Option<OwnedFd>; 2],
    pub(super) sinks: Vec<Sink>,
    pub(super) feeds: Vec<OwnedFd>,
    pub(super) stdin: Option<OwnedFd>,
    stdin_once: bool,
    pending: Vec<u8>,
    tty: bool,
}

impl Stdio {
    pub(super) fn new(log: Log, tty: bool, stdin_once: bool) -> Stdio {
        Stdio {
            log,
            outputs: [None, None],
            sinks: Vec::new(),
            feeds: Vec::new(),
            stdin: None,
            stdin_once,
            pending: Vec::new(),
            tty,
        }
    }

    pub(super) fn is_tty(&self) -> bool {
        self.tty
    }

    /// Whether output may be read: no client lags behind.
    pub(super) fn wants_output(&self, stream: Stream) -> bool {
        self.outputs[stream as usize].is_some()
            && !self.sinks.iter().any(|sink| sink.stream == stream && sink.is_full())
    }

    pub(super) fn wants_input(&self) -> bool {
        self.stdin.is_some() && self.pending.is_empty()
    }

    pub(super) fn input_is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.outputs.iter().all(Option::is_none)
    }

    /// Reads once; at the end of the stream the log line in the making is finished.
    pub(super) fn read_output(&mut self, stream: Stream, buffer: &mut [u8]) {
        let Some(fd) = &self.outputs[stream as usize] else { return };
        match read(fd, buffer) {
            Ok(n) if n > 0 => {
                self.log.write(stream, super::now(), &buffer[..n]);
                self.sinks.retain_mut(|sink| sink.stream != stream || sink.push(&buffer[..n]));
            }
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
            // EIO is the end of a terminal whose last user is gone.
            Ok(_) | Err(_) => self.close_output(stream),
        }
    }

    pub(super) fn close_output(&mut self, stream: Stream) {
        self.outputs[stream as usize] = None;
        self.log.finish(stream, super::now());
        self.sinks.retain(|sink| sink.stream != stream || sink.is_full());
    }

    pub(super) fn flush_sink(&mut self, fd: i32) {
        let outputs = &self.outputs;
        self.sinks.retain_mut(|sink| {
            sink.fd.as_raw_fd() != fd || (sink.flush() && (sink.is_full() || outputs[sink.stream as usize].is_some()))
        });
    }

    pub(super) fn drop_sink(&mut self, fd: i32) {
        self.sinks.retain(|sink| sink.fd.as_raw_fd() != fd);
    }

    /// Reads once from an attached client; its end closes the container's stdin if that was asked for.
    pub(super) fn read_feed(&mut self, fd: i32, buffer: &mut [u8]) {
        let Some(index) = self.feeds.iter().position(|feed| feed.as_raw_fd() == fd) else { return };
        match read(&self.feeds[index], buffer) {
            Ok(n) if n > 0 => {
                self.pending.extend_from_slice(&buffer[..n]);
                self.flush_input();
            }
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
            Ok(_) | Err(_) => {
                self.feeds.remove(index);
                if self.stdin_once && self.feeds.is_empty() && self.pending.is_empty() {
                    self.close_stdin();
                }
            }
        }
    }

    pub(super) fn flush_input(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        let alive = drain(stdin, &mut self.pending);
        if !alive || (self.stdin_once && self.pending.is_empty() && self.feeds.is_empty()) {
            self.close_stdin();
        }
    }

    fn close_stdin(&mut self) {
        if self.tty
            && let Some(stdin) = &self.stdin
        {
            // A terminal has no end of file but the character for it.
            let _ = write(stdin, b"\x04");
        } else {
            self.stdin = None;
        }
        self.pending = Vec::new();
        self.feeds.clear();
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::pipe;

    use super::*;

    #[test]
    fn a_slow_client_holds_output_back_and_a_gone_one_frees_it() {
        let mut stdio = Stdio::new(Log::open(None).unwrap(), false, false);
        let (read_end, write_end) = pipe().unwrap();
        stdio.outputs[0] = Some(read_end);
        let (client, sink) = pipe().unwrap();
        stdio.sinks.push(Sink::new(sink, Stream::Stdout));
        let mut buffer = vec![0; CHUNK];
        let mut written = 0;
        while stdio.wants_output(Stream::Stdout) {
            written += write(&write_end, &[7; CHUNK]).unwrap();
            stdio.read_output(Stream::Stdout, &mut buffer);
        }
        assert!(written > CHUNK, "a pipe holds more than one chunk");
        drop(client);
        let fd = stdio.sinks[0].fd().as_raw_fd();
        stdio.flush_sink(fd);
        assert!(stdio.wants_output(Stream::Stdout) && stdio.sinks.is_empty());
    }

    #[test]
    fn stdin_once_closes_stdin_after_its_last_byte() {
        let mut stdio = Stdio::new(Log::open(None).unwrap(), false, true);
        let (container, stdin) = pipe().unwrap();
        stdio.stdin = Some(stdin);
        let (feed, client) = pipe().unwrap();
        let fd = feed.as_raw_fd();
        stdio.feeds.push(feed);
        write(&client, b"hello").unwrap();
        drop(client);
        let mut buffer = [0; 16];
        stdio.read_feed(fd, &mut buffer);
        assert!(stdio.stdin.is_some());
        stdio.read_feed(fd, &mut buffer);
        assert!(stdio.stdin.is_none());
        assert_eq!(read(&container, &mut buffer).unwrap(), 5);
        assert_eq!(read(&container, &mut buffer).unwrap(), 0);
    }
}
