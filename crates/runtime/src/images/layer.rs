//! Unpacks a layer's tar stream into a directory that overlayfs takes as a lower one.
//!
//! Every path of the stream is resolved inside the directory, symbolic links included (`openat2` with
//! `RESOLVE_IN_ROOT`), so no entry can reach outside. Names are handled through their parent's descriptor and never
//! followed.
//!
//! | in the stream | in the directory |
//! |---|---|
//! | `.wh.NAME` | character device 0:0 called NAME: overlayfs hides what is below |
//! | `.wh..wh..opq` | `trusted.overlay.opaque=y` on the directory: hides all that is below |
//! | PAX `SCHILY.xattr.*` | extended attributes |

use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType};

use super::{Error, hex};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// Unpacks `stream` (plain, gzip or zstd) into the empty directory `into`. Returns the digest of the plain tar, which
/// is the layer's diff id.
pub(super) fn unpack(stream: impl Read, into: &Path) -> Result<String, Error> {
    let root = fs::File::open(into).map_err(Error::io("cannot open the layer's directory", into))?;
    let mut unpacker = Unpacker { root: root.into(), parent: None, directories: HashMap::new() };
    let mut hashing =
        Hashing { inner: plain(stream).map_err(Error::io("cannot read the layer", into))?, hasher: Sha256::new() };
    let mut archive = Archive::new(&mut hashing);
    let broken = Error::io("the layer's tar stream is broken", into);
    let entries = match archive.entries() {
        Ok(entries) => entries,
        Err(error) => return Err(broken(error)),
    };
    for entry in entries {
        let mut entry = entry.map_err(Error::io("the layer's tar stream is broken", into))?;
        let path = entry.path().map(|path| path.into_owned()).unwrap_or_default();
        unpacker.entry(&mut entry, &path).map_err(|source| Error::Layer { path, why: source.to_string() })?;
    }
    unpacker.finish().map_err(Error::io("cannot set a directory's time", into))?;
    // What follows the last entry belongs to the digest too.
    io::copy(&mut hashing, &mut io::sink()).map_err(Error::io("the layer's tar stream is broken", into))?;
    Ok(format!("sha256:{}", hex(&hashing.hasher.finalize())))
}

/// The uncompressed stream, whatever it is packed with.
pub(super) fn plain<'a>(mut stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    stream.by_ref().take(4).read_to_end(&mut head)?;
    let kind = match head.as_slice() {
        [0x1f, 0x8b, ..] => 1,
        [0x28, 0xb5, 0x2f, 0xfd] => 2,
        _ => 0,
    };
    let whole = io::BufReader::with_capacity(256 * 1024, io::Cursor::new(head).chain(stream));
    Ok(match kind {
        1 => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        2 => Box::new(zstd::Decoder::with_buffer(whole)?),
        _ => Box::new(whole),
    })
}

struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

struct Unpacker {
    root: OwnedFd,
    /// The directory of the last entry: streams come directory by directory.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Times of directories, set at the end because filling one changes it.
    directories: HashMap<PathBuf, i64>,
}

