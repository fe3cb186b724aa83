//! Copies between a client and a process: an exec's, or a container's own.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use bytes::Bytes;
use streaming::exec::{Outcome, Session};
use streaming::{Input, Output};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;

use super::Ticket;
use crate::container::State;
use crate::runtime::{Error, ExecStreams, Runtime};

/// How long output may follow after a process is gone: a child may hold the pipe.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// Serves an exec or attach ticket to its end.
pub(super) async fn run(runtime: &Runtime, ticket: Ticket, mut session: Session) -> Result<(), streaming::Error> {
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
