//! Images: pulled or imported, unpacked once a layer, found by name, digest or id.
//!
//! ```text
//! ROOT/images.json              which images there are: names, digests, layers, size
//! ROOT/blobs/sha256/HEX         configurations and manifests
//! ROOT/layers/CHAIN             an unpacked layer, ready as a lower directory of an overlay
//! ROOT/layers/.new-*            one being unpacked; left-overs go with the next sweep
//! ```
//!
//! A layer's directory is named by the first 26 hex digits of its chain id (the digest over it and all layers below),
//! so images share layers and many names fit into the options of one mount. Compressed layers are not kept.
//!
//! Invariant: `images.json` names a layer only after it is complete; a layer that no image and no container names is
//! removed.
//!
//! More than one process may have the store open (the server, and the command line importing an image): the index is
//! read again when its file has changed, changed under the lock `index.lock`, and layers are swept only while nobody
//! holds `layers.lock`, which every import and pull does.

mod import;
mod layer;
pub(crate) mod manifest;
mod preload;
mod pull;
pub(crate) mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use nix::fcntl::{Flock, FlockArg};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::manifest::ImageConfig;
pub use self::pull::Credentials;

/// Hex digits of a chain id in a layer's directory name: 104 bits, far from any collision.
const CHAIN_DIGITS: usize = 26;
/// What an image without layers is based on, beside `layers`.
pub(crate) const EMPTY_LAYER: &str = "empty";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{reference:?} is not an image reference: {why}")]
    Reference { reference: String, why: String },
    #[error("image {0:?} not found")]
    NotFound(String),
    #[error("{what}: {path}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{what} is not what an image has")]
    Json { what: String, source: serde_json::Error },
    #[error("{what} has digest {got}, expected {want}")]
    Digest { what: String, want: String, got: String },
    #[error("layer entry {path:?}: {why}")]
    Layer { path: PathBuf, why: String },
    #[error("{path} holds no image: neither manifest.json nor index.json is in it")]
    NoImage { path: PathBuf },
    #[error("no image for {0}; it offers {1}")]
    Platform(String, String),
    #[error("failed to pull and unpack image {reference:?} from {host}")]
    Pull { reference: String, host: String, source: Box<oci_client::errors::OciDistributionError> },
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { what, path, source }
    }
}

/// One image as the index knows it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its configuration, `sha256:...`.
    pub id: String,
    /// Names with tags, in full: `docker.io/library/busybox:latest`.
    pub tags: BTreeSet<String>,
    /// Names with manifest digests: `docker.io/library/busybox@sha256:...`.
    pub digests: BTreeSet<String>,
    /// Bytes on disk, layers unpacked.
    pub size: u64,
    /// Directory names below `layers`, lowest first.
    pub(crate) layers: Vec<String>,
    #[serde(skip)]
    pub(crate) config: Arc<ImageConfig>,
}

#[derive(Default)]
struct Index {
    images: BTreeMap<String, Arc<Image>>,
    /// Inode and time of the file it was read from.
    read_from: Option<(u64, i64, i64)>,
}

/// The images of one root directory.
pub struct Images {
    root: PathBuf,
    index: RwLock<Index>,
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    pub(crate) registries: crate::config::Registries,
}

/// The full form of a reference: registry, `library/`, `:latest`.
pub fn normalize(reference: &str) -> Result<String, Error> {
    Ok(parse(reference)?.whole())
}

