//! Images from files: `docker save` archives and OCI layouts, as a tar (packed or not) or a directory.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::layer::plain;
use super::manifest::{Descriptor, ImageConfig, Manifest};
use super::{Error, Image, Images, digest, parse};

const CONTAINERD_NAME: &str = "io.containerd.image.name";
const OCI_NAME: &str = "org.opencontainers.image.ref.name";

/// An entry of docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Images {
    /// Imports all images in `path`; blocks. Without a name in the archive an image is called after the file.
    pub fn import(&self, path: &Path) -> Result<Vec<Arc<Image>>, Error> {
        let _bringing = self.layers_lock()?;
        let source = Source::open(path, &self.root)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        if let Some(json) = source.read_if_there("manifest.json")? {
            return self.import_docker(&source, &json);
        }
        match source.read_if_there("index.json")? {
            Some(json) => self.import_oci(&source, &json, &stem),
            None => Err(Error::NoImage { path: path.to_owned() }),
        }
    }

    fn import_docker(&self, source: &Source, json: &[u8]) -> Result<Vec<Arc<Image>>, Error> {
        let saved: Vec<Saved> = serde_json::from_slice(json)
            .map_err(|error| Error::Json { what: "manifest.json".to_owned(), source: error })?;
        let mut images = Vec::new();
        for saved in saved {
            let config = source.read(&saved.config)?;
            let tags = saved.repo_tags.unwrap_or_default();
            let tags = tags.iter().map(|tag| Ok(parse(tag)?.whole())).collect::<Result<_, Error>>()?;
            images.push(self.assemble(source, &config, &saved.layers, tags, BTreeSet::new())?);
        }
        Ok(images)
    }

    fn import_oci(&self, source: &Source, json: &[u8], stem: &str) -> Result<Vec<Arc<Image>>, Error> {
        let mut images = Vec::new();
        for entry in Manifest::parse("index.json", json)?.manifests {
            let mut manifest = Manifest::parse(&entry.digest, &source.blob(&entry.digest)?)?;
            while manifest.config.is_none() {
                let chosen = manifest.for_platform(&entry.digest)?.digest.clone();
                manifest = Manifest::parse(&chosen, &source.blob(&chosen)?)?;
            }
            let Some(config) = &manifest.config else { continue };
            let config = source.blob(&config.digest)?;
            let name = parse(&name_of(&entry, stem))?;
            let digests = BTreeSet::from([format!("{}/{}@{}", name.registry(), name.repository(), entry.digest)]);
            let layers: Vec<String> = manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect();
            images.push(self.assemble(source, &config, &layers, BTreeSet::from([name.whole()]), digests)?);
        }
        Ok(images)
    }

    fn assemble(
        &self,
        source: &Source,
        config_json: &[u8],
        layers: &[String],
        tags: BTreeSet<String>,
        digests: BTreeSet<String>,
    ) -> Result<Arc<Image>, Error> {
        let id = digest(config_json);
        let config = ImageConfig::parse(&id, config_json)?;
        let chain = config.chain();
        if chain.len() != layers.len() {
            return Err(Error::Invalid(format!("image {id} has {} layers and {} diff ids", layers.len(), chain.len())));
        }
        for ((layer, name), diff_id) in layers.iter().zip(&chain).zip(&config.rootfs.diff_ids) {
            if !self.has_layer(name) {
                add_layer(&self.layers(), name, diff_id, source.reader(layer)?)?;
            }
        }
        self.put_blob(&id, config_json)?;
        let size = self.layers_size(&chain);
        self.commit(Image { id, tags, digests, size, layers: chain, config: Arc::new(config) })
    }

    pub(super) fn has_layer(&self, name: &str) -> bool {
        self.layers().join(name).is_dir()
    }

    pub(super) fn layers_size(&self, chain: &[String]) -> u64 {
        chain.iter().map(|name| crate::disk::usage(&self.layers().join(name)).0).sum()
    }
}

/// Unpacks a layer beside its place, checks it, moves it there; blocks.
pub(super) fn add_layer(layers: &Path, name: &str, diff_id: &str, stream: impl Read) -> Result<(), Error> {
    let unpacked = layers.join(format!(".new-{name}-{}", crate::id::random()));
    fs::create_dir(&unpacked).map_err(Error::io("cannot make a layer's directory", &unpacked))?;
    let done = super::layer::unpack(stream, &unpacked).and_then(|got| {
        if got != diff_id {
            return Err(Error::Digest { what: format!("layer {name}"), want: diff_id.to_owned(), got });
        }
        let place = layers.join(name);
        match fs::rename(&unpacked, &place) {
            // Somebody else was faster with the same content.
            Err(_) if place.is_dir() => Ok(()),
            other => other.map_err(Error::io("cannot move a layer to its place", place)),
        }
    });
    if unpacked.exists() {
        let _ = fs::remove_dir_all(&unpacked);
    }
    done
}

