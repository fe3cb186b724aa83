//! What controllers know about Pods and about owning objects.

pub(crate) mod batch;
pub(crate) mod claim;
pub(crate) mod expectations;
pub(crate) mod hash;
pub(crate) mod rank;
pub(crate) mod scheduling;
pub(crate) mod state;
pub(crate) mod template;
pub(crate) mod wake;
