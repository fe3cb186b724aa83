//! Recent changes, for watches that begin in the past.

use std::{collections::VecDeque, sync::Arc};

use tokio::time::Instant;

use super::{Change, Limits};
use crate::Revision;

/// Changes that are kept however old they are, and bytes of their values.
const OLD_EVENTS: usize = 128;
const OLD_BYTES: usize = 256 << 10;

/// Changes in revision order, bounded by number, bytes and age.
#[derive(Debug)]
pub(super) struct Ring<A> {
    changes: VecDeque<(Instant, Arc<Change<A>>)>,
    bytes: usize,
    /// All changes after this revision are here.
    since: Revision,
}

impl<A> Ring<A> {
    pub(super) fn new(since: Revision) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, since }
    }

    pub(super) fn since(&self) -> Revision {
        self.since
    }

    pub(super) fn push(&mut self, change: Arc<Change<A>>, now: Instant) {
        self.bytes += size(&change);
        self.changes.push_back((now, change));
    }

    /// Forgets what is too much or too old.
    pub(super) fn trim(&mut self, now: Instant, limits: &Limits) {
        while let Some((at, _)) = self.changes.front() {
            let (len, bytes) = (self.changes.len(), self.bytes);
            let aged = now.duration_since(*at) > limits.ring_age && (len > OLD_EVENTS || bytes > OLD_BYTES);
            if !aged && len <= limits.ring_events && bytes <= limits.ring_bytes {
                break;
            }
            self.pop();
        }
        if self.changes.capacity() > 4 * self.changes.len().max(OLD_EVENTS) {
            self.changes.shrink_to(2 * self.changes.len());
        }
    }

    fn pop(&mut self) {
        let Some((_, change)) = self.changes.pop_front() else { return };
        self.bytes -= size(&change);
        self.since = change.revision;
        // Changes of one revision are of use only together.
        if self.changes.front().is_some_and(|(_, next)| next.revision == self.since) {
            self.pop();
        }
    }

    /// When [`Self::trim`] will find something too old.
    pub(super) fn trim_due(&self, limits: &Limits) -> Option<Instant> {
        let (at, _) = self.changes.front()?;
        let large = self.changes.len() > OLD_EVENTS || self.bytes > OLD_BYTES;
        large.then(|| *at + limits.ring_age)
    }

    /// Changes after `revision`, which must not be before [`Self::since`].
    pub(super) fn after(&self, revision: Revision) -> impl Iterator<Item = &Arc<Change<A>>> {
        let start = self.changes.partition_point(|(_, change)| change.revision <= revision);
        self.changes.iter().skip(start).map(|(_, change)| change)
    }
}

/// What a change holds that the present state does not: the value that it replaced.
fn size<A>(change: &Change<A>) -> usize {
    256 + change.prev.as_ref().map_or(0, |prev| prev.entry.value.len())
}
