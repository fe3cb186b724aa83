//! What the commit thread owns: the log, and the decision when to snapshot and what history to forget.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::RwLock;

use super::{
    Transformer,
    commit::{Queue, Request},
    disk::{Disk, write_error},
    log::{Log, segment_path},
    snapshot,
    state::State,
};
use crate::{Error, metrics::Metrics};

/// Limits that [`super::Options`] sets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) history_age: Duration,
    pub(super) history_bytes: usize,
    pub(super) snapshot_min_bytes: u64,
}

pub(super) struct Writer {
    pub(super) dir: PathBuf,
    pub(super) state: Arc<RwLock<State>>,
    pub(super) log: Log,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) transformer: Option<Arc<dyn Transformer>>,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    pub(super) sizes: Arc<Sizes>,
    /// Bytes of log that no snapshot covers, the current segment not counted.
    pub(super) uncovered: u64,
    pub(super) running: Option<Running>,
    /// After a failed snapshot: the uncovered log from which another is tried.
    pub(super) retry_at: u64,
    /// Segments from this number on exist.
    pub(super) first_segment: u64,
}

/// A snapshot being written.
pub(super) struct Running {
    /// The first segment that it will not cover.
    seq: u64,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Bytes on disk, kept up to date by the commit thread.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    log: AtomicU64,
    snapshot: AtomicU64,
}

impl Sizes {
    pub(super) fn new(log: u64, snapshot: u64) -> Self {
        Self { log: log.into(), snapshot: snapshot.into() }
    }

    pub(super) fn total(&self) -> u64 {
        self.log.load(Ordering::Relaxed) + self.snapshot.load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Makes a frame durable.
    pub(super) fn append(&mut self, frame: &[u8], txns: usize) -> Result<(), Error> {
        let start = Instant::now();
        if let Err(error) = self.log.append(frame) {
            self.metrics.failures.inc();
            tracing::error!(%error, bytes = frame.len(), "cannot write to the datastore's log");
            return Err(write_error("write to the log", &error));
        }
        self.metrics.sync_seconds.observe(start.elapsed().as_secs_f64());
        self.metrics.commits.inc();
        self.metrics.batch_size.observe(txns as f64);
        self.metrics.written_bytes.inc_by(frame.len() as u64);
        Ok(())
    }

    /// When something has to be done though nobody asks: a lease ends, or history gets too old.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let state = self.state.read();
        [state.leases.due(), state.trim_due(self.limits.history_age)].into_iter().flatten().min()
    }

    /// After a batch: forgets old history, and starts a snapshot when the log has grown enough.
    pub(super) fn maintain(&mut self, queue: &Arc<Queue>) {
        let mut state = self.state.write();
        state.trim(Instant::now(), self.limits.history_age, self.limits.history_bytes);
        let live = state.live_bytes();
        self.metrics.keys.set(state.live_keys() as i64);
        self.metrics.live_bytes.set(live as i64);
        self.metrics.history_bytes.set(state.history_bytes() as i64);
        self.metrics.leases.set(state.leases.len() as i64);
        self.metrics.store_watches.set(state.watchers.len() as i64);
        drop(state);
        let log = self.uncovered + self.log.len();
        self.sizes.log.store(log, Ordering::Relaxed);
        self.metrics.disk_bytes.set(self.sizes.total() as i64);
        if self.running.is_none() && log >= self.limits.snapshot_min_bytes.max(2 * live).max(self.retry_at) {
            self.snapshot(queue);
        }
    }

    fn snapshot(&mut self, queue: &Arc<Queue>) {
        let full = self.log.len();
        let seq = match self.log.rotate() {
            Ok(seq) => seq,
            Err(error) => return self.snapshot_failed(&error),
        };
        self.uncovered += full;
        let head = {
            let mut state = self.state.write();
            state.pin = Some(state.revision);
            let now = Instant::now();
            let leases = state.leases.iter().map(|(id, lease)| (id, lease.ttl, lease.expires - now)).collect();
            snapshot::Head { seq, revision: state.revision, last_lease: state.leases.last_id, leases }
        };
        let (dir, state, disk) = (self.dir.clone(), self.state.clone(), self.disk.clone());
        let (transformer, stop) = (self.transformer.clone(), Arc::new(AtomicBool::new(false)));
        let (mut done, stopped) = (Done { queue: queue.clone(), len: None }, stop.clone());
        let spawned = thread::Builder::new().name("store-snapshot".to_string()).spawn(move || {
            match snapshot::write(&dir, &head, &state, transformer.as_deref(), &disk, &stopped) {
                Ok(len) => done.succeeded(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => tracing::error!(%error, "cannot write a snapshot of the datastore"),
            }
        });
        match spawned {
            Ok(thread) => self.running = Some(Running { seq, stop, thread }),
            Err(error) => {
                self.state.write().pin = None;
                self.snapshot_failed(&error);
            }
        }
    }

    /// At the end: nothing may write to the directory after it is unlocked.
    pub(super) fn stop_snapshot(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.store(true, Ordering::Relaxed);
            if running.thread.join().is_err() {
                tracing::error!("the datastore's snapshot thread has panicked");
            }
        }
    }

    fn snapshot_failed(&mut self, error: &io::Error) {
        tracing::error!(%error, "cannot start a snapshot of the datastore");
        self.metrics.failures.inc();
        self.retry_at = (self.uncovered + self.log.len()) * 5 / 4;
    }

    /// Takes note of the snapshot thread's end and removes what the snapshot covers.
    pub(super) fn snapshot_done(&mut self, len: Option<u64>) {
        self.state.write().pin = None;
        let Some(Running { seq, .. }) = self.running.take() else { return };
        let Some(len) = len else {
            self.metrics.failures.inc();
            self.retry_at = (self.uncovered + self.log.len()) * 5 / 4;
            return;
        };
        for segment in self.first_segment..seq {
            remove(&segment_path(&self.dir, segment));
            remove(&snapshot::snapshot_path(&self.dir, segment));
        }
        self.first_segment = seq;
        self.uncovered = 0;
        self.retry_at = 0;
        self.sizes.snapshot.store(len, Ordering::Relaxed);
        self.metrics.snapshots.inc();
        self.metrics.written_bytes.inc_by(len);
    }
}

/// Removes a file that is not needed any more; a next start tries again.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "cannot remove an old file of the datastore");
    }
}

/// Tells the commit thread about the end of a snapshot, a panic included.
struct Done {
    queue: Arc<Queue>,
    len: Option<u64>,
}

impl Done {
    fn succeeded(&mut self, len: u64) {
        self.len = Some(len);
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        // A closed queue means that the store is shutting down: nobody waits for this.
        let _ = self.queue.push(Request::Snapshot(self.len));
    }
}
