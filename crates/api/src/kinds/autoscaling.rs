//! Kinds of the `autoscaling` group.

pub(super) mod hpa;
