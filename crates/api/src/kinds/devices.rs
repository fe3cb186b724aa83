//! Kinds of the `resource.k8s.io` group: devices that pods claim.

pub(super) mod claim;
pub(super) mod class;
pub(super) mod slice;
mod validate;
