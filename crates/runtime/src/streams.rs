//! The streaming server: exec, attach and port-forward.
//!
//! CRI answers a request for a stream with a URL, `http+unix://PERCENT-ENCODED-SOCKET-PATH/TOKEN`; whoever connects to
//! the socket and sends the client's upgrade request for `/TOKEN` gets the stream. A token is good for one connection
//! and one minute.

use std::collections::HashMap;
use std::convert::Infallible;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use streaming::exec::{Outcome, Session, Streams};
use streaming::{Input, Output, port_forward};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::net::{TcpStream, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::container::State;
use crate::runtime::{Error, ExecStreams, Runtime};

const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// Tokens that may wait to be used.
const TOKENS_MAX: usize = 1000;
/// How long output may follow after a process is gone: a child may hold the pipe.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

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
                    let done = cancel.run_until_cancelled(forward(&runtime, &sandbox, accepted)).await;
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
                            run(&runtime, ticket, session).await
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

async fn run(runtime: &Runtime, ticket: Ticket, mut session: Session) -> Result<(), streaming::Error> {
    let outcome = match ticket {
        Ticket::Exec { container, command, streams } => {
            let wanted = [streams.stdin, streams.stdout, streams.stderr];
            match runtime.exec(&container, &command, streams.tty, wanted).await {
                Ok((ends, mut running)) => {
                    let code = pump(ends, &mut session, |_, _| async {}, running.wait()).await;
                    code.map_or_else(|error| Outcome::Failed(crate::chain(&error)), Outcome::Exit)
                }
                Err(error) => Outcome::Failed(crate::chain(&error)),
            }
        }
        Ticket::Attach { container, streams } => {
            let wanted = [streams.stdin, streams.stdout, streams.stderr];
            match runtime.attach(&container, wanted).await {
                Ok((ends, mut state)) => {
                    let over = async {
                        let state = state.wait_for(|state| matches!(state, State::Exited { .. })).await;
                        Ok(match state.as_deref() {
                            Ok(State::Exited { code, .. }) => *code,
                            _ => 0,
                        })
                    };
                    let resize = |width, height| {
                        let container = runtime.container(&container);
                        async move {
                            if let Ok(container) = container {
                                let _ = runtime.resize(&container, width, height).await;
                            }
                        }
                    };
                    // The container's own exit code is not the outcome of attaching to it.
                    let done = pump(ends, &mut session, resize, over).await;
                    done.map_or_else(|error| Outcome::Failed(crate::chain(&error)), |_| Outcome::Exit(0))
                }
                Err(error) => Outcome::Failed(crate::chain(&error)),
            }
        }
        Ticket::PortForward { .. } => Outcome::Failed("not an exec".to_owned()),
    };
    session.finish(outcome).await
}

/// Copies in both directions until the process is over and its output written, or the client is gone.
async fn pump<R: Future<Output = ()>>(
    ends: ExecStreams,
    session: &mut Session,
    resize: impl Fn(u16, u16) -> R,
    over: impl Future<Output = Result<i32, Error>>,
) -> Result<i32, Error> {
    let broken = |what: &str| {
        let what = what.to_owned();
        move |source| Error::Io { what, source }
    };
    let (input, sizes) = (session.stdin.take(), session.resize.take());
    let terminal = ends.terminal.map(Terminal::new).transpose().map_err(broken("cannot use the terminal"))?;
    let terminal = terminal.as_ref();
    let stdout = ends.stdout.map(pipe::Receiver::from_owned_fd).transpose().map_err(broken("cannot read stdout"))?;
    let stderr = ends.stderr.map(pipe::Receiver::from_owned_fd).transpose().map_err(broken("cannot read stderr"))?;
    let stdin = ends.stdin.map(pipe::Sender::from_owned_fd).transpose().map_err(broken("cannot write stdin"))?;

    let feed = async {
        match (input, stdin, terminal) {
            (Some(input), Some(stdin), _) => feed_pipe(input, stdin).await,
            (Some(input), None, Some(terminal)) => terminal.feed(input).await,
            _ => {}
        }
        // The end of the input is not the end of the process.
        std::future::pending::<()>().await;
    };
    let sizes = async {
        if let Some(mut sizes) = sizes {
            while let Some(size) = sizes.next().await {
                match terminal {
                    Some(terminal) => terminal.resize(size.width, size.height),
                    None => resize(size.width, size.height).await,
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let (out, err) = (session.stdout.clone(), session.stderr.clone());
    let mut output = std::pin::pin!(async {
        let main = async {
            match (terminal, stdout, &out) {
                (Some(terminal), _, Some(out)) => terminal.drain(out).await,
                (None, Some(stdout), Some(out)) => drain_pipe(stdout, out).await,
                _ => true,
            }
        };
        let second = async {
            match (stderr, &err) {
                (Some(stderr), Some(err)) => drain_pipe(stderr, err).await,
                _ => true,
            }
        };
        let (first, second) = tokio::join!(main, second);
        first && second
    });
    let finish = async {
        let mut over = std::pin::pin!(over);
        let mut drained = false;
        let code = loop {
            tokio::select! {
                code = &mut over => break code?,
                alive = &mut output, if !drained => {
                    if !alive {
                        return Err(Error::State("the client is gone".to_owned()));
                    }
                    drained = true;
                }
            }
        };
        if !drained {
            let _ = tokio::time::timeout(OUTPUT_GRACE, output).await;
        }
        Ok(code)
    };
    tokio::select! {
        done = finish => done,
        () = feed => Err(Error::State("the input broke".to_owned())),
        () = sizes => Err(Error::State("the terminal broke".to_owned())),
    }
}

async fn feed_pipe(mut input: Input, mut stdin: pipe::Sender) {
    while let Some(bytes) = input.recv().await {
        if stdin.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// False once the client takes no more.
async fn drain_pipe(mut pipe: pipe::Receiver, out: &Output) -> bool {
    let mut chunk = vec![0; 32 * 1024];
    while let Ok(n) = pipe.read(&mut chunk).await
        && n > 0
    {
        if out.write(Bytes::copy_from_slice(&chunk[..n])).await.is_err() {
            return false;
        }
    }
    true
}

/// The near side of a process's terminal.
struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    fn new(fd: OwnedFd) -> std::io::Result<Terminal> {
        // SAFETY: fcntl with F_GETFL and F_SETFL takes and returns plain integers.
        let result = unsafe {
            let flags = nix::libc::fcntl(fd.as_raw_fd(), nix::libc::F_GETFL);
            nix::libc::fcntl(fd.as_raw_fd(), nix::libc::F_SETFL, flags | nix::libc::O_NONBLOCK)
        };
        nix::Error::result(result)?;
        // SAFETY: the descriptor is owned by the AsyncFd from here on and closed with it, not before.
        Ok(Terminal(unsafe { AsyncFd::register(fd) }?))
    }

    async fn feed(&self, mut input: Input) {
        while let Some(bytes) = input.recv().await {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let Ok(mut ready) = self.0.writable().await else { return };
                match ready.try_io(|fd| nix::unistd::write(fd.get_ref(), rest).map_err(Into::into)) {
                    Ok(Ok(n)) => rest = &rest[n..],
                    Ok(Err(_)) => return,
                    Err(_) => {}
                }
            }
        }
        // A terminal knows the end of input by a character.
        let _ = nix::unistd::write(self.0.get_ref(), b"\x04");
    }

    /// False once the client takes no more.
    async fn drain(&self, out: &Output) -> bool {
        let mut chunk = vec![0; 32 * 1024];
        loop {
            let Ok(mut ready) = self.0.readable().await else { return true };
            match ready.try_io(|fd| nix::unistd::read(fd.get_ref(), &mut chunk).map_err(Into::into)) {
                Ok(Ok(0)) => return true,
                Ok(Ok(n)) => {
                    if out.write(Bytes::copy_from_slice(&chunk[..n])).await.is_err() {
                        return false;
                    }
                }
                // EIO: the last user of the terminal is gone.
                Ok(Err(_)) => return true,
                Err(_) => {}
            }
        }
    }

    fn resize(&self, width: u16, height: u16) {
        let size = nix::libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads one winsize.
        unsafe { nix::libc::ioctl(self.0.get_ref().as_raw_fd(), nix::libc::TIOCSWINSZ, &raw const size) };
    }
}

async fn forward(runtime: &Runtime, sandbox: &str, accepted: port_forward::Accepted) -> Result<(), streaming::Error> {
    let mut session = accepted.session().await?;
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            next = session.next() => match next {
                Some(Ok(next)) => {
                    let (runtime, sandbox) = (runtime.clone(), sandbox.to_owned());
                    connections.spawn(async move { connect(&runtime, &sandbox, next).await });
                }
                Some(Err(error)) => return Err(error),
                None => break,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    while connections.join_next().await.is_some() {}
    session.close().await;
    Ok(())
}

async fn connect(runtime: &Runtime, sandbox: &str, forward: port_forward::Forward) {
    let port_forward::Forward { port, mut from_client, to_client, error } = forward;
    let stream = match runtime.dial(sandbox, port).await {
        Ok(stream) => stream,
        Err(why) => {
            let text = format!("error forwarding port {port} to pod {sandbox}: {}", crate::chain(&why));
            let _ = error.write(Bytes::from(text)).await;
            let _ = error.close().await;
            let _ = to_client.close().await;
            return;
        }
    };
    let _ = error.close().await;
    let (mut read, mut write) = stream.into_split();
    let up = async {
        while let Some(bytes) = from_client.recv().await {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
    };
    let down = async {
        let mut chunk = vec![0; 32 * 1024];
        while let Ok(n) = read.read(&mut chunk).await
            && n > 0
        {
            if to_client.write(Bytes::copy_from_slice(&chunk[..n])).await.is_err() {
                return;
            }
        }
        let _ = to_client.close().await;
    };
    // Once the server side is done nobody is left to send to.
    let mut up = std::pin::pin!(up);
    let mut down = std::pin::pin!(down);
    tokio::select! {
        () = &mut down => {}
        () = &mut up => down.await,
    }
}

impl Runtime {
    /// A connection to a port on the loopback of the sandbox's network namespace.
    async fn dial(&self, sandbox: &str, port: u16) -> Result<TcpStream, Error> {
        let sandbox = self.sandbox(sandbox)?;
        let netns = sandbox.netns.clone();
        let what = format!("cannot connect to port {port}");
        let dialed = tokio::task::spawn_blocking(move || match netns {
            None => connect_loopback(port),
            // Another thread each: one that has entered a namespace is of no use to others.
            Some(path) => std::thread::spawn(move || {
                let netns = std::fs::File::open(path)?;
                nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
                connect_loopback(port)
            })
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("the dialing thread panicked"))),
        });
        let stream = dialed.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let stream = stream.and_then(|stream| {
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        });
        stream.map_err(|source| Error::Io { what, source })
    }
}

fn connect_loopback(port: u16) -> std::io::Result<std::net::TcpStream> {
    std::net::TcpStream::connect(("127.0.0.1", port))
        .or_else(|first| std::net::TcpStream::connect(("::1", port)).map_err(|_| first))
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
