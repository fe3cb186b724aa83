//! Kinds of the `admissionregistration.k8s.io` group.

pub(super) mod binding;
pub(super) mod policy;
pub(super) mod webhooks;