pub(crate) fn parse(reference: &str) -> Result<oci_client::Reference, Error> {
    reference.parse().map_err(|why: oci_client::ParseError| Error::Reference {
        reference: reference.to_owned(),
        why: why.to_string(),
    })
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Images {
    /// Opens or makes the store and removes half-unpacked layers.
    pub fn open(root: &Path, registries: crate::config::Registries) -> Result<Images, Error> {
        for dir in ["layers", "blobs/sha256", EMPTY_LAYER] {
            let path = root.join(dir);
            std::fs::create_dir_all(&path).map_err(Error::io("cannot make the image store's directory", path))?;
        }
        let images = Images { root: root.to_owned(), index: RwLock::default(), locks: Mutex::default(), registries };
        drop(images.fresh());
        Ok(images)
    }

    /// The index as it is on disk now.
    fn fresh(&self) -> parking_lot::RwLockReadGuard<'_, Index> {
        let stamp = self.stamp();
        let index = self.index.read();
        if index.read_from == stamp {
            return index;
        }
        drop(index);
        let mut index = self.index.write();
        if index.read_from != stamp {
            match self.load() {
                Ok(images) => *index = Index { images, read_from: stamp },
                Err(error) => tracing::error!(error = %crate::chain(&error), "keeping the images known so far"),
            }
        }
        parking_lot::RwLockWriteGuard::downgrade(index)
    }

    fn stamp(&self) -> Option<(u64, i64, i64)> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(self.root.join("images.json")).ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
    }

    fn load(&self) -> Result<BTreeMap<String, Arc<Image>>, Error> {
        let path = self.root.join("images.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(Error::io("cannot read the image index", path)(error)),
        };
        let known: Vec<Image> =
            serde_json::from_slice(&text).map_err(|source| Error::Json { what: path.display().to_string(), source })?;
        let mut images = BTreeMap::new();
        for mut image in known {
            match self.blob(&image.id).and_then(|blob| ImageConfig::parse(&image.id, &blob)) {
                Ok(config) => {
                    image.config = Arc::new(config);
                    images.insert(image.id.clone(), Arc::new(image));
                }
                Err(error) => {
                    tracing::warn!(image = image.id, error = %crate::chain(&error), "dropping a broken image")
                }
            }
        }
        Ok(images)
    }

    /// Changes the index, on disk and here.
    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Arc<Image>>) -> T) -> Result<T, Error> {
        let _turn = self.file_lock("index.lock", FlockArg::LockExclusive)?;
        drop(self.fresh());
        let mut index = self.index.write();
        let mut images = index.images.clone();
        let result = change(&mut images);
        let all: Vec<&Image> = images.values().map(Arc::as_ref).collect();
        let json = serde_json::to_vec_pretty(&all)
            .map_err(|source| Error::Json { what: "the image index".to_owned(), source })?;
        let path = self.root.join("images.json");
        crate::disk::replace(&path, &json).map_err(Error::io("cannot write the image index", path))?;
        *index = Index { images, read_from: self.stamp() };
        Ok(result)
    }

    fn file_lock(&self, name: &str, how: FlockArg) -> Result<Flock<std::fs::File>, Error> {
        let path = self.root.join(name);
        let file = std::fs::File::create(&path).map_err(Error::io("cannot open the lock", &path))?;
        Flock::lock(file, how).map_err(|(_, error)| Error::io("cannot take the lock", path)(error.into()))
    }

    /// Held by whoever brings layers that no image names yet.
    fn layers_lock(&self) -> Result<Flock<std::fs::File>, Error> {
        self.file_lock("layers.lock", FlockArg::LockShared)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    fn layer_dirs(&self) -> Result<Vec<String>, Error> {
        let path = self.layers();
        let entries = std::fs::read_dir(&path).map_err(Error::io("cannot list layers", path))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    pub fn list(&self) -> Vec<Arc<Image>> {
        self.fresh().images.values().cloned().collect()
    }

    /// Finds an image by id (with or without `sha256:`, or a unique beginning of it), name or name with digest.
    pub fn find(&self, reference: &str) -> Option<Arc<Image>> {
        let index = self.fresh();
        let id = reference.strip_prefix("sha256:").unwrap_or(reference);
        if id.len() >= 7 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let from = format!("sha256:{id}");
            let mut matches = index.images.range(from.clone()..).take_while(|(key, _)| key.starts_with(&from));
            if let (Some((_, image)), None) = (matches.next(), matches.next()) {
                return Some(Arc::clone(image));
            }
        }
        let parsed = parse(reference).ok()?;
        let found = if let Some(digest) = parsed.digest() {
            let name = format!("{}/{}@{digest}", parsed.registry(), parsed.repository());
            index.images.values().find(|image| image.digests.contains(&name))
        } else {
            let name = parsed.whole();
            index.images.values().find(|image| image.tags.contains(&name))
        };
        found.cloned()
    }

    /// Takes an image whose layers are all there; its names are taken away from other images.
    fn commit(&self, mut image: Image) -> Result<Arc<Image>, Error> {
        self.change(|images| {
            if let Some(known) = images.get(&image.id) {
                image.tags.extend(known.tags.iter().cloned());
                image.digests.extend(known.digests.iter().cloned());
            }
            for other in images.values_mut().filter(|other| other.id != image.id) {
                if !other.tags.is_disjoint(&image.tags) {
                    let mut without = Image::clone(other);
                    without.tags.retain(|tag| !image.tags.contains(tag));
                    *other = Arc::new(without);
                }
            }
            let image = Arc::new(image);
            images.insert(image.id.clone(), Arc::clone(&image));
            image
        })
    }

    /// Removes an image with all its names; false if there is none. Layers go once `in_use` does not name them.
    pub fn remove(&self, reference: &str, in_use: &BTreeSet<String>) -> Result<bool, Error> {
        let Some(image) = self.find(reference) else { return Ok(false) };
        self.change(|images| images.remove(&image.id))?;
        self.sweep(in_use)?;
        Ok(true)
    }

    /// Takes one name away; the image goes with its last name.
    pub fn untag(&self, reference: &str, in_use: &BTreeSet<String>) -> Result<bool, Error> {
        let Some(image) = self.find(reference) else { return Ok(false) };
        let name = normalize(reference).unwrap_or_default();
        if !image.tags.contains(&name) || image.tags.len() == 1 {
            return self.remove(reference, in_use);
        }
        self.change(|images| {
            let mut without = Image::clone(&image);
            without.tags.remove(&name);
            images.insert(without.id.clone(), Arc::new(without));
        })?;
        Ok(true)
    }

    /// Removes layers and blobs that nobody names, unless some process is just bringing some: then the next sweep does.
    pub(crate) fn sweep(&self, in_use: &BTreeSet<String>) -> Result<(), Error> {
        let Ok(_alone) = self.file_lock("layers.lock", FlockArg::LockExclusiveNonblock) else { return Ok(()) };
        let index = self.fresh();
        let mut wanted = in_use.clone();
        wanted.extend(index.images.values().flat_map(|image| image.layers.iter().cloned()));
        for name in self.layer_dirs()?.into_iter().filter(|name| !wanted.contains(name)) {
            let path = self.layers().join(&name);
            std::fs::remove_dir_all(&path).map_err(Error::io("cannot remove layer", path))?;
        }
        let blobs = self.root.join("blobs/sha256");
        let keep: BTreeSet<&str> = index.images.keys().map(|id| id.trim_start_matches("sha256:")).collect();
        for entry in std::fs::read_dir(&blobs).map_err(Error::io("cannot list blobs", &blobs))?.flatten() {
            if entry.file_name().to_str().is_some_and(|name| !keep.contains(name)) {
                std::fs::remove_file(entry.path()).map_err(Error::io("cannot remove blob", entry.path()))?;
            }
        }
        Ok(())
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    fn blob(&self, digest: &str) -> Result<Vec<u8>, Error> {
        let path = self.blob_path(digest);
        std::fs::read(&path).map_err(Error::io("cannot read blob", path))
    }

    fn put_blob(&self, digest: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.blob_path(digest);
        crate::disk::replace(&path, bytes).map_err(Error::io("cannot write blob", path))
    }

    /// A lock that everybody who asks for the same `key` shares.
    fn lock(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock();
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(key.to_owned(), Arc::downgrade(&lock));
        lock
    }

    /// Bytes and inodes that the store uses.
    pub(crate) fn usage(&self) -> (u64, u64) {
        crate::disk::usage(&self.layers())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (given, expect) in [
            ("busybox", Some("docker.io/library/busybox:latest")),
            ("busybox:1.36", Some("docker.io/library/busybox:1.36")),
            ("localhost:5000/a/b", Some("localhost:5000/a/b:latest")),
            ("quay.io/a/b:c", Some("quay.io/a/b:c")),
            ("UPPER", None),
            ("a b", None),
            ("", None),
            ("x:", None),
            ("http://x/y", None),
        ] {
            assert_eq!(normalize(given).ok().as_deref(), expect, "{given:?}");
        }
    }

    #[test]
    fn a_name_moves_and_an_image_goes_with_its_last() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(dir.path(), Default::default()).unwrap();
        let image = |n: u8, tags: &[&str]| Image {
            id: digest(&[n]),
            tags: tags.iter().map(|tag| normalize(tag).unwrap()).collect(),
            ..Image::default()
        };
        images.commit(image(1, &["a", "b"])).unwrap();
        images.commit(image(2, &["a"])).unwrap();
        assert_eq!(images.find("a").unwrap().id, digest(&[2]));
        assert_eq!(images.find("b").unwrap().id, digest(&[1]));
        assert_eq!(images.find(&digest(&[1])[7..20]).unwrap().id, digest(&[1]));
        assert!(images.untag("b", &BTreeSet::new()).unwrap());
        assert!(images.find(&digest(&[1])).is_none());
        assert!(!images.remove("nothing", &BTreeSet::new()).unwrap());
    }
}
