//! `image`: the files of an OCI image, pulled by the kubelet and mounted by the runtime.

use std::path::Path;

use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;

use super::{Context, Error, Kind, Mounted, Source};

pub(super) struct Image;

#[async_trait]
impl Kind for Image {
    fn directory(&self) -> &'static str {
        "kubernetes.io~image"
    }

    fn owns(&self, volume: &core::Volume) -> bool {
        volume.image.is_some()
    }

    async fn set_up(&self, _: &Context<'_>, volume: &core::Volume, _: &Path) -> Result<Mounted, Error> {
        let reference = volume.image.as_ref().and_then(|image| image.reference.clone()).unwrap_or_default();
        if reference.is_empty() {
            return Err(Error::Refused(format!("image volume {} has no reference", volume.name)));
        }
        Ok(Mounted { source: Source::Image(reference), read_only: true, refresh: None, rendered: false })
    }
}
