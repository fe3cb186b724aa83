//! `configMap`: the keys of a ConfigMap as files.

use std::path::Path;

use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;

use super::payload::{self, DEFAULT_MODE, Payload};
use super::{Context, Error, Kind, Mounted, atomic};
use crate::pod::PodExt;

pub(super) struct ConfigMap;

#[async_trait]
impl Kind for ConfigMap {
    fn directory(&self) -> &'static str {
        "kubernetes.io~configmap"
    }

    fn owns(&self, volume: &core::Volume) -> bool {
        volume.config_map.is_some()
    }

    async fn set_up(&self, context: &Context<'_>, volume: &core::Volume, path: &Path) -> Result<Mounted, Error> {
        let source = volume.config_map.clone().unwrap_or_default();
        let mut files = Payload::new();
        let items = source.items.unwrap_or_default();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        collect(&mut files, context, &source.name, &items, mode, source.optional == Some(true)).await?;
        atomic::write(path, &files, context.fs_group(), context.now).map_err(Error::io("write", path))?;
        Ok(Mounted { read_only: true, ..Mounted::rendered(path, None) })
    }
}

/// Files of a ConfigMap volume or projection.
pub(super) async fn collect(
    files: &mut Payload,
    context: &Context<'_>,
    name: &str,
    items: &[core::KeyToPath],
    mode: i32,
    optional: bool,
) -> Result<(), Error> {
    let found = context.objects.get::<core::ConfigMap>(context.pod.namespace(), name).await?;
    match found {
        Some(map) => payload::keys(files, &payload::config_map_data(&map), items, mode, optional, "config"),
        None if optional => Ok(()),
        None => Err(Error::NotFound { what: "configmap", name: name.to_owned() }),
    }
}
