//! Images: pulled or imported, unpacked once a layer, found by name, digest or id.
//!
//! ```text
//! ROOT/images.json              which images there are: names, digests, layers, size
//! ROOT/blobs/sha256/HEX         configurations and manifests
//! ROOT/layers/CHAIN             an unpacked layer, ready as a lower directory of an overlay
//! ROOT/layers/.new-*            one being unpacked; removed at open
//! ```
//!
//! A layer's directory is named by the first 26 hex digits of its chain id (the digest over it and all layers below),
//! so images share layers and many names fit into the options of one mount. Compressed layers are not kept.
//!
//! Invariant: `images.json` names a layer only after it is complete; a layer that no image and no container names is
//! removed.

mod import;
mod layer;
pub(crate) mod manifest;
mod pull;
pub(crate) mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::manifest::ImageConfig;
pub use self::pull::Credentials;

/// Hex digits of a chain id in a layer's directory name: 104 bits, far from any collision.
const CHAIN_DIGITS: usize = 26;

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
struct Index(BTreeMap<String, Arc<Image>>);

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
        for dir in ["layers", "blobs/sha256"] {
            let path = root.join(dir);
            std::fs::create_dir_all(&path).map_err(Error::io("cannot make the image store's directory", path))?;
        }
        let images = Images { root: root.to_owned(), index: RwLock::default(), locks: Mutex::default(), registries };
        for entry in images.layer_dirs()?.into_iter().filter(|name| name.starts_with(".new-")) {
            let path = images.layers().join(entry);
            std::fs::remove_dir_all(&path).map_err(Error::io("cannot remove a half-unpacked layer", path))?;
        }
        images.load()?;
        Ok(images)
    }

    fn load(&self) -> Result<(), Error> {
        let path = self.root.join("images.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io("cannot read the image index", path)(error)),
        };
        let known: Vec<Image> =
            serde_json::from_slice(&text).map_err(|source| Error::Json { what: path.display().to_string(), source })?;
        let mut index = self.index.write();
        for mut image in known {
            match self.blob(&image.id).and_then(|blob| ImageConfig::parse(&image.id, &blob)) {
                Ok(config) => {
                    image.config = Arc::new(config);
                    index.0.insert(image.id.clone(), Arc::new(image));
                }
                Err(error) => {
                    tracing::warn!(image = image.id, error = %crate::chain(&error), "dropping a broken image")
                }
            }
        }
        Ok(())
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
        self.index.read().0.values().cloned().collect()
    }

    /// Finds an image by id (with or without `sha256:`, or a unique beginning of it), name or name with digest.
    pub fn find(&self, reference: &str) -> Option<Arc<Image>> {
        let index = self.index.read();
        let id = reference.strip_prefix("sha256:").unwrap_or(reference);
        if id.len() >= 7 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let from = format!("sha256:{id}");
            let mut matches = index.0.range(from.clone()..).take_while(|(key, _)| key.starts_with(&from));
            if let (Some((_, image)), None) = (matches.next(), matches.next()) {
                return Some(Arc::clone(image));
            }
        }
        let parsed = parse(reference).ok()?;
        let found = if let Some(digest) = parsed.digest() {
            let name = format!("{}/{}@{digest}", parsed.registry(), parsed.repository());
            index.0.values().find(|image| image.digests.contains(&name))
        } else {
            let name = parsed.whole();
            index.0.values().find(|image| image.tags.contains(&name))
        };
        found.cloned()
    }

    /// Takes an image whose layers are all there; its names are taken away from other images.
    fn commit(&self, image: Image) -> Result<Arc<Image>, Error> {
        let mut index = self.index.write();
        let mut merged = image;
        if let Some(known) = index.0.get(&merged.id) {
            merged.tags.extend(known.tags.iter().cloned());
            merged.digests.extend(known.digests.iter().cloned());
        }
        for other in index.0.values_mut().filter(|other| other.id != merged.id) {
            if other.tags.intersection(&merged.tags).next().is_some() {
                let mut without = Image::clone(other);
                without.tags.retain(|tag| !merged.tags.contains(tag));
                *other = Arc::new(without);
            }
        }
        let merged = Arc::new(merged);
        index.0.insert(merged.id.clone(), Arc::clone(&merged));
        self.save(&index)?;
        Ok(merged)
    }

    /// Removes an image with all its names; no error if there is none. Layers go once `in_use` does not name them.
    pub fn remove(&self, reference: &str, in_use: &BTreeSet<String>) -> Result<bool, Error> {
        let Some(image) = self.find(reference) else { return Ok(false) };
        {
            let mut index = self.index.write();
            index.0.remove(&image.id);
            self.save(&index)?;
        }
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
        let mut index = self.index.write();
        let mut without = Image::clone(&image);
        without.tags.remove(&name);
        index.0.insert(without.id.clone(), Arc::new(without));
        self.save(&index)?;
        Ok(true)
    }

    /// Removes layers and blobs that nobody names.
    pub(crate) fn sweep(&self, in_use: &BTreeSet<String>) -> Result<(), Error> {
        let mut wanted = in_use.clone();
        let index = self.index.read();
        wanted.extend(index.0.values().flat_map(|image| image.layers.iter().cloned()));
        // Layers of a pull in flight are named by nobody yet; it holds the layer's lock.
        let busy = |name: &str| self.locks.lock().get(name).is_some_and(|lock| lock.strong_count() > 0);
        for name in self.layer_dirs()? {
            if !wanted.contains(&name) && !name.starts_with(".new-") && !busy(&name) {
                let path = self.layers().join(&name);
                std::fs::remove_dir_all(&path).map_err(Error::io("cannot remove layer", path))?;
            }
        }
        let blobs = self.root.join("blobs/sha256");
        let keep: BTreeSet<&str> = index.0.values().map(|image| image.id.trim_start_matches("sha256:")).collect();
        for entry in std::fs::read_dir(&blobs).map_err(Error::io("cannot list blobs", &blobs))?.flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| !keep.contains(name) && !busy(name)) {
                std::fs::remove_file(entry.path()).map_err(Error::io("cannot remove blob", entry.path()))?;
            }
        }
        Ok(())
    }

    fn save(&self, index: &Index) -> Result<(), Error> {
        let all: Vec<&Image> = index.0.values().map(Arc::as_ref).collect();
        let json = serde_json::to_vec_pretty(&all)
            .map_err(|source| Error::Json { what: "the image index".to_owned(), source })?;
        let path = self.root.join("images.json");
        crate::disk::replace(&path, &json).map_err(Error::io("cannot write the image index", path))
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
