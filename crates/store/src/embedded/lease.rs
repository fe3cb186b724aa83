//! Leases: times to live and the keys attached to them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::LeaseId;

#[derive(Debug)]
pub(super) struct Lease {
    pub(super) ttl: Duration,
    pub(super) expires: Instant,
    keys: BTreeSet<Arc<str>>,
}

/// All leases, by id and by the time they end.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_id: HashMap<LeaseId, Lease>,
    by_expiry: BTreeSet<(Instant, LeaseId)>,
    /// The highest id ever given.
    pub(super) last_id: LeaseId,
}

impl Leases {
    /// Grants a lease, or sets when a known one ends.
    pub(super) fn set(&mut self, id: LeaseId, ttl: Duration, expires: Instant) {
        self.last_id = self.last_id.max(id);
        let lease = self.by_id.entry(id).or_insert(Lease { ttl, expires, keys: BTreeSet::new() });
        self.by_expiry.remove(&(lease.expires, id));
        lease.ttl = ttl;
        lease.expires = expires;
        self.by_expiry.insert((expires, id));
    }

    /// Forgets a lease; its keys are the caller's to delete.
    pub(super) fn remove(&mut self, id: LeaseId) {
        if let Some(lease) = self.by_id.remove(&id) {
            self.by_expiry.remove(&(lease.expires, id));
        }
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.by_id.iter().map(|(id, lease)| (*id, lease))
    }

    pub(super) fn keys(&self, id: LeaseId) -> Vec<Arc<str>> {
        self.by_id.get(&id).map(|lease| lease.keys.iter().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn attach(&mut self, lease: Option<LeaseId>, key: &Arc<str>) {
        if let Some(lease) = lease.and_then(|id| self.by_id.get_mut(&id)) {
            lease.keys.insert(key.clone());
        }
    }

    pub(super) fn detach(&mut self, lease: Option<LeaseId>, key: &Arc<str>) {
        if let Some(lease) = lease.and_then(|id| self.by_id.get_mut(&id)) {
            lease.keys.remove(key);
        }
    }

    /// When the next lease ends.
    pub(super) fn due(&self) -> Option<Instant> {
        self.by_expiry.first().map(|(at, _)| *at)
    }

    /// Leases that have ended.
    pub(super) fn expired(&self, now: Instant) -> Vec<LeaseId> {
        self.by_expiry.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect()
    }
}
