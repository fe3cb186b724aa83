//! The node itself, as the API knows it: registration, status, and the lease that says it lives.

pub(crate) mod lease;
pub(crate) mod machine;
pub(crate) mod register;
pub(crate) mod status;
