//! `navarch server` on a host of its own, and kubectl to drive it.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;

use crate::{host::Host, wait};

/// The image that every test server has.
pub const IMAGE: &str = "docker.io/library/busybox:latest";

/// A server with its node. Dropping it ends the host and everything on it.
pub struct Server {
    pub host: Host,
    binary: PathBuf,
    flags: Vec<String>,
    process: Option<Child>,
}

/// A process of the product on a host.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub pid: u32,
    /// A pod's shim, or the zygote that forks them.
    pub shim: bool,
}

impl Server {
    /// Starts `binary` (the test's `CARGO_BIN_EXE_navarch`) with further `flags` and waits until its node is Ready. The
    /// image [`IMAGE`] is there, with busybox and curl.
    pub fn start(binary: &str, flags: &[&str]) -> Self {
        let mut server = Self::prepare(binary, flags);
        server.launch();
        server.wait_ready();
        server
    }

    /// Everything for [`Server::start`], but nothing runs yet.
    pub fn prepare(binary: &str, flags: &[&str]) -> Self {
        let host = Host::new();
        let server = Self {
            binary: PathBuf::from(binary),
            flags: flags.iter().map(ToString::to_string).collect(),
            process: None,
            host,
        };
        let images = server.data().join("images");
        fs::create_dir_all(&images).expect("the preload folder is made");
        crate::image::write(&images.join("busybox.tar"), IMAGE, &["curl"]).expect("the test image is made");
        server
    }

    /// The server process and its shims, as this machine numbers them.
    pub fn processes(&self) -> Vec<Process> {
        let inside = self.host.processes();
        let line = |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let binary = self.binary.as_os_str().as_encoded_bytes();
        inside
            .into_iter()
            .filter_map(|pid| {
                let line = line(pid);
                let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
                let shim = arguments.get(1) == Some(&&b"shim"[..]);
                (shim || arguments.first() == Some(&binary)).then_some(Process { pid, shim })
            })
            .collect()
    }

    /// Starts the process again on what an earlier one left.
    pub fn launch(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path()).expect("a log file");
        let child = self
            .host
            .command(&self.binary)
            .arg("server")
            .arg(format!("--data-dir={}", self.data().display()))
            .arg(format!("--cgroup-root={}", self.host.name))
            .args(&self.flags)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("navarch starts");
        self.process = Some(child);
    }

    pub fn data(&self) -> PathBuf {
        self.host.path("data")
    }

    pub fn log_path(&self) -> PathBuf {
        self.host.path("server.log")
    }

    /// The end of the server's log, for failures.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    pub fn wait_ready(&self) {
        wait::until("the node to be Ready", Duration::from_secs(60), || {
            let nodes = self.try_kubectl(&["get", "nodes", "--no-headers"], None);
            let text = String::from_utf8_lossy(&nodes.stdout).into_owned();
            if text.split_whitespace().any(|word| word == "Ready") {
                Ok(())
            } else {
                Err(format!("{text}{}\n{}", String::from_utf8_lossy(&nodes.stderr), self.log()))
            }
        });
    }

    /// The server process, as the host numbers it.
    fn server_pid(&self) -> Option<i32> {
        // The child is nsenter, which waits for the server it forked into the namespace.
        let child = self.process.as_ref()?.id();
        let children = fs::read_to_string(format!("/proc/{child}/task/{child}/children")).unwrap_or_default();
        children.split_whitespace().next().and_then(|pid| pid.parse().ok())
    }

    /// Sends a signal to the server process and waits for its end.
    pub fn end(&mut self, signal: Signal) {
        if let Some(pid) = self.server_pid() {
            nix::sys::signal::kill(Pid::from_raw(pid), signal).expect("the server is there");
        }
        if let Some(mut child) = self.process.take() {
            child.wait().expect("the server ends");
        }
    }

    /// Another subcommand of the binary, on the same host and data directory.
    pub fn navarch(&self, arguments: &[&str]) -> Output {
        self.host
            .command(&self.binary)
            .args(arguments)
            .arg(format!("--data-dir={}", self.data().display()))
            .output()
            .expect("navarch starts")
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let kubectl = std::env::var_os("NAVARCH_TEST_KUBECTL").map_or_else(|| PathBuf::from("kubectl"), PathBuf::from);
        let mut command = self.host.command(kubectl);
        command
            .env("KUBECONFIG", self.data().join("kubeconfig"))
            .env("HOME", self.host.directory.path())
            .args(arguments);
        command
    }

    /// Runs kubectl with `input` on its standard input.
    pub fn try_kubectl(&self, arguments: &[&str], input: Option<&str>) -> Output {
        let mut command = self.kubectl_command(arguments);
        if let Some(input) = input {
            let path = self.host.path("kubectl.in");
            fs::write(&path, input).expect("input is written");
            command.stdin(fs::File::open(&path).expect("input is there"));
        } else {
            command.stdin(Stdio::null());
        }
        command.output().expect("kubectl starts")
    }

    /// kubectl in the background, its output in a pipe.
    pub fn spawn_kubectl(&self, arguments: &[&str]) -> Child {
        self.kubectl_command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts")
    }

    /// Runs kubectl and gives its output; panics, with the server's log, unless it succeeds.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.checked(arguments, None)
    }

    /// `kubectl apply -f -`.
    pub fn apply(&self, manifest: &str) -> String {
        self.checked(&["apply", "-f", "-"], Some(manifest))
    }

    fn checked(&self, arguments: &[&str], input: Option<&str>) -> String {
        let output = self.try_kubectl(arguments, input);
        assert!(
            output.status.success(),
            "kubectl {}\n{}{}\n--- server\n{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// An object or list, as JSON.
    pub fn get(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        serde_json::from_str(&self.kubectl(&all)).expect("kubectl prints JSON")
    }

    /// Waits until `holds` of what `kubectl get -o json ARGUMENTS` gives.
    pub fn wait_for(&self, arguments: &[&str], bound: Duration, holds: impl Fn(&Value) -> bool) -> Value {
        wait::until(&format!("{arguments:?}"), bound, || {
            let mut all = vec!["get", "-o", "json"];
            all.extend(arguments);
            let output = self.try_kubectl(&all, None);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            match serde_json::from_str::<Value>(&text) {
                Ok(value) if holds(&value) => Ok(value),
                _ => Err(format!("{text}{}\n--- server\n{}", String::from_utf8_lossy(&output.stderr), self.log())),
            }
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- server\n{}", self.log());
        }
        self.end(Signal::SIGKILL);
    }
}
