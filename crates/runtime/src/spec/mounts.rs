//! The mounts of a container: the usual kernel file systems, the sandbox's files, what CRI asks for.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Error, Inputs};
use crate::cri::{self, MountPropagation};

/// Host files and directories that a container sees.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paths {
    pub(crate) rootfs: PathBuf,
    pub(crate) resolv_conf: PathBuf,
    pub(crate) hostname: PathBuf,
    pub(crate) hosts: PathBuf,
    pub(crate) shm: PathBuf,
    /// The container's own cgroups by name, with version 1; bound one by one, because libcontainer looks for them by
    /// process number, which fails in a PID namespace that is joined.
    pub(crate) cgroups: Vec<(String, PathBuf)>,
    /// Mounted images by container path.
    pub(crate) images: Vec<(String, PathBuf)>,
}

/// The mounts in order, and the propagation that the root needs for them.
pub(super) fn mounts(inputs: &Inputs<'_>) -> Result<(Vec<Value>, Option<&'static str>), Error> {
    let security = inputs.security();
    let rw = |writable: bool| if writable { "rw" } else { "ro" };
    let kernel = rw(security.privileged);
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
               "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
               "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
               "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
               "options": ["nosuid", "noexec", "nodev", kernel]}),
    ];
    if inputs.cgroup_v2 {
        mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                           "options": ["nosuid", "noexec", "nodev", "relatime", kernel]}));
    } else {
        mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "tmpfs", "source": "tmpfs",
                           "options": ["nosuid", "noexec", "nodev", "mode=755", "size=64k"]}));
        for (name, dir) in &inputs.paths.cgroups {
            mounts.push(json!({"destination": format!("/sys/fs/cgroup/{name}"), "type": "bind", "source": dir,
                               "options": ["bind", "nosuid", "noexec", "nodev", "rprivate", kernel]}));
        }
    }
    let asked = |path: &str| inputs.config.mounts.iter().any(|mount| same_path(&mount.container_path, path));
    let files = rw(!security.readonly_rootfs);
    for (at, from, access) in [
        ("/dev/shm", &inputs.paths.shm, "rw"),
        ("/etc/resolv.conf", &inputs.paths.resolv_conf, files),
        ("/etc/hostname", &inputs.paths.hostname, files),
        ("/etc/hosts", &inputs.paths.hosts, files),
    ] {
        if !asked(at) {
            mounts.push(
                json!({"destination": at, "type": "bind", "source": from, "options": ["rbind", "rprivate", access]}),
            );
        }
    }
    let mut wanted: Vec<&cri::Mount> = inputs.config.mounts.iter().collect();
    // A mount inside another one comes after it.
    wanted.sort_by_key(|mount| mount.container_path.split('/').filter(|part| !part.is_empty()).count());
    let mut propagation = None;
    for mount in wanted {
        let (value, needs) = bind(mount, &inputs.paths)?;
        if needs != "rprivate" && propagation != Some("rshared") {
            propagation = Some(needs);
        }
        mounts.retain(|known| !known["destination"].as_str().is_some_and(|at| same_path(at, &mount.container_path)));
        mounts.push(value);
    }
    Ok((mounts, propagation))
}

fn bind(mount: &cri::Mount, paths: &Paths) -> Result<(Value, &'static str), Error> {
    if !mount.container_path.starts_with('/') {
        return Err(Error::Invalid(format!("mount at {:?}: the path is not absolute", mount.container_path)));
    }
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return Err(Error::Invalid(format!("mount at {}: id mappings are not supported", mount.container_path)));
    }
    let source = if mount.image.is_some() {
        let image = paths.images.iter().find(|(at, _)| *at == mount.container_path);
        let (_, dir) = image
            .ok_or_else(|| Error::Invalid(format!("mount at {}: its image is not mounted", mount.container_path)))?;
        dir.clone()
    } else {
        host_path(&mount.host_path).map_err(|source| Error::HostPath {
            path: mount.host_path.clone(),
            at: mount.container_path.clone(),
            source,
        })?
    };
    let propagation = match MountPropagation::try_from(mount.propagation) {
        Ok(MountPropagation::PropagationHostToContainer) => "rslave",
        Ok(MountPropagation::PropagationBidirectional) => "rshared",
        _ => "rprivate",
    };
    let mut options = vec!["rbind", propagation];
    if mount.recursive_read_only {
        if !mount.readonly || propagation != "rprivate" {
            let text = format!(
                "mount at {}: recursive read-only needs readonly and private propagation",
                mount.container_path
            );
            return Err(Error::Invalid(text));
        }
        options.push("rro");
    } else {
        options.push(if mount.readonly || mount.image.is_some() { "ro" } else { "rw" });
    }
    let value = json!({"destination": mount.container_path, "type": "bind", "source": source, "options": options});
    Ok((value, propagation))
}

/// The path without symbolic links; a directory is made where nothing is.
fn host_path(path: &str) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_empty() => {
            fs::create_dir_all(path)?;
            fs::canonicalize(path)
        }
        other => other,
    }
}

fn same_path(a: &str, b: &str) -> bool {
    let parts = |path: &str| path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    parts(a) == parts(b)
}

/// The device at `host`, or all devices below it if it is a directory.
pub(super) fn device_nodes(host: &str, container: &str, nodes: &mut Vec<Value>) -> io::Result<()> {
    let path = fs::canonicalize(host)?;
    let metadata = fs::metadata(&path)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(&path)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            device_nodes(&format!("{host}/{name}"), &format!("{container}/{name}"), nodes)?;
        }
        return Ok(());
    }
    match node(&metadata, container) {
        Some(node) => nodes.push(node),
        None => return Err(io::Error::other("not a device")),
    }
    Ok(())
}

/// All devices of the host below `dir`, for privileged containers.
pub(super) fn host_devices(dir: &Path, nodes: &mut Vec<Value>) {
    /// Kept by the container itself.
    const OWN: &[&str] =
        &["pts", "shm", "fd", "mqueue", "console", "ptmx", "null", "zero", "full", "random", "urandom", "tty"];
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Ok(metadata) = entry.metadata() else { continue };
        if dir == Path::new("/dev") && name.to_str().is_some_and(|name| OWN.contains(&name) || name.starts_with(".lxc"))
        {
            continue;
        }
        if metadata.is_dir() {
            host_devices(&path, nodes);
        } else {
            nodes.extend(node(&metadata, &path.to_string_lossy()));
        }
    }
}

fn node(metadata: &fs::Metadata, at: &str) -> Option<Value> {
    let kind = metadata.file_type();
    let kind = if kind.is_char_device() {
        "c"
    } else if kind.is_block_device() {
        "b"
    } else {
        return None;
    };
    Some(json!({
        "path": at, "type": kind,
        "major": nix::sys::stat::major(metadata.rdev()), "minor": nix::sys::stat::minor(metadata.rdev()),
        "fileMode": metadata.permissions().mode() & 0o777, "uid": metadata.uid(), "gid": metadata.gid(),
    }))
}
