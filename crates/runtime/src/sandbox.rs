//! A pod sandbox: its files, its namespaces, its shim.
//!
//! ```text
//! ROOT/sandboxes/ID/config.pb      PodSandboxConfig as it came
//! ROOT/sandboxes/ID/record.json    what became of it; written when the sandbox is ready
//! ROOT/sandboxes/ID/{hostname,hosts,resolv.conf}
//! RUN/s/ID                         the shim's socket
//! RUN/netns/PREFIX-ID              the network namespace
//! RUN/shm/ID                       /dev/shm of the pod
//! ```
//!
//! Invariant: a directory without `record.json` is a sandbox that was never ready: it is removed at open.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use parking_lot::Mutex;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::config::{Config, NetworkRequest, PortMapping};
use crate::cri::{self, NamespaceMode, Protocol};
use crate::shim::protocol;
use crate::shims::Shim;

const SHM_DEFAULT: &str = "mode=1777,size=65536k";

/// What of a sandbox outlives the server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) runtime_handler: String,
    pub(crate) created_at: i64,
    pub(crate) ready: bool,
    pub(crate) ips: Vec<IpAddr>,
    /// First process of a shared PID namespace.
    pub(crate) reaper: Option<i32>,
    pub(crate) shim: Option<i32>,
}

pub(crate) struct Sandbox {
    pub(crate) config: cri::PodSandboxConfig,
    pub(crate) record: Mutex<Record>,
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    pub(crate) shm: PathBuf,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) socket: PathBuf,
    pub(crate) shim: Shim,
    /// One at a time makes or ends a sandbox.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Sandbox {
    pub(crate) fn new(runtime: &Config, config: cri::PodSandboxConfig, record: Record) -> io::Result<Sandbox> {
        let id = record.id.clone();
        let host_network = mode(&config, |options| options.network) == NamespaceMode::Node;
        let netns = runtime.run_dir.join("netns").join(format!("{}-{id}", runtime.prefix));
        let socket = runtime.run_dir.join("s").join(&id);
        Ok(Sandbox {
            dir: runtime.root.join("sandboxes").join(&id),
            shm: runtime.run_dir.join("shm").join(&id),
            netns: (!host_network).then_some(netns),
            shim: Shim::new(&socket)?,
            socket,
            config,
            record: Mutex::new(record),
            id,
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// Reads a sandbox back; without a record it was never ready.
    pub(crate) fn load(dir: &Path) -> Result<(cri::PodSandboxConfig, Option<Record>), String> {
        let config = fs::read(dir.join("config.pb")).map_err(|error| format!("config.pb: {error}"))?;
        let config = cri::PodSandboxConfig::decode(config.as_slice()).map_err(|error| format!("config.pb: {error}"))?;
        let record = fs::read(dir.join("record.json")).ok().and_then(|json| serde_json::from_slice(&json).ok());
        Ok((config, record))
    }

    pub(crate) fn metadata(&self) -> cri::PodSandboxMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.record.lock().ready
    }

    pub(crate) fn namespace_options(&self) -> cri::NamespaceOption {
        options(&self.config)
    }

    pub(crate) fn has_host_ipc(&self) -> bool {
        mode(&self.config, |options| options.ipc) == NamespaceMode::Node
    }

    /// Writes `record.json`. Not synced: after a power cut no sandbox runs.
    pub(crate) fn save(&self) -> io::Result<()> {
        let json = serde_json::to_vec(&*self.record.lock())?;
        crate::disk::replace_volatile(&self.dir.join("record.json"), &json)
    }

    /// The directory with the files that containers see, and the shared memory.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        fs::write(self.dir.join("config.pb"), self.config.encode_to_vec())?;
        fs::write(self.dir.join("hostname"), format!("{}\n", self.hostname()))?;
        fs::copy("/etc/hosts", self.dir.join("hosts"))
            .or_else(|_| fs::write(self.dir.join("hosts"), "127.0.0.1 localhost\n").map(|()| 0))?;
        self.write_resolv_conf()?;
        if !self.has_host_ipc() {
            fs::create_dir_all(&self.shm)?;
            mount(
                Some("shm"),
                &self.shm,
                Some("tmpfs"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
                Some(SHM_DEFAULT),
            )?;
        }
        Ok(())
    }

    fn write_resolv_conf(&self) -> io::Result<()> {
        let path = self.dir.join("resolv.conf");
        let Some(dns) = self
            .config
            .dns_config
            .as_ref()
            .filter(|dns| !dns.servers.is_empty() || !dns.searches.is_empty() || !dns.options.is_empty())
        else {
            return fs::copy("/etc/resolv.conf", &path).map(drop).or_else(|_| fs::write(&path, ""));
        };
        let mut file = fs::File::create(path)?;
        if !dns.searches.is_empty() {
            writeln!(file, "search {}", dns.searches.join(" "))?;
        }
        for server in &dns.servers {
            writeln!(file, "nameserver {server}")?;
        }
        if !dns.options.is_empty() {
            writeln!(file, "options {}", dns.options.join(" "))?;
        }
        Ok(())
    }

    pub(crate) fn hostname(&self) -> String {
        if !self.config.hostname.is_empty() {
            return self.config.hostname.clone();
        }
        nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What the shim is to make.
    pub(crate) fn namespaces(&self) -> protocol::Sandbox {
        let linux = self.config.linux.clone().unwrap_or_default();
        protocol::Sandbox {
            id: self.id.clone(),
            socket: self.socket.clone(),
            netns: self.netns.clone(),
            ipc: !self.has_host_ipc(),
            uts: self.netns.is_some(),
            pid: mode(&self.config, |options| options.pid) == NamespaceMode::Pod,
            hostname: self.config.hostname.clone(),
            sysctls: linux.sysctls.into_iter().collect(),
        }
    }

    pub(crate) fn network_request(&self) -> NetworkRequest {
        let metadata = self.metadata();
        NetworkRequest {
            sandbox_id: self.id.clone(),
            pod_name: metadata.name,
            pod_namespace: metadata.namespace,
            pod_uid: metadata.uid,
            ports: self.config.port_mappings.iter().filter_map(port_mapping).collect(),
            annotations: self.config.annotations.clone().into_iter().collect(),
        }
    }

    /// Takes away what the kernel holds under the sandbox's names; the shim is gone by then.
    pub(crate) fn unmount(&self) {
        if let Some(netns) = &self.netns {
            release(netns, false);
        }
        release(&self.shm, true);
        let _ = fs::remove_file(&self.socket);
    }
}

/// Unmounts all that is mounted on `path` and removes it.
pub(crate) fn release(path: &Path, directory: bool) {
    while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
    let removed = if directory { fs::remove_dir(path) } else { fs::remove_file(path) };
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove");
    }
}

fn options(config: &cri::PodSandboxConfig) -> cri::NamespaceOption {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    security.and_then(|security| security.namespace_options.clone()).unwrap_or_default()
}

fn mode(config: &cri::PodSandboxConfig, of: impl Fn(&cri::NamespaceOption) -> i32) -> NamespaceMode {
    NamespaceMode::try_from(of(&options(config))).unwrap_or(NamespaceMode::Pod)
}

fn port_mapping(mapping: &cri::PortMapping) -> Option<PortMapping> {
    Some(PortMapping {
        protocol: match Protocol::try_from(mapping.protocol).unwrap_or(Protocol::Tcp) {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        },
        container_port: u16::try_from(mapping.container_port).ok()?,
        host_port: u16::try_from(mapping.host_port).ok()?,
        host_ip: mapping.host_ip.parse().ok(),
    })
}
