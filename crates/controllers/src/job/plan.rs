//! One pass over a Job: count, decide whether it ends, else create and delete; and the status to store.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    count::{self, Account, Ending},
    failure::{self, Meaning},
    indexes, manage,
};
use crate::{
    kinds::{
        batch::{Job, JobCondition, JobStatus},
        core::Pod,
    },
    meta::{self, seconds, sooner, until},
    pods::state,
};

pub(super) struct View<'a> {
    pub(super) job: &'a Job,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) now: Timestamp,
    /// Whether the cache shows all creations and deletions that were made.
    pub(super) caught_up: bool,
}

/// `(warning, reason, message)`
pub(super) type Event = (bool, String, String);

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) create: Vec<Pod>,
    /// Pods to delete, and whether they leave without being accounted for.
    pub(super) delete: Vec<(Arc<Pod>, bool)>,
    pub(super) status: JobStatus,
    /// Pods to let go after the status is stored.
    pub(super) release: Vec<Arc<Pod>>,
    pub(super) events: Vec<Event>,
    pub(super) again: Option<Duration>,
}

/// Why a Job ends: `SuccessCriteriaMet` or `FailureTarget` first, and `Complete` or `Failed` when nothing runs any more.
#[derive(Clone, Debug)]
struct Verdict {
    success: bool,
    reason: String,
    message: String,
}

/// The condition if it is true.
pub(super) fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    let all = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    all.into_iter().find(|c| c.type_ == kind && c.status == "True")
}

