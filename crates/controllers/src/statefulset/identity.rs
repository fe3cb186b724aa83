//! Names, labels, claims and volumes that follow from an ordinal.

use crate::{
    kinds::{
        OwnerReference,
        apps::StatefulSet,
        core::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
    },
    meta::{Meta, controller_reference},
    pods::template,
    revisions::HASH_LABEL,
};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in a Pod's name, if the name is one of this set's.
pub(super) fn ordinal(set: &StatefulSet, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set.name())?.strip_prefix('-')?;
    digits.parse().ok().filter(|n: &i32| *n >= 0 && n.to_string() == digits)
}

/// First ordinal and the one after the last.
pub(super) fn range(set: &StatefulSet) -> std::ops::Range<i32> {
    let spec = set.spec.as_ref();
    let start = spec.and_then(|s| s.ordinals.as_ref()).and_then(|o| o.start).unwrap_or(0);
    start..start.saturating_add(spec.and_then(|s| s.replicas).unwrap_or(1))
}

pub(super) fn is_in_range(set: &StatefulSet, pod: &str) -> bool {
    ordinal(set, pod).is_some_and(|o| range(set).contains(&o))
}

/// The Pod with this ordinal, made from a template of the revision.
pub(super) fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = template::pod(set, template);
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(format!("{}-{ordinal}", set.name()));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname.clone_from(&pod.metadata.name);
    spec.subdomain = set.spec.as_ref().and_then(|s| s.service_name.clone());
    apply(set, &mut pod, ordinal);
    pod
}

/// Sets labels and claim volumes that every Pod of the set has.
fn apply(set: &StatefulSet, pod: &mut Pod, ordinal: i32) {
    let name = pod.name().to_owned();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name);
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    let wanted: Vec<Volume> = templates(set)
        .map(|t| Volume {
            name: t.name().to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, t, ordinal),
                read_only: Some(false),
            }),
            ..Volume::default()
        })
        .collect();
    if wanted.is_empty() {
        return;
    }
    let volumes = pod.spec.get_or_insert_default().volumes.get_or_insert_default();
    volumes.retain(|v| !wanted.iter().any(|w| w.name == v.name));
    volumes.splice(0..0, wanted);
}

/// The Pod with its identity put right, if anything of it is wrong.
pub(super) fn repaired(set: &StatefulSet, pod: &Pod) -> Option<Pod> {
    let ordinal = ordinal(set, pod.name())?;
    let index = ordinal.to_string();
    let named = pod.label(POD_NAME) == Some(pod.name()) && pod.label(POD_INDEX) == Some(&index);
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let stored = templates(set).all(|t| {
        let claim = claim_name(set, t, ordinal);
        let source = volumes.iter().find(|v| v.name == t.name()).and_then(|v| v.persistent_volume_claim.as_ref());
        source.is_some_and(|s| s.claim_name == claim)
    });
    if named && stored {
        return None;
    }
    let mut next = pod.clone();
    apply(set, &mut next, ordinal);
    Some(next)
}

fn templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    set.spec.iter().flat_map(|s| s.volume_claim_templates.iter().flatten())
}

fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.name(), set.name())
}

/// The claims that the Pod needs.
pub(super) fn claims(set: &StatefulSet, pod: &Pod) -> Vec<PersistentVolumeClaim> {
    let Some(ordinal) = ordinal(set, pod.name()) else { return Vec::new() };
    let selected = set.spec.as_ref().and_then(|s| s.selector.match_labels.clone()).unwrap_or_default();
    templates(set)
        .map(|template| {
            let mut claim = template.clone();
            claim.metadata.name = Some(claim_name(set, template, ordinal));
            claim.metadata.namespace = Some(set.namespace().to_owned());
            claim.metadata.labels.get_or_insert_default().extend(selected.clone());
            claim.status = None;
            with_owners(set, &claim, None).unwrap_or(claim)
        })
        .collect()
}

/// The claim with the owners that the retention policy asks for, if that changes anything. `condemned` is the claim's
/// Pod when that is about to go for good.
pub(super) fn with_owners(
    set: &StatefulSet,
    claim: &PersistentVolumeClaim,
    condemned: Option<&Pod>,
) -> Option<PersistentVolumeClaim> {
    let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |when: Option<&Option<String>>| when.and_then(|w| w.as_deref()) == Some("Delete");
    let with_set = deletes(policy.map(|p| &p.when_deleted));
    let with_pod = deletes(policy.map(|p| &p.when_scaled));
    let old = claim.metadata.owner_references.clone().unwrap_or_default();
    // References to the set or to one of its Pods are ours; those of others stay as they are.
    let ours = |o: &OwnerReference| {
        o.uid == set.uid() || o.kind == "Pod" && ordinal(set, &o.name).is_some() && o.api_version == "v1"
    };
    let mut owners: Vec<OwnerReference> = old.iter().filter(|o| !ours(o)).cloned().collect();
    match condemned.filter(|_| with_pod) {
        Some(pod) => owners.push(OwnerReference { block_owner_deletion: None, ..controller_reference(pod) }),
        None if with_set => owners.push(OwnerReference { block_owner_deletion: None, ..controller_reference(set) }),
        None => {}
    }
    let key = |list: &[OwnerReference]| list.iter().map(|o| o.uid.clone()).collect::<Vec<_>>();
    if key(&owners) == key(&old) {
        return None;
    }
    let mut next = claim.clone();
    next.metadata.owner_references = Some(owners);
    Some(next)
}
