//! `projected`: several sources in one directory; the service-account token of most pods comes this way.

use std::path::Path;

use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;

use super::payload::{self, DEFAULT_MODE, File, Payload};
use super::{Context, Error, Kind, Mounted, atomic, config_map, mount_tmpfs, secret};
use crate::pod::PodExt;

pub(super) struct Projected;

#[async_trait]
impl Kind for Projected {
    fn directory(&self) -> &'static str {
        "kubernetes.io~projected"
    }

    fn owns(&self, volume: &core::Volume) -> bool {
        volume.projected.is_some()
    }

    async fn set_up(&self, context: &Context<'_>, volume: &core::Volume, path: &Path) -> Result<Mounted, Error> {
        let source = volume.projected.clone().unwrap_or_default();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let mut files = Payload::new();
        let mut refresh = None;
        for source in source.sources.iter().flatten() {
            if let Some(map) = &source.config_map {
                let items = map.items.as_deref().unwrap_or_default();
                config_map::collect(&mut files, context, &map.name, items, mode, map.optional == Some(true)).await?;
            }
            if let Some(from) = &source.secret {
                let items = from.items.as_deref().unwrap_or_default();
                secret::collect(&mut files, context, &from.name, items, mode, from.optional == Some(true)).await?;
            }
            if let Some(from) = &source.downward_api {
                payload::downward(&mut files, context, from.items.as_deref().unwrap_or_default(), mode)?;
            }
            if let Some(from) = &source.service_account_token {
                let token = context.tokens.get(context, from).await?;
                let owner = only_user(context.pod);
                // Readable by the containers' one user or group alone, where there is one.
                let private = owner.is_some() || context.fs_group().is_some();
                let mode = if private { 0o600 } else { u32::try_from(mode).unwrap_or(0o644) };
                files.insert(from.path.clone(), File { data: token.text.into_bytes(), mode, owner });
                refresh = [refresh, Some(token.renew)].into_iter().flatten().min();
            }
            if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
                let what = "clusterTrustBundle and podCertificate projections are not enabled on this node";
                return Err(Error::Refused(what.to_owned()));
            }
        }
        mount_tmpfs(path, Some(context.memory))?;
        atomic::write(path, &files, context.fs_group(), context.now).map_err(Error::io("write", path))?;
        Ok(Mounted { read_only: true, ..Mounted::rendered(path, refresh) })
    }
}

/// The user that every container of the pod runs as, if the spec names one and the same for all.
fn only_user(pod: &core::Pod) -> Option<u32> {
    let of_pod = pod.specification().security_context.as_ref().and_then(|context| context.run_as_user);
    let containers = pod.containers();
    let mut users = containers
        .iter()
        .map(|(_, container)| container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod));
    let first = users.next().flatten()?;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}
