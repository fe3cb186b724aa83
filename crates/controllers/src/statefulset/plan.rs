//! Which Pods to create, repair and delete next, and what to report.
//!
//! With policy `OrderedReady` a step waits for all Pods before it: up in order of ordinals, down in reverse. With
//! `Parallel` only updates are bounded, by `maxUnavailable`.

use std::sync::Arc;

use jiff::Timestamp;

use super::identity;
use crate::{
    kinds::{
        IntOrString,
        apps::{ControllerRevision, StatefulSet, StatefulSetStatus},
        core::Pod,
    },
    meta::{Meta, scaled},
    pods::{state, wake::PodOwner},
    revisions::{self, HASH_LABEL},
};

#[derive(Debug)]
pub(super) enum Op {
    Create(Box<Pod>),
    /// The Pod is waiting and may be waiting for a claim that is gone.
    EnsureClaims(Arc<Pod>),
    /// The Pod with its identity put right.
    Repair(Box<Pod>),
    Delete(Arc<Pod>),
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) ops: Vec<Op>,
    pub(super) status: StatefulSetStatus,
}

/// One StatefulSet and what belongs to it.
pub(super) struct View<'a> {
    pub(super) set: &'a StatefulSet,
    /// The revision that Pods are moving away from.
    pub(super) current: &'a ControllerRevision,
    pub(super) update: &'a ControllerRevision,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) now: Timestamp,
}

/// The Pod of one ordinal, there or not.
struct Slot {
    ordinal: i32,
    pod: Option<Arc<Pod>>,
}

fn revision(pod: &Pod) -> &str {
    pod.label(HASH_LABEL).unwrap_or_default()
}

fn is_running_and_ready(pod: &Pod) -> bool {
    state::phase(pod) == "Running" && state::is_ready(pod)
}

