//! Kinds of the `apps` group.

pub(super) mod deployment;
pub(super) mod replica_set;
