//! What to create and delete, node by node.
//!
//! [`View::manage`] keeps the right number of Pods on each node whatever their template; [`View::update`] replaces
//! those of an old template within `maxUnavailable` or `maxSurge`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::nodes;
use crate::{
    kinds::{
        IntOrString,
        apps::DaemonSet,
        core::{Node, Pod},
    },
    meta::{Meta, scaled, sooner},
    pods::{state, wake::PodOwner},
};

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes that need a Pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Of those deleted, the ones that ended by themselves: Pod, node, whether it failed.
    pub(super) finished: Vec<(Arc<Pod>, String, bool)>,
    pub(super) again: Option<Duration>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }
}

/// A node as one DaemonSet sees it; Pods oldest first.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) should_run: bool,
    may_stay: bool,
    pub(super) pods: Vec<Arc<Pod>>,
}

/// A DaemonSet with its places.
pub(super) struct View<'a> {
    pub(super) set: &'a DaemonSet,
    pub(super) hash: &'a str,
    pub(super) now: Timestamp,
    pub(super) places: BTreeMap<String, Place>,
}

impl<'a> View<'a> {
    pub(super) fn new(
        set: &'a DaemonSet,
        hash: &'a str,
        nodes: &[Arc<Node>],
        pods: &[Arc<Pod>],
        now: Timestamp,
    ) -> Self {
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        for node in nodes {
            let (should_run, may_stay) = nodes::verdict(set, node);
            places.insert(node.name().to_owned(), Place { should_run, may_stay, pods: Vec::new() });
        }
        for pod in pods {
            if let Some(node) = nodes::node_of(pod) {
                places.entry(node.to_owned()).or_default().pods.push(pod.clone());
            }
        }
        let placed = |p: &Pod| !state::node_name(p).is_empty();
        for place in places.values_mut() {
            place.pods.sort_by_key(|p| (!placed(p), p.created()));
        }
        Self { set, hash, now, places }
    }

    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        state::is_available(pod, self.set.min_ready_seconds(), self.now)
    }

    pub(super) fn is_updated(&self, pod: &Pod) -> bool {
        nodes::is_updated(self.set, pod, self.hash)
    }

    fn desired(&self) -> i32 {
        i32::try_from(self.places.values().filter(|p| p.should_run).count()).unwrap_or(i32::MAX)
    }

    /// `(maxSurge, maxUnavailable)` in nodes, or `None` for strategy OnDelete.
    fn limits(&self) -> Option<(i32, i32)> {
        let strategy = self.set.spec.as_ref()?.update_strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return None;
        }
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let surge = rolling.and_then(|r| r.max_surge.clone()).unwrap_or(IntOrString::Int(0));
        let unavailable = rolling.and_then(|r| r.max_unavailable.clone()).unwrap_or(IntOrString::Int(1));
        let total = self.desired();
        match (scaled(&surge, total, true), scaled(&unavailable, total, true)) {
            (0, 0) => Some((0, 1)),
            limits => Some(limits),
        }
    }

    /// One Pod where one should be, none where none may be. `blocked` says how long a failed Pod has to stay.
    pub(super) fn manage(&self, blocked: impl Fn(&str) -> Option<Duration>) -> Plan {
        let mut plan = Plan::default();
        let surging = self.limits().is_some_and(|(surge, _)| surge > 0);
        for (node, place) in &self.places {
            if !place.may_stay {
                plan.delete.extend(place.pods.iter().filter(|p| !p.is_deleting()).cloned());
                continue;
            }
            if place.pods.is_empty() {
                if place.should_run {
                    plan.create.push(node.clone());
                }
                continue;
            }
            let mut running = Vec::new();
            for pod in place.pods.iter().filter(|p| !p.is_deleting()) {
                match state::phase(pod) {
                    "Failed" => match blocked(node) {
                        Some(wait) => plan.again = sooner(plan.again, Some(wait)),
                        None => {
                            plan.finished.push((pod.clone(), node.clone(), true));
                            plan.delete.push(pod.clone());
                        }
                    },
                    "Succeeded" => {
                        plan.finished.push((pod.clone(), node.clone(), false));
                        plan.delete.push(pod.clone());
                    }
                    _ => running.push(pod.clone()),
                }
            }
            if !surging {
                plan.delete.extend(running.into_iter().skip(1));
            } else if running.is_empty() && place.should_run && place.pods.iter().all(|p| p.is_deleting()) {
                plan.create.push(node.clone());
            } else {
                self.prune_surge(running, &mut plan);
            }
        }
        plan
    }

    /// Two Pods may share a node only while the new one gets ready beside a ready old one.
    fn prune_surge(&self, running: Vec<Arc<Pod>>, plan: &mut Plan) {
        let (mut new, mut old) = (None, None);
        for pod in running {
            let slot = if self.is_updated(&pod) { &mut new } else { &mut old };
            match slot {
                None => *slot = Some(pod),
                Some(_) => plan.delete.push(pod),
            }
        }
        if let (Some(new), Some(old)) = (new, old)
            && (!state::is_ready(&old) || self.is_available(&new))
        {
            plan.delete.push(old);
        }
    }

    /// Replaces Pods of an old template.
    pub(super) fn update(&self) -> Plan {
        match self.limits() {
            None => Plan::default(),
            Some((0, max_unavailable)) => self.update_in_place(max_unavailable),
            Some((max_surge, _)) => self.update_by_surge(max_surge),
        }
    }

    /// `(new, old)` of the Pods that stay; `None` if there is more than one of either.
    fn pair(&self, place: &Place) -> Option<(Option<Arc<Pod>>, Option<Arc<Pod>>)> {
        let (mut new, mut old) = (None, None);
        for pod in place.pods.iter().filter(|p| !p.is_deleting()) {
            let slot = if self.is_updated(pod) { &mut new } else { &mut old };
            if slot.replace(pod.clone()).is_some() {
                return None;
            }
        }
        Some((new, old))
    }

    fn update_in_place(&self, max_unavailable: i32) -> Plan {
        let mut plan = Plan::default();
        let mut unavailable = 0;
        let mut candidates = Vec::new();
        for place in self.places.values().filter(|p| p.should_run || !p.pods.is_empty()) {
            match self.pair(place) {
                Some((None, Some(old))) if self.is_available(&old) => candidates.push(old),
                Some((None, Some(old))) => {
                    plan.delete.push(old);
                    unavailable += 1;
                }
                Some((Some(new), None)) if self.is_available(&new) => {}
                _ => unavailable += 1,
            }
        }
        let room = usize::try_from(max_unavailable - unavailable).unwrap_or(0);
        plan.delete.extend(candidates.into_iter().take(room));
        plan
    }

    fn update_by_surge(&self, max_surge: i32) -> Plan {
        let mut plan = Plan::default();
        let (mut surging, mut available) = (0, 0);
        let (mut candidates, mut misplaced) = (Vec::new(), Vec::new());
        for (node, place) in &self.places {
            let Some((new, old)) = self.pair(place) else {
                surging += 1;
                continue;
            };
            if old.as_ref().or(new.as_ref()).is_some_and(|p| self.is_available(p)) {
                available += 1;
            }
            match (new, old) {
                (_, None) => {}
                (None, Some(old)) => match (self.is_available(&old), place.should_run) {
                    (false, false) => plan.delete.push(old),
                    (false, true) => plan.create.push(node.clone()),
                    (true, false) => misplaced.push(old),
                    (true, true) => candidates.push(node.clone()),
                },
                (Some(new), Some(old)) if self.is_available(&new) => plan.delete.push(old),
                (Some(_), Some(_)) => surging += 1,
            }
        }
        let spare = usize::try_from(available - self.desired()).unwrap_or(0);
        plan.delete.extend(misplaced.into_iter().take(spare));
        let room = usize::try_from(max_surge - surging).unwrap_or(0);
        plan.create.extend(candidates.into_iter().take(room));
        plan
    }
}
