//! One container in its shim, from the launch to the exit code.

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use super::sink;
use crate::shim::launch::Streams;
use crate::shim::log::{Log, Stream};
use crate::shim::protocol::{Exit, Start, Status};
use crate::shim::stdio::Stdio;
use crate::shim::{now, set_nonblocking};

/// How long the output of an ended container is waited for: some stray process may hold it open for ever.
pub(super) const EXIT_GRACE_MS: u16 = 500;

pub(super) struct Container {
    pub(super) dir: PathBuf,
    pub(super) status: Status,
    pub(super) stdio: Stdio,
    procs: Vec<PathBuf>,
    oom: Option<PathBuf>,
    ended: Option<Exit>,
    /// The server needs it no more.
    pub(super) forgotten: bool,
}

impl Container {
    /// Makes the streams; returns the ends that the process gets.
    pub(super) fn prepare(request: &Start) -> Result<(Container, Streams), String> {
        let log =
            Log::open(request.log.clone()).map_err(|error| format!("opening the log {:?}: {error}", request.log))?;
        let mut stdio = Stdio::new(log, request.tty, request.stdin_once);
        let mut streams = Streams::default();
        if !request.tty {
            for index in 0..2 {
                let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(|error| format!("pipe: {error}"))?;
                let _ = set_nonblocking(&read);
                stdio.outputs[index] = Some(read);
                streams.0[index + 1] = Some(write);
            }
            if request.stdin {
                let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(|error| format!("pipe: {error}"))?;
                let _ = set_nonblocking(&write);
                stdio.stdin = Some(write);
                streams.0[0] = Some(read);
            }
        }
        let container = Container {
            dir: request.dir.clone(),
            status: Status { id: request.container.clone(), ..Status::default() },
            stdio,
            procs: request.procs.clone(),
            oom: request.oom.clone(),
            ended: None,
            forgotten: false,
        };
        Ok((container, streams))
    }

    pub(super) fn started(&mut self, pid: Pid, terminal: Option<OwnedFd>) {
        self.status.pid = pid.as_raw();
        self.status.started_at = now();
        if let Some(terminal) = terminal {
            let _ = set_nonblocking(&terminal);
            self.stdio.stdin = terminal.try_clone().ok();
            self.stdio.outputs[0] = Some(terminal);
        }
        self.save();
    }

    pub(super) fn is_process(&self, pid: Pid) -> bool {
        self.status.pid == pid.as_raw() && self.ended.is_none()
    }

    /// The first process is gone; what it left behind goes too.
    pub(super) fn exited(&mut self, code: i32) {
        let oom = code != 0 && self.oom.as_ref().is_some_and(count_oom_kills);
        self.ended = Some(Exit { code, finished_at: now(), oom });
        self.kill_all();
        self.stdio.stdin = None;
        self.stdio.feeds.clear();
    }

    /// Over, but its output is not yet at its end.
    pub(super) fn is_lingering(&self) -> bool {
        self.ended.is_some() && self.status.exit.is_none()
    }

    /// True once, when the container is over and its log complete.
    pub(super) fn settle(&mut self) -> bool {
        let Some(exit) = &self.ended else { return false };
        let patience = i64::from(EXIT_GRACE_MS) * 1_000_000;
        if self.status.exit.is_some() || !(self.stdio.is_finished() || now() - exit.finished_at >= patience) {
            return false;
        }
        self.status.exit = Some(exit.clone());
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.stdio.close_output(stream);
        }
        self.save();
        true
    }

    /// Takes the client's ends of the streams, as they were asked for.
    pub(super) fn attach(&mut self, streams: [bool; 3], fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let [stdin, stdout, stderr] = streams.map(|present| if present { fds.next() } else { None });
        if let Some(stdin) = stdin
            && self.stdio.stdin.is_some()
        {
            let _ = set_nonblocking(&stdin);
            self.stdio.feeds.push(stdin);
        }
        let outputs = [(stdout, Stream::Stdout), (stderr, Stream::Stderr)];
        for (fd, stream) in outputs {
            if let (Some(fd), true) = (fd, self.stdio.outputs[stream as usize].is_some()) {
                self.stdio.sinks.push(sink(fd, stream));
            }
        }
    }

    pub(super) fn resize(&self, width: u16, height: u16) -> Result<(), String> {
        let terminal = self.stdio.outputs[0].as_ref().filter(|_| self.stdio.is_tty());
        let terminal = terminal.ok_or("the container has no terminal")?;
        let size = nix::libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads one winsize.
        let result = unsafe { nix::libc::ioctl(terminal.as_raw_fd(), nix::libc::TIOCSWINSZ, &raw const size) };
        nix::Error::result(result).map(drop).map_err(|error| format!("resizing the terminal: {error}"))
    }

    /// No error for a container that is over.
    pub(super) fn kill(&mut self, signal: i32, all: bool) -> Result<(), String> {
        if self.ended.is_some() {
            return Ok(());
        }
        // SAFETY: kill takes two integers; the process is our unreaped child, so the number cannot be another's.
        // (The raw call, because real-time signals are not in nix's enum.)
        let result = unsafe { nix::libc::kill(self.status.pid, signal) };
        if let Err(error) = nix::Error::result(result)
            && error != nix::Error::ESRCH
        {
            return Err(format!("signal {signal} to process {}: {error}", self.status.pid));
        }
        if all {
            self.kill_all();
        }
        Ok(())
    }

    fn kill_all(&self) {
        // Some may fork while they are being killed: a few rounds, then the rest is for the removal of the cgroup.
        for _ in 0..4 {
            let lists: Vec<String> = self.procs.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
            let pids: Vec<i32> =
                lists.iter().flat_map(|list| list.lines()).filter_map(|line| line.parse().ok()).collect();
            if pids.is_empty() {
                return;
            }
            for pid in pids.into_iter().filter(|pid| *pid > 1) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// Writes `status.json`, whole or not at all. Not synced: after a power cut nothing runs anyway.
    fn save(&self) {
        let temporary = self.dir.join("status.json.new");
        let written = fs::File::create(&temporary)
            .and_then(|mut file| file.write_all(&serde_json::to_vec(&self.status).unwrap_or_default()))
            .and_then(|()| fs::rename(&temporary, self.dir.join("status.json")));
        if let Err(error) = written {
            eprintln!("shim: writing the status of container {}: {error}", self.status.id);
        }
    }
}

fn count_oom_kills(path: &PathBuf) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
}
