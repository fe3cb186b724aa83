//! Runs one Pod of a DaemonSet on each node that fits, and replaces them node by node when the template changes.
//!
//! Reads: DaemonSet, Pod, Node, ControllerRevision.  Writes: Pod, ControllerRevision, DaemonSet/status.
//! Pods are pinned to their node by node affinity and placed by the scheduler.
//! Invariant: never creates or deletes while an earlier creation or deletion has not been seen.

mod nodes;
mod plan;
mod status;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use client::{Informer, Key, reference};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use self::plan::{Plan, View};
use crate::{
    Error,
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::{
        LabelSelector,
        apps::{ControllerRevision, DaemonSet},
        core::{Node, Pod},
    },
    meta::{self, Meta, until},
    pods::{
        batch, claim,
        expectations::Expectations,
        template::PodWriter,
        wake::{self, PodOwner},
    },
    revisions::{self, HASH_LABEL},
};

const WORKERS: usize = 2;
const BURST: usize = 250;
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(15 * 60);

impl PodOwner for DaemonSet {
    fn selector(&self) -> Option<LabelSelector> {
        self.spec.as_ref().map(|s| s.selector.clone())
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }
}

struct Loop {
    scope: Scope,
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    pending: Arc<Expectations>,
    /// When a failed Pod of this set on this node was last removed, and how long to wait before the next.
    failures: Mutex<HashMap<(String, String), (Timestamp, Duration)>>,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let pending = Arc::new(Expectations::default());
    let sets = driver.watch::<DaemonSet>(driver::wake);
    let pods = driver.watch::<Pod>({
        let (pending, sets) = (pending.clone(), sets.clone());
        move |change, queue| wake::pod_changed(change, queue, &pending, &sets)
    });
    let revisions = driver.watch::<ControllerRevision>(driver::wake_owner::<DaemonSet, _>);
    let nodes = driver.watch::<Node>({
        let sets = sets.clone();
        move |change, queue| {
            let relevant = |n: &Arc<Node>| {
                (n.labels().clone(), n.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default())
            };
            if change.old.as_ref().map(relevant) != change.new.as_ref().map(relevant) {
                sets.list().iter().for_each(|s| queue.add(s.key()));
            }
        }
    });
    claim::index(&pods);
    claim::index(&revisions);
    let this = Arc::new(Loop { scope, sets, pods, nodes, revisions, pending, failures: Mutex::default() });
    vec![driver.run(WORKERS, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let Some(set) = self.sets.get(&key) else {
            self.pending.forget(&key);
            return Ok(None);
        };
        let Some(spec) = &set.spec else { return Ok(None) };
        if meta::is_empty_selector(&spec.selector) {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.scope.recorder.warning(&reference(&*set), "SelectingAll", text);
            return Ok(None);
        }
        if set.is_deleting() {
            return Ok(None);
        }
        let writer = &self.scope.writer;
        let source = revisions::Source {
            owner: &*set,
            selector: &spec.selector,
            template: &spec.template,
            collisions: set.status.as_ref().and_then(|s| s.collision_count),
            hash_label: HASH_LABEL,
        };
        let history = match revisions::sync(writer, &self.revisions, source).await {
            Err(error) if error.is_namespace_terminating() => return Ok(None),
            other => other?,
        };
        let hash = history.latest.label(HASH_LABEL).unwrap_or_default().to_owned();
        let caught_up = self.pending.satisfied(&key);
        let pods = claim::claim(writer, &*set, &spec.selector, &self.pods, |_| true).await?;
        let now = self.scope.now();
        let view = View::new(&set, &hash, &self.nodes.list(), &pods, now);
        let mut failure = None;
        let mut again = None;
        if caught_up {
            let mut plan = view.manage(|node| self.blocked(&set, node, now));
            if plan.is_empty() {
                plan = view.update();
            }
            again = meta::sooner(again, plan.again);
            failure = self.apply(&key, &set, &hash, plan, now).await.err();
            let used = |r: &ControllerRevision| {
                let hash = r.label(HASH_LABEL);
                pods.iter().any(|p| p.label(HASH_LABEL) == hash)
            };
            revisions::clean_up(writer, &history, spec.revision_history_limit.unwrap_or(10), used).await?;
        }
        let next = status::with_status(&view, history.collisions, caught_up);
        if next.status != set.status {
            writer.update_status(&next).await?;
        }
        match failure {
            Some(error) if error.is_namespace_terminating() => Ok(None),
            Some(error) => Err(error),
            None => Ok(meta::sooner(again, status::next_check(&view))),
        }
    }

    /// How long a failed Pod on the node has to stay, so that a node that rejects Pods is not flooded.
    fn blocked(&self, set: &DaemonSet, node: &str, now: Timestamp) -> Option<Duration> {
        let failures = self.failures.lock();
        let (at, delay) = failures.get(&(set.uid().to_owned(), node.to_owned()))?;
        until(*at + jiff::SignedDuration::try_from(*delay).unwrap_or_default(), now)
    }

    fn note_failure(&self, set: &DaemonSet, node: &str, now: Timestamp) {
        let mut failures = self.failures.lock();
        failures.retain(|_, (at, delay)| now.duration_since(*at).unsigned_abs() < *delay * 2 + BACKOFF_MAX);
        let entry = failures.entry((set.uid().to_owned(), node.to_owned()));
        let slot = entry.and_modify(|(_, delay)| *delay = (*delay * 2).min(BACKOFF_MAX)).or_insert((now, BACKOFF_MIN));
        slot.0 = now;
    }

    async fn apply(&self, key: &Key, set: &DaemonSet, hash: &str, plan: Plan, now: Timestamp) -> Result<(), Error> {
        let Scope { writer, recorder, .. } = &self.scope;
        let control = PodWriter { writer, recorder };
        for (pod, node, failed) in &plan.finished {
            let name = format!("{}/{}", pod.namespace(), pod.name());
            if *failed {
                self.note_failure(set, node, now);
                let text = format!("Found failed daemon pod {name} on node {node}, will try to kill it");
                recorder.warning(&reference(set), "FailedDaemonPod", text);
            } else {
                let text = format!("Found succeeded daemon pod {name} on node {node}, will try to delete it");
                recorder.normal(&reference(set), "SucceededDaemonPod", text);
            }
        }
        let create: Vec<Pod> =
            plan.create.iter().take(BURST).filter_map(|node| nodes::daemon_pod(set, node, hash)).collect();
        let delete: Vec<Arc<Pod>> = plan.delete.into_iter().take(BURST).collect();
        self.pending.expect_creations(key, create.len());
        self.pending.expect_deletions(key, delete.iter().map(|p| p.uid().to_owned()));
        let count = create.len();
        let (made, error) = batch::slow_start(count, |index| {
            let (control, pod) = (&control, &create[index]);
            async move { control.create(set, pod).await.map(drop) }
        })
        .await;
        (made..count).for_each(|_| self.pending.creation_settled(key));
        let mut errors: Vec<Error> = error.into_iter().collect();
        let results = futures::future::join_all(delete.iter().map(|pod| control.delete(set, pod))).await;
        for (pod, result) in delete.iter().zip(results) {
            if let Err(error) = result {
                self.pending.deletion_settled(key, pod.uid());
                errors.push(error);
            }
        }
        Error::collect(errors)
    }
}
