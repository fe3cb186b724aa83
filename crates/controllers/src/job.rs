//! Runs Pods until enough of them have succeeded, and counts each exactly once.
//!
//! Reads: Job, Pod.  Writes: Pod, Job/status.
//! A Pod of a Job carries the finalizer `batch.kubernetes.io/job-tracking`. Counting takes three steps, each safe to
//! repeat: a finished Pod's uid is noted in `status.uncountedTerminatedPods`; its finalizer is removed; and when the
//! cache shows it without, the uid moves into the counter. For indexed Jobs the set of completed indexes makes the
//! first step for successes.
//! Invariant: a finalizer is removed only after the status that accounts for its Pod is stored.

mod count;
mod failure;
mod indexes;
mod manage;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Informer, Key, Queue, reference};
use serde_json::json;
use tokio::task::JoinHandle;

use self::plan::{Plan, View};
use crate::{
    Error,
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::{LabelSelector, batch::Job, core::Pod},
    meta::{self, Meta},
    pods::{
        batch, claim,
        expectations::Expectations,
        template::PodWriter,
        wake::{self, PodOwner},
    },
};

const WORKERS: usize = 5;
pub(crate) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const OURSELVES: &str = "kubernetes.io/job-controller";

/// Index of Pods by `NAMESPACE/NAME` of their Job.
const BY_JOB: &str = "job";

impl PodOwner for Job {
    fn selector(&self) -> Option<LabelSelector> {
        self.spec.as_ref().and_then(|s| s.selector.clone())
    }

    fn min_ready_seconds(&self) -> i32 {
        0
    }
}

/// Whether the Job has come to its end, well or badly.
pub(crate) fn is_finished(job: &Job) -> bool {
    plan::condition(job, "Complete").is_some() || plan::condition(job, "Failed").is_some()
}

struct Loop {
    scope: Scope,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    pending: Arc<Expectations>,
    queue: Queue<Key>,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let pending = Arc::new(Expectations::default());
    let jobs = driver.watch::<Job>(driver::wake);
    let pods = driver.watch::<Pod>({
        let (pending, jobs) = (pending.clone(), jobs.clone());
        move |change, queue| wake::pod_changed(change, queue, &pending, &jobs)
    });
    claim::index(&pods);
    pods.add_index(BY_JOB, |pod| meta::owner_key::<Job>(pod).map(|k| k.to_string()).into_iter().collect());
    let this = Arc::new(Loop { scope, jobs, pods, pending, queue: driver.queue() });
    vec![driver.run(WORKERS, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

fn is_tracked(pod: &Pod) -> bool {
    pod.has_finalizer(FINALIZER)
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let job = self.jobs.get(&key);
        self.release_strangers(&key, job.as_deref()).await?;
        let Some(job) = job else {
            self.pending.forget(&key);
            return Ok(None);
        };
        let Some(spec) = &job.spec else { return Ok(None) };
        if spec.managed_by.as_deref().is_some_and(|m| m != OURSELVES) {
            return Ok(None);
        }
        let Some(selector) = &spec.selector else { return Ok(None) };
        let pods = claim::claim(&self.scope.writer, &*job, selector, &self.pods, |_| true).await?;
        if is_finished(&job) || job.is_deleting() {
            let left: Vec<_> = pods.into_iter().filter(|p| is_tracked(p)).collect();
            self.release(&left).await?;
            return Ok(None);
        }
        let caught_up = self.pending.satisfied(&key);
        let plan = View { job: &job, pods: &pods, now: self.scope.now(), caught_up }.plan();
        self.apply(&key, &job, plan).await
    }

    /// Frees Pods that name a Job which is gone, or another one of the same name.
    async fn release_strangers(&self, key: &Key, job: Option<&Job>) -> Result<(), Error> {
        let named = self.pods.by_index(BY_JOB, &key.to_string());
        let strange = |p: &Arc<Pod>| is_tracked(p) && p.controller_uid() != job.map(Meta::uid);
        let strangers: Vec<_> = named.into_iter().filter(strange).collect();
        if strangers.is_empty() {
            return Ok(());
        }
        let live = self.scope.writer.get::<Job>(key).await?;
        let gone: Vec<_> =
            strangers.into_iter().filter(|p| p.controller_uid() != live.as_ref().map(Meta::uid)).collect();
        self.release(&gone).await
    }

    async fn release(&self, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let results = futures::future::join_all(pods.iter().map(|pod| self.release_one(pod))).await;
        Error::collect(results.into_iter().filter_map(Result::err).collect())
    }

    async fn release_one(&self, pod: &Pod) -> Result<(), Error> {
        let patch = json!({"metadata": {"uid": pod.uid(), "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        match self.scope.writer.patch::<Pod>(&pod.key(), patch).await {
            Err(error) if error.is_gone() => Ok(()),
            other => other.map(drop),
        }
    }

    async fn apply(&self, key: &Key, job: &Job, plan: Plan) -> Outcome {
        let control = PodWriter { writer: &self.scope.writer, recorder: &self.scope.recorder };
        let mut failure = None;
        let count = plan.create.len();
        if count > 0 {
            self.pending.expect_creations(key, count);
            let (made, error) = batch::slow_start(count, |index| {
                let (control, pod) = (&control, &plan.create[index]);
                async move { control.create(job, pod).await.map(drop) }
            })
            .await;
            (made..count).for_each(|_| self.pending.creation_settled(key));
            failure = error;
        }
        self.pending.expect_deletions(key, plan.delete.iter().map(|(p, _)| p.uid().to_owned()));
        for (pod, unaccounted) in &plan.delete {
            let deleted = async {
                if *unaccounted {
                    self.release_one(pod).await?;
                }
                control.delete(job, pod).await
            };
            if let Err(error) = deleted.await {
                self.pending.deletion_settled(key, pod.uid());
                failure = failure.or(Some(error));
            }
        }
        let next = Job { status: Some(plan.status), ..job.clone() };
        if next.status != job.status {
            self.scope.writer.update_status(&next).await?;
            for (warning, reason, text) in plan.events {
                let about = reference(job);
                match warning {
                    true => self.scope.recorder.warning(&about, reason.as_str(), text),
                    false => self.scope.recorder.normal(&about, reason.as_str(), text),
                }
            }
        }
        self.release(&plan.release).await?;
        if let Some(delay) = plan.again {
            self.queue.add_after(key.clone(), delay);
        }
        match failure {
            Some(error) if error.is_namespace_terminating() => Ok(None),
            Some(error) => Err(error),
            None => Ok(None),
        }
    }
}
