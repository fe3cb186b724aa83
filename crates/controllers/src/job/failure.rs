//! When a Pod has failed, what its failure means, and how long to wait after it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::indexes;
use crate::{
    kinds::{
        batch::{Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule},
        core::{ContainerStatus, Pod},
    },
    meta::{Meta, until},
    pods::state,
};

const BACKOFF_MIN: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// How often Pods of this index had failed before this one was made.
pub(super) const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";

/// What the Pod failure policy says about a failed Pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Count,
    Ignore,
    FailIndex,
    /// Fails the Job, for this reason.
    FailJob(String),
}

/// Whether only Pods that have failed are replaced, or also those that are being deleted.
pub(super) fn replaces_only_failed(job: &Job) -> bool {
    job.spec.as_ref().and_then(|s| s.pod_replacement_policy.as_deref()) == Some("Failed")
}

/// A Pod that is deleted without having succeeded counts as failed, because it may never tell.
pub(super) fn has_failed(job: &Job, pod: &Pod) -> bool {
    state::is_failed(pod) || !replaces_only_failed(job) && pod.is_deleting() && !state::is_succeeded(pod)
}

pub(super) fn meaning(job: &Job, pod: &Pod) -> Meaning {
    let rules = job.spec.iter().flat_map(|s| &s.pod_failure_policy).flat_map(|p| &p.rules);
    for (index, rule) in rules.enumerate() {
        let Some(why) = matched(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Meaning::Ignore,
            "FailIndex" => Meaning::FailIndex,
            "FailJob" => Meaning::FailJob(format!("{why} matching FailJob rule at index {index}")),
            _ => Meaning::Count,
        };
    }
    Meaning::Count
}

fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let (namespace, name) = (pod.namespace(), pod.name());
    let status = pod.status.as_ref()?;
    if let Some(codes) = &rule.on_exit_codes {
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let (container, code) = all.into_iter().find_map(|c| exit_code(codes, c))?;
        return Some(format!("Container {container} for pod {namespace}/{name} failed with exit code {code}"));
    }
    let wanted = rule.on_pod_conditions.iter().flatten();
    let have = |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind);
    let found = wanted
        .into_iter()
        .find(|w| have(&w.type_).is_some_and(|c| c.status == w.status.as_deref().unwrap_or("True")))?;
    Some(format!("Pod {namespace}/{name} has condition {}", found.type_))
}

fn exit_code<'a>(
    wanted: &PodFailurePolicyOnExitCodesRequirement,
    container: &'a ContainerStatus,
) -> Option<(&'a str, i32)> {
    let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
    let named = wanted.container_name.as_ref().is_none_or(|n| *n == container.name);
    let listed = wanted.values.contains(&code);
    let fits = if wanted.operator == "In" { listed } else { !listed };
    (named && code != 0 && fits).then_some((&container.name, code))
}

/// Restarts of containers count like failures when Pods restart their containers themselves.
pub(super) fn restarted_too_often(job: &Job, pods: &[Arc<Pod>]) -> bool {
    let Some(spec) = &job.spec else { return false };
    let policy = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let running = pods.iter().filter(|p| matches!(state::phase(p), "Running" | "Pending"));
    let restarts: i32 = running
        .filter_map(|p| p.status.as_ref())
        .flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten())
        .map(|c| c.restart_count)
        .sum();
    match spec.backoff_limit.unwrap_or(6) {
        0 => restarts > 0,
        limit => restarts >= limit,
    }
}

pub(super) fn index_failures(pod: &Pod) -> i32 {
    pod.annotation(INDEX_FAILURES).and_then(|t| t.parse().ok()).unwrap_or(0)
}

/// When the Pod ended, as well as can be told.
pub(super) fn finish_time(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let ended = |c: &ContainerStatus| Some(c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0);
    let containers = status.container_statuses.iter().flatten().filter_map(ended).max();
    let ready = || state::condition(pod, "Ready")?.last_transition_time.as_ref().map(|t| t.0);
    containers.or_else(ready).or(pod.metadata.deletion_timestamp.as_ref().map(|t| t.0))
}

/// How long the next Pod has to wait: 10 s doubling with each failure since the last success, at most 10 min.
/// With a limit for each index only the failures of that index count.
pub(super) fn backoff(job: &Job, pods: &[Arc<Pod>], index: Option<i32>, now: Timestamp) -> Option<Duration> {
    let mine = |p: &&Arc<Pod>| index.is_none_or(|i| indexes::of(p, i32::MAX) == Some(i));
    let finished = |p: &&Arc<Pod>| state::is_succeeded(p) || has_failed(job, p);
    let mut ends: Vec<(Timestamp, bool)> = pods
        .iter()
        .filter(mine)
        .filter(finished)
        .map(|p| (finish_time(p).unwrap_or(now), state::is_succeeded(p)))
        .collect();
    ends.sort();
    let (last, _) = ends.last().filter(|(_, succeeded)| !succeeded)?;
    let failures = ends.iter().rev().take_while(|(_, succeeded)| !succeeded).count();
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(16).min(16);
    let delay = (BACKOFF_MIN * 2u32.pow(doublings)).min(BACKOFF_MAX);
    until(*last + jiff::SignedDuration::try_from(delay).unwrap_or_default(), now)
}
