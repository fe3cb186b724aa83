//! Further processes in a running container, and the streams of its own one.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

use super::{Error, Runtime};
use crate::container::{Container, State};
use crate::shim::protocol::{Attach, Exec, Request};
use crate::shims::Call;
use crate::spec;

/// Output of an ExecSync that is kept; the rest is read and dropped.
const OUTPUT_MAX: usize = 16 << 20;
/// How long output may follow after the process is gone: a child may hold the pipe.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// Our ends of the streams that were asked for: the write end of stdin, the read ends of stdout and stderr.
#[derive(Default)]
pub(crate) struct ExecStreams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// Instead of all of them.
    pub(crate) terminal: Option<OwnedFd>,
}

/// A process that was started by an exec; dropping it kills the process.
pub(crate) struct Running {
    call: Call,
}

impl Running {
    /// The exit code.
    pub(crate) async fn wait(&mut self) -> Result<i32, Error> {
        let (reply, _) = self.call.reply().await?;
        reply.exit_code.ok_or_else(|| Error::Shim("the shim reports no exit code".to_owned()))
    }
}

impl Runtime {
    pub(crate) async fn exec(
        &self,
        id: &str,
        command: &[String],
        tty: bool,
        streams: [bool; 3],
    ) -> Result<(ExecStreams, Running), Error> {
        let container = self.container(id)?;
        if !container.is_running() {
            return Err(Error::State(format!("container {} is not running", container.id)));
        }
        let sandbox = self.sandbox(&container.record.sandbox)?;
        let whole = container.spec().map_err(Error::io(format!("cannot read container {}", container.id)))?;
        let process = spec::exec(&whole, command, tty)?;
        let wanted = if tty { [false; 3] } else { streams };
        let (mut ours, theirs) = pipes(wanted).map_err(|error| Error::io("cannot make pipes")(error.into()))?;
        let request = Request::Exec(Exec {
            container: container.id.clone(),
            process: process.to_string(),
            tty,
            streams: wanted,
            oom_score_adj: container.oom_score_adj(),
            seccomp: self.seccomp(&container),
        });
        let fds: Vec<RawFd> = theirs.iter().map(AsRawFd::as_raw_fd).collect();
        let (_, terminal, call) = sandbox.shim.open_call(&request, &fds).await?;
        ours.terminal = terminal;
        Ok((ours, Running { call }))
    }

    /// Runs to the end: exit code, stdout, stderr. Zero is no timeout.
    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>, Vec<u8>), Error> {
        let (streams, mut running) = self.exec(id, command, false, [false, true, true]).await?;
        let (stdout, stderr) = (reader(streams.stdout)?, reader(streams.stderr)?);
        let mut output = std::pin::pin!(async { tokio::join!(collect(stdout), collect(stderr)) });
        let run = async {
            let mut collected = None;
            let code = loop {
                tokio::select! {
                    code = running.wait() => break code?,
                    both = &mut output, if collected.is_none() => collected = Some(both),
                }
            };
            let (stdout, stderr) = match collected {
                Some(both) => both,
                None => tokio::time::timeout(OUTPUT_GRACE, output).await.unwrap_or_default(),
            };
            Ok((code, stdout, stderr))
        };
        if timeout.is_zero() {
            return run.await;
        }
        match tokio::time::timeout(timeout, run).await {
            Ok(done) => done,
            Err(_) => Err(Error::Timeout(format!("command {command:?} timed out after {timeout:?}"))),
        }
    }

    /// Connects to the streams of the container's own process.
    pub(crate) async fn attach(
        &self,
        id: &str,
        streams: [bool; 3],
    ) -> Result<(ExecStreams, tokio::sync::watch::Receiver<State>), Error> {
        let container = self.container(id)?;
        if !container.is_running() {
            return Err(Error::State(format!("container {} is not running", container.id)));
        }
        let sandbox = self.sandbox(&container.record.sandbox)?;
        // A terminal has one output.
        let streams = [streams[0], streams[1], streams[2] && !container.config.tty];
        let (ours, theirs) = pipes(streams).map_err(|error| Error::io("cannot make pipes")(error.into()))?;
        let fds: Vec<RawFd> = theirs.iter().map(AsRawFd::as_raw_fd).collect();
        let request = Request::Attach(Attach { container: container.id.clone(), streams });
        sandbox.shim.call(&request, &fds).await?;
        Ok((ours, container.state.subscribe()))
    }

    pub(crate) async fn resize(&self, container: &Container, width: u16, height: u16) -> Result<(), Error> {
        let sandbox = self.sandbox(&container.record.sandbox)?;
        sandbox.shim.call(&Request::Resize { container: container.id.clone(), width, height }, &[]).await?;
        Ok(())
    }
}

/// Pipes for stdin, stdout and stderr: our ends, and those of the process in order.
fn pipes(streams: [bool; 3]) -> nix::Result<(ExecStreams, Vec<OwnedFd>)> {
    let (mut ours, mut theirs) = (ExecStreams::default(), Vec::new());
    if streams[0] {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        ours.stdin = Some(write);
        theirs.push(read);
    }
    for (wanted, end) in [(streams[1], &mut ours.stdout), (streams[2], &mut ours.stderr)] {
        if wanted {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            *end = Some(read);
            theirs.push(write);
        }
    }
    Ok((ours, theirs))
}

fn reader(fd: Option<OwnedFd>) -> Result<Option<Receiver>, Error> {
    fd.map(Receiver::from_owned_fd).transpose().map_err(Error::io("cannot read the command's output"))
}

async fn collect(pipe: Option<Receiver>) -> Vec<u8> {
    let (mut kept, mut chunk) = (Vec::new(), vec![0; 16 * 1024]);
    let Some(mut pipe) = pipe else { return kept };
    while let Ok(n) = pipe.read(&mut chunk).await
        && n > 0
    {
        kept.extend_from_slice(&chunk[..n.min(OUTPUT_MAX - kept.len())]);
    }
    kept
}
