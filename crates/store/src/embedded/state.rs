//! The state in memory: every key's versions, and recent history in revision order.
//!
//! Invariants: only the commit thread changes it, and only after the change is on disk; `history` holds the events of
//! the revisions `oldest + 1 ..= revision`, one element a revision; a key's older versions are those that a read at a
//! revision from `oldest` on can ask for. Trimming therefore walks history: an event that leaves it takes the version
//! that it replaced along.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{lease::Leases, watch::Watchers};
use crate::{Entry, Error, Event, LeaseId, Range, RangeResult, Revision};

/// What one event costs in memory beside its values; an estimate for the bound on history.
const EVENT_OVERHEAD: usize = 300;
/// How finely the age of history is known.
const MARK_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
struct Version {
    mod_revision: Revision,
    create_revision: Revision,
    lease: Option<LeaseId>,
    /// `None`: deleted at `mod_revision`.
    value: Option<Bytes>,
}

#[derive(Debug)]
struct Chain {
    latest: Version,
    /// Ascending.
    older: Vec<Version>,
}

impl Chain {
    fn at(&self, revision: Revision) -> Option<&Version> {
        if self.latest.mod_revision <= revision {
            return Some(&self.latest);
        }
        self.older.iter().rev().find(|version| version.mod_revision <= revision)
    }
}

fn entry(key: &Arc<str>, version: &Version) -> Option<Entry> {
    Some(Entry {
        key: key.clone(),
        value: version.value.clone()?,
        create_revision: version.create_revision,
        mod_revision: version.mod_revision,
        lease: version.lease,
    })
}

