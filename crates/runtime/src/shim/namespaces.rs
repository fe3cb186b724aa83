//! Turns a freshly forked process into the holder of a pod's namespaces.
//!
//! The shim itself moves into the pod's network, IPC and UTS namespaces, so containers inherit them by being its
//! children. Only the network namespace also gets a name (a bind mount), because the network is set up from outside. A
//! shared PID namespace needs a first process of its own: the reaper, a fork of the shim that does nothing but wait.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, signal};
use nix::unistd::{ForkResult, Pid, dup2_stdin, fork, sethostname, setsid};

use super::protocol::{self, Request, Sandbox};

/// Reads the first request and makes the namespaces; answers nothing yet.
pub(super) fn prepare(connection: &OwnedFd) -> Result<(Sandbox, Option<Pid>), String> {
    let sandbox = first_request(connection)?;
    // SAFETY: only dispositions change; the shim must see its children end.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
    setsid().map_err(|error| format!("setsid: {error}"))?;
    let null = fs::File::open("/dev/null").map_err(|error| format!("/dev/null: {error}"))?;
    dup2_stdin(&null).map_err(|error| format!("closing the zygote's socket: {error}"))?;
    let _ = std::env::set_current_dir("/");
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| format!("becoming a subreaper: {error}"))?;
    let _ = nix::sys::prctl::set_name(c"navarch-shim");

    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWNET, sandbox.netns.is_some());
    flags.set(CloneFlags::CLONE_NEWIPC, sandbox.ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, sandbox.uts);
    unshare(flags).map_err(|error| format!("making namespaces ({flags:?}): {error}"))?;
    if let Some(path) = &sandbox.netns {
        bind_network_namespace(path).map_err(|error| format!("naming the network namespace {path:?}: {error}"))?;
        bring_up_loopback().map_err(|error| format!("bringing up the loopback interface: {error}"))?;
    }
    if sandbox.uts && !sandbox.hostname.is_empty() {
        sethostname(&sandbox.hostname).map_err(|error| format!("setting hostname {:?}: {error}", sandbox.hostname))?;
    }
    for (name, value) in &sandbox.sysctls {
        let path = sysctl_path(name).ok_or_else(|| format!("sysctl {name:?} is not a name"))?;
        fs::write(&path, value).map_err(|error| format!("setting sysctl {name}={value}: {error}"))?;
    }
    let reaper =
        if sandbox.pid { Some(start_reaper().map_err(|error| format!("starting the reaper: {error}"))?) } else { None };
    Ok((sandbox, reaper))
}

fn first_request(connection: &OwnedFd) -> Result<Sandbox, String> {
    let (mut buffer, mut filled, mut fds) = (vec![0; 16 * 1024], 0, Vec::new());
    loop {
        let length = protocol::frame_len(&buffer[..filled])?;
        if let Some(length) = length {
            if filled >= length {
                return match serde_json::from_slice(&buffer[4..length]) {
                    Ok(Request::Sandbox(sandbox)) => Ok(sandbox),
                    Ok(_) => Err("the first request is not for a sandbox".to_owned()),
                    Err(error) => Err(format!("the first request does not parse: {error}")),
                };
            }
            buffer.resize(length.max(buffer.len()), 0);
        }
        match protocol::receive(connection.as_raw_fd(), &mut buffer[filled..], &mut fds) {
            Ok(0) => return Err("the server hung up".to_owned()),
            Ok(n) => filled += n,
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(format!("reading the first request: {error}")),
        }
    }
}

fn bind_network_namespace(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().create(true).append(true).open(path)?;
    mount(Some("/proc/self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

fn bring_up_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all-zero is a valid ifreq; the name is short and NUL-terminated; the kernel only reads the request.
    let result = unsafe {
        let mut request: nix::libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as nix::libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (nix::libc::IFF_UP | nix::libc::IFF_RUNNING) as i16;
        nix::libc::ioctl(socket.as_raw_fd(), nix::libc::SIOCSIFFLAGS as _, &request)
    };
    nix::Error::result(result)?;
    Ok(())
}

/// `net.ipv4.ip_forward` or `net/ipv4/ip_forward` below /proc/sys; `None` for what would leave it.
fn sysctl_path(name: &str) -> Option<String> {
    let relative = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let plain = relative.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    plain.then(|| format!("/proc/sys/{relative}"))
}

fn start_reaper() -> io::Result<Pid> {
    // Only the reaper is born into the new namespace; what comes later joins it by name.
    let own = fs::File::open("/proc/self/ns/pid")?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    // SAFETY: this process has one thread.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => reap(),
    };
    setns(&own, CloneFlags::CLONE_NEWPID)?;
    Ok(child)
}

/// First process of a shared PID namespace.
fn reap() -> ! {
    let _ = nix::sys::prctl::set_name(c"navarch-reaper");
    // It dies with its shim: then nobody is left to report to.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    for fd in 3..256 {
        // SAFETY: the descriptors above 2 belong to the shim; this copy of the process uses none of them.
        unsafe { nix::libc::close(fd) };
    }
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGCHLD);
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&wanted), None);
    loop {
        let _ = wanted.wait();
        while nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG))
            .is_ok_and(|status| status.pid().is_some())
        {}
    }
}

#[cfg(test)]
mod tests {
    use super::sysctl_path;

    #[test]
    fn sysctl_names() {
        for (name, expect) in [
            ("net.ipv4.ip_forward", Some("/proc/sys/net/ipv4/ip_forward")),
            ("net/ipv4/conf/eth0.1/forwarding", Some("/proc/sys/net/ipv4/conf/eth0.1/forwarding")),
            ("kernel/../../etc/passwd", None),
            ("..", None),
            ("", None),
        ] {
            assert_eq!(sysctl_path(name).as_deref(), expect, "{name}");
        }
    }
}
