//! The shim's loop: one `poll` over the server's connections, the containers' streams and the end of children.

mod container;

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use self::container::{Container, EXIT_GRACE_MS};
use super::launch::{self, Launcher, Streams};
use super::log::Stream;
use super::protocol::{self, Exec, Reply, Request, Sandbox, Start};
use super::stdio::{CHUNK, Sink};

/// Why a descriptor is in the poll set.
#[derive(Clone, Copy)]
enum Wake {
    Listener,
    Children,
    Connection(u64),
    Launch(usize),
    Output(usize, Stream),
    Sink(usize, RawFd),
    Feed(usize, RawFd),
    Stdin(usize),
}

enum Role {
    /// Nothing asked yet, or an answer is due.
    Call,
    Events,
    /// Runs a process; hanging up kills it.
    Exec(Option<Pid>),
}

struct Connection {
    socket: OwnedFd,
    input: Vec<u8>,
    fds: Vec<OwnedFd>,
    output: Vec<u8>,
    role: Role,
}

enum Purpose {
    Container(Box<Container>),
    Exec,
}

struct Launch {
    launcher: Launcher,
    connection: u64,
    purpose: Purpose,
}

struct Shim {
    sandbox: Sandbox,
    reaper: Option<Pid>,
    listener: UnixListener,
    children: SignalFd,
    connections: HashMap<u64, Connection>,
    last_connection: u64,
    launches: Vec<Launch>,
    containers: Vec<Container>,
    /// Children that ended while a launch was under way: one of them may be its process.
    early: Vec<(Pid, i32)>,
    done: bool,
}

/// Serves until [`Request::Shutdown`]; answers the first request.
pub(super) fn run(sandbox: Sandbox, reaper: Option<Pid>, first: OwnedFd) -> ExitCode {
    let mut shim = match Shim::new(sandbox, reaper) {
        Ok(shim) => shim,
        Err(error) => {
            let _ = protocol::send_all(&first, &Reply::error(error), &[]);
            return ExitCode::FAILURE;
        }
    };
    let reply = Reply { pid: Some(std::process::id() as i32), reaper: reaper.map(Pid::as_raw), ..Reply::default() };
    if protocol::send_all(&first, &reply, &[]).is_err() {
        // The server died meanwhile; the next one may already have given this sandbox up.
        shim.vanish();
        return ExitCode::FAILURE;
    }
    drop(first);
    let mut buffer = vec![0; CHUNK];
    while !shim.done {
        shim.turn(&mut buffer);
    }
    ExitCode::SUCCESS
}

