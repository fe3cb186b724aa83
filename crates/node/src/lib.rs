//! Roles: what starts, in which order, and with which stop policy.

pub mod agent;
pub mod config;
mod control;
pub mod control_plane;
pub mod kubeconfig;
pub mod layout;
pub mod machine;
pub mod pki;
mod registries;
pub mod reset;
pub mod server;
pub mod supervisor;
