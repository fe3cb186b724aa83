//! What the server and a shim say to each other, over a unix stream socket.
//!
//! ```text
//! 0        4                     4 + length
//! +--------+---------------------+
//! | length | JSON, UTF-8         |   length: u32, little-endian, at most 1 MiB
//! +--------+---------------------+
//!  ^ file descriptors travel as SCM_RIGHTS with the first byte of a frame
//! ```
//!
//! A connection carries one [`Request`] and its [`Reply`]. Two requests keep it open:
//! - `exec`: a first reply when the process runs (with the terminal's descriptor if there is one), a second when it has
//!   exited. Hanging up in between kills the process.
//! - `events`: one reply with all containers, then one for every container that exits.
//!
//! The zygote's socket is a `SOCK_SEQPACKET` pair: each packet is one byte and one descriptor, the connection on which
//! the new shim is to read its first request, [`Request::Sandbox`].

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

/// Larger frames are refused: nothing the two say to each other comes near.
pub(crate) const FRAME_MAX: usize = 1 << 20;
/// Descriptors that one frame may carry.
pub(crate) const FDS_MAX: usize = 3;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(crate) enum Request {
    Sandbox(Sandbox),
    Start(Start),
    Exec(Exec),
    Attach(Attach),
    Resize {
        container: String,
        width: u16,
        height: u16,
    },
    ReopenLog {
        container: String,
    },
    /// Signals the container's first process, or with `all` everything in its cgroup.
    Kill {
        container: String,
        signal: i32,
        all: bool,
    },
    /// Drops an exited container from the shim's memory.
    Forget {
        container: String,
    },
    Events,
    /// Kills what is left and ends the shim.
    Shutdown,
}

/// The namespaces that a shim makes and holds for a pod.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    /// Where the shim listens.
    pub(crate) socket: PathBuf,
    /// Where the new network namespace is bound; absent: the host's network.
    pub(crate) netns: Option<PathBuf>,
    pub(crate) ipc: bool,
    pub(crate) uts: bool,
    /// One PID namespace for all containers; its first process is a child of the shim that only reaps.
    pub(crate) pid: bool,
    pub(crate) hostname: String,
    pub(crate) sysctls: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) container: String,
    /// The container's directory: bundle, log state and exit status live here.
    pub(crate) dir: PathBuf,
    pub(crate) overlay: Overlay,
    pub(crate) log: Option<PathBuf>,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) oom_score_adj: Option<i32>,
    /// Files that list the container's processes (`cgroup.procs`), for killing all of them.
    pub(crate) procs: Vec<PathBuf>,
    /// The file that counts OOM kills in a line `oom_kill N`.
    pub(crate) oom: Option<PathBuf>,
    pub(crate) seccomp: Option<Seccomp>,
}

/// A system call filter, installed last before a process becomes its program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seccomp {
    /// File of `struct sock_filter`, in the machine's byte order.
    pub(crate) program: PathBuf,
    /// Capabilities that the process has only to install the filter; dropped right after.
    pub(crate) borrowed: Vec<String>,
}

/// An overlay mount, written relative to `layers` so that many layers fit into one page of mount options.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Overlay {
    pub(crate) layers: PathBuf,
    /// Uppermost first, names below `layers`.
    pub(crate) lower: Vec<String>,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    pub(crate) target: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Exec {
    pub(crate) container: String,
    /// The OCI process, as JSON.
    pub(crate) process: String,
    pub(crate) tty: bool,
    /// Which of stdin, stdout and stderr come with the frame, in this order; the others are /dev/null.
    pub(crate) streams: [bool; 3],
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) seccomp: Option<Seccomp>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Attach {
    pub(crate) container: String,
    /// As in [`Exec::streams`].
    pub(crate) streams: [bool; 3],
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<i32>,
    /// First process of the pod's shared PID namespace, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reaper: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) containers: Vec<Status>,
}

impl Reply {
    pub(crate) fn error(text: impl Into<String>) -> Reply {
        Reply { error: Some(text.into()), ..Reply::default() }
    }
}

/// A container as its shim knows it; also the file `status.json` in the container's directory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) id: String,
    pub(crate) pid: i32,
    /// Nanoseconds since 1970.
    pub(crate) started_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exit: Option<Exit>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// As a shell counts: 128 + signal for a killed process.
    pub(crate) code: i32,
    pub(crate) finished_at: i64,
    pub(crate) oom: bool,
}

/// A frame ready to send.
pub(crate) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut frame = vec![0; 4];
    // Writing plain structs with string keys into memory has no way to fail.
    let _ = serde_json::to_writer(&mut frame, message);
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

/// The length of the whole frame that `bytes` begin with, once its header is there.
pub(crate) fn frame_len(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(header) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*header) as usize;
    if length > FRAME_MAX {
        return Err(format!("a frame of {length} bytes is larger than {FRAME_MAX}"));
    }
    Ok(Some(4 + length))
}

/// Sends as much of `bytes` as fits, with `fds` attached to the first byte.
pub(crate) fn send(socket: RawFd, bytes: &[u8], fds: &[RawFd]) -> nix::Result<usize> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    sendmsg::<()>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)
}

/// Receives into `buffer`; descriptors that came along are appended to `fds`. 0 is the end of the connection.
pub(crate) fn receive(socket: RawFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> nix::Result<usize> {
    let mut space = nix::cmsg_space!([RawFd; FDS_MAX]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket, &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: the kernel has just made these descriptors for us; nobody else owns them.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(message.bytes)
}

/// Writes a whole frame on a blocking socket.
pub(crate) fn send_all(socket: &impl AsRawFd, message: &impl Serialize, fds: &[RawFd]) -> nix::Result<()> {
    let frame = encode(message);
    let mut sent = 0;
    while sent < frame.len() {
        match send(socket.as_raw_fd(), &frame[sent..], if sent == 0 { fds } else { &[] }) {
            Ok(n) => sent += n,
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_frame_and_its_descriptors_arrive_together() {
        let (near, far) = UnixStream::pair().unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        let request = Request::Kill { container: "c".into(), signal: 9, all: true };
        send_all(&near, &request, &[write.as_raw_fd()]).unwrap();
        drop(write);

        let (mut buffer, mut fds) = (vec![0; 512], Vec::new());
        let n = receive(far.as_raw_fd(), &mut buffer, &mut fds).unwrap();
        assert_eq!(frame_len(&buffer[..n]), Ok(Some(n)));
        assert!(matches!(
            serde_json::from_slice(&buffer[4..n]).unwrap(),
            Request::Kill { signal: 9, all: true, container } if container == "c"
        ));
        nix::unistd::write(&fds[0], b"x").unwrap();
        assert_eq!(nix::unistd::read(&read, &mut buffer).unwrap(), 1);
    }

    #[test]
    fn lengths_are_checked() {
        assert_eq!(frame_len(&[1, 0]), Ok(None));
        assert_eq!(frame_len(&[1, 0, 0, 0]), Ok(Some(5)));
        assert!(frame_len(&[0, 0, 0, 255]).is_err());
    }
}