impl Shim {
    fn new(sandbox: Sandbox, reaper: Option<Pid>) -> Result<Shim, String> {
        let dir = sandbox.socket.parent().unwrap_or(Path::new("/"));
        let name = sandbox.socket.file_name().ok_or("the socket has no name")?;
        // A socket's path is short; the directory's is not always.
        std::env::set_current_dir(dir).map_err(|error| format!("{dir:?}: {error}"))?;
        let _ = std::fs::remove_file(name);
        let listener =
            UnixListener::bind(name).map_err(|error| format!("listening on {:?}: {error}", sandbox.socket))?;
        let _ = std::env::set_current_dir("/");
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGCHLD);
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&signals), None).map_err(|error| error.to_string())?;
        let children = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .map_err(|error| format!("signalfd: {error}"))?;
        Ok(Shim {
            sandbox,
            reaper,
            listener,
            children,
            connections: HashMap::new(),
            last_connection: 0,
            launches: Vec::new(),
            containers: Vec::new(),
            early: Vec::new(),
            done: false,
        })
    }

    fn turn(&mut self, buffer: &mut [u8]) {
        let (mut fds, wakes) = self.interests();
        let lingering = self.containers.iter().any(Container::is_lingering);
        let timeout = if lingering { PollTimeout::from(EXIT_GRACE_MS) } else { PollTimeout::NONE };
        let ready: Vec<(Wake, PollFlags)> = match poll(&mut fds, timeout) {
            Ok(_) => fds
                .iter()
                .zip(wakes)
                .filter_map(|(fd, wake)| fd.revents().filter(|events| !events.is_empty()).map(|events| (wake, events)))
                .collect(),
            Err(_) => Vec::new(),
        };
        drop(fds);
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        let mut launched = Vec::new();
        for (wake, events) in ready {
            match wake {
                Wake::Listener => self.accept(),
                Wake::Children => self.reap(),
                Wake::Connection(id) => self.serve(id, events.intersects(gone)),
                Wake::Launch(index) => launched.push(index),
                Wake::Output(container, stream) => self.containers[container].stdio.read_output(stream, buffer),
                Wake::Sink(container, fd) => {
                    let stdio = &mut self.containers[container].stdio;
                    if events.contains(PollFlags::POLLOUT) { stdio.flush_sink(fd) } else { stdio.drop_sink(fd) }
                }
                Wake::Feed(container, fd) => self.containers[container].stdio.read_feed(fd, buffer),
                Wake::Stdin(container) => self.containers[container].stdio.flush_input(),
            }
        }
        for index in launched.into_iter().rev() {
            self.launched(index);
        }
        self.report_ended();
    }

    /// Takes away what goes by the shim's name.
    fn vanish(&self) {
        if let Some(reaper) = self.reaper {
            let _ = kill(reaper, Signal::SIGKILL);
        }
        if let Some(netns) = &self.sandbox.netns {
            let _ = nix::mount::umount2(netns, nix::mount::MntFlags::MNT_DETACH);
            let _ = std::fs::remove_file(netns);
        }
        let _ = std::fs::remove_file(&self.sandbox.socket);
    }

    fn interests(&self) -> (Vec<PollFd<'_>>, Vec<Wake>) {
        let (mut fds, mut wakes) = (Vec::new(), Vec::new());
        let mut add = |fd: BorrowedFd<'_>, events, wake| {
            // SAFETY: every descriptor here is owned by `self`, which is not touched before the set is dropped.
            fds.push(PollFd::new(unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }, events));
            wakes.push(wake);
        };
        add(self.listener.as_fd(), PollFlags::POLLIN, Wake::Listener);
        add(self.children.as_fd(), PollFlags::POLLIN, Wake::Children);
        for (id, connection) in &self.connections {
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, !connection.output.is_empty());
            add(connection.socket.as_fd(), events, Wake::Connection(*id));
        }
        for (index, launch) in self.launches.iter().enumerate() {
            add(launch.launcher.result.as_fd(), PollFlags::POLLIN, Wake::Launch(index));
        }
        for (index, container) in self.containers.iter().enumerate() {
            let stdio = &container.stdio;
            for stream in [Stream::Stdout, Stream::Stderr] {
                if let (true, Some(fd)) = (stdio.wants_output(stream), &stdio.outputs[stream as usize]) {
                    add(fd.as_fd(), PollFlags::POLLIN, Wake::Output(index, stream));
                }
            }
            for sink in &stdio.sinks {
                // Without POLLOUT the kernel still reports that the reader is gone.
                let events = if sink.is_full() { PollFlags::POLLOUT } else { PollFlags::empty() };
                add(sink.fd().as_fd(), events, Wake::Sink(index, sink.fd().as_raw_fd()));
            }
            for feed in stdio.feeds.iter().filter(|_| stdio.wants_input()) {
                add(feed.as_fd(), PollFlags::POLLIN, Wake::Feed(index, feed.as_raw_fd()));
            }
            if let (true, Some(stdin)) = (stdio.input_is_pending(), &stdio.stdin) {
                add(stdin.as_fd(), PollFlags::POLLOUT, Wake::Stdin(index));
            }
        }
        (fds, wakes)
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if socket.set_nonblocking(true).is_ok() {
                self.last_connection += 1;
                let connection = Connection {
                    socket: socket.into(),
                    input: Vec::new(),
                    fds: Vec::new(),
                    output: Vec::new(),
                    role: Role::Call,
                };
                self.connections.insert(self.last_connection, connection);
            }
        }
    }

    /// Reads and answers what a connection brings; forgets it once it is closed.
    fn serve(&mut self, id: u64, gone: bool) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut chunk = [0; 4096];
        let mut open = !gone;
        loop {
            match protocol::receive(connection.socket.as_raw_fd(), &mut chunk, &mut connection.fds) {
                Ok(0) => open = false,
                Ok(n) => {
                    connection.input.extend_from_slice(&chunk[..n]);
                    continue;
                }
                Err(nix::Error::EINTR) => continue,
                Err(nix::Error::EAGAIN) => {}
                Err(_) => open = false,
            }
            break;
        }
        match protocol::frame_len(&connection.input) {
            Ok(Some(length)) if connection.input.len() >= length => {
                let frame: Vec<u8> = connection.input.drain(..length).collect();
                let fds = std::mem::take(&mut connection.fds);
                match serde_json::from_slice(&frame[4..]) {
                    Ok(request) => self.handle(id, request, fds),
                    Err(error) => self.answer(id, &Reply::error(format!("the request does not parse: {error}")), &[]),
                }
            }
            Ok(_) => {}
            Err(_) => open = false,
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !connection.output.is_empty() {
            match protocol::send(connection.socket.as_raw_fd(), &connection.output, &[]) {
                Ok(n) => drop(connection.output.drain(..n)),
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
                Err(_) => open = false,
            }
        }
        if !open {
            if let Role::Exec(Some(pid)) = connection.role {
                let _ = kill(pid, Signal::SIGKILL);
            }
            self.connections.remove(&id);
        }
    }

    fn answer(&mut self, id: u64, reply: &Reply, fds: &[RawFd]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let frame = protocol::encode(reply);
        let sent = match connection.output.is_empty() {
            true => protocol::send(connection.socket.as_raw_fd(), &frame, fds).unwrap_or(0),
            false => 0,
        };
        connection.output.extend_from_slice(&frame[sent..]);
    }

    fn handle(&mut self, id: u64, request: Request, fds: Vec<OwnedFd>) {
        let reply = match request {
            Request::Sandbox(_) => Err("this shim has its sandbox".to_owned()),
            Request::Start(request) => return self.start(id, request),
            Request::Exec(request) => return self.exec(id, &request, fds),
            Request::Attach(request) => self.find(&request.container).map(|container| {
                container.attach(request.streams, fds);
            }),
            Request::Resize { container, width, height } => {
                self.find(&container).and_then(|container| container.resize(width, height))
            }
            Request::ReopenLog { container } => self.find(&container).and_then(|container| {
                container.stdio.log.reopen().map_err(|error| format!("reopening the log: {error}"))
            }),
            Request::Kill { container, signal, all } => {
                self.find(&container).and_then(|container| container.kill(signal, all))
            }
            Request::Forget { container } => {
                // Removed at the end of the turn: until then others are known by their place.
                if let Ok(container) = self.find(&container) {
                    container.forgotten = true;
                }
                Ok(())
            }
            Request::Events => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.role = Role::Events;
                }
                let containers = self.containers.iter().map(|container| container.status.clone()).collect();
                let reaper = self.reaper.map(Pid::as_raw);
                let pid = Some(std::process::id() as i32);
                return self.answer(id, &Reply { pid, reaper, containers, ..Reply::default() }, &[]);
            }
            Request::Shutdown => {
                for container in &mut self.containers {
                    let _ = container.kill(Signal::SIGKILL as i32, true);
                }
                self.vanish();
                self.done = true;
                Ok(())
            }
        };
        self.answer(id, &reply.map_or_else(Reply::error, |()| Reply::default()), &[]);
    }

    fn find(&mut self, id: &str) -> Result<&mut Container, String> {
        let found = self.containers.iter_mut().find(|container| container.status.id == id);
        found.ok_or_else(|| format!("container {id} is not running"))
    }

    fn start(&mut self, connection: u64, request: Start) {
        let busy = self.launches.iter().any(
            |launch| matches!(&launch.purpose, Purpose::Container(pending) if pending.status.id == request.container),
        );
        let started = if busy || self.find(&request.container).is_ok() {
            Err(format!("container {} has been started already", request.container))
        } else {
            Container::prepare(&request).and_then(|(container, streams)| {
                let launcher = launch::container(&request, streams).map_err(|error| format!("fork: {error}"))?;
                Ok(Launch { launcher, connection, purpose: Purpose::Container(Box::new(container)) })
            })
        };
        match started {
            Ok(launch) => self.launches.push(launch),
            Err(error) => self.answer(connection, &Reply::error(error), &[]),
        }
    }

    fn exec(&mut self, connection: u64, request: &Exec, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let streams = Streams(request.streams.map(|present| if present { fds.next() } else { None }));
        let started = self.find(&request.container).and_then(|container| {
            launch::exec(request, &container.dir, streams).map_err(|error| format!("fork: {error}"))
        });
        match started {
            Ok(launcher) => {
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.role = Role::Exec(None);
                }
                self.launches.push(Launch { launcher, connection, purpose: Purpose::Exec });
            }
            Err(error) => self.answer(connection, &Reply::error(error), &[]),
        }
    }

    /// A launcher has answered, or died without an answer.
    fn launched(&mut self, index: usize) {
        let launch = self.launches.remove(index);
        let (reply, mut terminal) = read_result(&launch.launcher.result);
        let pid = reply.pid.map(Pid::from_raw);
        let early = pid.and_then(|pid| self.early.iter().find(|(ended, _)| *ended == pid).map(|(_, code)| *code));
        if self.launches.is_empty() {
            self.early.clear();
        }
        match launch.purpose {
            Purpose::Container(mut container) => {
                let Some(pid) = pid else { return self.answer(launch.connection, &reply, &[]) };
                container.started(pid, terminal.take());
                let started_at = Some(container.status.started_at);
                if let Some(code) = early {
                    container.exited(code);
                }
                self.containers.push(*container);
                self.answer(launch.connection, &Reply { started_at, ..reply }, &[]);
            }
            Purpose::Exec => {
                let fds: Vec<RawFd> = terminal.iter().map(AsRawFd::as_raw_fd).collect();
                self.answer(launch.connection, &reply, &fds);
                match (self.connections.get_mut(&launch.connection), pid, early) {
                    (Some(_), Some(_), Some(code)) => {
                        self.answer(launch.connection, &Reply { exit_code: Some(code), ..Reply::default() }, &[]);
                    }
                    (Some(connection), pid, None) => connection.role = Role::Exec(pid),
                    (None, Some(pid), None) => drop(kill(pid, Signal::SIGKILL)),
                    _ => {}
                }
            }
        }
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.children.read_signal() {}
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            if let Some(container) = self.containers.iter_mut().find(|container| container.is_process(pid)) {
                container.exited(code);
                continue;
            }
            let exec = self
                .connections
                .iter()
                .find(|(_, connection)| matches!(connection.role, Role::Exec(Some(own)) if own == pid));
            if let Some(id) = exec.map(|(id, _)| *id) {
                self.answer(id, &Reply { exit_code: Some(code), ..Reply::default() }, &[]);
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.role = Role::Call;
                }
            } else if !self.launches.is_empty() && self.launches.iter().all(|launch| launch.launcher.pid != pid) {
                self.early.push((pid, code));
            }
        }
    }

    /// Writes down and tells everybody which containers are over; drops the forgotten ones.
    fn report_ended(&mut self) {
        let mut ended = Vec::new();
        self.containers.retain(|container| !container.forgotten || container.status.exit.is_none());
        for container in &mut self.containers {
            if container.settle() {
                ended.push(container.status.clone());
            }
        }
        if ended.is_empty() {
            return;
        }
        let listeners: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| matches!(connection.role, Role::Events))
            .map(|(id, _)| *id)
            .collect();
        for id in listeners {
            self.answer(id, &Reply { containers: ended.clone(), ..Reply::default() }, &[]);
        }
    }
}

fn read_result(socket: &OwnedFd) -> (Reply, Option<OwnedFd>) {
    let (mut input, mut chunk, mut fds) = (Vec::new(), [0; 4096], Vec::new());
    loop {
        match protocol::receive(socket.as_raw_fd(), &mut chunk, &mut fds) {
            Ok(0) => break,
            Ok(n) => input.extend_from_slice(&chunk[..n]),
            Err(nix::Error::EINTR) => {}
            Err(_) => break,
        }
        if matches!(protocol::frame_len(&input), Ok(Some(length)) if input.len() >= length) {
            break;
        }
    }
    let reply = input.get(4..).and_then(|json| serde_json::from_slice(json).ok());
    (reply.unwrap_or_else(|| Reply::error("the launcher died without an answer")), fds.pop())
}

/// An attached client's output descriptors become sinks.
fn sink(fd: OwnedFd, stream: Stream) -> Sink {
    Sink::new(fd, stream)
}
