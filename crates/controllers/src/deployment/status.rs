//! What a Deployment reports: counts, `Available`, `Progressing` and `ReplicaFailure`.

use std::time::Duration;

use jiff::Timestamp;

use super::rollout::{Rollout, has_deadline, max_unavailable, wanted};
use crate::{
    kinds::apps::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet},
    meta::{self, Meta, seconds, until},
};

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const COMPLETE: &str = "NewReplicaSetAvailable";

pub(super) fn condition<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != kind);
    }
}

/// Sets the condition unless it already has this status for this reason.
pub(super) fn set(status: &mut DeploymentStatus, kind: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let old = condition(status, kind).cloned();
    if old.as_ref().is_some_and(|c| c.status == value && c.reason.as_deref() == Some(reason)) {
        return;
    }
    let kept = old.filter(|c| c.status == value).and_then(|c| c.last_transition_time);
    remove(status, kind);
    status.conditions.get_or_insert_default().push(DeploymentCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(meta::time(now)),
        last_transition_time: kept.or(Some(meta::time(now))),
    });
}

/// Tells of a pause or its end, so that the time in between does not count as lack of progress.
pub(super) fn note_pause(deployment: &mut Deployment, now: Timestamp) {
    if !has_deadline(deployment) {
        return;
    }
    let paused = deployment.spec.as_ref().and_then(|s| s.paused) == Some(true);
    let status = deployment.status.get_or_insert_default();
    let reason = condition(status, PROGRESSING).and_then(|c| c.reason.clone());
    let noted = reason.as_deref() == Some("DeploymentPaused");
    if reason.as_deref() == Some(TIMED_OUT) || noted == paused {
        return;
    }
    let (reason, text) = if paused {
        ("DeploymentPaused", "Deployment is paused")
    } else {
        ("DeploymentResumed", "Deployment is resumed")
    };
    set(status, PROGRESSING, "Unknown", reason, text, now);
}

fn sum(sets: &[ReplicaSet], field: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.iter().map(field).sum()
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |s| s.replicas)
}

/// Counts over the sets, with the conditions carried over and `Available` judged.
pub(super) fn counted(rollout: &Rollout<'_>) -> DeploymentStatus {
    let deployment = &rollout.deployment;
    let sets = &rollout.sets;
    let old = deployment.status.clone().unwrap_or_default();
    let available = sum(sets, available);
    let terminating =
        sets.iter().map(|s| s.status.as_ref().map_or(Some(0), |s| s.terminating_replicas)).sum::<Option<i32>>();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(sum(sets, actual)),
        updated_replicas: Some(rollout.new_set().map_or(0, actual)),
        ready_replicas: Some(sum(sets, |s| s.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0))),
        available_replicas: Some(available),
        unavailable_replicas: Some((sum(sets, super::rollout::size) - available).max(0)),
        terminating_replicas: terminating,
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let (value, reason, text) = if available >= wanted(deployment) - max_unavailable(deployment) {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, AVAILABLE, value, reason, text, rollout.now);
    status
}

pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(wanted(deployment));
    let is = |count: Option<i32>| count.or(Some(0)) == wanted;
    is(status.updated_replicas)
        && is(status.replicas)
        && is(status.available_replicas)
        && status.observed_generation >= deployment.metadata.generation
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

/// [`counted`] with progress judged: complete, moving, or over its deadline.
pub(super) fn during_rollout(rollout: &Rollout<'_>) -> DeploymentStatus {
    let deployment = &rollout.deployment;
    let old = deployment.status.clone().unwrap_or_default();
    let mut status = counted(rollout);
    let current = condition(&old, PROGRESSING).cloned();
    let subject = match rollout.new_set() {
        Some(set) => format!("ReplicaSet \"{}\"", set.name()),
        None => format!("Deployment \"{}\"", deployment.name()),
    };
    if !has_deadline(deployment) {
        remove(&mut status, PROGRESSING);
    } else if !(status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|c| c.reason.as_deref() == Some(COMPLETE)))
    {
        if is_complete(deployment, &status) {
            let text = format!("{subject} has successfully progressed.");
            set(&mut status, PROGRESSING, "True", COMPLETE, &text, rollout.now);
        } else if has_progressed(&old, &status) {
            let text = format!("{subject} is progressing.");
            remove(&mut status, PROGRESSING);
            set(&mut status, PROGRESSING, "True", "ReplicaSetUpdated", &text, rollout.now);
            // Progress renews only the time of the update, not that of the transition.
            let since = current.filter(|c| c.status == "True").and_then(|c| c.last_transition_time);
            if let (Some(since), Some(last)) = (since, status.conditions.iter_mut().flatten().last()) {
                last.last_transition_time = Some(since);
            }
        } else if deadline(deployment, &status).is_some_and(|at| at < rollout.now) {
            let text = format!("{subject} has timed out progressing.");
            set(&mut status, PROGRESSING, "False", TIMED_OUT, &text, rollout.now);
        }
    }
    remove_or_set_failure(&mut status, rollout);
    status
}

/// When the rollout counts as stuck, if it is not complete or stuck already.
fn deadline(deployment: &Deployment, status: &DeploymentStatus) -> Option<Timestamp> {
    let limit = deployment.spec.as_ref()?.progress_deadline_seconds?;
    let current = condition(status, PROGRESSING)?;
    if matches!(current.reason.as_deref(), Some(COMPLETE | TIMED_OUT)) {
        return None;
    }
    Some(current.last_update_time.as_ref()?.0 + seconds(limit))
}

/// When to look again for lack of progress.
pub(super) fn next_check(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    if !has_deadline(deployment) || is_complete(deployment, status) {
        return None;
    }
    let at = deadline(deployment, status)?;
    Some(until(at, now).unwrap_or_default() + Duration::from_secs(1))
}

/// The new set's failure to create Pods, or else any set's.
fn remove_or_set_failure(status: &mut DeploymentStatus, rollout: &Rollout<'_>) {
    let failure = |set: &ReplicaSet| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_ == REPLICA_FAILURE).cloned()
    };
    let found = rollout.new_set().and_then(failure).or_else(|| rollout.sets.iter().find_map(failure));
    let Some(found) = found else { return remove(status, REPLICA_FAILURE) };
    let known = condition(status, REPLICA_FAILURE);
    if known.is_some_and(|k| k.status == found.status && k.reason == found.reason) {
        return;
    }
    remove(status, REPLICA_FAILURE);
    status.conditions.get_or_insert_default().push(DeploymentCondition {
        type_: REPLICA_FAILURE.to_owned(),
        status: found.status,
        reason: found.reason,
        message: found.message,
        last_update_time: found.last_transition_time.clone(),
        last_transition_time: found.last_transition_time,
    });
}

/// The Deployment with its collision count raised: another object has the name of its next set.
pub(super) fn with_collision(deployment: &Deployment) -> Deployment {
    let mut copy = deployment.clone();
    *copy.status.get_or_insert_default().collision_count.get_or_insert(0) += 1;
    copy
}

/// The Deployment with the refusal of its new set noted, if it keeps track of progress.
pub(super) fn with_failed_create(deployment: &Deployment, text: &str, now: Timestamp) -> Option<Deployment> {
    let mut copy = deployment.clone();
    let status = copy.status.get_or_insert_default();
    set(status, PROGRESSING, "False", "ReplicaSetCreateError", text, now);
    (has_deadline(deployment) && copy.status != deployment.status).then_some(copy)
}
