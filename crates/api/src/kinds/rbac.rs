//! Kinds of the `rbac.authorization.k8s.io` group: rules, and who has them.

pub(super) mod binding;
pub(super) mod role;
