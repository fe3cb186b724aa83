//! What the runtime is told when it is opened.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a runtime keeps its things and how it reaches others.
#[derive(Clone)]
pub struct Config {
    /// Images and containers; survives a reboot.
    pub root: PathBuf,
    /// Sockets, network namespaces, shared memory; belongs on a tmpfs.
    pub run_dir: PathBuf,
    /// Cgroup of sandboxes that name no parent of their own, from the root of the hierarchy.
    pub cgroup_parent: String,
    /// Begins the names of everything in the kernel that has one.
    pub prefix: String,
    /// Starts the shim's zygote, for example `["/proc/self/exe", "shim"]`.
    pub shim_command: Vec<OsString>,
    pub registries: Registries,
    pub network: Arc<dyn Network>,
    /// Where exec, attach and port-forward are served.
    pub streaming_socket: PathBuf,
    /// Archives in this folder are imported when the runtime opens.
    pub preload: Option<PathBuf>,
}

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// Endpoints to ask before the registry itself: `http://127.0.0.1:5000`, `https://mirror.example`.
    /// The key is the registry's name (`docker.io`), or `*` for all.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries (`host:port`) that speak plain HTTP. A loopback address need not be listed.
    pub insecure: Vec<String>,
    /// PEM files with further certificate authorities.
    pub certificate_authorities: Vec<PathBuf>,
}

/// Whose network it is.
#[derive(Clone, Debug, Default)]
pub struct NetworkRequest {
    pub sandbox_id: String,
    pub pod_name: String,
    pub pod_namespace: String,
    pub pod_uid: String,
    pub ports: Vec<PortMapping>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    pub container_port: u16,
    pub host_port: u16,
    pub host_ip: Option<IpAddr>,
}

/// Connects a network namespace; given by whoever composes the node.
#[async_trait::async_trait]
pub trait Network: Send + Sync {
    /// Interfaces, addresses and routes in `netns`, in which only the loopback is up. The first address is the pod's.
    async fn setup(&self, netns: &Path, request: &NetworkRequest) -> anyhow::Result<Vec<IpAddr>>;

    /// Takes everything back. Called at least once for each setup, also half-done ones; `netns` may be gone.
    async fn teardown(&self, netns: &Path, request: &NetworkRequest) -> anyhow::Result<()>;

    /// Why sandboxes cannot be connected now, if so.
    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    /// The node's pod addresses, when the kubelet learns them.
    async fn set_pod_cidr(&self, _cidr: &str) {}
}
