//! Works out how many Pods of each PodDisruptionBudget may be evicted right now.
//!
//! Reads: PodDisruptionBudget, Pod and the objects that own Pods.  Writes: PodDisruptionBudget/status, Pod/status.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use client::{Informer, Key, reference};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    Error,
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::{
        Condition, IntOrString, Time,
        apps::{Deployment, ReplicaSet, StatefulSet},
        core::{Pod, ReplicationController},
        policy::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    meta::{self, Meta, scaled, sooner, until},
    pods::state,
};

/// A Pod whose eviction was granted counts as gone for this long.
const EVICTION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);
/// A Pod marked for eviction that is still there after this long is unmarked.
const STALE_MARK: SignedDuration = SignedDuration::from_secs(120);

struct Loop {
    scope: Scope,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    controllers: Informer<ReplicationController>,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let budgets = driver.watch::<PodDisruptionBudget>(driver::wake);
    let pods = driver.watch::<Pod>({
        let budgets = budgets.clone();
        move |change, queue| {
            let Some(namespace) = change.new.as_ref().or(change.old.as_ref()).map(|p| p.namespace().to_owned()) else {
                return;
            };
            let near = budgets.list_in(&namespace).into_iter();
            let hit = |b: &PodDisruptionBudget| change.old.iter().chain(&change.new).any(|p| selects(b, p));
            near.filter(|b| hit(b)).for_each(|b| queue.add(b.key()));
        }
    });
    let this = Arc::new(Loop {
        budgets,
        pods,
        deployments: driver.read(),
        replica_sets: driver.read(),
        stateful_sets: driver.read(),
        controllers: driver.read(),
        scope,
    });
    let marks = unmark(&this);
    vec![
        driver.run(1, move |key| {
            let this = this.clone();
            async move { this.pass(key).await }
        }),
        marks,
    ]
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.is_some_and(|s| meta::selects(s, pod.labels()))
}

/// Takes back the mark of Pods whose eviction never came.
fn unmark(this: &Arc<Loop>) -> JoinHandle<()> {
    let mut driver = Driver::<Key>::new(&this.scope);
    let pods = driver.watch::<Pod>(|change, queue| {
        if let Some(pod) = change.new.as_ref().filter(|p| mark(p).is_some()) {
            queue.add(pod.key());
        }
    });
    let scope = this.scope.clone();
    driver.run(1, move |key| {
        let (scope, pods) = (scope.clone(), pods.clone());
        async move {
            let Some(pod) = pods.get(&key).filter(|p| !p.is_deleting() && !state::is_terminal(p)) else {
                return Ok(None);
            };
            let Some(since) = mark(&pod) else { return Ok(None) };
            let now = scope.now();
            if let Some(left) = until(since + STALE_MARK, now) {
                return Ok(Some(left));
            }
            let condition =
                json!({"type": "DisruptionTarget", "status": "False", "lastTransitionTime": meta::time(now)});
            let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
            scope.writer.patch_subresource::<Pod>("status", &key, patch).await.map(|_| None)
        }
    })
}

fn mark(pod: &Pod) -> Option<Timestamp> {
    let condition = state::condition(pod, "DisruptionTarget").filter(|c| c.status == "True")?;
    condition.last_transition_time.as_ref().map(|t| t.0)
}

/// Expected and required numbers, from the budget and the scale of the Pods' owners.
#[derive(Debug, PartialEq, Eq)]
struct Need {
    expected: i32,
    healthy: i32,
}

