//! A container runtime that serves CRI v1.

/// The Container Runtime Interface as generated from `proto/cri.proto`: messages, client and server.
#[allow(clippy::all, missing_docs, unreachable_pub, reason = "generated")]
pub mod cri {
    tonic::include_proto!("runtime.v1");
}

pub mod shim;
