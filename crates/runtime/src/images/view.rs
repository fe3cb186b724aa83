//! Looks into an image without mounting it: the layers from the uppermost down, whiteouts and symbolic links included.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// Symbolic links followed before a path counts as a loop.
const LINKS_MAX: usize = 40;
/// /etc/passwd of an image is not larger.
const FILE_MAX: u64 = 4 << 20;

/// Directories, uppermost first.
pub(crate) struct View(pub(crate) Vec<PathBuf>);

impl View {
    /// The content of a regular file.
    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        let mut pending: Vec<std::ffi::OsString> = parts(Path::new(path));
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            let found = self.find(&next)?;
            let metadata = fs::symlink_metadata(&found).ok()?;
            if metadata.is_symlink() {
                links += 1;
                if links > LINKS_MAX {
                    return None;
                }
                let target = fs::read_link(&found).ok()?;
                if target.is_absolute() {
                    at = PathBuf::new();
                }
                pending.extend(parts(&target));
            } else {
                at = next;
                if pending.is_empty() {
                    return (metadata.is_file() && metadata.len() <= FILE_MAX).then(|| fs::read(&found).ok()).flatten();
                }
            }
        }
        None
    }

    /// Where `path`, free of symbolic links but for its last part, is: the uppermost layer that has it.
    fn find(&self, path: &Path) -> Option<PathBuf> {
        for layer in &self.0 {
            // A whiteout or a non-directory on the way hides the layers below; so does an opaque directory.
            let mut at = layer.clone();
            let mut opaque = false;
            let mut complete = true;
            for part in path.components() {
                at.push(part);
                match fs::symlink_metadata(&at) {
                    Ok(found) if found.file_type().is_char_device() && found.rdev() == 0 => return None,
                    Ok(found) if found.is_dir() => {
                        opaque |= xattr::get(&at, "trusted.overlay.opaque").ok().flatten().as_deref() == Some(b"y");
                    }
                    Ok(_) => {}
                    Err(_) => {
                        complete = false;
                        break;
                    }
                }
            }
            if complete {
                return Some(at);
            }
            if opaque {
                return None;
            }
        }
        None
    }
}

/// The parts of a path, last first.
fn parts(path: &Path) -> Vec<std::ffi::OsString> {
    let mut parts: Vec<_> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_layers_win_and_links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str, files: &[(&str, &str)]| {
            for (path, text) in files {
                let path = dir.path().join(name).join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            dir.path().join(name)
        };
        let low = layer("low", &[("etc/passwd", "low"), ("etc/group", "low"), ("usr/x", "x")]);
        let up = layer("up", &[("etc/passwd", "up")]);
        std::os::unix::fs::symlink("/../../../../usr/x", up.join("link")).unwrap();
        std::os::unix::fs::symlink("loop", up.join("loop")).unwrap();
        let view = View(vec![up, low]);
        for (path, expect) in [
            ("/etc/passwd", Some("up")),
            ("etc/group", Some("low")),
            ("/etc", None),
            ("/none", None),
            ("/link", Some("x")),
            ("/loop", None),
        ] {
            assert_eq!(view.read(path).as_deref(), expect.map(str::as_bytes), "{path}");
        }
    }
}