#[derive(Debug)]
pub(super) struct State {
    keys: BTreeMap<Arc<str>, Chain>,
    pub(super) revision: Revision,
    /// Reads and watches may ask for this revision and later ones.
    pub(super) oldest: Revision,
    history: VecDeque<Arc<[Event]>>,
    history_bytes: usize,
    /// When history had reached which revision, every few seconds at most.
    marks: VecDeque<(Instant, Revision)>,
    /// A snapshot is being read at this revision: history from it on stays.
    pub(super) pin: Option<Revision>,
    pub(super) leases: Leases,
    pub(super) watchers: Watchers,
    live_keys: usize,
    live_bytes: u64,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            keys: BTreeMap::new(),
            revision: 1,
            oldest: 1,
            history: VecDeque::new(),
            history_bytes: 0,
            marks: VecDeque::new(),
            pin: None,
            leases: Leases::default(),
            watchers: Watchers::default(),
            live_keys: 0,
            live_bytes: 0,
        }
    }

    pub(super) fn live_keys(&self) -> usize {
        self.live_keys
    }

    /// Bytes of all live keys and values: about what a snapshot will take.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub(super) fn history_bytes(&self) -> usize {
        self.history_bytes
    }

    /// Sets a key of a snapshot, before any history.
    pub(super) fn load(&mut self, entry: Entry) {
        self.leases.attach(entry.lease, &entry.key);
        self.live_keys += 1;
        self.live_bytes += (entry.key.len() + entry.value.len()) as u64;
        let latest = Version {
            mod_revision: entry.mod_revision,
            create_revision: entry.create_revision,
            lease: entry.lease,
            value: Some(entry.value),
        };
        self.keys.insert(entry.key, Chain { latest, older: Vec::new() });
    }

    /// Sets the revision of a loaded snapshot.
    pub(super) fn loaded(&mut self, revision: Revision) {
        self.revision = revision;
        self.oldest = revision;
    }

    pub(super) fn get(&self, key: &str) -> Option<Entry> {
        let (key, chain) = self.keys.get_key_value(key)?;
        entry(key, &chain.latest)
    }

    pub(super) fn range(&self, range: &Range) -> Result<RangeResult, Error> {
        let at = range.revision.unwrap_or(self.revision);
        self.check(at)?;
        let mut result = RangeResult { entries: Vec::new(), count: 0, revision: self.revision };
        let mut visit = |key: &Arc<str>, chain: &Chain| {
            let Some(version) = chain.at(at).filter(|version| version.value.is_some()) else { return };
            result.count += 1;
            if !range.count_only && (range.limit == 0 || result.entries.len() < range.limit) {
                result.entries.extend(entry(key, version));
            }
        };
        match range.end.as_deref() {
            None => self.keys.get_key_value(range.start.as_str()).into_iter().for_each(|(k, c)| visit(k, c)),
            Some(end) if end > range.start.as_str() => self
                .keys
                .range::<str, _>((Bound::Included(range.start.as_str()), Bound::Excluded(end)))
                .for_each(|(k, c)| visit(k, c)),
            Some(_) => {}
        }
        Ok(result)
    }

    /// Up to `limit` keys behind `after` as they were at `revision`, for a snapshot; the cursor for the next call.
    pub(super) fn chunk(
        &self,
        after: Option<&str>,
        revision: Revision,
        limit: usize,
    ) -> (Vec<Entry>, Option<Arc<str>>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut entries = Vec::with_capacity(limit);
        let mut cursor = None;
        for (key, chain) in self.keys.range::<str, _>((from, Bound::Unbounded)).take(limit) {
            entries.extend(chain.at(revision).and_then(|version| entry(key, version)));
            cursor = Some(key.clone());
        }
        (entries, cursor)
    }

    fn check(&self, revision: Revision) -> Result<(), Error> {
        if revision > self.revision {
            return Err(Error::Future { requested: revision, current: self.revision });
        }
        if revision < self.oldest {
            return Err(Error::Compacted { requested: revision, oldest: self.oldest });
        }
        Ok(())
    }

    /// Makes the events of the next revision visible.
    pub(super) fn apply(&mut self, events: Arc<[Event]>, now: Instant) {
        for event in events.iter() {
            self.apply_event(event);
            let replaced = event.prev.as_ref().map_or(0, |prev| prev.value.len());
            self.history_bytes += EVENT_OVERHEAD + replaced;
        }
        self.watchers.mark(&events);
        self.revision += 1;
        self.history.push_back(events);
        if self.marks.back().is_none_or(|(at, _)| now.duration_since(*at) >= MARK_EVERY) {
            self.marks.push_back((now, self.revision));
        }
    }

    fn apply_event(&mut self, event: &Event) {
        if let Some(prev) = &event.prev {
            self.leases.detach(prev.lease, &prev.key);
            self.live_keys -= 1;
            self.live_bytes -= (prev.key.len() + prev.value.len()) as u64;
        }
        if let Some(value) = &event.value {
            self.leases.attach(event.lease, &event.key);
            self.live_keys += 1;
            self.live_bytes += (event.key.len() + value.len()) as u64;
        }
        let version = Version {
            mod_revision: event.revision,
            create_revision: event.create_revision,
            lease: event.lease,
            value: event.value.clone(),
        };
        match self.keys.get_mut(&event.key) {
            Some(chain) => {
                let replaced = mem::replace(&mut chain.latest, version);
                chain.older.push(replaced);
            }
            None => {
                self.keys.insert(event.key.clone(), Chain { latest: version, older: Vec::new() });
            }
        }
    }

    /// Events under `prefix` after `after`, of whole revisions, about `limit` at most; and the revision they reach.
    pub(super) fn events(&self, prefix: &str, after: Revision, limit: usize) -> Result<(Vec<Event>, Revision), Error> {
        if after < self.oldest {
            return Err(Error::Compacted { requested: after, oldest: self.oldest });
        }
        let mut found = Vec::new();
        let mut reached = after;
        // A watch may start in the future: nothing to give yet.
        let skip = usize::try_from(after - self.oldest).unwrap_or(usize::MAX);
        for events in self.history.iter().skip(skip) {
            found.extend(events.iter().filter(|event| event.key.starts_with(prefix)).cloned());
            reached += 1;
            if found.len() >= limit {
                break;
            }
        }
        Ok((found, reached))
    }

    /// The newest revision after `after` that changed something under `prefix`; `after` when none did.
    pub(super) fn last_change(&self, prefix: &str, after: Revision) -> Revision {
        let changed = |events: &&Arc<[Event]>| events.iter().any(|event| event.key.starts_with(prefix));
        let newest = self.history.iter().rev().find(changed).and_then(|events| events.first());
        newest.map_or(after, |event| event.revision.max(after))
    }

    /// Forgets history up to `revision`, as far as a running snapshot allows.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        self.check(revision)?;
        self.forget_until(revision);
        self.history.shrink_to(self.history.len() * 2);
        Ok(())
    }

    /// Keeps history within its age and size, as far as a running snapshot allows.
    pub(super) fn trim(&mut self, now: Instant, age: Duration, bytes: usize) {
        let until = self.pin.unwrap_or(self.revision);
        while self.history_bytes > bytes && self.oldest < until {
            self.forget_oldest();
        }
        self.drop_marks();
        while let Some((at, _)) = self.marks.front() {
            if now.duration_since(*at) < age + MARK_EVERY || self.oldest >= until {
                break;
            }
            self.forget_until(self.marks.get(1).map_or(self.revision, |(_, next)| *next - 1));
        }
        if self.history.is_empty() {
            self.history = VecDeque::new();
        }
    }

    /// When [`Self::trim`] will have something to forget because of its age.
    pub(super) fn trim_due(&self, age: Duration) -> Option<Instant> {
        if self.pin.is_some() {
            return None;
        }
        self.marks.front().map(|(at, _)| *at + age + MARK_EVERY)
    }

    fn forget_until(&mut self, revision: Revision) {
        let until = self.pin.map_or(revision, |pin| pin.min(revision));
        while self.oldest < until {
            self.forget_oldest();
        }
        self.drop_marks();
    }

    fn forget_oldest(&mut self) {
        // There is one element for every revision after `oldest`.
        self.oldest += 1;
        for event in self.history.pop_front().iter().flat_map(|events| events.iter()) {
            let replaced = event.prev.as_ref().map_or(0, |prev| prev.value.len());
            self.history_bytes -= EVENT_OVERHEAD + replaced;
            let Some(chain) = self.keys.get_mut(&event.key) else { continue };
            if chain.latest.mod_revision <= self.oldest {
                chain.older = Vec::new();
                if chain.latest.value.is_none() {
                    self.keys.remove(&event.key);
                }
            } else {
                // The version at `oldest` stays, the ones before it go.
                let newer = chain.older.partition_point(|version| version.mod_revision <= self.oldest);
                chain.older.drain(..newer.saturating_sub(1));
            }
        }
    }

    /// A mark opens an interval that ends before the next mark's revision; intervals that are forgotten go.
    fn drop_marks(&mut self) {
        if self.history.is_empty() {
            self.marks.clear();
        }
        while self.marks.get(1).is_some_and(|(_, next)| *next <= self.oldest + 1) {
            self.marks.pop_front();
        }
    }
}
