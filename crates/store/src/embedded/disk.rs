//! The file operations that can fail for want of room, behind a trait so that tests can make them fail.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use crate::Error;

/// Writes and syncs. Every method of the trait does the real thing.
pub(super) trait Disk: Send + Sync {
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    /// Data and what is needed to read it back, such as the length.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }
}

/// The machine's own.
pub(super) struct Real;

impl Disk for Real {}

/// Makes creations, renames and removals in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// What a failed write means to a caller.
pub(super) fn write_error(what: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull,
        _ => Error::Backend(format!("{what}: {error}")),
    }
}
