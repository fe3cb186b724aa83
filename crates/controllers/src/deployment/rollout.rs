//! The plan: which ReplicaSets to make, scale and drop, and what to report.
//!
//! A plan works on copies of the sets and scales them in memory, so that each step sees the one before; the writes
//! fall out as a list. Proportional scaling and the limits follow the description of `spec.strategy` in the API
//! reference.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use client::Key;
use jiff::Timestamp;

use super::{revision, status};
use crate::{
    kinds::{
        IntOrString,
        apps::{Deployment, DeploymentStatus, ReplicaSet},
    },
    meta::{Meta, scaled},
};

/// One write.
#[derive(Debug)]
pub(super) enum Op {
    Create(Box<ReplicaSet>),
    Update { set: Box<ReplicaSet>, scaled_from: Option<i32> },
    Delete(Key),
    Status(Box<Deployment>),
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) ops: Vec<Op>,
    /// Look again then, for lack of progress.
    pub(super) again: Option<Duration>,
}

/// The state of a plan in the making.
pub(super) struct Rollout<'a> {
    original: &'a Deployment,
    /// A copy, whose status and revision annotation the plan may change.
    pub(super) deployment: Deployment,
    /// Copies of the owned sets, oldest first.
    pub(super) sets: Vec<ReplicaSet>,
    new: Option<usize>,
    pub(super) now: Timestamp,
    ops: Vec<Op>,
}

pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

pub(super) fn has_deadline(deployment: &Deployment) -> bool {
    let limit = deployment.spec.as_ref().and_then(|s| s.progress_deadline_seconds);
    limit.is_some_and(|limit| limit != i32::MAX)
}

/// `(maxSurge, maxUnavailable)` in Pods; both zero would never move, so one Pod may then be unavailable.
fn limits(deployment: &Deployment) -> (i32, i32) {
    if is_recreate(deployment) {
        return (0, 0);
    }
    let rolling = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref()).and_then(|s| s.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".to_owned());
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter);
    let total = wanted(deployment);
    match (scaled(surge, total, true), scaled(unavailable, total, false)) {
        (0, 0) => (0, 1),
        limits => limits,
    }
}

pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    limits(deployment).0
}

pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    limits(deployment).1.min(wanted(deployment))
}

/// Plans one pass. `running` tells whether any Pod of a set may still run.
pub(super) fn plan(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    running: impl Fn(&ReplicaSet) -> bool,
    now: Timestamp,
) -> Plan {
    let mut sets: Vec<ReplicaSet> = sets.iter().map(|s| ReplicaSet::clone(s)).collect();
    sets.sort_by(|a, b| (a.created(), a.name()).cmp(&(b.created(), b.name())));
    let new = sets.iter().position(|set| revision::same_template(deployment, set));
    let mut rollout = Rollout { original: deployment, deployment: deployment.clone(), sets, new, now, ops: Vec::new() };
    rollout.run(running)
}

