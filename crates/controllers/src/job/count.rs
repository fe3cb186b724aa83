//! Accounts for finished Pods: see the three steps in the description of the controller.

use std::{collections::HashMap, sync::Arc};

use super::{
    failure::{self, Meaning},
    indexes::{self, Indexes},
    is_tracked,
};
use crate::{
    kinds::{
        batch::{Job, JobStatus, UncountedTerminatedPods},
        core::Pod,
    },
    meta::Meta,
    pods::state,
};

/// Uids noted in one pass.
const STEP: usize = 500;

/// The account after one pass.
#[derive(Debug)]
pub(super) struct Account {
    /// Counted for good.
    counted_succeeded: i32,
    counted_failed: i32,
    uncounted: UncountedTerminatedPods,
    pub(super) completed: Indexes,
    pub(super) failed_indexes: Indexes,
    /// Failed Pods that are kept until their replacement carries on their count.
    held_back: i32,
    indexed: bool,
    /// To be let go once the account is stored.
    pub(super) release: Vec<Arc<Pod>>,
    per_index: bool,
}

/// How the Job ends, as far as counting is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    No,
    Success,
    Failure,
}

pub(super) fn completions(job: &Job) -> Option<i32> {
    job.spec.as_ref().and_then(|s| s.completions)
}

pub(super) fn is_indexed(job: &Job) -> bool {
    job.spec.as_ref().and_then(|s| s.completion_mode.as_deref()) == Some("Indexed")
}

pub(super) fn limit_per_index(job: &Job) -> Option<i32> {
    job.spec.as_ref().and_then(|s| s.backoff_limit_per_index).filter(|_| is_indexed(job))
}

impl Account {
    /// Takes up the stored account, moves what is settled into the counters and notes what has finished.
    pub(super) fn new(job: &Job, pods: &[Arc<Pod>]) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let total = completions(job).unwrap_or(0);
        let read = |text: &Option<String>| indexes::parse(text.as_deref().unwrap_or_default(), total);
        let indexed = is_indexed(job);
        let mut account = Self {
            counted_succeeded: status.succeeded.unwrap_or(0),
            counted_failed: status.failed.unwrap_or(0),
            uncounted: status.uncounted_terminated_pods.clone().unwrap_or_default(),
            completed: if indexed { read(&status.completed_indexes) } else { Indexes::new() },
            failed_indexes: read(&status.failed_indexes),
            held_back: 0,
            indexed,
            release: Vec::new(),
            per_index: limit_per_index(job).is_some(),
        };
        account.settle(pods);
        account.note(job, pods, total);
        account
    }

    fn settle(&mut self, pods: &[Arc<Pod>]) {
        let held: HashMap<&str, &Arc<Pod>> = pods.iter().filter(|p| is_tracked(p)).map(|p| (p.uid(), p)).collect();
        let lists = [
            (&mut self.uncounted.succeeded, &mut self.counted_succeeded),
            (&mut self.uncounted.failed, &mut self.counted_failed),
        ];
        for (list, counter) in lists {
            list.get_or_insert_default().retain(|uid| {
                let pod = held.get(uid.as_str());
                match pod {
                    Some(pod) => self.release.push(Arc::clone(pod)),
                    None => *counter += 1,
                }
                pod.is_some()
            });
        }
    }

    fn is_noted(&self, uid: &str) -> bool {
        [&self.uncounted.succeeded, &self.uncounted.failed].into_iter().flatten().flatten().any(|u| u == uid)
    }

    fn note(&mut self, job: &Job, pods: &[Arc<Pod>], total: i32) {
        let tracked = pods.iter().filter(|p| is_tracked(p));
        for pod in tracked.take(STEP) {
            if self.is_noted(pod.uid()) {
                continue;
            }
            if state::is_succeeded(pod) {
                self.note_success(pod, total);
            } else if failure::has_failed(job, pod) {
                self.note_failure(job, pod, pods, total);
            }
        }
    }

    fn note_success(&mut self, pod: &Arc<Pod>, total: i32) {
        if self.indexed {
            self.completed.extend(indexes::of(pod, total));
        } else {
            self.uncounted.succeeded.get_or_insert_default().push(pod.uid().to_owned());
        }
        self.release.push(pod.clone());
    }

    fn note_failure(&mut self, job: &Job, pod: &Arc<Pod>, pods: &[Arc<Pod>], total: i32) {
        let meaning = failure::meaning(job, pod);
        if let (Some(limit), Some(index)) = (limit_per_index(job), indexes::of(pod, total)) {
            let counted = meaning != Meaning::Ignore;
            if meaning == Meaning::FailIndex || counted && failure::index_failures(pod) >= limit {
                self.failed_indexes.insert(index);
            }
            let closed = self.failed_indexes.contains(&index) || self.completed.contains(&index);
            let replaced = pods.iter().any(|other| {
                other.uid() != pod.uid()
                    && indexes::of(other, total) == Some(index)
                    && (failure::index_failures(other), other.created()) > (failure::index_failures(pod), pod.created())
            });
            if !closed && !replaced {
                self.held_back += i32::from(counted);
                return;
            }
        }
        if meaning != Meaning::Ignore {
            self.uncounted.failed.get_or_insert_default().push(pod.uid().to_owned());
        }
        self.release.push(pod.clone());
    }

    /// The Job ends: all Pods are let go, and for a failed Job those that did not succeed count as failed.
    pub(super) fn close(&mut self, job: &Job, pods: &[Arc<Pod>], ending: Ending) {
        if ending == Ending::No {
            return;
        }
        self.held_back = 0;
        for pod in pods.iter().filter(|p| is_tracked(p)) {
            if self.release.iter().any(|r| r.uid() == pod.uid()) {
                continue;
            }
            let counts = ending == Ending::Failure && failure::meaning(job, pod) != Meaning::Ignore;
            if counts || failure::has_failed(job, pod) {
                self.uncounted.failed.get_or_insert_default().push(pod.uid().to_owned());
            }
            self.release.push(pod.clone());
        }
    }

    pub(super) fn succeeded(&self) -> i32 {
        if self.indexed {
            return i32::try_from(self.completed.len()).unwrap_or(i32::MAX);
        }
        self.counted_succeeded + len(&self.uncounted.succeeded)
    }

    pub(super) fn failed(&self) -> i32 {
        self.counted_failed + len(&self.uncounted.failed) + self.held_back
    }

    /// Whether every Pod's end is in the counters.
    pub(super) fn is_settled(&self) -> bool {
        len(&self.uncounted.succeeded) == 0 && len(&self.uncounted.failed) == 0 && self.release.is_empty()
    }

    pub(super) fn store(&self, status: &mut JobStatus) {
        let some = |n: i32| Some(n).filter(|n| *n != 0);
        let text = |set: &Indexes| Some(indexes::format(set)).filter(|t| !t.is_empty());
        status.succeeded = some(if self.indexed { self.succeeded() } else { self.counted_succeeded });
        status.failed = some(self.counted_failed);
        let trim = |list: &Option<Vec<String>>| list.clone().filter(|l| !l.is_empty());
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
            succeeded: trim(&self.uncounted.succeeded),
            failed: trim(&self.uncounted.failed),
        });
        status.completed_indexes = if self.indexed { text(&self.completed) } else { None };
        if self.per_index {
            status.failed_indexes = Some(indexes::format(&self.failed_indexes));
        }
    }
}

fn len(list: &Option<Vec<String>>) -> i32 {
    list.as_ref().map_or(0, |l| i32::try_from(l.len()).unwrap_or(i32::MAX))
}
