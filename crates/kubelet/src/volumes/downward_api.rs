//! `downwardAPI`: fields of the pod as files.

use std::path::Path;

use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;

use super::payload::{self, DEFAULT_MODE, Payload};
use super::{Context, Error, Kind, Mounted, atomic, mount_tmpfs};

pub(super) struct DownwardApi;

#[async_trait]
impl Kind for DownwardApi {
    fn directory(&self) -> &'static str {
        "kubernetes.io~downward-api"
    }

    fn owns(&self, volume: &core::Volume) -> bool {
        volume.downward_api.is_some()
    }

    async fn set_up(&self, context: &Context<'_>, volume: &core::Volume, path: &Path) -> Result<Mounted, Error> {
        let source = volume.downward_api.clone().unwrap_or_default();
        let mut files = Payload::new();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        payload::downward(&mut files, context, &source.items.unwrap_or_default(), mode)?;
        mount_tmpfs(path, Some(context.memory))?;
        atomic::write(path, &files, context.fs_group(), context.now).map_err(Error::io("write", path))?;
        Ok(Mounted { read_only: true, ..Mounted::rendered(path, None) })
    }
}
