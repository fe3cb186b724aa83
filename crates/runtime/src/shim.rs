//! The small process that stays with a pod: it holds the pod's namespaces, is the parent of its containers, writes their
//! logs and keeps their exit codes, whether the server runs or not.
//!
//! The server starts one zygote (`SHIM_COMMAND`, its standard input a socket); the zygote forks a shim for each pod. So
//! the pages that the loader touches are shared by all shims, and a pod costs a fork, not an exec. A zygote ends with
//! its server; shims do not.
//!
//! Invariants: single-threaded, because libcontainer forks and runs Rust code in the child; the shim itself never calls
//! it but through a forked child that ends (`launch`), so that nothing of it stays resident.

mod launch;
mod log;
mod namespaces;
pub(crate) mod protocol;
mod serve;
mod stdio;

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, fork};

/// The zygote's socket.
const CONTROL: RawFd = 0;

/// Runs as zygote until the server closes the socket that is standard input; never returns in a forked shim.
///
/// WARNING: call it before any thread exists.
pub fn main() -> ExitCode {
    // SAFETY: no handler is installed, only dispositions change. Ignored children need no reaping.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) };
    // What the server's starter left open is nobody's here, and a shim would hold it for ever.
    // SAFETY: nothing in this process uses a descriptor above 2 yet.
    unsafe { nix::libc::close_range(3, u32::MAX, 0) };
    let mut fds = Vec::new();
    loop {
        match protocol::receive(CONTROL, &mut [0], &mut fds) {
            Ok(0) => return ExitCode::SUCCESS,
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => {
                eprintln!("shim: the zygote's socket failed: {error}");
                return ExitCode::FAILURE;
            }
        }
        while let Some(connection) = fds.pop() {
            // SAFETY: this process has one thread.
            match unsafe { fork() } {
                Ok(ForkResult::Child) => return become_shim(connection),
                Ok(ForkResult::Parent { .. }) => {}
                Err(error) => {
                    let reply = protocol::Reply::error(format!("cannot fork a shim: {error}"));
                    let _ = protocol::send_all(&connection, &reply, &[]);
                }
            }
        }
    }
}

fn become_shim(connection: OwnedFd) -> ExitCode {
    match namespaces::prepare(&connection) {
        Ok((sandbox, reaper)) => serve::run(sandbox, reaper, connection),
        Err(error) => {
            let _ = protocol::send_all(&connection, &protocol::Reply::error(error), &[]);
            ExitCode::FAILURE
        }
    }
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME)
        .map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

fn set_nonblocking(fd: &impl AsRawFd) -> nix::Result<()> {
    // SAFETY: fcntl with F_GETFL and F_SETFL takes and returns plain integers.
    let result = unsafe {
        let flags = nix::libc::fcntl(fd.as_raw_fd(), nix::libc::F_GETFL);
        nix::libc::fcntl(fd.as_raw_fd(), nix::libc::F_SETFL, flags | nix::libc::O_NONBLOCK)
    };
    nix::Error::result(result).map(drop)
}
