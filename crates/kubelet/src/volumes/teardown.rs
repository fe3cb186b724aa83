//! Taking a pod's directory down: every mount below it, innermost first, then the files.

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

/// Mount points at or below `root`, innermost first, from `/proc/self/mountinfo`.
fn mounts_below(root: &Path, table: &str) -> Vec<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescape(point)));
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(root)).collect();
    below.reverse();
    below.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    below
}

/// Octal escapes of the mount table: `\040` is a space.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(crate) fn is_mount_point(path: &Path) -> io::Result<bool> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Ok(mounts_below(&path, &table).contains(&path))
}

/// Unmounts everything below `directory` and removes it. A directory that is not there is fine.
pub(crate) fn remove(directory: &Path) -> io::Result<()> {
    let Ok(directory) = directory.canonicalize() else { return Ok(()) };
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    for point in mounts_below(&directory, &table) {
        match umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // What is still mounted belongs to somebody: its files must not be deleted through the mount.
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    if let Some(point) = mounts_below(&directory, &table).first() {
        return Err(io::Error::other(format!("{} is still mounted", point.display())));
    }
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn innermost_first() {
        let table = "1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /p/a rw - tmpfs x rw\n3 2 0:3 / /p/a/b\\040c rw - tmpfs x rw\n\
                     4 1 0:4 / /pa rw - tmpfs x rw\n";
        assert_eq!(mounts_below(Path::new("/p"), table), [PathBuf::from("/p/a/b c"), PathBuf::from("/p/a")]);
    }
}
