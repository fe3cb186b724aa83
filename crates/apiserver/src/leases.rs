//! Time to live for objects that are kept for a while only.
//!
//! Objects written close together share a lease, so that a burst of events costs one lease and not thousands: an object
//! lives up to [`SHARE`] longer than asked for.

use std::{sync::Arc, time::Duration};

use api::status::Status;
use parking_lot::Mutex;
use store::{LeaseId, Store};
use tokio::time::Instant;

use crate::{catalog::Served, registry::store_failed};

/// How long one lease is given out.
const SHARE: Duration = Duration::from_secs(60);

/// Resources that are forgotten, by the group that stores them.
const FORGOTTEN: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

pub(crate) struct Leases {
    store: Arc<dyn Store>,
    event_ttl: Duration,
    current: Mutex<Option<(LeaseId, Instant)>>,
}

impl Leases {
    pub(crate) fn new(store: Arc<dyn Store>, event_ttl: Duration) -> Self {
        Self { store, event_ttl, current: Mutex::new(None) }
    }

    /// The lease for an object that is written now; `None`: it is kept.
    pub(crate) async fn for_resource(&self, served: &Served) -> Result<Option<LeaseId>, Status> {
        let resource = &served.resource;
        if !FORGOTTEN.iter().any(|(group, plural)| *group == resource.group && *plural == resource.plural) {
            return Ok(None);
        }
        let now = Instant::now();
        if let Some((lease, since)) = *self.current.lock()
            && now.duration_since(since) < SHARE
        {
            return Ok(Some(lease));
        }
        let lease = self.store.grant(self.event_ttl + SHARE).await.map_err(store_failed)?;
        *self.current.lock() = Some((lease, now));
        Ok(Some(lease))
    }
}
