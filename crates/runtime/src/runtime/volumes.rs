//! Images mounted into containers as read-only volumes.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::{Error, Runtime};
use crate::cri;

impl Runtime {
    /// Mounts the images that `config` names below the container's directory; returns where, by container path.
    pub(super) fn mount_images(
        &self,
        config: &cri::ContainerConfig,
        dir: &Path,
    ) -> Result<Vec<(String, PathBuf)>, Error> {
        let mut mounted = Vec::new();
        for (index, volume) in config.mounts.iter().enumerate() {
            let Some(wanted) = volume.image.as_ref().map(|image| &image.image) else { continue };
            let image =
                self.inner.images.find(wanted).ok_or_else(|| Error::NotFound { what: "image", id: wanted.clone() })?;
            let target = dir.join(format!("image-{index}"));
            std::fs::create_dir_all(&target).map_err(Error::io(format!("cannot make {}", target.display())))?;
            let layers = self.inner.images.layers();
            let fd = std::fs::File::open(&layers).map_err(Error::io(format!("cannot open {}", layers.display())))?;
            // Short names, as many layers have to fit into one page of options.
            let mut lower: Vec<String> =
                image.layers.iter().rev().map(|layer| format!("/proc/self/fd/{}/{layer}", fd.as_raw_fd())).collect();
            // An overlay without an upper directory needs two lower ones.
            while lower.len() < 2 {
                lower.push(self.inner.images.root().join(crate::images::EMPTY_LAYER).display().to_string());
                if lower.len() < 2 {
                    let second = dir.join("empty");
                    std::fs::create_dir_all(&second).map_err(Error::io(format!("cannot make {}", second.display())))?;
                    lower.push(second.display().to_string());
                }
            }
            let options = format!("lowerdir={}", lower.join(":"));
            mount(Some("overlay"), &target, Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str()))
                .map_err(|error| Error::io(format!("cannot mount image {wanted}"))(error.into()))?;
            mounted.push((volume.container_path.clone(), below(&target, &volume.image_sub_path, wanted)?));
        }
        Ok(mounted)
    }
}

/// `sub` inside the mounted image, symbolic links not leading out of it.
fn below(mounted: &Path, sub: &str, image: &str) -> Result<PathBuf, Error> {
    if sub.is_empty() {
        return Ok(mounted.to_owned());
    }
    let invalid = |why: String| Error::Invalid(format!("path {sub:?} in image {image}: {why}"));
    if sub.starts_with('/') || Path::new(sub).components().any(|part| part == std::path::Component::ParentDir) {
        return Err(invalid("it must be relative and without ..".to_owned()));
    }
    let path = mounted.join(sub).canonicalize().map_err(|error| invalid(error.to_string()))?;
    if path.starts_with(mounted) { Ok(path) } else { Err(invalid("it leads out of the image".to_owned())) }
}
