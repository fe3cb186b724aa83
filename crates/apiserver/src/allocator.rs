//! Numbers that objects are given from a pool: cluster addresses and node ports of Services.
//!
//! An entry of [`ALLOCATORS`] fills an object's fields from its pools. What a write took is given back when the write
//! does not happen ([`Claim`]). The pools follow the stored objects, so that they are right after a start, and after
//! writes of another server on the same store.

pub(crate) mod pool;
mod service;

use std::sync::Arc;

use api::status::Status;
use serde_json::Value;

use self::service::ServicePools;
use crate::{admission::Ticket, catalog::Served, config::Config, mirror, pipeline::call::Call, server::Server};

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
pub(crate) struct Allocators {
    services: ServicePools,
}

impl Allocators {
    pub(crate) fn new(config: &Config) -> Self {
        Self { services: ServicePools::new(config) }
    }
}

/// Fills what the object lacks and takes what it names: the object, and the one before.
type Fill = fn(&Allocators, &Served, &mut Value, Option<&Value>) -> Result<Vec<Ticket>, Status>;

/// Group, plural, what fills its objects.
static ALLOCATORS: &[(&str, &str, Fill)] = &[("", "services", service::fill)];

/// Gives an object what it needs from the pools.
pub(crate) async fn claim(
    call: &Call,
    served: &Served,
    object: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<Claim, Status> {
    let resource = &served.resource;
    let Some((.., fill)) =
        ALLOCATORS.iter().find(|(group, plural, _)| *group == resource.group && *plural == resource.plural)
    else {
        return Ok(Claim::default());
    };
    let claim = Claim(fill(call.server.allocators(), served, object, old)?);
    // A dry run shows numbers and keeps none.
    Ok(if dry_run { Claim::default() } else { claim })
}

/// An object is gone: its numbers are free at once, without waiting for the pools to hear of it.
pub(crate) fn released(call: &Call, served: &Served, object: &Value) {
    if served.resource.plural == "services" && served.resource.group.is_empty() {
        call.server.allocators().services.forget(object);
    }
}

/// Follows the stored objects.
pub(crate) async fn start(server: &Arc<Server>) {
    let own = server.clone();
    mirror::follow(server, "", "services", move |changes| {
        for change in changes {
            own.allocators().services.learn(&change.key, change.object.as_deref());
        }
    })
    .await;
}
