//! Which owners a change of a Pod concerns.

use std::time::Duration;

use client::{Change, Informer, Key, Object, Queue};

use super::{expectations::Expectations, state};
use crate::{
    kinds::{LabelSelector, core::Pod},
    meta::{self, Labels, Meta},
};

/// An object that owns Pods by selector.
pub(crate) trait PodOwner: Object {
    /// `None` if it selects nothing.
    fn selector(&self) -> Option<LabelSelector>;
    /// How long a Pod has to be ready to count as available.
    fn min_ready_seconds(&self) -> i32;

    fn selects(&self, labels: &Labels) -> bool {
        self.selector().is_some_and(|s| !meta::is_empty_selector(&s) && meta::selects(&s, labels))
    }
}

/// Queues the owner of the Pod, its former owner, and for an orphan every owner that could adopt it; settles what
/// was expected. A Pod that has become ready brings its owner back when it will count as available.
pub(crate) fn pod_changed<O: PodOwner>(
    change: &Change<Pod>,
    queue: &Queue<Key>,
    pending: &Expectations,
    owners: &Informer<O>,
) {
    let old_owner = change.old.as_deref().and_then(meta::owner_key::<O>);
    let Some(pod) = change.new.as_deref() else {
        if let (Some(owner), Some(old)) = (old_owner, &change.old) {
            pending.deletion_settled(&owner, old.uid());
            queue.add(owner);
        }
        return;
    };
    let owner = meta::owner_key::<O>(pod);
    if let Some(old_owner) = old_owner.filter(|old| owner.as_ref() != Some(old)) {
        queue.add(old_owner);
    }
    if let Some(owner) = owner {
        if change.old.is_none() {
            pending.creation_settled(&owner);
        }
        if pod.is_deleting() {
            pending.deletion_settled(&owner, pod.uid());
        }
        let became_ready = state::is_ready(pod) && !change.old.as_deref().is_some_and(state::is_ready);
        let patience = owners.get(&owner).map_or(0, |o| o.min_ready_seconds());
        queue.add(owner.clone());
        if became_ready && patience > 0 {
            queue.add_after(owner, Duration::from_secs(u64::from(patience.unsigned_abs()) + 1));
        }
    } else if pod.controller().is_none() {
        let relabelled = change.old.as_deref().is_none_or(|o| o.labels() != pod.labels() || o.controller().is_some());
        if relabelled {
            let matching = owners.list_in(pod.namespace()).into_iter();
            matching.filter(|o| o.selects(pod.labels())).for_each(|o| queue.add(o.key()));
        }
    }
}
