//! The default backend: one directory, no other process.
//!
//! ```text
//! DIR/LOCK                        held (flock) while a process has the store open
//! DIR/log-SEQ                     segments, SEQ in 16 hex digits; only the highest is written to
//! DIR/snapshot-SEQ                the state before segment SEQ; older segments and snapshots are removed
//! ```
//!
//! [`codec`] draws the bytes of both kinds of file. The whole state and its recent history live in memory ([`state`]);
//! the disk is read only at start. [`commit`]'s one thread turns all requests that wait into one frame, one write and
//! one `fdatasync`; when the log has outgrown the live state, [`snapshot`] writes that state beside it.
//!
//! Invariants: an acknowledged write is on disk; nobody sees a write that is not; revisions have no gaps; what a failed
//! write left behind is cut off before the next one.
//!
//! Why not a B-tree engine: the state has to be in memory anyway, for reads and watches, so that all the disk has to do
//! is to remember. A small update costs its own bytes and a few more in a log, and whole pages in redb or LMDB; with 64
//! writers the log took three times the writes per second.

use std::{
    borrow::Cow,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

pub use crate::transformer::Transformer;
use crate::{Error, LeaseId, Metrics, Op, Outcome, Range, RangeResult, Revision, Store, Txn, Watch};

mod codec;
mod commit;
mod disk;
mod lease;
mod log;
mod recover;
mod snapshot;
mod state;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

use commit::{Queue, Request};
use state::State;
use writer::{Limits, Sizes};

/// How to run the store; the default is right for a server.
#[derive(Clone)]
pub struct Options {
    /// How long old versions stay readable, as far as `history_bytes` allows.
    pub history_age: Duration,
    pub history_bytes: usize,
    /// No snapshot before the log has this size (and twice that of the live state).
    pub snapshot_min_bytes: u64,
    pub transformer: Option<Arc<dyn Transformer>>,
    pub metrics: Metrics,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history_age: Duration::from_secs(300),
            history_bytes: 24 << 20,
            snapshot_min_bytes: 8 << 20,
            transformer: None,
            metrics: Metrics::default(),
        }
    }
}

/// Why the store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("data directory {} is in use by another process: stop it, or choose another directory", .0.display())]
    Locked(PathBuf),
    #[error("cannot {what} {}", .path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{} is damaged at byte {offset}: {why}. Nothing was changed: restore the data directory from a backup, or, to \
         accept the loss of what it holds from there on, move this and newer log segments out of the directory",
        .path.display()
    )]
    Damaged { path: PathBuf, offset: u64, why: String },
    #[error(
        "{} is missing though newer files exist: restore the data directory from a backup", .0.display()
    )]
    Missing(PathBuf),
    #[error("cannot decrypt the stored value of {key}: {why}. Check the encryption configuration")]
    Sealed { key: String, why: String },
}

/// An open store. Clones share it; it is closed, with everything written, by [`Self::close`] or when the last one is dropped.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    state: Arc<RwLock<State>>,
    queue: Arc<Queue>,
    sizes: Arc<Sizes>,
    transformer: Option<Arc<dyn Transformer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Released last.
    _lock: File,
}

impl Inner {
    fn close(&self) {
        self.queue.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the datastore's commit thread has panicked");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Embedded {
    /// Opens the store in `dir`, creating it when there is none. Blocks while it reads.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        Self::open_on(dir.as_ref(), options, Arc::new(disk::Real))
    }

    fn open_on(dir: &Path, options: Options, disk: Arc<dyn disk::Disk>) -> Result<Self, OpenError> {
        let lock = lock(dir)?;
        let recovered = recover::recover(dir, options.transformer.as_deref(), &disk)?;
        let state = Arc::new(RwLock::new(recovered.state));
        let sizes = Arc::new(Sizes::new(recovered.uncovered + recovered.log.len(), recovered.snapshot_bytes));
        let writer = writer::Writer {
            dir: dir.to_path_buf(),
            state: state.clone(),
            log: recovered.log,
            disk,
            transformer: options.transformer.clone(),
            limits: Limits {
                history_age: options.history_age,
                history_bytes: options.history_bytes,
                snapshot_min_bytes: options.snapshot_min_bytes,
            },
            metrics: options.metrics,
            sizes: sizes.clone(),
            uncovered: recovered.uncovered,
            running: None,
            retry_at: 0,
            first_segment: recovered.first_segment,
        };
        let queue = Arc::new(Queue::default());
        let waiting = queue.clone();
        let thread = thread::Builder::new()
            .name("store-commit".to_string())
            .spawn(move || commit::run(&waiting, writer))
            .map_err(|source| OpenError::Io { what: "start a thread for", path: dir.into(), source })?;
        let thread = Mutex::new(Some(thread));
        let transformer = options.transformer;
        Ok(Self { inner: Arc::new(Inner { state, queue, sizes, transformer, thread, _lock: lock }) })
    }

    /// Writes what waits and ends; watches end, and what comes later gets [`Error::Closed`]. Blocks for about one sync.
    ///
    /// The directory stays locked until the last clone is dropped.
    pub fn close(&self) {
        self.inner.close();
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.inner.queue.push(request(reply))?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let fail = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| OpenError::Io { what, path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail("create", dir))?;
    let path = dir.join("LOCK");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(fail("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(dir.to_path_buf())),
        Err(TryLockError::Error(source)) => Err(fail("lock", &path)(source)),
    }
}

fn open_value(transformer: Option<&dyn Transformer>, key: &str, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    match transformer {
        None => Ok(sealed.to_vec()),
        Some(transformer) => match transformer.open(key, sealed) {
            Ok(value) => Ok(value.into_owned()),
            Err(why) => Err(OpenError::Sealed { key: key.to_string(), why }),
        },
    }
}

#[async_trait]
impl Store for Embedded {
    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        self.inner.state.read().range(&range)
    }

    async fn txn(&self, mut txn: Txn) -> Result<Outcome, Error> {
        let mut sealed = Vec::new();
        for op in &mut txn.ops {
            let mut on_disk = None;
            if let Op::Put { key, value, .. } = op {
                if let Some(transformer) = &self.inner.transformer
                    && let Cow::Owned(bytes) = transformer.seal(key, value)
                {
                    on_disk = Some(bytes);
                }
                // The value stays in memory: in an allocation of its own size, not in a part of a request's buffer.
                *value = Bytes::copy_from_slice(value);
            }
            sealed.push(on_disk);
        }
        self.ask(|reply| Request::Txn { txn, sealed, reply }).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        watch::start(&self.inner.state, prefix, after)
    }

    async fn changed(&self, prefix: &str) -> Result<(Revision, Revision), Error> {
        let state = self.inner.state.read();
        let changed = state.watchers.changed(prefix).unwrap_or_else(|| state.last_change(prefix, state.oldest));
        Ok((changed, state.revision))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.ask(|reply| Request::Compact { revision, reply }).await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.ask(|reply| Request::Grant { ttl, reply }).await
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<(), Error> {
        self.ask(|reply| Request::KeepAlive { id, reply }).await
    }

    async fn revoke(&self, id: LeaseId) -> Result<(), Error> {
        self.ask(|reply| Request::Revoke { id, reply }).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.inner.state.read().revision)
    }

    async fn size(&self) -> Result<u64, Error> {
        Ok(self.inner.sizes.total())
    }
}
