//! The watch cache: one resource's objects and recent changes in memory, over any backend.
//!
//! Each cache follows one key prefix with a single store watch, extracts [`Attributes`] from each written value once,
//! and serves any number of lists and watches from there. It starts with its first use.
//!
//! Invariants: a consistent read waits until the cache has seen everything that the store had when the read came
//! ([`Store::changed`] says how far that is, without a round trip through the watch when nothing happened); a watch sees
//! every change that it selects exactly once and in order, or is told that it ended; no watch can hold up another one or
//! grow without bound. A change is handed only to the watches registered under its key, its directory, or a value that
//! its attributes are indexed by: the others cost nothing.
//!
//! Objects are shared by reference; the bytes of values are those that the embedded store holds.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Entry, Error, Metrics, Range, Revision, Store};

mod follow;
mod registry;
mod ring;
mod state;
mod stream;

#[cfg(test)]
mod tests;

pub use registry::Scope;
pub use stream::{Kind, StreamItem, WatchEvent, WatchStream};

use state::State;

/// Encodings of one event that watches can share: see [`CacheEvent::encoded`].
pub const SLOTS: usize = 6;

/// What selects objects: extracted from each value once, when it is written.
pub trait Attributes: Send + Sync + 'static {
    fn of(key: &str, value: &Bytes) -> Self;

    /// Names and values under which watches can be registered with [`Scope::Index`], such as the node of a pod.
    fn indexed(&self, _visit: &mut dyn FnMut(&'static str, &str)) {}
}

/// A predicate on objects; it must give the same answer for the same attributes always.
pub type Filter<A> = Arc<dyn Fn(&A) -> bool + Send + Sync>;

/// An object in the cache.
#[derive(Debug)]
pub struct Item<A> {
    pub entry: Entry,
    pub attrs: A,
}

/// A change of one object.
#[derive(Debug)]
pub struct Change<A> {
    pub key: Arc<str>,
    pub revision: Revision,
    /// `None`: deleted.
    pub item: Option<Arc<Item<A>>>,
    pub prev: Option<Arc<Item<A>>>,
}

/// A change on its way to watches, with room for what they send so that it is encoded once for all of them.
pub struct CacheEvent<A> {
    change: Arc<Change<A>>,
    /// The caller chooses what each slot means, such as format times kind of event.
    pub encoded: [OnceLock<Bytes>; SLOTS],
}

impl<A> CacheEvent<A> {
    fn new(change: Arc<Change<A>>) -> Self {
        Self { change, encoded: Default::default() }
    }
}

impl<A> Deref for CacheEvent<A> {
    type Target = Change<A>;

    fn deref(&self) -> &Change<A> {
        &self.change
    }
}

impl<A> fmt::Debug for CacheEvent<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheEvent").field("key", &self.key).field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Changes after this revision.
    After(Revision),
    /// Changes from now on.
    Now,
    /// The present objects as `Added` events, [`StreamItem::InitialEnd`], then changes.
    Present,
}

/// Bounds of a cache; the default is right for a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Changes that may wait for one watch.
    pub pending: usize,
    /// Changes and bytes of their values that are kept for watches to begin in the past.
    pub ring_events: usize,
    pub ring_bytes: usize,
    /// Changes older than this are kept only in small number.
    pub ring_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pending: 2048, ring_events: 8192, ring_bytes: 8 << 20, ring_age: Duration::from_secs(75) }
    }
}

/// The cache of one key prefix. Clones share it; following ends when the last one and all its watches are gone.
pub struct Cache<A> {
    shared: Arc<Shared<A>>,
}

impl<A> Clone for Cache<A> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<A> {
    store: Arc<dyn Store>,
    prefix: String,
    limits: Limits,
    metrics: Metrics,
    state: RwLock<State<A>>,
    /// Follows `state.revision`, for those who wait for it.
    reached: watch::Sender<Revision>,
    started: OnceCell<()>,
    stop: CancellationToken,
    /// Ends the following task with the cache.
    _stop: DropGuard,
}

