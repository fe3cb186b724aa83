//! Numbers that objects are given from a pool: cluster addresses and node ports of Services.
//!
//! An entry of [`ALLOCATORS`] fills an object's fields from its pool. What a write took is given back when the write
//! does not happen ([`Claim`]), and what an object held when it is gone ([`released`]).

use api::status::Status;
use serde_json::Value;

use crate::{admission::Ticket, catalog::Served, config::Config, pipeline::call::Call};

/// What a write took from the pools.
#[derive(Default)]
pub(crate) struct Claim(Vec<Ticket>);

impl Claim {
    /// The write happened: what it took stays taken.
    pub(crate) fn keep(self) {
        self.0.into_iter().for_each(Ticket::keep);
    }
}

/// The pools.
pub(crate) struct Allocators {}

impl Allocators {
    pub(crate) fn new(_: &Config) -> Self {
        Self {}
    }
}

/// Fills what the object lacks and takes what it names.
pub(crate) async fn claim(
    _call: &Call,
    _served: &Served,
    _object: &mut Value,
    _old: Option<&Value>,
    _dry_run: bool,
) -> Result<Claim, Status> {
    Ok(Claim::default())
}

/// An object is gone.
pub(crate) fn released(_call: &Call, _served: &Served, _object: &Value) {}

/// Learns which numbers are taken.
pub(crate) async fn start(_: &std::sync::Arc<crate::server::Server>) {}
