//! Claims: bound ones must be reachable from the node, unbound ones bindable there.
//!
//! Upstream's VolumeBinding, VolumeZone (through the volume's node affinity) and VolumeRestrictions (ReadWriteOncePod)
//! in one place, because all three start from the pod's claims.

use std::{collections::HashSet, sync::Arc};

use client::Key;
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, PodSpec},
    storage::v1::StorageClass,
};

use crate::{
    cluster::NodeInfo,
    plugin::{Cycle, Event, Listers, Plugin, Verdict, View},
    selectors::node_matches,
};

pub(crate) struct Volumes;

/// What a claim still needs before the pod can start.
pub(crate) enum Need {
    /// Bound: the volume must be usable from the node.
    Bound(Arc<PersistentVolume>),
    /// Waits for its first consumer: a static volume from the list, or its class's provisioner.
    First { claim: Arc<PersistentVolumeClaim>, class: Arc<StorageClass>, candidates: Vec<Arc<PersistentVolume>> },
}

struct Needs {
    all: Vec<Need>,
    /// Claims of ReadWriteOncePod that another pod uses, by that pod's node.
    exclusive: HashSet<String>,
    namespace: String,
}

impl Plugin for Volumes {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn view<'a>(&self, cycle: &Cycle<'a>) -> Result<Option<Box<dyn View + 'a>>, String> {
        let (Some(spec), Some(listers)) = (&cycle.pod.pod.spec, cycle.listers) else { return Ok(None) };
        let pod_name = &cycle.pod.key.name;
        let namespace = cycle.pod.namespace();
        let names = claim_names(spec, pod_name);
        if names.is_empty() {
            return Ok(None);
        }
        let (mut all, mut exclusive) = (Vec::new(), HashSet::new());
        for name in names {
            let claim = listers
                .claims
                .get(&Key::new(namespace, &name))
                .ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
            if modes.iter().any(|mode| mode == "ReadWriteOncePod") {
                exclusive.insert(name);
            }
            all.push(need(&claim, listers)?);
        }
        Ok(Some(Box::new(Needs { all, exclusive, namespace: namespace.to_string() })))
    }

    fn wakes(&self, event: Event) -> bool {
        matches!(event, Event::Storage | Event::NodeAdded | Event::NodeChanged | Event::PodGone)
    }
}

/// Names of the claims a pod uses, those of generic ephemeral volumes included.
pub(crate) fn claim_names(spec: &PodSpec, pod_name: &str) -> Vec<String> {
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => Some(source.claim_name.clone()),
            (None, Some(_)) => Some(format!("{pod_name}-{}", volume.name)),
            (None, None) => None,
        })
        .collect()
}

/// What `claim` needs, or why no node can help.
pub(crate) fn need(claim: &Arc<PersistentVolumeClaim>, listers: &Listers) -> Result<Need, String> {
    let spec = claim.spec.as_ref();
    let volume = spec.and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    let bound =
        claim.metadata.annotations.as_ref().is_some_and(|all| all.contains_key("pv.kubernetes.io/bind-completed"));
    if !volume.is_empty() && bound {
        let volume = listers
            .volumes
            .get(&Key::new("", volume))
            .ok_or_else(|| format!("persistentvolume \"{volume}\" not found"))?;
        return Ok(Need::Bound(volume));
    }
    let class = spec
        .and_then(|spec| spec.storage_class_name.as_deref())
        .and_then(|class| listers.classes.get(&Key::new("", class)));
    match class {
        Some(class) if class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") => {
            let candidates =
                listers.volumes.list().into_iter().filter(|volume| api::volumes::matches(volume, claim)).collect();
            Ok(Need::First { claim: Arc::clone(claim), class, candidates })
        }
        _ => Err("pod has unbound immediate PersistentVolumeClaims".into()),
    }
}

/// Whether a volume can be used from a node.
pub(crate) fn reachable(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let required = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.node_affinity.as_ref())
        .and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|required| node_matches(required, &node.node))
}

/// Whether a class makes volumes for a node.
pub(crate) fn provisions(class: &StorageClass, node: &NodeInfo) -> bool {
    if class.provisioner == "kubernetes.io/no-provisioner" {
        return false;
    }
    let allowed = class.allowed_topologies.as_deref().unwrap_or_default();
    allowed.is_empty()
        || allowed.iter().any(|topology| {
            let expressions = topology.match_label_expressions.as_deref().unwrap_or_default();
            expressions.iter().all(|one| node.labels().get(&one.key).is_some_and(|value| one.values.contains(value)))
        })
}

impl View for Needs {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let in_use = node.pods.iter().any(|placed| {
            placed.namespace() == self.namespace
                && placed.pod.spec.as_ref().is_some_and(|spec| {
                    claim_names(spec, &placed.key.name).iter().any(|name| self.exclusive.contains(name))
                })
        });
        if in_use {
            return Verdict::Full(vec![
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode".into(),
            ]);
        }
        for need in &self.all {
            match need {
                Need::Bound(volume) if !reachable(volume, node) => {
                    return Verdict::Never("node(s) didn't match PersistentVolume's node affinity".into());
                }
                Need::First { class, candidates, .. }
                    if !provisions(class, node) && !candidates.iter().any(|volume| reachable(volume, node)) =>
                {
                    return Verdict::Never("node(s) didn't find available persistent volumes to bind".into());
                }
                _ => {}
            }
        }
        Verdict::Fits
    }
}
