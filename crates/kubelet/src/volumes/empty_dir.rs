//! `emptyDir`: a directory that lives as long as the pod, on disk or in memory.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use api::quantity::Quantity;
use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;

use super::{Context, Error, Kind, Mounted, mount_tmpfs};

pub(super) struct EmptyDir;

#[async_trait]
impl Kind for EmptyDir {
    fn directory(&self) -> &'static str {
        "kubernetes.io~empty-dir"
    }

    fn owns(&self, volume: &core::Volume) -> bool {
        volume.empty_dir.is_some()
    }

    async fn set_up(&self, context: &Context<'_>, volume: &core::Volume, path: &Path) -> Result<Mounted, Error> {
        let source = volume.empty_dir.clone().unwrap_or_default();
        let limit = source.size_limit.and_then(|text| text.0.parse::<Quantity>().ok()).map(|limit| limit.value());
        match source.medium.as_deref().unwrap_or_default() {
            "" => std::fs::create_dir_all(path).map_err(Error::io("create", path))?,
            "Memory" => {
                let limit = limit.filter(|limit| *limit > 0).unwrap_or(context.memory).min(context.memory);
                mount_tmpfs(path, Some(limit))?;
            }
            medium => return Err(Error::Refused(format!("emptyDir medium {medium:?} is not supported on this node"))),
        }
        let mode = if context.fs_group().is_some() { 0o2777 } else { 0o777 };
        if let Some(group) = context.fs_group() {
            chown(path, None, Some(group)).map_err(Error::io("change the group of", path))?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(Error::io("chmod", path))?;
        Ok(Mounted::at(path))
    }
}