impl Unpacker {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = clean(path)?;
        let Some(name) = path.file_name() else {
            // The root itself.
            let target = self.by_descriptor(Path::new(""))?.1;
            return set_metadata(&target, entry, false).map(|()| self.note(path, entry));
        };
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        if name.as_bytes() == OPAQUE {
            let (_, dir) = self.by_descriptor(&parent)?;
            return xattr::set_deref(dir, OPAQUE_XATTR, b"y");
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(&parent, OsStr::from_bytes(hidden));
        }
        let (parent_fd, parent_path) = self.by_descriptor(&parent)?;
        let target = parent_path.join(name);
        let existing = fs::symlink_metadata(&target).ok();
        let mut opaque = false;
        if let Some(existing) = &existing
            && !(existing.is_dir() && kind == EntryType::Directory)
        {
            opaque = is_whiteout(existing);
            remove(&target, existing)?;
        }
        match kind {
            EntryType::Directory => {
                if !existing.is_some_and(|existing| existing.is_dir()) {
                    mkdirat(parent_fd, name, Mode::from_bits_truncate(0o755))?;
                }
                if opaque {
                    xattr::set(&target, OPAQUE_XATTR, b"y")?;
                }
            }
            EntryType::Symlink => {
                let link = entry.link_name()?.ok_or_else(|| io::Error::other("a symbolic link without target"))?;
                std::os::unix::fs::symlink(link, &target)?;
            }
            EntryType::Link => return self.hard_link(entry, &target),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let header = entry.header();
                let kind = match kind {
                    EntryType::Char => SFlag::S_IFCHR,
                    EntryType::Block => SFlag::S_IFBLK,
                    _ => SFlag::S_IFIFO,
                };
                let number = |part: io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0).into();
                let device = makedev(number(header.device_major()), number(header.device_minor()));
                mknodat(parent_fd, name, kind, Mode::from_bits_truncate(0o600), device)?;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&target)?;
                io::copy(entry, &mut file)?;
            }
            other => return Err(io::Error::other(format!("unknown kind of entry {:?}", other.as_byte() as char))),
        }
        set_metadata(&target, entry, kind == EntryType::Symlink)?;
        if kind == EntryType::Directory {
            self.note(path, entry);
        } else {
            set_time(&target, entry.header().mtime().unwrap_or(0) as i64)?;
        }
        Ok(())
    }

    fn note(&mut self, path: PathBuf, entry: &Entry<'_, impl Read>) {
        self.directories.insert(path, entry.header().mtime().unwrap_or(0) as i64);
    }

    fn whiteout(&mut self, parent: &Path, hidden: &OsStr) -> io::Result<()> {
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(io::Error::other("a whiteout of nothing"));
        }
        let (fd, path) = self.by_descriptor(parent)?;
        let target = path.join(hidden);
        match fs::symlink_metadata(&target) {
            // The same layer brings a new directory of that name: then the old one's content is hidden.
            Ok(existing) if existing.is_dir() => return xattr::set(&target, OPAQUE_XATTR, b"y"),
            Ok(_) => return Ok(()),
            Err(_) => {}
        }
        mknodat(fd, hidden, SFlag::S_IFCHR, Mode::empty(), 0)?;
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry<'_, impl Read>, target: &Path) -> io::Result<()> {
        let link = entry.link_name()?.ok_or_else(|| io::Error::other("a hard link without target"))?;
        let link = clean(&link)?;
        let name = link.file_name().ok_or_else(|| io::Error::other("a hard link to the root"))?.to_owned();
        let parent = open_in(&self.root, link.parent().unwrap_or(Path::new("")))?;
        nix::unistd::linkat(&parent, name.as_os_str(), nix::fcntl::AT_FDCWD, target, AtFlags::empty())?;
        Ok(())
    }

    /// The directory `path` inside the root, made if it is missing: its descriptor, and a name for it that leads
    /// nowhere else.
    fn by_descriptor(&mut self, path: &Path) -> io::Result<(&OwnedFd, PathBuf)> {
        if self.parent.as_ref().is_none_or(|(known, _)| known != path) {
            let fd = match open_in(&self.root, path) {
                Ok(fd) => fd,
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.make(path)?,
                Err(error) => return Err(error),
            };
            self.parent = Some((path.to_owned(), fd));
        }
        match &self.parent {
            Some((_, fd)) => Ok((fd, PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())))),
            None => Err(io::Error::other("no directory")),
        }
    }

    fn make(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut made = PathBuf::new();
        let mut dir = open_in(&self.root, &made)?;
        for part in path {
            match mkdirat(&dir, part, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(nix::Error::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
            made.push(part);
            dir = open_in(&self.root, &made)?;
        }
        Ok(dir)
    }

    fn finish(self) -> io::Result<()> {
        for (path, time) in &self.directories {
            // A later entry may have replaced the directory by something else.
            if let Ok(fd) = open_in(&self.root, path) {
                set_time(Path::new(&format!("/proc/self/fd/{}/.", fd.as_raw_fd())), *time)?;
            }
        }
        Ok(())
    }
}

fn open_in(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    Ok(openat2(root, path, how)?)
}

/// Relative, without `.`; an entry with `..` is refused.
fn clean(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(io::Error::other("the path leads outside")),
        }
    }
    Ok(clean)
}

fn is_whiteout(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn remove(path: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Owner first: changing it drops set-uid bits and capabilities.
fn set_metadata(target: &Path, entry: &mut Entry<'_, impl Read>, symlink: bool) -> io::Result<()> {
    let header = entry.header();
    let (uid, gid, mode) = (header.uid()? as u32, header.gid()? as u32, header.mode()?);
    if symlink {
        lchown(target, Some(uid), Some(gid))?;
    } else {
        chown(target, Some(uid), Some(gid))?;
        fs::set_permissions(target, fs::Permissions::from_mode(mode & 0o7777))?;
    }
    let mut attributes: Vec<(OsString, Vec<u8>)> = Vec::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions.flatten() {
            if let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") {
                attributes.push((OsStr::from_bytes(name).to_owned(), extension.value_bytes().to_vec()));
            }
        }
    }
    for (name, value) in attributes {
        match set_attribute(target, &name, &value) {
            // A file system or a name space without room for it: the image works without.
            Err(error) if error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => {}
            other => other?,
        }
    }
    Ok(())
}

fn set_attribute(target: &Path, name: &OsStr, value: &[u8]) -> io::Result<()> {
    // An image must not forge overlayfs's own marks.
    if name.as_bytes().starts_with(b"trusted.overlay.") || CString::new(name.as_bytes()).is_err() {
        return Ok(());
    }
    xattr::set(target, name, value)
}

fn set_time(target: &Path, seconds: i64) -> io::Result<()> {
    let time = TimeSpec::new(seconds, 0);
    utimensat(nix::fcntl::AT_FDCWD, target, &time, &time, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

#[cfg(test)]
mod tests;
