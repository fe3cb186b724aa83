//! Where things are in the data directory.
//!
//! ```text
//! DATA/db            the datastore                        DATA/agent/kubelet   what pods need on disk
//! DATA/tls           certificates and keys                DATA/agent/runtime   images and containers
//! DATA/kubeconfig    the administrator's way in           DATA/agent/network   addresses of sandboxes
//! DATA/images        archives imported at start           DATA/manifests       static pods
//! RUN/               sockets and namespaces: /run/navarch, or DATA/run
//! ```

use std::path::{Path, PathBuf};

/// Paths below one data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    pub data: PathBuf,
}

/// The data directory of a machine's one cluster.
const DEFAULT_DATA: &str = "/var/lib/navarch";

impl Layout {
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into() }
    }

    pub fn database(&self) -> PathBuf {
        self.data.join("db")
    }

    pub fn tls(&self) -> PathBuf {
        self.data.join("tls")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }

    pub fn kubelet(&self) -> PathBuf {
        self.data.join("agent/kubelet")
    }

    pub fn runtime(&self) -> PathBuf {
        self.data.join("agent/runtime")
    }

    pub fn network(&self) -> PathBuf {
        self.data.join("agent/network")
    }

    pub fn preload(&self) -> PathBuf {
        self.data.join("images")
    }

    pub fn manifests(&self) -> PathBuf {
        self.data.join("manifests")
    }

    pub fn encryption_key(&self) -> PathBuf {
        self.tls().join("encryption.key")
    }

    /// Short, because the path of a socket holds at most 107 bytes.
    pub fn run(&self) -> PathBuf {
        if self.data == Path::new(DEFAULT_DATA) { PathBuf::from("/run/navarch") } else { self.data.join("run") }
    }

    pub fn cri_socket(&self) -> PathBuf {
        self.run().join("cri.sock")
    }

    pub fn pod_logs(&self) -> PathBuf {
        if self.data == Path::new(DEFAULT_DATA) { PathBuf::from("/var/log/pods") } else { self.data.join("log/pods") }
    }
}
