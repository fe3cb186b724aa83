//! What a kubelet needs to be told.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::Informers;
use k8s_openapi::api::core::v1 as core;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Configuration of one node. [`Config::new`] fills in what most nodes share.
#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    /// Addresses of the node, primary first; both families on a dual-stack node.
    pub node_ips: Vec<IpAddr>,
    /// Name that the node reports as its `Hostname` address.
    pub hostname: String,
    /// `pods/UID` below it holds what a pod needs on disk; `plugins` is for drivers.
    pub data_dir: PathBuf,
    /// Logs of containers: `NAMESPACE_NAME_UID/CONTAINER/N.log` below it.
    pub log_dir: PathBuf,
    /// Unix socket of the CRI runtime.
    pub runtime_socket: PathBuf,
    /// Addresses of the cluster's DNS server; without any, pods resolve as the node does.
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// Where the node's own resolver is configured.
    pub resolv_conf: PathBuf,
    /// `/sys/fs/cgroup`.
    pub cgroup_mount: PathBuf,
    /// Cgroup below which `kubepods` is made: `/navarch`.
    pub cgroup_parent: String,
    /// API client and shared informers, as the user `system:node:NAME`.
    pub informers: Informers,
    /// Where the HTTPS server listens, normally port 10250 on all addresses. `None`: no server.
    pub listen: Option<SocketAddr>,
    /// Certificate of that server and the CA of its callers; a new value is used from the next connection on.
    pub tls: Option<watch::Receiver<Arc<rustls::ServerConfig>>>,
    /// Callers in this group of their client certificate may do anything without being asked about: the API server.
    pub trusted_groups: Vec<String>,
    /// Manifests of pods that run without the API.
    pub static_pod_dir: Option<PathBuf>,
    pub max_pods: u32,
    /// Labels and taints to register with.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<core::Taint>,
    /// Kept from pods: the difference between capacity and allocatable.
    pub reserved_cpu_millis: i64,
    pub reserved_memory_bytes: i64,
    pub eviction: Eviction,
    pub images: Images,
    pub logs: Logs,
    /// `v1.36.2+navarch.0.1.0`.
    pub version: String,
    /// Ends the kubelet; containers stay.
    pub cancel: CancellationToken,
}

/// When to evict pods. Zero turns a signal off.
#[derive(Clone, Debug)]
pub struct Eviction {
    pub memory_available_bytes: u64,
    /// Percent of the file system that must be free.
    pub nodefs_available_percent: u64,
    pub nodefs_inodes_free_percent: u64,
    pub imagefs_available_percent: u64,
    /// Percent of process ids that must be free.
    pub pid_available_percent: u64,
    /// How long a condition stays after its signal has gone.
    pub transition: Duration,
}

/// How images are pulled and collected.
#[derive(Clone, Debug)]
pub struct Images {
    pub parallel_pulls: usize,
    /// Percent of disk usage at which unused images are removed, and where that stops.
    pub gc_high_percent: u64,
    pub gc_low_percent: u64,
}

/// When a container's log is rotated.
#[derive(Clone, Debug)]
pub struct Logs {
    pub max_bytes: u64,
    /// Files kept per container, the current one included.
    pub max_files: usize,
}

impl Config {
    pub fn new(node_name: impl Into<String>, data_dir: impl Into<PathBuf>, informers: Informers) -> Self {
        let (node_name, data_dir) = (node_name.into(), data_dir.into());
        Self {
            hostname: node_name.clone(),
            node_name,
            node_ips: Vec::new(),
            log_dir: PathBuf::from("/var/log/pods"),
            runtime_socket: data_dir.join("runtime.sock"),
            data_dir,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            cgroup_mount: PathBuf::from("/sys/fs/cgroup"),
            cgroup_parent: "/navarch".to_owned(),
            informers,
            listen: None,
            tls: None,
            trusted_groups: vec!["system:masters".to_owned()],
            static_pod_dir: None,
            max_pods: 110,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            reserved_cpu_millis: 0,
            reserved_memory_bytes: 0,
            // As edge distributions have it: on a large disk, more would idle tens of gigabytes.
            eviction: Eviction {
                memory_available_bytes: 100 << 20,
                nodefs_available_percent: 5,
                nodefs_inodes_free_percent: 5,
                imagefs_available_percent: 5,
                pid_available_percent: 5,
                transition: Duration::from_secs(300),
            },
            images: Images { parallel_pulls: 3, gc_high_percent: 85, gc_low_percent: 80 },
            logs: Logs { max_bytes: 10 << 20, max_files: 5 },
            version: format!("v1.36.2+navarch.{}", env!("CARGO_PKG_VERSION")),
            cancel: CancellationToken::new(),
        }
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.node_ips.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join(uid)
    }
}
