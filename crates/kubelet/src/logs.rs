//! Files of containers' logs: rotation and removal.
//!
//! ```text
//! 0.log                      what the runtime writes now
//! 0.log.20261121-100000      an older part, newest first to read
//! 0.log.20261120-100000.gz   older still
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

use crate::config::Logs;
use crate::cri::Runtime;

/// Removes a log and its rotated parts.
pub(crate) fn remove(path: &str) {
    if path.is_empty() {
        return;
    }
    let path = Path::new(path);
    for file in rotated(path).into_iter().chain([path.to_owned()]) {
        // What is gone already is what was wanted.
        let _ = fs::remove_file(file);
    }
}

/// Rotated parts of a log, oldest first.
pub(crate) fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let prefix = format!("{}.", name.to_string_lossy());
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    let mut files: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Rotates the log of the running container `id` if it has grown past the limit.
pub(crate) async fn rotate(runtime: &Runtime, id: &str, path: &Path, limits: &Logs) -> io::Result<()> {
    if fs::metadata(path)?.len() < limits.max_bytes {
        return Ok(());
    }
    let mut parts = rotated(path);
    // The current file and the part about to be made count too.
    while parts.len() + 2 > limits.max_files.max(2) {
        fs::remove_file(parts.remove(0))?;
    }
    for part in parts.iter().filter(|part| part.extension().is_none_or(|kind| kind != "gz")) {
        compress(part)?;
    }
    let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let aside = PathBuf::from(format!("{}.{stamp}", path.display()));
    fs::rename(path, &aside)?;
    if let Err(error) = runtime.reopen_log(id).await {
        // Nothing is lost: the runtime goes on writing to the file under its old name.
        fs::rename(&aside, path)?;
        return Err(io::Error::other(error));
    }
    Ok(())
}

fn compress(part: &Path) -> io::Result<()> {
    let target = PathBuf::from(format!("{}.gz", part.display()));
    let temporary = PathBuf::from(format!("{}.tmp", part.display()));
    let mut encoder = GzEncoder::new(fs::File::create(&temporary)?, Compression::default());
    io::copy(&mut fs::File::open(part)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&temporary, target)?;
    fs::remove_file(part)
}
