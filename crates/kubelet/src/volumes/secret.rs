//! `secret`: the keys of a Secret as files, in memory.

use std::path::Path;

use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;

use super::payload::{self, DEFAULT_MODE, Payload};
use super::{Context, Error, Kind, Mounted, atomic, mount_tmpfs};
use crate::pod::PodExt;

pub(super) struct Secret;

#[async_trait]
impl Kind for Secret {
    fn directory(&self) -> &'static str {
        "kubernetes.io~secret"
    }

    fn owns(&self, volume: &core::Volume) -> bool {
        volume.secret.is_some()
    }

    async fn set_up(&self, context: &Context<'_>, volume: &core::Volume, path: &Path) -> Result<Mounted, Error> {
        let source = volume.secret.clone().unwrap_or_default();
        let mut files = Payload::new();
        let (name, items) = (source.secret_name.unwrap_or_default(), source.items.unwrap_or_default());
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        collect(&mut files, context, &name, &items, mode, source.optional == Some(true)).await?;
        mount_tmpfs(path, Some(context.memory))?;
        atomic::write(path, &files, context.fs_group(), context.now).map_err(Error::io("write", path))?;
        Ok(Mounted { read_only: true, ..Mounted::rendered(path, None) })
    }
}

/// Files of a Secret volume or projection.
pub(super) async fn collect(
    files: &mut Payload,
    context: &Context<'_>,
    name: &str,
    items: &[core::KeyToPath],
    mode: i32,
    optional: bool,
) -> Result<(), Error> {
    let found = context.objects.get::<core::Secret>(context.pod.namespace(), name).await?;
    match found {
        Some(secret) => {
            let data = payload::binary(secret.data.as_ref()).collect();
            payload::keys(files, &data, items, mode, optional, "secret")
        }
        None if optional => Ok(()),
        None => Err(Error::NotFound { what: "secret", name: name.to_owned() }),
    }
}
