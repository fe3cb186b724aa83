//! `hostPath`: a path of the node, checked or created as its type says.

use std::fs::{self, Metadata};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;

use super::{Context, Error, Kind, Mounted};

pub(super) struct HostPath;

#[async_trait]
impl Kind for HostPath {
    fn directory(&self) -> &'static str {
        "kubernetes.io~host-path"
    }

    fn owns(&self, volume: &core::Volume) -> bool {
        volume.host_path.is_some()
    }

    async fn set_up(&self, _: &Context<'_>, volume: &core::Volume, _: &Path) -> Result<Mounted, Error> {
        let source = volume.host_path.clone().unwrap_or_default();
        check(Path::new(&source.path), source.type_.as_deref().unwrap_or_default())
    }
}

/// Checks `path` of the node against `kind`, creating it where the type allows.
pub(super) fn check(path: &Path, kind: &str) -> Result<Mounted, Error> {
    let found = fs::metadata(path).ok();
    let absent = found.is_none();
    match kind {
        "DirectoryOrCreate" if absent => {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
            made.map_err(Error::io("create", path))?;
        }
        "FileOrCreate" if absent => {
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(path)
                .map_err(Error::io("create", path))?;
        }
        _ => {}
    }
    let found = fs::metadata(path).ok();
    let is = |test: fn(&Metadata) -> bool| found.as_ref().is_some_and(test);
    let (holds, wanted) = match kind {
        // Without a type nothing is checked, and the runtime makes a directory of what is not there.
        "" => {
            if absent {
                fs::create_dir_all(path).map_err(Error::io("create", path))?;
            }
            (true, "")
        }
        "Directory" | "DirectoryOrCreate" => (is(Metadata::is_dir), "a directory"),
        "File" | "FileOrCreate" => (is(Metadata::is_file), "a file"),
        "Socket" => (is(|found| found.file_type().is_socket()), "a socket file"),
        "CharDevice" => (is(|found| found.file_type().is_char_device()), "a character device"),
        "BlockDevice" => (is(|found| found.file_type().is_block_device()), "a block device"),
        other => return Err(Error::Refused(format!("{other} is an invalid volume type"))),
    };
    if !holds {
        return Err(Error::Refused(format!("hostPath type check failed: {} is not {wanted}", path.display())));
    }
    Ok(Mounted::at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "").unwrap();
        for (name, kind, good) in [
            ("a", "Directory", false),
            ("a", "DirectoryOrCreate", true),
            ("a", "Directory", true),
            ("a", "File", false),
            ("file", "File", true),
            ("file", "Socket", false),
            ("b", "FileOrCreate", true),
            ("c", "", true),
            ("file", "Nonsense", false),
        ] {
            assert_eq!(check(&path(name), kind).is_ok(), good, "{name} {kind}");
        }
        let error = check(&path("none"), "File").unwrap_err().to_string();
        assert!(error.starts_with("hostPath type check failed:") && error.ends_with("is not a file"), "{error}");
    }
}