impl View<'_> {
    fn is_available(&self, pod: &Pod) -> bool {
        is_running_and_ready(pod) && state::is_available(pod, self.set.min_ready_seconds(), self.now)
    }

    fn strategy(&self) -> (bool, i32, IntOrString) {
        let strategy = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        let rolls = strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete");
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let partition = rolling.and_then(|r| r.partition).unwrap_or(0);
        let unavailable = rolling.and_then(|r| r.max_unavailable.clone()).unwrap_or(IntOrString::Int(1));
        (rolls, partition, unavailable)
    }

    fn is_ordered(&self) -> bool {
        self.set.spec.as_ref().and_then(|s| s.pod_management_policy.as_deref()) != Some("Parallel")
    }

    pub(super) fn plan(&self) -> Plan {
        let range = identity::range(self.set);
        let find =
            |ordinal: i32| self.pods.iter().find(|p| identity::ordinal(self.set, p.name()) == Some(ordinal)).cloned();
        let slots: Vec<Slot> = range.map(|ordinal| Slot { ordinal, pod: find(ordinal) }).collect();
        let mut condemned: Vec<Arc<Pod>> =
            self.pods.iter().filter(|p| !identity::is_in_range(self.set, p.name())).cloned().collect();
        condemned.sort_by_key(|p| std::cmp::Reverse(identity::ordinal(self.set, p.name())));
        let status = self.status();
        let mut ops = Vec::new();
        if self.set.is_deleting() {
            return Plan { ops, status };
        }
        let settled = self.fill(&slots, &mut ops) && self.shrink(&slots, &condemned, &mut ops);
        if settled {
            self.roll(&slots, &mut ops);
        }
        Plan { ops, status }
    }

    /// A new Pod for the slot: of the old revision below the partition or while a rollout has not reached it.
    fn make(&self, ordinal: i32) -> Op {
        let start = identity::range(self.set).start;
        let strategy = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        let (rolls, partition, _) = self.strategy();
        let below = match strategy.and_then(|s| s.rolling_update.as_ref()) {
            _ if !rolls => false,
            None => ordinal < start + self.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0),
            Some(_) => ordinal < start + partition,
        };
        let from = if below { self.current } else { self.update };
        let own = self.set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let template = revisions::template(from).filter(|_| below).unwrap_or(own);
        Op::Create(Box::new(identity::pod(self.set, &template, from.name(), ordinal)))
    }

    /// Brings each slot to a running Pod. False while there is something to wait for.
    fn fill(&self, slots: &[Slot], ops: &mut Vec<Op>) -> bool {
        let ordered = self.is_ordered();
        let mut settled = true;
        for slot in slots {
            let Some(pod) = &slot.pod else {
                ops.push(self.make(slot.ordinal));
                if ordered {
                    return false;
                }
                continue;
            };
            if state::is_terminal(pod) {
                if !pod.is_deleting() {
                    ops.push(Op::Delete(pod.clone()));
                }
                settled = false;
                if ordered {
                    return false;
                }
                continue;
            }
            if state::phase(pod) == "Pending" && !pod.is_deleting() {
                ops.push(Op::EnsureClaims(pod.clone()));
            }
            if ordered && (pod.is_deleting() || !self.is_available(pod)) {
                return false;
            }
            if !pod.is_deleting()
                && let Some(repaired) = identity::repaired(self.set, pod)
            {
                ops.push(Op::Repair(Box::new(repaired)));
            }
        }
        settled
    }

    /// Takes Pods beyond the replicas, the highest first.
    fn shrink(&self, slots: &[Slot], condemned: &[Arc<Pod>], ops: &mut Vec<Op>) -> bool {
        let ordered = self.is_ordered();
        let in_slots = slots.iter().filter_map(|s| s.pod.as_ref());
        let unhealthy = |p: &&Arc<Pod>| !is_running_and_ready(p) || p.is_deleting();
        let first_unhealthy = in_slots.chain(condemned.iter().rev()).find(unhealthy);
        for pod in condemned {
            if pod.is_deleting() {
                if ordered {
                    return false;
                }
                continue;
            }
            let first = first_unhealthy.is_some_and(|f| Arc::ptr_eq(f, pod));
            if ordered && !self.is_available(pod) && !first {
                return false;
            }
            ops.push(Op::Delete(pod.clone()));
            if ordered {
                return false;
            }
        }
        true
    }

    /// Deletes Pods of an old revision from the highest ordinal down to the partition, while few are unavailable.
    fn roll(&self, slots: &[Slot], ops: &mut Vec<Op>) {
        let (rolls, partition, max_unavailable) = self.strategy();
        if !rolls {
            return;
        }
        let total = i32::try_from(slots.len()).unwrap_or(i32::MAX);
        let allowed = scaled(&max_unavailable, total, false).max(1);
        let up = |s: &&Slot| s.pod.as_ref().is_some_and(|p| !p.is_deleting() && self.is_available(p));
        let unavailable = total - i32::try_from(slots.iter().filter(up).count()).unwrap_or(i32::MAX);
        let room = usize::try_from(allowed - unavailable).unwrap_or(0);
        let start = identity::range(self.set).start;
        let outdated = slots
            .iter()
            .rev()
            .filter(|s| s.ordinal >= start + partition)
            .filter_map(|s| s.pod.as_ref())
            .filter(|p| revision(p) != self.update.name() && !p.is_deleting());
        ops.extend(outdated.take(room).cloned().map(Op::Delete));
    }

    fn status(&self) -> StatefulSetStatus {
        let old = self.set.status.clone().unwrap_or_default();
        let count = |test: &dyn Fn(&Pod) -> bool| {
            i32::try_from(self.pods.iter().filter(|p| test(p)).count()).unwrap_or(i32::MAX)
        };
        let of = |name: &str| count(&|p| !p.is_deleting() && !state::is_terminal(p) && revision(p) == name);
        let mut status = StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            replicas: count(&|p| !state::phase(p).is_empty()),
            ready_replicas: Some(count(&is_running_and_ready)),
            available_replicas: Some(count(&|p| self.is_available(p))),
            current_replicas: Some(of(self.current.name())),
            updated_replicas: Some(of(self.update.name())),
            current_revision: Some(self.current.name().to_owned()),
            update_revision: Some(self.update.name().to_owned()),
            collision_count: old.collision_count,
            conditions: old.conditions,
        };
        let wanted = Some(status.replicas);
        let complete = status.updated_replicas == wanted && status.ready_replicas == wanted;
        if self.strategy().0 && complete {
            status.current_revision.clone_from(&status.update_revision);
            status.current_replicas = status.updated_replicas;
        }
        for counter in [&mut status.ready_replicas, &mut status.current_replicas, &mut status.updated_replicas] {
            *counter = counter.filter(|n| *n != 0);
        }
        status
    }
}
