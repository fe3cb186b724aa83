//! Opening a directory: the newest snapshot, then the log segments behind it.

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    OpenError, Transformer,
    codec::{Record, RecordOp},
    disk::Disk,
    log::{self, Log, segment_path},
    open_value, snapshot,
    state::State,
};
use crate::Event;

/// A store's state as it was left.
pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) log: Log,
    /// Bytes of older segments.
    pub(super) uncovered: u64,
    pub(super) snapshot_bytes: u64,
    pub(super) first_segment: u64,
}

pub(super) fn recover(
    dir: &Path,
    transformer: Option<&dyn Transformer>,
    disk: &Arc<dyn Disk>,
) -> Result<Recovered, OpenError> {
    let fail = |what| move |source: io::Error| OpenError::Io { what, path: dir.into(), source };
    let files = Files::list(dir).map_err(fail("read"))?;
    let (mut state, now) = (State::new(), Instant::now());
    let mut first_segment = 1;
    let mut snapshot_bytes = 0;
    if let Some(newest) = files.snapshots.iter().copied().max() {
        let path = snapshot::snapshot_path(dir, newest);
        snapshot_bytes = snapshot::load(&path, &mut state, transformer, now)?;
        first_segment = newest;
    }
    let last = files.segments.iter().copied().max().unwrap_or(first_segment);
    let mut uncovered = 0;
    let mut sound = 0;
    for seq in first_segment..=last {
        if !files.segments.contains(&seq) {
            if files.segments.is_empty() && files.snapshots.is_empty() {
                break;
            }
            return Err(OpenError::Missing(segment_path(dir, seq)));
        }
        uncovered += sound;
        let mut sealed = None;
        let applied = log::replay(&segment_path(dir, seq), seq == last, |record| {
            apply(&mut state, record, transformer, now).map_err(|error| match error {
                ApplyError::Order(why) => why,
                ApplyError::Sealed(error) => {
                    let why = error.to_string();
                    sealed = Some(error);
                    why
                }
            })
        });
        sound = match sealed {
            Some(error) => return Err(error),
            None => applied?,
        };
    }
    files.remove_before(dir, first_segment).map_err(fail("clean up"))?;
    let log = Log::resume(dir, last, sound, disk.clone()).map_err(fail("write to"))?;
    Ok(Recovered { state, log, uncovered, snapshot_bytes, first_segment })
}

enum ApplyError {
    Order(String),
    Sealed(OpenError),
}

fn apply(
    state: &mut State,
    record: Record<'_>,
    transformer: Option<&dyn Transformer>,
    now: Instant,
) -> Result<(), ApplyError> {
    match record {
        Record::Txn { revision, ops } => {
            if revision != state.revision + 1 {
                let why = format!("revision {revision} follows {}", state.revision);
                return Err(ApplyError::Order(why));
            }
            let mut events = Vec::with_capacity(ops.len());
            for op in ops {
                let (RecordOp::Put { key, .. } | RecordOp::Delete { key }) = op;
                let prev = state.get(key);
                let (value, lease) = match op {
                    RecordOp::Delete { .. } => (None, None),
                    RecordOp::Put { lease, value, .. } => {
                        let value = open_value(transformer, key, value).map_err(ApplyError::Sealed)?;
                        (Some(Bytes::from(value)), Some(lease).filter(|lease| *lease != 0))
                    }
                };
                let create_revision = prev.as_ref().map_or(revision, |prev| prev.create_revision);
                let key = prev.as_ref().map_or_else(|| key.into(), |prev| prev.key.clone());
                events.push(Event { key, revision, value, prev, create_revision, lease });
            }
            state.apply(events.into(), now);
        }
        Record::Lease { id, ttl_ms, remaining_ms } => {
            state.leases.set(id, Duration::from_millis(ttl_ms), now + Duration::from_millis(remaining_ms));
        }
        Record::Revoked { id } => state.leases.remove(id),
        Record::Begin { .. } | Record::Entry { .. } | Record::End { .. } => {
            return Err(ApplyError::Order("a record that belongs into a snapshot".to_string()));
        }
    }
    Ok(())
}

/// The numbers of the files in a data directory.
struct Files {
    snapshots: Vec<u64>,
    segments: Vec<u64>,
    temporary: Vec<std::path::PathBuf>,
}

impl Files {
    fn list(dir: &Path) -> io::Result<Self> {
        let mut files = Self { snapshots: Vec::new(), segments: Vec::new(), temporary: Vec::new() };
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((kind, number)) = name.to_str().and_then(|name| name.split_once('-')) else { continue };
            match (kind, u64::from_str_radix(number, 16)) {
                ("snapshot", Ok(seq)) => files.snapshots.push(seq),
                ("log", Ok(seq)) => files.segments.push(seq),
                ("snapshot", Err(_)) if number.ends_with(".tmp") => files.temporary.push(entry.path()),
                _ => {}
            }
        }
        Ok(files)
    }

    /// Removes what a crash between a snapshot's rename and the removals left, and unfinished snapshots.
    fn remove_before(&self, dir: &Path, first: u64) -> io::Result<()> {
        let old = |seqs: &[u64], path: fn(&Path, u64) -> std::path::PathBuf| {
            seqs.iter().filter(|seq| **seq < first).map(|seq| path(dir, *seq)).collect::<Vec<_>>()
        };
        let segments = old(&self.segments, segment_path);
        let snapshots = old(&self.snapshots, snapshot::snapshot_path);
        self.temporary.iter().chain(&segments).chain(&snapshots).try_for_each(fs::remove_file)
    }
}
