//! Log segments: appended to by the commit thread, replayed at start.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    OpenError,
    codec::{LOG_MAGIC, Record, Records, find_frame, frame},
    disk::{Disk, sync_dir},
};

/// The segment that is written to.
pub(super) struct Log {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    file: File,
    seq: u64,
    /// Length up to the last durable frame.
    len: u64,
    /// A failed write may have left bytes behind `len` that could not be removed.
    dirty: bool,
}

/// `log-000000000000002a`
pub(super) fn segment_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("log-{seq:016x}"))
}

impl Log {
    /// Creates segment `seq`, durably.
    pub(super) fn create(dir: &Path, seq: u64, disk: Arc<dyn Disk>) -> io::Result<Self> {
        let path = segment_path(dir, seq);
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        let write = || {
            disk.truncate(&file, 0)?;
            disk.write(&file, LOG_MAGIC)?;
            disk.sync(&file)?;
            sync_dir(dir)
        };
        if let Err(error) = write() {
            // A leftover would be replayed as an empty segment: harmless, so the first error is the one to tell.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self { dir: dir.to_path_buf(), disk, file, seq, len: LOG_MAGIC.len() as u64, dirty: false })
    }

    /// Goes on with a replayed segment whose sound part is `len` bytes long, cutting what is behind.
    pub(super) fn resume(dir: &Path, seq: u64, len: u64, disk: Arc<dyn Disk>) -> io::Result<Self> {
        if len < LOG_MAGIC.len() as u64 {
            return Self::create(dir, seq, disk);
        }
        let file = OpenOptions::new().append(true).open(segment_path(dir, seq))?;
        let dirty = file.metadata()?.len() > len;
        let mut log = Self { dir: dir.to_path_buf(), disk, file, seq, len, dirty };
        log.repair()?;
        Ok(log)
    }

    /// Appends a frame and makes it durable. After an error the log is as it was before.
    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        self.repair()?;
        self.dirty = true;
        let written = self.disk.write(&self.file, frame).and_then(|()| self.disk.sync(&self.file));
        match written {
            Ok(()) => {
                self.len += frame.len() as u64;
                self.dirty = false;
                Ok(())
            }
            Err(error) => {
                if let Err(again) = self.repair() {
                    tracing::error!(error = %again, segment = self.seq, "cannot undo a failed write to the log yet");
                }
                Err(error)
            }
        }
    }

    fn repair(&mut self) -> io::Result<()> {
        if self.dirty {
            self.disk.truncate(&self.file, self.len)?;
            self.disk.sync(&self.file)?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Begins the next segment; the old one is complete and durable. Returns the new one's number.
    pub(super) fn rotate(&mut self) -> io::Result<u64> {
        self.repair()?;
        *self = Self::create(&self.dir, self.seq + 1, self.disk.clone())?;
        Ok(self.seq)
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }
}

/// Reads a segment and hands its records on; the length of its sound part.
///
/// In the newest segment an unsound end is what a crash leaves: the batch was never acknowledged. Anywhere else, or
/// with sound frames behind it, it is damage.
pub(super) fn replay(
    path: &Path,
    newest: bool,
    mut apply: impl FnMut(Record<'_>) -> Result<(), String>,
) -> Result<u64, OpenError> {
    let damaged = |offset: usize, why: String| OpenError::Damaged { path: path.into(), offset: offset as u64, why };
    let bytes = fs::read(path).map_err(|source| OpenError::Io { what: "read", path: path.into(), source })?;
    if newest && bytes.len() < LOG_MAGIC.len() && LOG_MAGIC.starts_with(&bytes) {
        return Ok(0);
    }
    if !bytes.starts_with(LOG_MAGIC) {
        return Err(damaged(0, "it does not begin like a log segment of this version".to_string()));
    }
    let mut at = LOG_MAGIC.len();
    while let Some((payload, len)) = frame(&bytes[at..]) {
        for record in Records(payload) {
            let record = record.map_err(|_| damaged(at, "unknown record in a sound frame".to_string()))?;
            apply(record).map_err(|why| damaged(at, why))?;
        }
        at += len;
    }
    if at < bytes.len() {
        if let Some(next) = find_frame(&bytes[at..]) {
            return Err(damaged(at, format!("a sound batch follows at byte {}", at + next)));
        }
        if !newest {
            return Err(damaged(at, "it ends in the middle of a batch, but newer segments exist".to_string()));
        }
        let cut = bytes.len() - at;
        tracing::warn!(path = %path.display(), offset = at, bytes = cut, "cut an unfinished batch off the log");
    }
    Ok(at as u64)
}
