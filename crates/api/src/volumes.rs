//! Which volume can serve which claim: asked by the scheduler and by the volume binder.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::Value;

use crate::{quantity::Quantity, selector};

/// Whether `volume` is free for `claim` (or reserved for it) and offers what it asks: class, size, modes, labels.
///
/// Source: concept page "Persistent Volumes", section Binding.
pub fn matches(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(offer), Some(wish)) = (&volume.spec, &claim.spec) else { return false };
    if volume.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let reserved_here = match &offer.claim_ref {
        None => false,
        Some(reference) => {
            let same = reference.name == claim.metadata.name
                && reference.namespace == claim.metadata.namespace
                && (reference.uid.is_none() || reference.uid == claim.metadata.uid);
            if !same {
                return false;
            }
            true
        }
    };
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Available");
    if !reserved_here && phase != "Available" && phase != "Pending" {
        return false;
    }
    let class = |name: &Option<String>| name.clone().unwrap_or_default();
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".into());
    let modes = offer.access_modes.as_deref().unwrap_or_default();
    class(&offer.storage_class_name) == class(&wish.storage_class_name)
        && mode(&offer.volume_mode) == mode(&wish.volume_mode)
        && wish.access_modes.iter().flatten().all(|mode| modes.contains(mode))
        && capacity(volume) >= requested(claim)
        && wish.selector.as_ref().is_none_or(|wanted| {
            let wanted = serde_json::to_value(wanted).unwrap_or(Value::Null);
            let labels = volume.metadata.labels.clone().unwrap_or_default();
            selector::LabelSelector::from_object(&wanted).is_ok_and(|wanted| wanted.matches_map(&labels))
        })
}

/// Bytes that a volume holds.
pub fn capacity(volume: &PersistentVolume) -> i64 {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage"));
    bytes(capacity.map(|text| text.0.as_str()))
}

/// Bytes that a claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> i64 {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    bytes(resources.and_then(|all| all.requests.as_ref()?.get("storage")).map(|text| text.0.as_str()))
}

fn bytes(text: Option<&str>) -> i64 {
    text.and_then(|text| text.parse::<Quantity>().ok()).map_or(0, |quantity| quantity.value())
}
