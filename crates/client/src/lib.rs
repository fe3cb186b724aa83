//! How everything but the API server sees the cluster: transport, shared informers, work queues, events, leadership.
//!
//! [`Client`] is the same type whether it calls into the API server of this process ([`in_process`]) or across TLS
//! ([`from_kubeconfig`]): callers cannot tell. Invariant: one shared informer per kind and selector per process, and
//! nothing else caches.

mod election;
mod error;
mod informer;
mod key;
pub mod metrics;
mod queue;
mod recorder;
mod transport;

pub use election::{Lease, elect};
pub use error::ErrorExt;
pub use informer::{Change, Informer, Informers};
pub use key::{Key, Object, reference};
pub use kube::{Api, Client};
pub use queue::{Item, Queue};
pub use recorder::Recorder;
pub use transport::{Error, from_kubeconfig, in_process};
