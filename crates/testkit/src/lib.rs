//! What tests stand on: the real binary on a host of its own, and images made of this machine's programs.
//!
//! [`host::Host`] is a machine in namespaces: its own network, mounts, processes and cgroups, gone with everything in it
//! when it is dropped. [`server::Server`] is `navarch server` on such a host, and `kubectl` beside it. [`api::Api`] is a
//! scripted API for clients.

pub mod api;
pub mod host;
pub mod image;
pub mod server;
pub mod wait;
