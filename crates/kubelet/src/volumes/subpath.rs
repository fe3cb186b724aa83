//! `subPath` of a mount: a place inside a volume that a container must not be able to move elsewhere.
//!
//! The path is opened below the volume's root without leaving it through links, and that open file is bind-mounted to
//! a place of the kubelet's own; the runtime is given the latter. What a container swaps afterwards changes nothing.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat};

use super::teardown;

/// Bind-mounts `relative` of `volume` at `place` and returns what to give the runtime. Creates missing directories.
pub(crate) fn bind(volume: &Path, relative: &str, place: &Path) -> io::Result<PathBuf> {
    let parts = Path::new(relative).components();
    if parts.clone().any(|part| matches!(part, Component::ParentDir | Component::RootDir | Component::Prefix(_))) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("subPath {relative:?} leaves the volume")));
    }
    let metadata = std::fs::metadata(volume)?;
    if !metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the volume is a file and has no subPath"));
    }
    let opened = open_or_create(volume, relative)?;
    if teardown::is_mount_point(place)? {
        nix::mount::umount2(place, nix::mount::MntFlags::MNT_DETACH)?;
    }
    let source = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if std::fs::metadata(&source)?.is_dir() {
        std::fs::create_dir_all(place)?;
    } else if !place.exists() {
        File::create(place)?;
    }
    let none: Option<&str> = None;
    mount(Some(&source), place, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    Ok(place.to_owned())
}

fn open_or_create(volume: &Path, relative: &str) -> io::Result<OwnedFd> {
    let root = File::open(volume)?;
    match open_beneath(&root, relative) {
        Err(nix::Error::ENOENT) => {}
        other => return Ok(other?),
    }
    let mut at: OwnedFd = root.into();
    for part in Path::new(relative).components() {
        let Component::Normal(name) = part else { continue };
        match mkdirat(at.as_fd(), name, Mode::from_bits_truncate(0o750)) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        at = open_beneath(&at, name)?;
    }
    Ok(at)
}

fn open_beneath(root: &impl AsFd, path: impl AsRef<Path>) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root.as_fd(), path.as_ref(), how)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir(&volume).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("inside", volume.join("in")).unwrap();
        std::fs::create_dir(volume.join("inside")).unwrap();
        assert!(open_or_create(&volume, "out/passwd").is_err());
        assert!(open_or_create(&volume, "in").is_ok());
        assert!(open_or_create(&volume, "a/b/c").is_ok());
        assert!(volume.join("a/b/c").is_dir());
        assert!(bind(&volume, "../x", &dir.path().join("p")).is_err());
    }
}