impl View<'_> {
    pub(super) fn active(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|p| state::is_active(p))
    }

    pub(super) fn terminating(&self) -> i32 {
        i32::try_from(self.pods.iter().filter(|p| state::is_terminating(p)).count()).unwrap_or(i32::MAX)
    }

    pub(super) fn plan(&self) -> Plan {
        let mut status = self.job.status.clone().unwrap_or_default();
        let suspended = manage::is_suspended(self.job);
        if status.start_time.is_none() && !suspended {
            status.start_time = Some(meta::time(self.now));
        }
        let mut account = Account::new(self.job, self.pods);
        let active = i32::try_from(self.active().count()).unwrap_or(i32::MAX);
        let mut plan = Plan {
            create: Vec::new(),
            delete: Vec::new(),
            status: JobStatus::default(),
            release: Vec::new(),
            events: Vec::new(),
            again: None,
        };
        let mut verdict = self.verdict(&status, &account, &mut plan.again);
        if let Some(verdict) = &verdict {
            plan.delete.extend(self.active().map(|p| (p.clone(), false)));
            account.close(self.job, self.pods, if verdict.success { Ending::Success } else { Ending::Failure });
        } else {
            if self.caught_up {
                let changes = manage::manage(self, &account);
                plan.again = sooner(plan.again, changes.again);
                plan.create = changes.create;
                plan.delete.extend(changes.delete.into_iter().map(|p| (p, true)));
            }
            let enough = match count::completions(self.job) {
                None => account.succeeded() > 0,
                Some(total) => account.succeeded() >= total,
            };
            if enough && active == 0 && plan.create.is_empty() {
                verdict = Some(Verdict {
                    success: true,
                    reason: "CompletionsReached".to_owned(),
                    message: "Reached expected number of succeeded pods".to_owned(),
                });
            } else if self.caught_up {
                self.note_suspension(&mut status, suspended, &mut plan.events);
            }
        }
        let ready = self.active().filter(|p| state::is_ready(p)).count();
        status.active = Some(active).filter(|n| *n != 0);
        status.ready = Some(i32::try_from(ready).unwrap_or(i32::MAX));
        status.terminating = Some(self.terminating());
        if let Some(verdict) = verdict {
            let settled = active == 0 && self.terminating() == 0 && account.is_settled() && self.caught_up;
            self.conclude(&mut status, &verdict, settled, &mut plan.events);
        }
        account.store(&mut status);
        plan.release = account.release;
        plan.status = status;
        plan
    }

    fn verdict(&self, status: &JobStatus, account: &Account, again: &mut Option<Duration>) -> Option<Verdict> {
        let stored = |c: &JobCondition, success: bool| Verdict {
            success,
            reason: c.reason.clone().unwrap_or_default(),
            message: c.message.clone().unwrap_or_default(),
        };
        if let Some(met) = condition(self.job, "SuccessCriteriaMet") {
            return Some(stored(met, true));
        }
        if let Some(target) = condition(self.job, "FailureTarget") {
            return Some(stored(target, false));
        }
        let failed = |reason: &str, message: &str| {
            Some(Verdict { success: false, reason: reason.to_owned(), message: message.to_owned() })
        };
        let spec = self.job.spec.as_ref()?;
        for pod in self.pods.iter().filter(|p| failure::has_failed(self.job, p)) {
            if let Meaning::FailJob(message) = failure::meaning(self.job, pod) {
                return failed("PodFailurePolicy", &message);
            }
        }
        let limit = spec.backoff_limit.unwrap_or(6);
        if account.failed() > limit || failure::restarted_too_often(self.job, self.pods) {
            return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if let (Some(limit), Some(start)) = (spec.active_deadline_seconds, &status.start_time)
            && !manage::is_suspended(self.job)
        {
            match until(start.0 + seconds(limit), self.now) {
                None => return failed("DeadlineExceeded", "Job was active longer than specified deadline"),
                left => *again = sooner(*again, left),
            }
        }
        let total = count::completions(self.job).unwrap_or(0);
        if count::limit_per_index(self.job).is_some() {
            let lost = account.failed_indexes.len();
            let over = |max: i32| lost > usize::try_from(max).unwrap_or(0);
            if spec.max_failed_indexes.is_some_and(over) {
                let text = "Job has exceeded the specified maximal number of failed indexes";
                return failed("MaxFailedIndexesExceeded", text);
            }
            if lost > 0 && lost + account.completed.len() >= usize::try_from(total).unwrap_or(0) {
                return failed("FailedIndexes", "Job has failed indexes");
            }
        }
        let index = self.matched_success_rule(account, total)?;
        let message = format!("Matched rules at index {index}");
        Some(Verdict { success: true, reason: "SuccessPolicy".to_owned(), message })
    }

    /// The first rule of the success policy that the completed indexes satisfy.
    fn matched_success_rule(&self, account: &Account, total: i32) -> Option<usize> {
        let rules = &self.job.spec.as_ref()?.success_policy.as_ref()?.rules;
        let enough = |count: usize, wanted: Option<i32>| {
            wanted.is_some_and(|w| count >= usize::try_from(w).unwrap_or(usize::MAX))
        };
        if account.completed.is_empty() {
            return None;
        }
        rules.iter().position(|rule| match &rule.succeeded_indexes {
            Some(text) => {
                let required = indexes::parse(text, total);
                let done = required.intersection(&account.completed).count();
                !required.is_empty() && (done == required.len() || enough(done, rule.succeeded_count))
            }
            None => enough(account.completed.len(), rule.succeeded_count),
        })
    }

    fn note_suspension(&self, status: &mut JobStatus, suspended: bool, events: &mut Vec<Event>) {
        let (value, reason, text, event) = if suspended {
            ("True", "JobSuspended", "Job suspended", "Suspended")
        } else {
            ("False", "JobResumed", "Job resumed", "Resumed")
        };
        if set(status, "Suspended", value, reason, text, self.now) {
            status.start_time = (!suspended).then(|| meta::time(self.now));
            events.push((false, event.to_owned(), text.to_owned()));
        }
    }

    fn conclude(&self, status: &mut JobStatus, verdict: &Verdict, settled: bool, events: &mut Vec<Event>) {
        let (interim, last) =
            if verdict.success { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") };
        let Verdict { reason, message, .. } = verdict;
        set(status, interim, "True", reason, message, self.now);
        if !settled || !set(status, last, "True", reason, message, self.now) {
            return;
        }
        if verdict.success {
            status.completion_time = Some(meta::time(self.now));
            events.push((false, "Completed".to_owned(), "Job completed".to_owned()));
        } else {
            events.push((true, reason.clone(), message.clone()));
        }
    }
}

/// Sets a condition; one that is false and was never there is left out. True if anything changed.
fn set(status: &mut JobStatus, kind: &str, value: &str, reason: &str, message: &str, now: Timestamp) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    let next = JobCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(meta::time(now)),
        last_transition_time: Some(meta::time(now)),
    };
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(old) if old.status == next.status && old.reason == next.reason && old.message == next.message => false,
        Some(old) => {
            *old = next;
            true
        }
        None if value == "False" => {
            if conditions.is_empty() {
                status.conditions = None;
            }
            false
        }
        None => {
            conditions.push(next);
            true
        }
    }
}
