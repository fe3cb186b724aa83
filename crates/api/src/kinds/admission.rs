//! Kinds of the `admissionregistration.k8s.io` group.

pub(super) mod binding;
pub(super) mod policy;
mod rules;
pub(super) mod webhooks;
