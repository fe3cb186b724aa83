//! A container runtime that serves CRI v1: images, sandboxes, containers, a shim per pod.

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
