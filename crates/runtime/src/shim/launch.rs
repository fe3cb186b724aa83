//! Starts one process of a container: libcontainer, called in a forked child of the shim that ends right after.
//!
//! ```text
//! shim ── fork ── launcher ── libcontainer: intermediate ── container process
//!   ^                │  (both end; the container process becomes the shim's child, because that is a subreaper)
//!   └── Reply{pid or error}, terminal ──┘
//! ```
//!
//! Why a child: libcontainer makes its process undumpable, changes its OOM score and leaves a heap behind.

mod diagnosis;
mod executor;

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{ForkResult, Pid, fork};

use self::diagnosis::Diagnosis;
use self::executor::Program;
use super::protocol::{self, Exec, Overlay, Reply, Start};
use crate::chain;

/// Where a container's bundle (its directory) keeps libcontainer's own state.
const STATE_DIR: &str = "oci";

/// The ends of a process's standard streams that the process gets.
#[derive(Default)]
pub(super) struct Streams(pub(super) [Option<OwnedFd>; 3]);

/// A process being started: the launcher's answer arrives on `result`.
pub(super) struct Launcher {
    pub(super) pid: Pid,
    pub(super) result: OwnedFd,
}

pub(super) fn container(request: &Start, streams: Streams) -> nix::Result<Launcher> {
    fork_launcher(|| {
        mount_overlay(&request.overlay)?;
        make_working_directory(&request.dir).map_err(|error| format!("making the working directory: {error}"))?;
        adjust_oom_score(request.oom_score_adj);
        let (builder, console) = builder(&request.container, &request.dir, streams, request.tty, &request.seccomp)?;
        let mut container = builder
            .as_init(&request.dir)
            .with_systemd(false)
            .with_detach(true)
            .build()
            .map_err(|error| chain(&error))?;
        let terminal = console.map(Console::receive).transpose()?;
        let pid = container.pid().ok_or("libcontainer reports no process id")?;
        container.start().map_err(|error| chain(&error))?;
        Ok((pid.as_raw(), terminal))
    })
}

pub(super) fn exec(request: &Exec, dir: &Path, streams: Streams) -> nix::Result<Launcher> {
    fork_launcher(|| {
        adjust_oom_score(request.oom_score_adj);
        let process = dir.join(format!("exec-{}.json", std::process::id()));
        fs::write(&process, &request.process).map_err(|error| format!("writing {process:?}: {error}"))?;
        let started =
            builder(&request.container, dir, streams, request.tty, &request.seccomp).and_then(|(builder, console)| {
                let pid = builder
                    .as_tenant()
                    .with_process(Some(&process))
                    .with_detach(true)
                    .build()
                    .map_err(|error| chain(&error))?;
                Ok((pid.as_raw(), console.map(Console::receive).transpose()?))
            });
        let _ = fs::remove_file(&process);
        started
    })
}

fn fork_launcher(start: impl FnOnce() -> Result<(i32, Option<OwnedFd>), String>) -> nix::Result<Launcher> {
    let (near, far) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: the shim has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Launcher { pid: child, result: near }),
        ForkResult::Child => {
            drop(near);
            let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
            // SAFETY: only the disposition changes. Rust programs ignore SIGPIPE; containers must not inherit that.
            let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
            // No group of the server may stick to a container's user.
            let _ = nix::unistd::setgroups(&[]);
            let diagnosis = Diagnosis::start();
            let (reply, terminal) = match start() {
                Ok((pid, terminal)) => (Reply { pid: Some(pid), ..Reply::default() }, terminal),
                Err(error) => {
                    let cause = diagnosis.and_then(Diagnosis::first).filter(|cause| !error.contains(cause.as_str()));
                    (Reply::error(cause.map_or(error.clone(), |cause| format!("{error}: {cause}"))), None)
                }
            };
            let fds: Vec<RawFd> = terminal.iter().map(AsRawFd::as_raw_fd).collect();
            let _ = protocol::send_all(&far, &reply, &fds);
            // SAFETY: ends the process at once, without the shim's exit handlers.
            unsafe { nix::libc::_exit(0) }
        }
    }
}

fn builder(
    id: &str,
    dir: &Path,
    streams: Streams,
    tty: bool,
    seccomp: &Option<protocol::Seccomp>,
) -> Result<(ContainerBuilder, Option<Console>), String> {
    let program = Program::new(seccomp.clone())?;
    let mut builder = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(dir.join(STATE_DIR))
        .map_err(|error| chain(&error))?
        .with_executor(program);
    let console = if tty { Some(Console::listen(dir)?) } else { None };
    if let Some(console) = &console {
        builder = builder.with_console_socket(Some(dir.join(&console.name)));
    } else {
        let [stdin, stdout, stderr] = streams.0;
        let null = || -> Result<OwnedFd, String> {
            let file = fs::OpenOptions::new().read(true).write(true).open("/dev/null");
            file.map(OwnedFd::from).map_err(|error| format!("/dev/null: {error}"))
        };
        builder = builder
            .with_stdin(stdin.map_or_else(null, Ok)?)
            .with_stdout(stdout.map_or_else(null, Ok)?)
            .with_stderr(stderr.map_or_else(null, Ok)?);
    }
    Ok((builder, console))
}

/// The socket on which a container's first steps hand over the terminal they have opened.
struct Console {
    name: String,
    socket: UnixListener,
}

impl Console {
    fn listen(dir: &Path) -> Result<Console, String> {
        let name = format!("console-{}.sock", std::process::id());
        // A socket's path is short; the directory's is not always.
        std::env::set_current_dir(dir).map_err(|error| format!("{dir:?}: {error}"))?;
        let socket = UnixListener::bind(&name).map_err(|error| format!("binding the console socket: {error}"))?;
        Ok(Console { name, socket })
    }

    fn receive(self) -> Result<OwnedFd, String> {
        let (stream, _) = self.socket.accept().map_err(|error| format!("the console socket: {error}"))?;
        let _ = fs::remove_file(&self.name);
        let mut fds = Vec::new();
        protocol::receive(stream.as_raw_fd(), &mut [0; 64], &mut fds)
            .map_err(|error| format!("receiving the terminal: {error}"))?;
        fds.pop().ok_or_else(|| "the container sent no terminal".to_owned())
    }
}

fn mount_overlay(overlay: &Overlay) -> Result<(), String> {
    let explain =
        |error: &dyn std::fmt::Display| format!("mounting the root file system {:?}: {error}", overlay.target);
    std::env::set_current_dir(&overlay.layers).map_err(|error| explain(&error))?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        overlay.lower.join(":"),
        overlay.upper.display(),
        overlay.work.display()
    );
    mount(Some("overlay"), &overlay.target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(|error| explain(&error))
}

/// Makes `process.cwd` in the root file system if the image lacks it; symbolic links stay inside.
fn make_working_directory(bundle: &Path) -> Result<(), String> {
    let spec = oci_spec::runtime::Spec::load(bundle.join("config.json")).map_err(|error| chain(&error))?;
    let (Some(process), Some(root)) = (spec.process(), spec.root()) else { return Ok(()) };
    let root = pathrs::Root::open(root.path()).map_err(|error| chain(&error))?;
    if process.cwd() != Path::new("/") && root.resolve(process.cwd()).is_err() {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        root.mkdir_all(process.cwd(), &mode).map_err(|error| chain(&error))?;
    }
    Ok(())
}

/// Sets the score that the container is to inherit; where this process may not lower it, it stays as low as it is.
fn adjust_oom_score(score: Option<i32>) {
    if let Some(score) = score {
        let _ = fs::write("/proc/self/oom_score_adj", score.to_string());
    }
}
