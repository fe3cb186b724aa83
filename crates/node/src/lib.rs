//! Roles: what starts, in which order, and with which stop policy.

pub mod config;
pub mod kubeconfig;
pub mod machine;
pub mod pki;
pub mod supervisor;
