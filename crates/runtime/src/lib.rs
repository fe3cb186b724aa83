//! A container runtime that serves CRI v1 and knows nothing of Kubernetes objects.
//!
//! ```text
//! kubelet ── CRI ──> server ──> runtime ──> images      pulled, imported, unpacked
//!                                  │   └──> cgroup      limits and usage
//! client ── streams <──────────────┤
//!                                  └──> shims ── socket ──> shim (one a pod) ──> containers
//! ```
//!
//! | module | is |
//! |---|---|
//! | `server` | the CRI calls, translated |
//! | `runtime` | what they do, to sandboxes and containers |
//! | `images` | content, layers, registries |
//! | `spec` | the OCI specification of a container |
//! | `seccomp`, `cgroup` | what holds a container in its bounds |
//! | `streams` | exec, attach and port-forward |
//! | `shims`, [`shim`] | both ends of the process that stays with a pod |
//!
//! Invariants: containers never depend on the server (their shim is their parent and writes their logs); whatever the
//! kernel holds by name is found below `run_dir` or the cgroup parent and is swept at open.

/// The Container Runtime Interface as generated from `proto/cri.proto`: messages, client and server.
#[allow(clippy::all, missing_docs, unreachable_pub, reason = "generated")]
pub mod cri {
    tonic::include_proto!("runtime.v1");
}

mod cgroup;
mod config;
mod container;
mod disk;
mod id;
pub mod images;
mod runtime;
mod sandbox;
mod seccomp;
mod server;
pub mod shim;
mod shims;
mod spec;
mod streams;

pub use config::{Config, Network, NetworkRequest, PortMapping, Registries};
pub use runtime::{Error, Runtime};

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
