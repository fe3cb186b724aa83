//! The server's side of its shims: the zygote that forks them, and calls to one of them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::shim::protocol::{self, Reply, Request, Sandbox};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot start the shim command {command}")]
    Spawn { command: String, source: std::io::Error },
    #[error("the shim is gone")]
    Gone(#[source] std::io::Error),
    #[error("the shim hung up")]
    HungUp,
    #[error("the shim answers nonsense: {0}")]
    Nonsense(String),
    /// What the shim says went wrong.
    #[error("{0}")]
    Refused(String),
}

/// The process that forks shims; ends with this value. Started again when it has died.
pub(crate) struct Zygote {
    command: Vec<std::ffi::OsString>,
    log: PathBuf,
    running: tokio::sync::Mutex<Option<(std::process::Child, OwnedFd)>>,
}

impl Zygote {
    pub(crate) fn new(command: Vec<std::ffi::OsString>, log: PathBuf) -> Zygote {
        Zygote { command, log, running: tokio::sync::Mutex::new(None) }
    }

    /// Forks a shim and has it make `sandbox`.
    pub(crate) async fn fork(&self, sandbox: Sandbox) -> Result<Reply, Error> {
        let (near, far) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|error| Error::Gone(error.into()))?;
        {
            let mut running = self.running.lock().await;
            for attempt in 0..2 {
                if running.is_none() {
                    *running = Some(self.spawn()?);
                }
                let Some((_, socket)) = running.as_ref() else { continue };
                match protocol::send(socket.as_raw_fd(), &[1], &[far.as_raw_fd()]) {
                    Ok(_) => break,
                    Err(error) if attempt == 1 => return Err(Error::Gone(error.into())),
                    Err(_) => {
                        if let Some((mut child, _)) = running.take() {
                            let _ = child.kill();
                            let _ = child.wait();
                        }
                    }
                }
            }
        }
        drop(far);
        let stream = std::os::unix::net::UnixStream::from(near);
        stream.set_nonblocking(true).map_err(Error::Gone)?;
        let mut call = Call { stream: UnixStream::from_std(stream).map_err(Error::Gone)? };
        call.send(&Request::Sandbox(sandbox), &[]).await?;
        call.reply().await.map(|(reply, _)| reply)
    }

    fn spawn(&self) -> Result<(std::process::Child, OwnedFd), Error> {
        let failed = |source| Error::Spawn { command: format!("{:?}", self.command), source };
        let (near, far) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|error| failed(error.into()))?;
        let program = self.command.first().ok_or_else(|| failed(std::io::Error::other("it is empty")))?;
        // Not this process's stderr: somebody may wait for its end, and shims outlive everything.
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).map_err(failed)?;
        let child = std::process::Command::new(program)
            .args(&self.command[1..])
            .stdin(Stdio::from(far))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .current_dir("/")
            // Ctrl-C in the server's terminal is for the server.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        Ok((child, near))
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        if let Some((mut child, socket)) = self.running.get_mut().take() {
            // The end of its socket is its end.
            drop(socket);
            let _ = child.wait();
        }
    }
}

/// One shim, by its socket.
#[derive(Clone, Debug)]
pub(crate) struct Shim {
    /// Sockets have short paths; this one goes through the directory's descriptor.
    dir: Arc<OwnedFd>,
    name: String,
}

impl Shim {
    pub(crate) fn new(socket: &Path) -> std::io::Result<Shim> {
        let dir = std::fs::File::open(socket.parent().unwrap_or(Path::new("/")))?;
        let name = socket.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Shim { dir: Arc::new(dir.into()), name })
    }

    async fn open(&self, request: &Request, fds: &[RawFd]) -> Result<Call, Error> {
        let path = format!("/proc/self/fd/{}/{}", self.dir.as_raw_fd(), self.name);
        let mut call = Call { stream: UnixStream::connect(path).await.map_err(Error::Gone)? };
        call.send(request, fds).await?;
        Ok(call)
    }

    /// One request, one reply.
    pub(crate) async fn call(&self, request: &Request, fds: &[RawFd]) -> Result<Reply, Error> {
        self.open(request, fds).await?.reply().await.map(|(reply, _)| reply)
    }

    /// A request with more than one reply: the first one, its descriptor, and the rest to come.
    pub(crate) async fn open_call(
        &self,
        request: &Request,
        fds: &[RawFd],
    ) -> Result<(Reply, Option<OwnedFd>, Call), Error> {
        let mut call = self.open(request, fds).await?;
        let (reply, fd) = call.reply().await?;
        Ok((reply, fd, call))
    }
}

/// A connection to a shim. Dropping it hangs up.
pub(crate) struct Call {
    stream: UnixStream,
}

impl Call {
    async fn send(&mut self, request: &Request, fds: &[RawFd]) -> Result<(), Error> {
        let frame = protocol::encode(request);
        let mut sent = 0;
        while sent < frame.len() {
            let socket = self.stream.as_fd().as_raw_fd();
            let fds = if sent == 0 { fds } else { &[] };
            let write = || protocol::send(socket, &frame[sent..], fds).map_err(std::io::Error::from);
            sent += self.stream.async_io(Interest::WRITABLE, write).await.map_err(Error::Gone)?;
        }
        Ok(())
    }

    /// The next reply; one that reports an error is an error.
    pub(crate) async fn reply(&mut self) -> Result<(Reply, Option<OwnedFd>), Error> {
        let (mut header, mut fds) = ([0; 4], Vec::new());
        self.fill(&mut header, &mut fds).await?;
        let length = protocol::frame_len(&header).map_err(Error::Nonsense)?.unwrap_or(4) - 4;
        let mut body = vec![0; length];
        self.fill(&mut body, &mut fds).await?;
        let reply: Reply = serde_json::from_slice(&body).map_err(|error| Error::Nonsense(error.to_string()))?;
        match reply.error {
            Some(error) => Err(Error::Refused(error)),
            None => Ok((reply, fds.pop())),
        }
    }

    async fn fill(&mut self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<(), Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            let socket = self.stream.as_fd().as_raw_fd();
            let read = || protocol::receive(socket, &mut buffer[filled..], fds).map_err(std::io::Error::from);
            match self.stream.async_io(Interest::READABLE, read).await.map_err(Error::Gone)? {
                0 => return Err(Error::HungUp),
                n => filled += n,
            }
        }
        Ok(())
    }
}
