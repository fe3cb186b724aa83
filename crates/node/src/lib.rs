//! Roles: what starts, in which order, and with which stop policy.

pub mod config;
pub mod pki;
