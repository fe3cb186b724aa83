//! Templates, names and the annotations in which a ReplicaSet remembers its place in the history.

use crate::{
    kinds::{
        LabelSelector, ObjectMeta,
        apps::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::PodTemplateSpec,
    },
    meta::{Meta, controller_reference},
    pods::hash,
};

pub(super) const HASH_LABEL: &str = "pod-template-hash";
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// Room for former revisions in the annotation, in characters.
const HISTORY_LIMIT: usize = 2000;
const NAME_LIMIT: usize = 253;

/// Whether the set was made from the Deployment's present template.
pub(super) fn same_template(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let strip = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
            labels.remove(HASH_LABEL);
        }
        hash::canonical(&template)
    };
    let own = deployment.spec.as_ref().map(|s| strip(&s.template));
    let other = set.spec.as_ref().and_then(|s| s.template.as_ref()).map(strip);
    own.is_some() && own == other
}

pub(super) fn of(set: &ReplicaSet) -> i64 {
    set.annotation(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// A set for the present template, of size zero and without annotations.
pub(super) fn new_set(deployment: &Deployment) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    let hash = hash::of(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector: LabelSelector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let room = NAME_LIMIT - 1 - hash.len();
    let base: String = deployment.name().chars().take(room).collect();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{base}-{hash}")),
            namespace: Some(deployment.namespace().to_owned()),
            owner_references: Some(vec![controller_reference(deployment)]),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// Copies the Deployment's annotations to its newest set and moves the set to at least `revision`, keeping the number
/// that it had before in the history. True if anything changed.
pub(super) fn annotate(deployment: &Deployment, set: &mut ReplicaSet, revision: i64) -> bool {
    let previous = set.annotation(REVISION).map(str::to_owned);
    let number = match previous.as_deref() {
        None | Some("") => Some(0),
        Some(text) => text.parse::<i64>().ok(),
    };
    let annotations = set.metadata.annotations.get_or_insert_default();
    let before = annotations.clone();
    for (key, value) in deployment.annotations().iter().filter(|(k, _)| !NOT_COPIED.contains(&k.as_str())) {
        annotations.insert(key.clone(), value.clone());
    }
    if number.is_some_and(|n| n < revision) {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(previous) = previous.filter(|p| !p.is_empty()) {
            let history = annotations.get(HISTORY).cloned().unwrap_or_default();
            let mut former: Vec<&str> = history.split(',').filter(|r| !r.is_empty()).collect();
            former.push(&previous);
            while former.len() > 1 && former.join(",").len() > HISTORY_LIMIT {
                former.remove(0);
            }
            let joined = former.join(",");
            annotations.insert(HISTORY.to_owned(), joined);
        }
    }
    *annotations != before
}

/// Notes for which size of the Deployment the set was scaled; scaling events are found by it. True if it changed.
pub(super) fn annotate_size(set: &mut ReplicaSet, desired: i32, max: i32) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (key, value) in [(DESIRED, desired), (MAX, max)] {
        let value = value.to_string();
        changed |= annotations.insert(key.to_owned(), value.clone()) != Some(value);
    }
    changed
}

/// A number that [`annotate_size`] wrote.
pub(super) fn noted_size(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    set.annotation(annotation).and_then(|v| v.parse().ok()).filter(|n| *n >= 0)
}
