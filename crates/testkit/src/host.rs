//! A machine in namespaces: network, mounts, processes, host name and a cgroup of its own.
//!
//! Its process 1 is a shell that only reaps. Dropping the host kills that process, and with it the kernel kills every
//! process inside; the network and the mounts go with them, and the cgroups are removed here.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::wait;

/// Keeps apart what several test processes make at the same time.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A host. Needs root; see [`Host::available`].
pub struct Host {
    /// Unique on this machine; prefix of the host's cgroups.
    pub name: String,
    /// Scratch space on disk, removed with the host.
    pub directory: tempfile::TempDir,
    init: Child,
    /// Process 1 of the host, as this machine numbers it.
    pid: u32,
}

/// The address of the host's own interface; nothing answers behind it.
pub const ADDRESS: &str = "10.91.0.1";

impl Host {
    /// Whether this process may make one; says why not on stderr, for tests that then have nothing to do.
    pub fn available() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            eprintln!("skipped: making a host of namespaces needs root");
        }
        root
    }

    /// Makes a host with `lo`, and with [`ADDRESS`] as its way out.
    pub fn new() -> Self {
        let name = format!("nvt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::Builder::new().prefix("nvt-").tempdir().expect("a temporary directory");
        let script = format!(
            "set -e
             hostname {name}
             mount --make-rshared /
             mount -t proc proc /proc
             mount -t tmpfs -o mode=755 tmpfs /run
             mkdir -p /run/netns /run/lock
             ip link set lo up
             ip link add eth0 type veth peer name lan
             ip addr add {ADDRESS}/24 dev eth0
             ip link set eth0 up
             ip link set lan up
             ip route add default via 10.91.0.254
             echo up
             trap : TERM
             while :; do sleep 3600 & wait $!; done"
        );
        let mut init = Command::new("unshare")
            .args(["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL"])
            .args(["--propagation", "private", "bash", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("unshare starts");
        let mut line = String::new();
        BufReader::new(init.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("the host speaks");
        assert_eq!(line.trim(), "up", "the host came up");
        let outer = init.id();
        let pid = wait::until("process 1 of the host", Duration::from_secs(5), || {
            let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap_or_default();
            children.split_whitespace().next().and_then(|pid| pid.parse().ok()).ok_or(children)
        });
        Self { name, directory, init, pid }
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid.to_string(), "--mount", "--net", "--uts", "--ipc", "--pid", "--"])
            .arg(program.as_ref());
        command
    }

    /// Runs a shell line inside and gives its output; panics unless it succeeds.
    pub fn sh(&self, line: &str) -> String {
        let output = self.command("bash").args(["-c", line]).output().expect("bash starts");
        assert!(
            output.status.success(),
            "{line}\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// All processes of the host, as this machine numbers them.
    pub fn processes(&self) -> Vec<u32> {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let ours = namespace(&self.pid.to_string());
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| ours.is_some() && namespace(name) == ours).filter_map(|name| name.parse().ok()).collect()
    }

    /// A path under the host's scratch directory; the same inside and outside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.pid as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL); // it may be gone already
        let _ = self.init.wait();
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_cgroups(&controller.path().join(&self.name));
        }
        remove_cgroups(&Path::new("/sys/fs/cgroup").join(&self.name));
    }
}

/// Removes a cgroup with its children, waiting for what was killed in it to be gone.
fn remove_cgroups(path: &Path) {
    if !path.is_dir() {
        return;
    }
    for child in fs::read_dir(path).into_iter().flatten().flatten() {
        if child.path().is_dir() {
            remove_cgroups(&child.path());
        }
    }
    wait::until("an empty cgroup", Duration::from_secs(10), || match fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    });
}
