//! Where objects live: keys, bytes and revisions.
//!
//! [`Store`] is what a backend must do; [`embedded`] does it in one directory, `etcd` in a cluster of its own;
//! [`cache`] serves reads and watches from
//! memory over any backend; `conformance` holds the checks that every backend must pass. Invariant: nothing here knows
//! a kind.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

pub mod cache;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod embedded;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod metrics;
pub mod transformer;

pub use cache::Cache;
pub use embedded::Embedded;
pub use metrics::Metrics;

/// A point in the store's history: one per transaction that changed something. Starts at 1.
pub type Revision = u64;

/// A time to live that keys can be attached to.
pub type LeaseId = i64;

/// A key with its value at one revision. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Arc<str>,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub lease: Option<LeaseId>,
}

/// A read of the keys in `start..end` (of the key `start` alone when `end` is `None`).
#[derive(Clone, Debug, Default)]
pub struct Range {
    pub start: String,
    /// Exclusive.
    pub end: Option<String>,
    /// At this revision; `None`: now.
    pub revision: Option<Revision>,
    /// At most this many entries; 0: all.
    pub limit: usize,
    /// Only count.
    pub count_only: bool,
}

impl Range {
    pub fn key(key: impl Into<String>) -> Self {
        Self { start: key.into(), ..Self::default() }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        let start = prefix.into();
        let end = Some(prefix_end(&start));
        Self { start, end, ..Self::default() }
    }
}

/// The first key behind all keys that begin with `prefix`. Keys are ASCII and end before `0x7f`.
pub fn prefix_end(prefix: &str) -> String {
    format!("{prefix}\u{7f}")
}

/// Entries in key order.
#[derive(Clone, Debug, Default)]
pub struct RangeResult {
    pub entries: Vec<Entry>,
    /// Keys in the range at that revision, the ones beyond `limit` included.
    pub count: usize,
    /// The store's revision when the read happened.
    pub revision: Revision,
}

/// Compare-and-swap: all of `compare` hold, or nothing is written.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub ops: Vec<Op>,
}

/// `key` was last written at `mod_revision`; 0: the key does not exist.
#[derive(Clone, Debug)]
pub struct Compare {
    pub key: String,
    pub mod_revision: Revision,
}

/// One write of a transaction.
#[derive(Clone, Debug)]
pub enum Op {
    Put { key: String, value: Bytes, lease: Option<LeaseId> },
    Delete { key: String },
}

/// What became of a transaction.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Durable at this revision.
    Committed(Revision),
    /// A comparison failed: today's entries of the compared keys, in their order.
    Failed { current: Vec<Option<Entry>>, revision: Revision },
}

/// One change of one key.
#[derive(Clone, Debug)]
pub struct Event {
    pub key: Arc<str>,
    pub revision: Revision,
    /// `None`: deleted.
    pub value: Option<Bytes>,
    /// The entry before this change.
    pub prev: Option<Entry>,
    /// Revision at which the key was created (of the deleted key, for a delete).
    pub create_revision: Revision,
    /// The lease that the key is attached to now.
    pub lease: Option<LeaseId>,
}

impl Event {
    /// The key's entry after this change; `None`: it was deleted.
    pub fn entry(&self) -> Option<Entry> {
        Some(Entry {
            key: self.key.clone(),
            value: self.value.clone()?,
            create_revision: self.create_revision,
            mod_revision: self.revision,
            lease: self.lease,
        })
    }
}

/// What a watch yields: events in revision order, all events of a revision together.
#[derive(Clone, Debug)]
pub enum WatchItem {
    Events(Arc<[Event]>),
    /// Everything up to this revision has been delivered.
    Progress(Revision),
}

/// A running watch; dropping it ends it. A closed channel after an [`Error`] item is the end.
pub type Watch = mpsc::Receiver<Result<WatchItem, Error>>;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The revision asked for was compacted away.
    #[error("required revision {requested} has been compacted: the oldest is {oldest}")]
    Compacted { requested: Revision, oldest: Revision },
    #[error("required revision {requested} is in the future: the newest is {current}")]
    Future { requested: Revision, current: Revision },
    #[error("lease {0} does not exist")]
    NoSuchLease(LeaseId),
    /// Nothing was written; a retry may succeed once there is room.
    #[error("the datastore's disk is full")]
    DiskFull,
    /// The request contradicts itself, such as two writes of one key in a transaction.
    #[error("invalid request to the datastore: {0}")]
    Invalid(String),
    #[error("the datastore failed: {0}")]
    Backend(String),
    /// A watch was ended because its reader left too much unread.
    #[error("the watch did not keep up with the changes")]
    Slow,
    #[error("the datastore is shutting down")]
    Closed,
}

/// A datastore with history. All methods may be called from any task at once.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    async fn range(&self, range: Range) -> Result<RangeResult, Error>;
    /// Returns once the writes are durable.
    async fn txn(&self, txn: Txn) -> Result<Outcome, Error>;
    /// Changes under `prefix` after revision `after`.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error>;
    /// The newest revision that changed something under `prefix`, and the newest revision of all.
    ///
    /// A reader that has seen the first has seen the state at the second. A backend that cannot tell answers with the
    /// newest revision twice and then owes every watch under `prefix` a [`WatchItem::Progress`] up to it.
    async fn changed(&self, prefix: &str) -> Result<(Revision, Revision), Error>;
    /// Forgets history before `revision` (the state at `revision` stays readable).
    async fn compact(&self, revision: Revision) -> Result<(), Error>;
    /// A lease that deletes its keys `ttl` after it was granted or kept alive.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error>;
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), Error>;
    async fn revoke(&self, lease: LeaseId) -> Result<(), Error>;
    /// The newest revision.
    async fn revision(&self) -> Result<Revision, Error>;
    /// Bytes on disk.
    async fn size(&self) -> Result<u64, Error>;
}
