//! What a DaemonSet reports.

use std::time::Duration;

use super::plan::View;
use crate::{
    kinds::apps::{DaemonSet, DaemonSetStatus},
    pods::{state, wake::PodOwner},
};

/// The set with its counts; the generation counts as observed only if the plan was made for it.
pub(super) fn with_status(view: &View<'_>, collisions: Option<i32>, observed: bool) -> DaemonSet {
    let old = view.set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        collision_count: collisions,
        conditions: old.conditions,
        observed_generation: if observed { view.set.metadata.generation } else { old.observed_generation },
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for place in view.places.values() {
        let first = place.pods.first();
        if !place.should_run {
            status.number_misscheduled += i32::from(first.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = first else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(state::is_ready(pod));
        available += i32::from(view.is_available(pod));
        updated += i32::from(view.is_updated(pod));
    }
    let unavailable = status.desired_number_scheduled - available;
    status.updated_number_scheduled = Some(updated).filter(|n| *n != 0);
    status.number_available = Some(available).filter(|n| *n != 0);
    status.number_unavailable = Some(unavailable).filter(|n| *n != 0);
    DaemonSet { status: Some(status), ..view.set.clone() }
}

/// When ready Pods may have become available.
pub(super) fn next_check(view: &View<'_>) -> Option<Duration> {
    let waiting = view.places.values().flat_map(|p| &p.pods).any(|p| state::is_ready(p) && !view.is_available(p));
    let patience = view.set.min_ready_seconds().unsigned_abs();
    waiting.then(|| Duration::from_secs(u64::from(patience).max(1)))
}