fn need(spec: &PodDisruptionBudgetSpec, pods: i32, scale: i32) -> Need {
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(max), _) => Need { expected: scale, healthy: (scale - scaled(max, scale, true)).max(0) },
        (None, Some(IntOrString::Int(min))) => Need { expected: pods, healthy: *min },
        (None, Some(min)) => Need { expected: scale, healthy: scaled(min, scale, true) },
        (None, None) => Need { expected: pods, healthy: 0 },
    }
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let Some(budget) = self.budgets.get(&key) else { return Ok(None) };
        let Some(spec) = &budget.spec else { return Ok(None) };
        let mut pods = self.pods.list_in(&key.namespace);
        pods.retain(|p| selects(&budget, p) && !state::is_terminal(p));
        let now = self.scope.now();
        let mut again: Option<Duration> = None;
        let old = budget.status.clone().unwrap_or_default();
        let mut disrupted: BTreeMap<String, Time> = BTreeMap::new();
        for pod in pods.iter().filter(|p| !p.is_deleting()) {
            if let Some(since) = old.disrupted_pods.as_ref().and_then(|d| d.get(pod.name()))
                && let Some(left) = until(since.0 + EVICTION_TIMEOUT, now)
            {
                again = sooner(again, Some(left));
                disrupted.insert(pod.name().to_owned(), since.clone());
            }
        }
        let healthy = |p: &&Arc<Pod>| !p.is_deleting() && !disrupted.contains_key(p.name()) && state::is_ready(p);
        let current = i32::try_from(pods.iter().filter(healthy).count()).unwrap_or(i32::MAX);
        let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
        let uses_scale = spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)));
        let (scale, failure) = if uses_scale { self.scale(&pods) } else { (0, None) };
        let need = if failure.is_some() { Need { expected: 0, healthy: 0 } } else { need(spec, count, scale) };
        let mut allowed = current - need.healthy;
        if need.expected <= 0 || allowed <= 0 {
            allowed = 0;
        }
        let (value, reason, text) = match &failure {
            Some(text) => ("False", "SyncFailed", text.as_str()),
            None if allowed > 0 => ("True", "SufficientPods", ""),
            None => ("False", "InsufficientPods", ""),
        };
        let mut next = PodDisruptionBudget::clone(&budget);
        let status = next.status.get_or_insert_default();
        status.current_healthy = Some(current);
        status.desired_healthy = Some(need.healthy);
        status.expected_pods = Some(need.expected);
        status.disruptions_allowed = Some(allowed);
        status.disrupted_pods = (!disrupted.is_empty()).then_some(disrupted);
        status.observed_generation = budget.metadata.generation;
        set_allowed(status.conditions.get_or_insert_default(), value, reason, text, budget.generation(), now);
        if next.status != budget.status {
            if let Some(text) = &failure {
                self.scope.recorder.warning(&reference(&*budget), "CalculateExpectedPodCountFailed", text.clone());
            }
            self.scope.writer.update_status(&next).await?;
        }
        Ok(again)
    }

    /// The sum of the replicas that the Pods' owners want; an error text if an owner has no scale that is known.
    fn scale(&self, pods: &[Arc<Pod>]) -> (i32, Option<String>) {
        let mut owners: BTreeSet<String> = BTreeSet::new();
        let mut total = 0;
        for pod in pods {
            let Some(owner) = pod.controller() else { continue };
            let found = self.owner_scale(pod, &owner.kind, &Key::new(pod.namespace(), &*owner.name), &owner.uid);
            match found {
                Ok(Some((uid, replicas))) => {
                    if owners.insert(uid) {
                        total += replicas;
                    }
                }
                Ok(None) => {}
                Err(error) => return (0, Some(crate::error::chain(&error))),
            }
        }
        (total, None)
    }

    /// The uid and the replicas of the topmost owner; `None` if the owner is gone.
    fn owner_scale(&self, pod: &Pod, kind: &str, key: &Key, uid: &str) -> Result<Option<(String, i32)>, Error> {
        let found =
            |have: &str, replicas: Option<i32>| Ok((have == uid).then(|| (uid.to_owned(), replicas.unwrap_or(1))));
        match kind {
            "ReplicaSet" => {
                let Some(set) = self.replica_sets.get(key) else { return Ok(None) };
                let parent = meta::owner_key::<Deployment>(&*set).and_then(|k| self.deployments.get(&k));
                match parent.filter(|d| set.controller_uid() == Some(d.uid())) {
                    Some(d) => Ok(Some((d.uid().to_owned(), d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)))),
                    None => found(set.uid(), set.spec.as_ref().and_then(|s| s.replicas)),
                }
            }
            "StatefulSet" => self
                .stateful_sets
                .get(key)
                .map_or(Ok(None), |s| found(s.uid(), s.spec.as_ref().and_then(|s| s.replicas))),
            "ReplicationController" => {
                self.controllers.get(key).map_or(Ok(None), |s| found(s.uid(), s.spec.as_ref().and_then(|s| s.replicas)))
            }
            other => Err(Error::Object {
                kind: "Pod",
                key: pod.key(),
                why: format!("the scale of its owner {other} {} is not known", key.name),
            }),
        }
    }
}

fn set_allowed(
    conditions: &mut Vec<Condition>,
    value: &str,
    reason: &str,
    text: &str,
    generation: i64,
    now: Timestamp,
) {
    let kind = "DisruptionAllowed";
    let old = conditions.iter_mut().find(|c| c.type_ == kind);
    let since = match &old {
        Some(c) if c.status == value => c.last_transition_time.clone(),
        _ => meta::time(now),
    };
    let next = Condition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: text.to_owned(),
        observed_generation: Some(generation),
        last_transition_time: since,
    };
    match old {
        Some(old) => *old = next,
        None => conditions.push(next),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn needs() {
        let cases = [
            (json!({"minAvailable": 2}), 3, 5, (3, 2)),
            (json!({"minAvailable": "50%"}), 3, 5, (5, 3)),
            (json!({"maxUnavailable": 1}), 3, 5, (5, 4)),
            (json!({"maxUnavailable": "30%"}), 3, 5, (5, 3)),
            (json!({"maxUnavailable": "100%"}), 3, 5, (5, 0)),
        ];
        for (spec, pods, scale, (expected, healthy)) in cases {
            let parsed: PodDisruptionBudgetSpec = from_value(spec.clone()).expect("spec");
            assert_eq!(need(&parsed, pods, scale), Need { expected, healthy }, "{spec}");
        }
    }
}
