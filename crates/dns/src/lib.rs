//! Cluster DNS: names of Services and pods, as the Kubernetes DNS specification 1.1 has them.
//!
//! ```text
//! NAME in the cluster's domain -> zone -> cluster (informers' indexes)     answered here, authoritative, TTL 5 s
//! reverse NAME of a Service or a named endpoint                            the same
//! anything else                -> upstream                                 passed on as it came, answer passed back
//! ```
//!
//! The server's addresses must be on a link of this machine before it starts: `node` puts the cluster's DNS address on
//! the pod bridge. So each node answers its own pods, without a rule in their way, and the Service `kube-dns` exists for
//! its name only.
//!
//! Nothing is kept here: the informers' indexes are the answers. Until their first lists are in, names of the cluster
//! get `SERVFAIL`, which resolvers try again.

mod cluster;
mod metrics;
mod server;
mod upstream;
mod zone;

use std::net::SocketAddr;

use client::Informers;
use tokio_util::sync::CancellationToken;

pub use upstream::{Upstreams, upstreams};

/// How a DNS server is made.
pub struct Config {
    pub informers: Informers,
    /// UDP and TCP are served on each.
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain, such as `cluster.local`.
    pub domain: String,
    /// Who is asked for other names.
    pub upstreams: Upstreams,
    pub cancel: CancellationToken,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the cluster domain {domain:?} is not a DNS name")]
    Domain { domain: String, source: hickory_proto::ProtoError },
    #[error("DNS cannot listen on {address} ({protocol}); end what listens there, or choose another --cluster-dns")]
    Listen { address: SocketAddr, protocol: &'static str, source: std::io::Error },
}

/// Serves until cancelled.
pub async fn run(config: Config) -> Result<(), Error> {
    let cancel = config.cancel.clone();
    let running = server::start(config).await?;
    tracing::info!(addresses = ?running.addresses(), "serving DNS");
    cancel.cancelled().await;
    Ok(())
}