fn blob_name(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// The name that an index gives: a full one, or only a tag.
fn name_of(entry: &Descriptor, stem: &str) -> String {
    if let Some(name) = entry.annotations.get(CONTAINERD_NAME) {
        return name.clone();
    }
    match entry.annotations.get(OCI_NAME) {
        Some(name) if name.contains(['/', ':']) => name.clone(),
        Some(tag) => format!("{stem}:{tag}"),
        None => format!("{stem}:latest"),
    }
}

/// Files by name in a directory or a tar.
enum Source {
    Directory(PathBuf),
    Archive { file: File, path: PathBuf, entries: HashMap<PathBuf, Place> },
}

enum Place {
    Bytes {
        offset: u64,
        size: u64,
    },
    /// Older `docker save` links equal layers to each other.
    Same(PathBuf),
}

impl Source {
    fn open(path: &Path, scratch: &Path) -> Result<Source, Error> {
        let io = |error| Error::io("cannot read the image archive", path)(error);
        if path.is_dir() {
            return Ok(Source::Directory(path.to_owned()));
        }
        let mut file = File::open(path).map_err(io)?;
        let mut head = [0; 4];
        let read = file.read(&mut head).map_err(io)?;
        file.rewind().map_err(io)?;
        if matches!(head[..read], [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]) {
            let mut plain_file = unnamed(scratch).map_err(io)?;
            io::copy(&mut plain(file).map_err(io)?, &mut plain_file).map_err(io)?;
            plain_file.rewind().map_err(io)?;
            file = plain_file;
        }
        let mut entries = HashMap::new();
        for entry in tar::Archive::new(&file).entries_with_seek().map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = tidy(&entry.path().map_err(io)?);
            let place = match entry.link_name().map_err(io)? {
                Some(target) if entry.header().entry_type().is_symlink() => {
                    Place::Same(tidy(&name.parent().unwrap_or(Path::new("")).join(target)))
                }
                Some(target) => Place::Same(tidy(&target)),
                None => Place::Bytes { offset: entry.raw_file_position(), size: entry.size() },
            };
            entries.insert(name, place);
        }
        Ok(Source::Archive { file, path: path.to_owned(), entries })
    }

    fn read_if_there(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let there = match self {
            Source::Directory(dir) => dir.join(name).exists(),
            Source::Archive { entries, .. } => entries.contains_key(Path::new(name)),
        };
        there.then(|| self.read(name)).transpose()
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        // Only JSON is read as a whole.
        let mut reader = self.reader(name)?.take(super::pull::JSON_MAX);
        reader.read_to_end(&mut bytes).map_err(Error::io("cannot read from the image archive", name))?;
        Ok(bytes)
    }

    /// A checked JSON blob of a layout.
    fn blob(&self, want: &str) -> Result<Vec<u8>, Error> {
        let bytes = self.read(&blob_name(want))?;
        let got = digest(&bytes);
        if got != want {
            return Err(Error::Digest { what: "blob".to_owned(), want: want.to_owned(), got });
        }
        Ok(bytes)
    }

    fn reader(&self, name: &str) -> Result<Box<dyn Read + '_>, Error> {
        let missing = || Error::Invalid(format!("{name} is missing in the image archive"));
        match self {
            Source::Directory(dir) => {
                let path = dir.join(tidy(Path::new(name)));
                Ok(Box::new(File::open(&path).map_err(Error::io("cannot read from the image layout", path))?))
            }
            Source::Archive { file, path, entries } => {
                let mut key = tidy(Path::new(name));
                for _ in 0..8 {
                    match entries.get(&key).ok_or_else(missing)? {
                        Place::Same(other) => key = other.clone(),
                        Place::Bytes { offset, size } => {
                            let mut file: &File = file;
                            file.seek(SeekFrom::Start(*offset))
                                .map_err(Error::io("cannot seek in the archive", path))?;
                            return Ok(Box::new(file.take(*size)));
                        }
                    }
                }
                Err(missing())
            }
        }
    }
}

/// A file without a name, for what must be sought in.
pub(super) fn unnamed(dir: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_TMPFILE).mode(0o600).open(dir)
}

/// Lexically without `.` and `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => tidy.push(name),
            Component::ParentDir => drop(tidy.pop()),
            _ => {}
        }
    }
    tidy
}