impl<A: Attributes> Cache<A> {
    /// A cache of the keys that begin with `prefix`, which should end in `/`. Reads nothing yet.
    pub fn new(store: Arc<dyn Store>, prefix: impl Into<String>, limits: Limits, metrics: Metrics) -> Self {
        let prefix = prefix.into();
        let stop = CancellationToken::new();
        let shared = Shared {
            store,
            state: RwLock::new(State::new()),
            prefix,
            limits,
            metrics,
            reached: watch::Sender::new(0),
            started: OnceCell::new(),
            _stop: stop.clone().drop_guard(),
            stop,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The objects under `key_prefix` in key order, and the store's revision that they stand for.
    pub async fn list(&self, key_prefix: &str) -> Result<(Vec<Arc<Item<A>>>, Revision), Error> {
        self.caught_up().await?;
        Ok(self.shared.state.read().list(key_prefix))
    }

    /// Like [`Self::list`], of whatever the cache has seen so far.
    pub async fn list_any(&self, key_prefix: &str) -> Result<(Vec<Arc<Item<A>>>, Revision), Error> {
        self.start().await?;
        Ok(self.shared.state.read().list(key_prefix))
    }

    /// The object with this key.
    pub async fn get(&self, key: &str) -> Result<Option<Arc<Item<A>>>, Error> {
        self.caught_up().await?;
        Ok(self.shared.state.read().get(key))
    }

    /// Waits until the cache has seen `revision`, which the store must have reached: [`Error::Future`].
    pub async fn wait_for(&self, revision: Revision) -> Result<(), Error> {
        self.start().await?;
        if self.shared.state.read().revision() >= revision {
            return Ok(());
        }
        let current = self.caught_up().await?;
        if current < revision {
            return Err(Error::Future { requested: revision, current });
        }
        Ok(())
    }

    /// Watches the changes that `scope` and `filter` select.
    ///
    /// Through the filter, an object that begins to match is added and one that ceases to match is deleted.
    /// [`Error::Compacted`]: the cache does not remember that far back.
    pub async fn watch(&self, scope: Scope, start: Start, filter: Option<Filter<A>>) -> Result<WatchStream<A>, Error> {
        self.start().await?;
        match start {
            Start::After(revision) => self.wait_for(revision).await?,
            Start::Now | Start::Present => _ = self.caught_up().await?,
        }
        WatchStream::open(&self.shared, scope, start, filter)
    }

    /// Makes the cache see everything that the store has now; the revision up to which it has.
    async fn caught_up(&self) -> Result<Revision, Error> {
        self.start().await?;
        self.shared.catch_up().await
    }

    async fn start(&self) -> Result<(), Error> {
        let shared = &self.shared;
        shared.started.get_or_try_init(|| follow::start(shared)).await?;
        Ok(())
    }
}

impl<A: Attributes> Shared<A> {
    async fn catch_up(&self) -> Result<Revision, Error> {
        let (changed, current) = self.store.changed(&self.prefix).await?;
        {
            let state = self.state.read();
            match state.stopped() {
                Some(error) => return Err(error),
                None if state.revision() >= current => return Ok(current),
                None => {}
            }
        }
        let mut reached = self.reached.subscribe();
        // The sender lives in `self`. A stopped cache says so in its state.
        let _ = reached.wait_for(|revision| *revision >= changed).await;
        if let Some(error) = self.state.read().stopped() {
            return Err(error);
        }
        self.lift(current);
        Ok(current)
    }

    /// Takes note that nothing happened under the prefix up to `current` that the cache has not seen.
    fn lift(&self, current: Revision) {
        if self.state.read().revision() < current {
            self.state.write().lift(current);
        }
    }

    async fn load(&self) -> Result<(Vec<Arc<Item<A>>>, Revision), Error> {
        let result = self.store.range(Range::prefix(self.prefix.clone())).await?;
        let item = |entry: Entry| Arc::new(Item { attrs: A::of(&entry.key, &entry.value), entry });
        Ok((result.entries.into_iter().map(item).collect(), result.revision))
    }
}

impl<A> Shared<A> {
    fn label(&self) -> crate::metrics::Prefix {
        [("prefix", self.prefix.clone())]
    }
}
