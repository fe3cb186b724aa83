//! Which volume suits a claim.

use std::{str::FromStr, sync::Arc};

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::ObjectReference;

use crate::{
    kinds::core::{PersistentVolume, PersistentVolumeClaim},
    meta::{self, Meta},
};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let named = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    claim.annotation(CLASS_ANNOTATION).or(named).unwrap_or_default()
}

fn class_of_volume(volume: &PersistentVolume) -> &str {
    let named = volume.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    volume.annotation(CLASS_ANNOTATION).or(named).unwrap_or_default()
}

/// Whether a volume's reference means this claim; without a uid it means any of the name.
pub(super) fn is_reserved_for(reference: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    let named =
        reference.name.as_deref() == Some(claim.name()) && reference.namespace.as_deref() == Some(claim.namespace());
    named && reference.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == claim.uid())
}

fn size(text: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> Quantity {
    text.and_then(|q| Quantity::from_str(&q.0).ok()).unwrap_or_default()
}

fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    size(resources.and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage")))
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    size(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage")))
}

/// Why a volume that the claim names cannot serve it.
pub(super) fn mismatch(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<String> {
    let (wanted, offered) = (claim.spec.clone().unwrap_or_default(), volume.spec.clone().unwrap_or_default());
    if capacity(volume) < requested(claim) {
        return Some("requested PV is too small".to_owned());
    }
    if class_of_claim(claim) != class_of_volume(volume) {
        return Some("storageClassName does not match".to_owned());
    }
    let mode = |m: Option<String>| m.unwrap_or_else(|| "Filesystem".to_owned());
    if mode(wanted.volume_mode) != mode(offered.volume_mode) {
        return Some("incompatible volumeMode".to_owned());
    }
    let offers = offered.access_modes.unwrap_or_default();
    if !wanted.access_modes.iter().flatten().all(|m| offers.contains(m)) {
        return Some("incompatible accessMode".to_owned());
    }
    let class = |c: Option<String>| c.unwrap_or_default();
    (class(wanted.volume_attributes_class_name) != class(offered.volume_attributes_class_name))
        .then(|| "volumeAttributesClassName does not match".to_owned())
}

/// The volume reserved for the claim, or else the smallest free one that fits. While binding waits for a Pod to be
/// placed, only a reserved one.
pub(super) fn best(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    delayed: bool,
) -> Option<Arc<PersistentVolume>> {
    let reference = |v: &PersistentVolume| v.spec.as_ref().and_then(|s| s.claim_ref.clone());
    let usable = |v: &&Arc<PersistentVolume>| !v.is_deleting() && mismatch(claim, v).is_none();
    let reserved = volumes.iter().filter(usable).find(|v| reference(v).is_some_and(|r| is_reserved_for(&r, claim)));
    if reserved.is_some() || delayed {
        return reserved.cloned();
    }
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    let free = |v: &&Arc<PersistentVolume>| {
        reference(v).is_none()
            && v.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available")
            && selector.is_none_or(|s| meta::selects(s, v.labels()))
    };
    let mut fitting: Vec<_> = volumes.iter().filter(usable).filter(free).collect();
    fitting.sort_by(|a, b| capacity(a).cmp(&capacity(b)).then_with(|| a.name().cmp(b.name())));
    fitting.first().copied().cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn volume(name: &str, size: &str, extra: Value) -> Arc<PersistentVolume> {
        let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"]});
        spec.as_object_mut().expect("spec").extend(extra.as_object().cloned().unwrap_or_default());
        Arc::new(
            from_value(json!({"metadata": {"name": name, "labels": {"size": size}}, "spec": spec, "status": {"phase": "Available"}}))
                .expect("volume"),
        )
    }

    #[test]
    fn the_smallest_that_fits() {
        let mine = json!({"claimRef": {"namespace": "ns", "name": "c"}});
        let others = json!({"claimRef": {"namespace": "ns", "name": "other"}});
        let class = json!({"storageClassName": "fast"});
        let cases: [(&[Arc<PersistentVolume>], Value, bool, Option<&str>); 9] = [
            (&[volume("a", "5Gi", json!({})), volume("b", "2Gi", json!({}))], json!({}), false, Some("b")),
            (&[volume("a", "500Mi", json!({}))], json!({}), false, None),
            (&[volume("a", "2Gi", others)], json!({}), false, None),
            (&[volume("a", "9Gi", mine), volume("b", "2Gi", json!({}))], json!({}), false, Some("a")),
            (&[volume("a", "2Gi", class.clone())], json!({}), false, None),
            (&[volume("a", "2Gi", class.clone())], class, false, Some("a")),
            (&[volume("a", "2Gi", json!({}))], json!({"accessModes": ["ReadWriteMany"]}), false, None),
            (&[volume("a", "2Gi", json!({}))], json!({"selector": {"matchLabels": {"size": "3Gi"}}}), false, None),
            (&[volume("a", "2Gi", json!({}))], json!({}), true, None),
        ];
        for (volumes, extra, delayed, expected) in cases {
            let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
            spec.as_object_mut().expect("spec").extend(extra.as_object().cloned().unwrap_or_default());
            let claim: PersistentVolumeClaim =
                from_value(json!({"metadata": {"namespace": "ns", "name": "c", "uid": "u"}, "spec": spec}))
                    .expect("claim");
            let got = best(&claim, volumes, delayed);
            assert_eq!(got.as_ref().map(|v| v.name()), expected, "{extra} delayed {delayed}");
        }
    }
}
