//! A container: its files and its state.
//!
//! ```text
//! ROOT/containers/ID/config.pb     ContainerConfig as it came
//! ROOT/containers/ID/record.json   image, layers, cgroup; without it the container was never made
//! ROOT/containers/ID/config.json   the OCI specification
//! ROOT/containers/ID/status.json   the shim's: process, start, exit
//! ROOT/containers/ID/{rootfs,upper,work}   the root file system, an overlay
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::Config;
use crate::cri;
use crate::images::EMPTY_LAYER;
use crate::shim::protocol::{Overlay, Start, Status};

/// The system call filter, in the container's directory.
pub(crate) const FILTER: &str = "seccomp.bpf";

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) created_at: i64,
    /// Digest of the image's configuration.
    pub(crate) image_id: String,
    /// A name with digest if the image has one, else its id.
    pub(crate) image_ref: String,
    /// Lowest first.
    pub(crate) layers: Vec<String>,
    pub(crate) cgroup: String,
    pub(crate) log_path: Option<PathBuf>,
    pub(crate) stop_signal: i32,
    /// The OCI user that the process starts as.
    pub(crate) user: serde_json::Value,
    /// Capabilities lent for installing the system call filter; `None` without a filter.
    pub(crate) seccomp: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    Created,
    Running { pid: i32, started_at: i64 },
    Exited { started_at: i64, finished_at: i64, code: i32, reason: &'static str, message: String },
}

impl State {
    pub(crate) fn cri(&self) -> cri::ContainerState {
        match self {
            State::Created => cri::ContainerState::ContainerCreated,
            State::Running { .. } => cri::ContainerState::ContainerRunning,
            State::Exited { .. } => cri::ContainerState::ContainerExited,
        }
    }

    pub(crate) fn from_status(status: &Status) -> State {
        match &status.exit {
            None => State::Running { pid: status.pid, started_at: status.started_at },
            Some(exit) => State::Exited {
                started_at: status.started_at,
                finished_at: exit.finished_at,
                code: exit.code,
                reason: match (exit.oom, exit.code) {
                    (true, _) => "OOMKilled",
                    (_, 0) => "Completed",
                    _ => "Error",
                },
                message: String::new(),
            },
        }
    }
}

pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) record: Record,
    pub(crate) config: cri::ContainerConfig,
    pub(crate) dir: PathBuf,
    pub(crate) state: watch::Sender<State>,
    /// As last updated.
    pub(crate) resources: RwLock<Option<cri::LinuxContainerResources>>,
    /// One at a time starts or removes a container.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Container {
    pub(crate) fn new(runtime: &Config, config: cri::ContainerConfig, record: Record) -> Container {
        let resources = config.linux.as_ref().and_then(|linux| linux.resources.clone());
        Container {
            id: record.id.clone(),
            dir: runtime.root.join("containers").join(&record.id),
            record,
            config,
            state: watch::Sender::new(State::Created),
            resources: RwLock::new(resources),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Reads a container back, with the state that its shim wrote last.
    pub(crate) fn load(runtime: &Config, dir: &Path) -> Result<Container, String> {
        let read = |name: &str| fs::read(dir.join(name)).map_err(|error| format!("{name}: {error}"));
        let config = cri::ContainerConfig::decode(read("config.pb")?.as_slice())
            .map_err(|error| format!("config.pb: {error}"))?;
        let record = serde_json::from_slice(&read("record.json")?).map_err(|error| format!("record.json: {error}"))?;
        let container = Container::new(runtime, config, record);
        if let Ok(json) = read("status.json")
            && let Ok(status) = serde_json::from_slice::<Status>(&json)
        {
            container.state.send_replace(State::from_status(&status));
        }
        Ok(container)
    }

    /// The directory with everything but the status.
    pub(crate) fn prepare(&self, spec: &serde_json::Value, filter: Option<&[u8]>) -> io::Result<()> {
        for dir in ["rootfs", "upper", "work"] {
            fs::create_dir_all(self.dir.join(dir))?;
        }
        fs::write(self.dir.join("config.pb"), self.config.encode_to_vec())?;
        fs::write(self.dir.join("config.json"), serde_json::to_vec(spec)?)?;
        if let Some(filter) = filter {
            fs::write(self.dir.join(FILTER), filter)?;
        }
        crate::disk::replace_volatile(&self.dir.join("record.json"), &serde_json::to_vec(&self.record)?)
    }

    /// The OCI specification as it was written.
    pub(crate) fn spec(&self) -> io::Result<serde_json::Value> {
        Ok(serde_json::from_slice(&fs::read(self.dir.join("config.json"))?)?)
    }

    pub(crate) fn metadata(&self) -> cri::ContainerMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    pub(crate) fn overlay(&self, layers: PathBuf) -> Overlay {
        let mut lower: Vec<String> = self.record.layers.iter().rev().cloned().collect();
        if lower.is_empty() {
            lower.push(format!("../{EMPTY_LAYER}"));
        }
        Overlay {
            layers,
            lower,
            upper: self.dir.join("upper"),
            work: self.dir.join("work"),
            target: self.dir.join("rootfs"),
        }
    }

    /// What the shim is to start.
    pub(crate) fn start_request(&self, overlay: Overlay, procs: Vec<PathBuf>, oom: Option<PathBuf>) -> Start {
        Start {
            container: self.id.clone(),
            dir: self.dir.clone(),
            overlay,
            log: self.record.log_path.clone(),
            tty: self.config.tty,
            stdin: self.config.stdin,
            stdin_once: self.config.stdin_once,
            oom_score_adj: self.oom_score_adj(),
            procs,
            oom,
            seccomp: None,
        }
    }

    pub(crate) fn oom_score_adj(&self) -> Option<i32> {
        let resources = self.resources.read();
        resources.as_ref().map(|resources| resources.oom_score_adj as i32)
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(*self.state.borrow(), State::Running { .. })
    }

    /// Takes what the shim reports; the state before if that is news. An end is final.
    pub(crate) fn observe(&self, state: State) -> Option<State> {
        let mut before = None;
        self.state.send_if_modified(|known| {
            if matches!(known, State::Exited { .. }) || *known == state {
                return false;
            }
            before = Some(std::mem::replace(known, state));
            true
        });
        before
    }
}
