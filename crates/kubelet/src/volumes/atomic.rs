//! Writes the files of a volume so that a reader sees all of the old or all of the new.
//!
//! ```text
//! volume/..2026_11_21_10_00_00.4711/key    the files
//! volume/..data -> ..2026_11_21_10_00_00.4711
//! volume/key -> ..data/key                 what containers open
//! ```
//!
//! A new version is a new directory; one `rename` of `..data` makes it current.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use jiff::Timestamp;

use super::payload::Payload;

const DATA: &str = "..data";

/// Makes `payload` the content of `volume`. Returns whether anything changed.
///
/// With `group`, files and directories belong to it and it may read them.
pub(super) fn write(volume: &Path, payload: &Payload, group: Option<u32>, now: Timestamp) -> io::Result<bool> {
    fs::create_dir_all(volume)?;
    let link = volume.join(DATA);
    let current = fs::read_link(&link).ok().map(|target| volume.join(target));
    if current.as_deref().is_some_and(|current| same(current, payload).unwrap_or(false)) {
        return Ok(false);
    }
    let stamp = now.strftime("..%Y_%m_%d_%H_%M_%S");
    let name = format!("{stamp}.{}", rand::random::<u32>());
    let fresh = volume.join(&name);
    fill(&fresh, payload, group)?;

    let temporary = volume.join("..data_tmp");
    let _ = fs::remove_file(&temporary);
    symlink(&name, &temporary)?;
    fs::rename(&temporary, &link)?;

    let wanted: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let text = file_name.to_string_lossy();
        if !text.starts_with("..") && !wanted.contains(text.as_ref()) {
            fs::remove_file(entry.path())?;
        }
    }
    for name in wanted {
        let visible = volume.join(name);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new(DATA).join(name), &visible)?;
        }
    }
    if let Some(old) = current.filter(|old| *old != fresh && old.exists()) {
        fs::remove_dir_all(old)?;
    }
    Ok(true)
}

fn fill(root: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    make_directory(root, group)?;
    for (path, file) in payload {
        let target = root.join(path);
        let mut parent = root.to_owned();
        for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            if !parent.exists() {
                make_directory(&parent, group)?;
            }
        }
        fs::write(&target, &file.data)?;
        let readable = if group.is_some() { 0o440 } else { 0 };
        fs::set_permissions(&target, fs::Permissions::from_mode(file.mode | readable))?;
        if group.is_some() || file.owner.is_some() {
            chown(&target, file.owner, group)?;
        }
    }
    Ok(())
}

fn make_directory(path: &Path, group: Option<u32>) -> io::Result<()> {
    fs::create_dir(path)?;
    // The process's umask must not decide who may look.
    fs::set_permissions(path, fs::Permissions::from_mode(if group.is_some() { 0o2775 } else { 0o755 }))?;
    if group.is_some() {
        chown(path, None, group)?;
    }
    Ok(())
}

/// Whether `directory` holds exactly `payload`.
fn same(directory: &Path, payload: &Payload) -> io::Result<bool> {
    let mut seen = 0;
    let mut pending = vec![directory.to_owned()];
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(at)? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let name = path.strip_prefix(directory).map_err(io::Error::other)?.to_string_lossy().into_owned();
            match payload.get(&name) {
                Some(file) if fs::read(&path)? == file.data => seen += 1,
                _ => return Ok(false),
            }
        }
    }
    Ok(seen == payload.len())
}

#[cfg(test)]
mod tests {
    use super::super::payload::{Payload, put};
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let mut payload = Payload::new();
        for (path, text) in files {
            put(&mut payload, path, text.as_bytes().to_vec(), 0o640).unwrap();
        }
        payload
    }

    #[test]
    fn versions_replace_each_other_whole() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        let read = |name: &str| fs::read_to_string(volume.join(name)).ok();
        let now = Timestamp::from_second(0).unwrap();
        let first = payload(&[("a", "1"), ("b/c", "2")]);
        assert!(write(&volume, &first, None, now).unwrap());
        assert!(!write(&volume, &first, None, now).unwrap());
        assert_eq!((read("a").as_deref(), read("b/c").as_deref()), (Some("1"), Some("2")));
        assert_eq!(fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o640);

        let held = fs::canonicalize(volume.join("..data")).unwrap();
        assert!(write(&volume, &payload(&[("a", "3")]), None, now).unwrap());
        assert_eq!((read("a").as_deref(), read("b/c")), (Some("3"), None));
        assert!(!held.exists(), "the old version is gone");
        let left: Vec<_> = fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }

    #[test]
    fn paths_stay_inside() {
        let mut files = Payload::new();
        for path in ["", "/etc/passwd", "../x", "a/../../x", "..data"] {
            assert!(put(&mut files, path, Vec::new(), 0o644).is_err(), "{path}");
        }
    }
}
