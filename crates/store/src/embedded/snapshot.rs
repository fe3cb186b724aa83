//! Snapshots: the whole state at one revision, in one file, so that older log segments can go.
//!
//! Written by a thread of its own from the live state, a few keys per lock, at a pinned revision: writers go on, and no
//! second copy of the state is made. The file gets its name only when it is whole and durable.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{
    OpenError, Transformer,
    codec::{FRAME_HEAD, FrameWriter, Record, Records, SNAPSHOT_MAGIC, frame},
    disk::{Disk, sync_dir},
    open_value,
    state::State,
};
use crate::{Entry, LeaseId, Revision};

/// Keys read per lock.
const CHUNK: usize = 128;
/// Frames are closed when they have grown to this.
const FRAME_BYTES: usize = 64 << 10;

/// `snapshot-000000000000002a`: the state before log segment 0x2a.
pub(super) fn snapshot_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("snapshot-{seq:016x}"))
}

/// What a snapshot holds beside keys; taken when the log is rotated.
pub(super) struct Head {
    /// The first log segment that is not covered.
    pub(super) seq: u64,
    pub(super) revision: Revision,
    pub(super) last_lease: LeaseId,
    /// Id, time to live, what remains of it.
    pub(super) leases: Vec<(LeaseId, Duration, Duration)>,
}

/// Writes the state at `head.revision`, which the caller has pinned, unless `stop` gets set. Returns the file's length.
pub(super) fn write(
    dir: &Path,
    head: &Head,
    state: &RwLock<State>,
    transformer: Option<&dyn Transformer>,
    disk: &Arc<dyn Disk>,
    stop: &AtomicBool,
) -> io::Result<u64> {
    let temporary = dir.join(format!("snapshot-{:016x}.tmp", head.seq));
    let written = write_file(&temporary, head, state, transformer, disk.as_ref(), stop).and_then(|len| {
        fs::rename(&temporary, snapshot_path(dir, head.seq))?;
        sync_dir(dir)?;
        Ok(len)
    });
    if written.is_err() {
        // What remains is removed at the next start.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_file(
    path: &Path,
    head: &Head,
    state: &RwLock<State>,
    transformer: Option<&dyn Transformer>,
    disk: &dyn Disk,
    stop: &AtomicBool,
) -> io::Result<u64> {
    let file = File::create(path)?;
    disk.write(&file, SNAPSHOT_MAGIC)?;
    let mut len = SNAPSHOT_MAGIC.len() as u64;
    let mut writer = FrameWriter::default();
    let mut flush = |writer: &mut FrameWriter| -> io::Result<()> {
        let frame = writer.finish();
        len += frame.len() as u64;
        disk.write(&file, frame)?;
        writer.start();
        Ok(())
    };
    writer.start();
    writer.begin(head.revision, head.last_lease);
    for (id, ttl, remaining) in &head.leases {
        writer.lease(*id, ttl.as_millis() as u64, remaining.as_millis() as u64);
    }
    let mut entries = 0;
    let mut cursor: Option<Arc<str>> = None;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let (chunk, next) = state.read().chunk(cursor.as_deref(), head.revision, CHUNK);
        for entry in &chunk {
            let sealed = transformer.map(|transformer| transformer.seal(&entry.key, &entry.value));
            let value = sealed.as_deref().unwrap_or(&entry.value);
            writer.entry(&entry.key, entry.create_revision, entry.mod_revision, entry.lease.unwrap_or_default(), value);
            if writer.len() > FRAME_BYTES {
                flush(&mut writer)?;
            }
        }
        entries += chunk.len() as u64;
        let Some(next) = next else { break };
        cursor = Some(next);
    }
    writer.end(entries);
    flush(&mut writer)?;
    disk.sync(&file)?;
    Ok(len)
}

/// Fills an empty state from a snapshot. Returns the file's length.
pub(super) fn load(
    path: &Path,
    state: &mut State,
    transformer: Option<&dyn Transformer>,
    now: Instant,
) -> Result<u64, OpenError> {
    let io_error = |source| OpenError::Io { what: "read", path: path.into(), source };
    let damaged = |offset: u64, why: &str| OpenError::Damaged { path: path.into(), offset, why: why.to_string() };
    let mut file = BufReader::new(File::open(path).map_err(io_error)?);
    let mut magic = [0; SNAPSHOT_MAGIC.len()];
    file.read_exact(&mut magic).map_err(io_error)?;
    if &magic != SNAPSHOT_MAGIC {
        return Err(damaged(0, "it does not begin like a snapshot of this version"));
    }
    let mut at = SNAPSHOT_MAGIC.len() as u64;
    let (mut entries, mut end) = (0, None);
    let mut bytes = Vec::new();
    while end.is_none() {
        bytes.resize(FRAME_HEAD, 0);
        file.read_exact(&mut bytes).map_err(|_| damaged(at, "it ends too early"))?;
        let len = bytes.iter().take(4).rev().fold(0_u64, |len, byte| len << 8 | u64::from(*byte));
        // `take` bounds what a damaged length can make us allocate to what the file has.
        file.by_ref().take(len).read_to_end(&mut bytes).map_err(io_error)?;
        let (payload, len) = frame(&bytes).ok_or_else(|| damaged(at, "a checksum does not match"))?;
        for record in Records(payload) {
            match record.map_err(|_| damaged(at, "unknown record in a sound frame"))? {
                Record::Begin { revision, last_lease } => {
                    state.loaded(revision);
                    state.leases.last_id = last_lease;
                }
                Record::Lease { id, ttl_ms, remaining_ms } => {
                    let remaining = Duration::from_millis(remaining_ms);
                    state.leases.set(id, Duration::from_millis(ttl_ms), now + remaining);
                }
                Record::Entry { key, create_revision, mod_revision, lease, value } => {
                    let value = open_value(transformer, key, value)?;
                    let lease = Some(lease).filter(|lease| *lease != 0);
                    let key = key.into();
                    state.load(Entry { key, value: Bytes::from(value), create_revision, mod_revision, lease });
                    entries += 1;
                }
                Record::End { entries: count } => end = Some(count),
                _ => return Err(damaged(at, "a record that belongs into a log segment")),
            }
        }
        at += len as u64;
    }
    if end != Some(entries) {
        return Err(damaged(at, "the number of entries is wrong"));
    }
    Ok(at)
}
