//! Kinds of the core group (`v1`).

pub(super) mod config_map;
pub(super) mod event;
pub(super) mod namespace;
pub(super) mod node;
pub(super) mod pod;
pub(super) mod pod_template;
pub(super) mod secret;
pub(super) mod service;
pub(super) mod service_account;
