//! Archives in a folder become images when the runtime opens, each once: an image that was removed stays removed until
//! its file changes.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Error, Image, Images};

/// Inode, size and time of a file by its path, in `ROOT/preloaded.json`.
type Seen = BTreeMap<PathBuf, (u64, u64, i64)>;

impl Images {
    /// Imports what is new in `dir`; blocks. A folder that is not there has nothing in it.
    pub(crate) fn preload(&self, dir: &Path) -> Vec<(PathBuf, Result<Arc<Image>, Error>)> {
        let record = self.root().join("preloaded.json");
        let seen: Seen =
            std::fs::read(&record).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        let (mut now, mut results) = (Seen::new(), Vec::new());
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            let stamp = (metadata.ino(), metadata.size(), metadata.mtime());
            if seen.get(&path) == Some(&stamp) {
                now.insert(path, stamp);
                continue;
            }
            match self.import(&path) {
                Ok(images) => {
                    results.extend(images.into_iter().map(|image| (path.clone(), Ok(image))));
                    now.insert(path, stamp);
                }
                Err(error) => results.push((path, Err(error))),
            }
        }
        if now != seen
            && let Err(source) = crate::disk::replace_volatile(&record, &serde_json::to_vec(&now).unwrap_or_default())
        {
            results.push((record.clone(), Err(Error::io("cannot record what was preloaded", record)(source))));
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_imported_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(&dir.path().join("root"), Default::default()).unwrap();
        let folder = dir.path().join("preload");
        assert!(images.preload(&folder).is_empty(), "a missing folder");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("junk.tar"), "junk").unwrap();
        for _ in 0..2 {
            let results = images.preload(&folder);
            assert!(matches!(&results[..], [(path, Err(_))] if path.ends_with("junk.tar")), "{results:?}");
        }
    }
}
