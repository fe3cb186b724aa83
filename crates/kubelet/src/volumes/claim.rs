//! `persistentVolumeClaim` and `ephemeral`: volumes of the cluster that are a path of this node.

use std::path::Path;

use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;
use kube::api::Api;

use super::{Context, Error, Kind, Mounted, host_path};
use crate::pod::PodExt;

pub(super) struct Claim;

#[async_trait]
impl Kind for Claim {
    fn directory(&self) -> &'static str {
        "kubernetes.io~local-volume"
    }

    fn owns(&self, volume: &core::Volume) -> bool {
        volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
    }

    async fn set_up(&self, context: &Context<'_>, volume: &core::Volume, _: &Path) -> Result<Mounted, Error> {
        let (name, read_only) = match &volume.persistent_volume_claim {
            Some(source) => (source.claim_name.clone(), source.read_only == Some(true)),
            None => (format!("{}-{}", context.pod.name(), volume.name), false),
        };
        let volume = bound(context, &name).await?;
        let spec = volume.spec.unwrap_or_default();
        let mounted = if let Some(source) = &spec.host_path {
            host_path::check(Path::new(&source.path), source.type_.as_deref().unwrap_or_default())?
        } else if let Some(source) = &spec.local {
            host_path::check(Path::new(&source.path), "Directory")?
        } else {
            let volume = volume.metadata.name.unwrap_or_default();
            return Err(Error::Refused(format!(
                "PersistentVolume {volume} is neither local nor a hostPath: this node has no driver for it"
            )));
        };
        Ok(Mounted { read_only, ..mounted })
    }
}

/// The volume that the claim is bound to.
async fn bound(context: &Context<'_>, name: &str) -> Result<core::PersistentVolume, Error> {
    let namespace = context.pod.namespace();
    let claim = context.objects.get::<core::PersistentVolumeClaim>(namespace, name).await?;
    let claim = claim.ok_or_else(|| Error::NotFound { what: "persistentvolumeclaim", name: name.to_owned() })?;
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(Error::Refused(format!("can't start pod because PVC {namespace}/{name} is being deleted")));
    }
    let unbound = || Error::Refused(format!("PVC {namespace}/{name} is not bound"));
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|_| phase == Some("Bound"));
    let volume = volume.ok_or_else(unbound)?;
    let found = Api::<core::PersistentVolume>::all(context.client.clone()).get_opt(volume).await;
    let what = || format!("fetch PersistentVolume {volume} of claim {namespace}/{name}");
    let found = found.map_err(|source| Error::Api { what: what(), source: Box::new(source) })?;
    let found = found.ok_or_else(|| Error::NotFound { what: "persistentvolume", name: volume.to_owned() })?;
    let holder = found.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()).and_then(|claim| claim.uid.clone());
    if holder != claim.metadata.uid {
        return Err(unbound());
    }
    Ok(found)
}