impl Rollout<'_> {
    pub(super) fn new_set(&self) -> Option<&ReplicaSet> {
        self.new.and_then(|index| self.sets.get(index))
    }

    fn run(&mut self, running: impl Fn(&ReplicaSet) -> bool) -> Plan {
        if self.deployment.is_deleting() {
            let status = status::counted(self);
            return self.finish(status);
        }
        status::note_pause(&mut self.deployment, self.now);
        let paused = self.deployment.spec.as_ref().and_then(|s| s.paused) == Some(true);
        self.adopt_new();
        if paused || self.is_scaling() {
            self.scale_in_proportion();
            if paused {
                self.clean_up();
            }
            let status = status::counted(self);
            return self.finish(status);
        }
        if is_recreate(&self.deployment) {
            self.recreate(running);
        } else {
            self.roll();
        }
        let status = status::during_rollout(self);
        self.finish(status)
    }

    fn finish(&mut self, status: DeploymentStatus) -> Plan {
        let again = status::next_check(&self.deployment, &status, self.now);
        self.deployment.status = Some(status);
        if self.deployment != *self.original {
            self.ops.push(Op::Status(Box::new(self.deployment.clone())));
        }
        Plan { ops: std::mem::take(&mut self.ops), again }
    }

    fn next_revision(&self) -> i64 {
        let old = self.sets.iter().enumerate().filter(|(i, _)| Some(*i) != self.new);
        old.map(|(_, set)| revision::of(set)).max().unwrap_or(0) + 1
    }

    /// Brings the annotations of an existing new set up to date, and with them the Deployment's revision.
    fn adopt_new(&mut self) {
        let next = self.next_revision();
        let Some(index) = self.new else { return };
        let min_ready = self.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
        let mut set = self.sets[index].clone();
        let mut changed = revision::annotate(&self.deployment, &mut set, next);
        if let Some(spec) = set.spec.as_mut().filter(|s| s.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0)) {
            spec.min_ready_seconds = min_ready;
            changed = true;
        }
        self.set_revision(set.annotation(revision::REVISION).unwrap_or_default().to_owned());
        let untracked =
            self.deployment.status.as_ref().is_none_or(|s| status::condition(s, status::PROGRESSING).is_none());
        if has_deadline(&self.deployment) && untracked {
            let text = format!("Found new replica set \"{}\"", set.name());
            self.note_progress("FoundNewReplicaSet", &text);
        }
        if changed {
            self.write(index, set, None);
        }
    }

    fn set_revision(&mut self, revision: String) {
        self.deployment.metadata.annotations.get_or_insert_default().insert(revision::REVISION.to_owned(), revision);
    }

    fn note_progress(&mut self, reason: &str, text: &str) {
        let now = self.now;
        let status = self.deployment.status.get_or_insert_default();
        status::set(status, status::PROGRESSING, "True", reason, text, now);
    }

    /// Records a write of the set; several of one pass become one.
    fn write(&mut self, index: usize, set: ReplicaSet, scaled_from: Option<i32>) {
        let name = set.name().to_owned();
        self.sets[index] = set.clone();
        for op in &mut self.ops {
            match op {
                Op::Create(made) if made.name() == name => return **made = set,
                Op::Update { set: written, scaled_from: from } if written.name() == name => {
                    **written = set;
                    *from = from.or(scaled_from);
                    return;
                }
                _ => {}
            }
        }
        self.ops.push(Op::Update { set: Box::new(set), scaled_from });
    }

    /// Scales the set and notes the size it was scaled for. True if it changed size.
    fn scale(&mut self, index: usize, to: i32, note_always: bool) -> bool {
        let from = size(&self.sets[index]);
        if from == to && !note_always {
            return false;
        }
        let total = wanted(&self.deployment);
        let mut set = self.sets[index].clone();
        let noted = revision::annotate_size(&mut set, total, total + max_surge(&self.deployment));
        set.spec.get_or_insert_default().replicas = Some(to);
        if from != to || noted {
            self.write(index, set, (from != to).then_some(from));
        }
        from != to
    }

    /// Whether the size wanted differs from the one that active sets were last scaled for.
    fn is_scaling(&self) -> bool {
        let active = self.sets.iter().filter(|s| size(s) > 0);
        let noted = active.filter_map(|s| revision::noted_size(s, revision::DESIRED));
        let wanted = wanted(&self.deployment);
        noted.into_iter().any(|n| n != wanted)
    }

    fn old(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|i| Some(*i) != self.new).collect()
    }

    fn active_old(&self) -> Vec<usize> {
        self.old().into_iter().filter(|i| size(&self.sets[*i]) > 0).collect()
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(size).sum()
    }

    /// Spreads a change of size over all active sets, to keep the proportions of a rollout under way.
    fn scale_in_proportion(&mut self) {
        let wanted = wanted(&self.deployment);
        let mut active: Vec<usize> = (0..self.sets.len()).filter(|i| size(&self.sets[*i]) > 0).collect();
        if active.len() <= 1 {
            let only = active.first().copied().or(self.new).or_else(|| self.old().last().copied());
            if let Some(index) = only {
                self.scale(index, wanted, false);
            }
            return;
        }
        if self.is_saturated() {
            for index in self.active_old() {
                self.scale(index, 0, false);
            }
            return;
        }
        if is_recreate(&self.deployment) {
            return;
        }
        let allowed = if wanted > 0 { wanted + max_surge(&self.deployment) } else { 0 };
        let to_add = allowed - self.total();
        let sets = &self.sets;
        match to_add {
            1.. => active.sort_by_key(|i| (Reverse(size(&sets[*i])), Reverse(sets[*i].created()))),
            _ => active.sort_by_key(|i| (Reverse(size(&sets[*i])), sets[*i].created())),
        }
        let mut added = 0;
        let mut sizes = Vec::new();
        for index in &active {
            let part = self.proportion(&self.sets[*index], to_add, added);
            added += part;
            sizes.push(size(&self.sets[*index]) + part);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (index, to) in active.into_iter().zip(sizes) {
            self.scale(index, to, true);
        }
    }

    fn is_saturated(&self) -> bool {
        let wanted = wanted(&self.deployment);
        self.new_set().is_some_and(|set| {
            revision::noted_size(set, revision::DESIRED) == Some(wanted)
                && size(set) == wanted
                && status::available(set) == wanted
        })
    }

    /// The share of `to_add` for one set when `added` are spent already.
    fn proportion(&self, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
        if to_add == 0 || to_add == added {
            return 0;
        }
        let fraction = self.fraction(set);
        if to_add > 0 { fraction.min(to_add - added) } else { fraction.max(to_add - added) }
    }

    fn fraction(&self, set: &ReplicaSet) -> i32 {
        let wanted = wanted(&self.deployment);
        if wanted == 0 {
            return -size(set);
        }
        let reported = self.deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let before = revision::noted_size(set, revision::MAX).filter(|n| *n > 0).unwrap_or(reported);
        if before == 0 {
            return 0;
        }
        let product = i64::from(size(set)) * i64::from(wanted + max_surge(&self.deployment));
        // Rounded to the nearest.
        let grown = (2 * product + i64::from(before)) / (2 * i64::from(before));
        i32::try_from(grown).unwrap_or(i32::MAX) - size(set)
    }

    /// How large the new set may be now.
    fn new_size(&self, current: i32) -> i32 {
        let wanted = wanted(&self.deployment);
        if is_recreate(&self.deployment) {
            return wanted;
        }
        let room = wanted + max_surge(&self.deployment) - self.total();
        if room <= 0 { current } else { current + room.min(wanted - current) }
    }

    fn ensure_new(&mut self) -> usize {
        if let Some(index) = self.new {
            return index;
        }
        let next = self.next_revision();
        let mut set = revision::new_set(&self.deployment);
        let to = self.new_size(0);
        set.spec.get_or_insert_default().replicas = Some(to);
        revision::annotate(&self.deployment, &mut set, next);
        let wanted = wanted(&self.deployment);
        revision::annotate_size(&mut set, wanted, wanted + max_surge(&self.deployment));
        self.set_revision(next.to_string());
        if has_deadline(&self.deployment) {
            let text = format!("Created new replica set \"{}\"", set.name());
            self.note_progress("NewReplicaSetCreated", &text);
        }
        self.ops.push(Op::Create(Box::new(set.clone())));
        self.sets.push(set);
        self.new = Some(self.sets.len() - 1);
        self.sets.len() - 1
    }

    fn recreate(&mut self, running: impl Fn(&ReplicaSet) -> bool) {
        let mut scaled = false;
        for index in self.active_old() {
            scaled |= self.scale(index, 0, false);
        }
        if scaled || self.old().iter().any(|i| running(&self.sets[*i])) {
            return;
        }
        let new = self.ensure_new();
        self.scale(new, wanted(&self.deployment), false);
        self.clean_up_when_complete();
    }

    fn roll(&mut self) {
        let wanted = wanted(&self.deployment);
        let new = self.ensure_new();
        let current = size(&self.sets[new]);
        let to = if current > wanted { wanted } else { self.new_size(current) };
        if current != wanted && self.scale(new, to, false) {
            return;
        }
        if !self.shrink_old(new) {
            self.clean_up_when_complete();
        }
    }

    /// Takes Pods from old sets: first those that are not available anyway, then as many as availability allows.
    fn shrink_old(&mut self, new: usize) -> bool {
        let old = self.active_old();
        let min_available = wanted(&self.deployment) - max_unavailable(&self.deployment);
        let new_unavailable = size(&self.sets[new]) - status::available(&self.sets[new]);
        let mut budget = self.total() - min_available - new_unavailable;
        if old.is_empty() || budget <= 0 {
            return false;
        }
        let mut scaled = false;
        for index in &old {
            let have = size(&self.sets[*index]);
            let unhealthy = (have - status::available(&self.sets[*index])).min(budget).max(0);
            if unhealthy > 0 {
                budget -= unhealthy;
                scaled |= self.scale(*index, have - unhealthy, false);
            }
        }
        let available: i32 = self.sets.iter().map(status::available).sum();
        let mut spare = available - min_available;
        for index in &old {
            let have = size(&self.sets[*index]);
            let take = have.min(spare);
            if take > 0 {
                spare -= take;
                scaled |= self.scale(*index, have - take, false);
            }
        }
        scaled
    }

    fn clean_up_when_complete(&mut self) {
        let status = self.deployment.status.clone().unwrap_or_default();
        if status::is_complete(&self.deployment, &status) {
            self.clean_up();
        }
    }

    /// Drops the oldest empty sets beyond `revisionHistoryLimit`.
    fn clean_up(&mut self) {
        let limit = self.deployment.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
        let mut old: Vec<usize> = self.old().into_iter().filter(|i| !self.sets[*i].is_deleting()).collect();
        let keep = usize::try_from(limit).unwrap_or(0);
        if limit == i32::MAX || old.len() <= keep {
            return;
        }
        old.sort_by_key(|i| (revision::of(&self.sets[*i]), self.sets[*i].created()));
        old.truncate(old.len() - keep);
        for index in old {
            let set = &self.sets[index];
            let status = set.status.clone().unwrap_or_default();
            let settled = status.replicas == 0 && status.observed_generation.unwrap_or(0) >= set.generation();
            if settled && size(set) == 0 {
                self.ops.push(Op::Delete(set.key()));
            }
        }
    }
}
