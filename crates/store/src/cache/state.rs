//! What a cache holds: objects, recent changes, watches.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use tokio::time::Instant;

use super::{
    Attributes, Change, Item, Limits,
    registry::{Registry, Scope},
    ring::Ring,
};
use crate::{Error, Event, Revision};

pub(super) struct State<A> {
    items: BTreeMap<Arc<str>, Arc<Item<A>>>,
    /// Everything up to here was seen.
    revision: Revision,
    ring: Ring<A>,
    pub(super) registry: Registry<A>,
    /// The cache follows the store no more.
    stopped: Option<Error>,
}

impl<A> State<A> {
    pub(super) fn new() -> Self {
        Self { items: BTreeMap::new(), revision: 0, ring: Ring::new(0), registry: Registry::new(), stopped: None }
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn ring(&self) -> &Ring<A> {
        &self.ring
    }

    pub(super) fn stopped(&self) -> Option<Error> {
        self.stopped.clone()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<Item<A>>> {
        self.items.get(key).cloned()
    }

    pub(super) fn list(&self, key_prefix: &str) -> (Vec<Arc<Item<A>>>, Revision) {
        (self.under(key_prefix).cloned().collect(), self.revision)
    }

    fn under(&self, prefix: &str) -> impl Iterator<Item = &Arc<Item<A>>> {
        let range = self.items.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        range.take_while(move |(key, _)| key.starts_with(prefix)).map(|(_, item)| item)
    }

    pub(super) fn lift(&mut self, current: Revision) {
        self.revision = self.revision.max(current);
    }

    /// Replaces everything. Watches cannot be told what happened in between: they end.
    pub(super) fn reset(&mut self, items: Vec<Arc<Item<A>>>, revision: Revision) {
        self.registry.end_all(&Error::Compacted { requested: self.revision, oldest: revision });
        self.items = items.into_iter().map(|item| (item.entry.key.clone(), item)).collect();
        self.revision = revision;
        self.ring = Ring::new(revision);
    }

    pub(super) fn stop(&mut self, error: Error) {
        self.registry.end_all(&error);
        self.stopped = Some(error);
    }

    pub(super) fn trim(&mut self, now: Instant, limits: &Limits) {
        self.ring.trim(now, limits);
    }
}

impl<A: Attributes> State<A> {
    /// The objects in a scope that `filter` selects.
    pub(super) fn select(&self, scope: &Scope, filter: impl Fn(&Item<A>) -> bool) -> Vec<Arc<Item<A>>> {
        let prefix = match scope {
            Scope::Directory(directory) => directory.as_str(),
            Scope::Key(key) => {
                return self.items.get(key.as_str()).filter(|item| filter(item)).cloned().into_iter().collect();
            }
            Scope::All | Scope::Index(..) => "",
        };
        self.under(prefix).filter(|item| scope.matches(item) && filter(item)).cloned().collect()
    }

    /// Takes changes in, with the attributes of their new values; the number of watches that had to be cut.
    pub(super) fn apply(&mut self, changes: Vec<(Event, Option<A>)>, now: Instant, limits: &Limits) -> usize {
        let mut cut = 0;
        for (event, attrs) in changes {
            let item = event.entry().zip(attrs).map(|(entry, attrs)| Arc::new(Item { entry, attrs }));
            let prev = match &item {
                Some(item) => self.items.insert(event.key.clone(), item.clone()),
                None => self.items.remove(&event.key),
            };
            self.revision = event.revision;
            let change = Arc::new(Change { key: event.key, revision: event.revision, item, prev });
            cut += self.registry.dispatch(&change);
            self.ring.push(change, now);
        }
        self.ring.trim(now, limits);
        cut
    }
}
