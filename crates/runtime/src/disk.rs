//! Files that are there whole or not at all, and how much a directory holds.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Writes `bytes` beside `path` and renames: a reader sees the old file or the new one. Synced before the rename.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, true)
}

/// As [`replace`] but not synced: for what a power cut makes worthless anyway.
pub(crate) fn replace_volatile(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, false)
}

fn write(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    if sync {
        file.sync_data()?;
    }
    fs::rename(&temporary, path)
}

/// Allocated bytes and inodes below `path`, not counting what vanishes meanwhile; other file systems are left out.
pub(crate) fn usage(path: &Path) -> (u64, u64) {
    let Ok(top) = fs::symlink_metadata(path) else { return (0, 0) };
    let (mut bytes, mut inodes) = (0, 0);
    let mut pending = vec![path.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != top.dev() {
                continue;
            }
            bytes += metadata.blocks() * 512;
            inodes += 1;
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    (bytes, inodes)
}
