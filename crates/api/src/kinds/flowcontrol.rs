//! Kinds of the `flowcontrol.apiserver.k8s.io` group.

pub(super) mod flow_schema;
pub(super) mod priority_level;
mod validate;
