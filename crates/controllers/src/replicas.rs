//! Keeps the number of live Pods of a ReplicaSet or ReplicationController at `spec.replicas`.
//!
//! Reads: the owner, Pod.  Writes: Pod, the owner's status.
//! Invariant: never creates or deletes while an earlier creation or deletion has not been seen in the cache.
//! One loop for both kinds: [`Replicas`] says where a kind keeps what the loop needs.

mod kind;
mod plan;

use std::{sync::Arc, time::Duration};

use client::{Change, Informer, Key};
use tokio::task::JoinHandle;

pub(crate) use kind::Replicas;

use self::plan::Plan;
use crate::{
    Error,
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::core::Pod,
    meta::{self, Meta},
    pods::{batch, claim, expectations::Expectations, state, template, template::PodWriter, wake},
};

const WORKERS: usize = 5;

/// Pods created or deleted in one pass; the rest follows in the next.
const BURST: usize = 500;

struct Loop<R: Replicas> {
    scope: Scope,
    owners: Informer<R>,
    pods: Informer<Pod>,
    pending: Arc<Expectations>,
}

/// Starts the loop for one of the two kinds.
pub(crate) fn start<R: Replicas>(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let pending = Arc::new(Expectations::default());
    let owners = driver.watch::<R>({
        let pending = pending.clone();
        move |change, queue| {
            if let Change { old: Some(old), new: None } = change {
                pending.forget(&old.key());
            }
            driver::wake(change, queue);
        }
    });
    let pods = driver.watch::<Pod>({
        let (pending, owners) = (pending.clone(), owners.clone());
        move |change, queue| wake::pod_changed(change, queue, &pending, &owners)
    });
    claim::index(&pods);
    let this = Arc::new(Loop { scope, owners, pods, pending });
    vec![driver.run(WORKERS, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

impl<R: Replicas> Loop<R> {
    async fn pass(&self, key: Key) -> Outcome {
        let Some(owner) = self.owners.get(&key) else {
            self.pending.forget(&key);
            return Ok(None);
        };
        let caught_up = self.pending.satisfied(&key);
        let Some(selector) = owner.selector() else {
            return Ok(None);
        };
        let writer = &self.scope.writer;
        let pods = claim::claim(writer, &*owner, &selector, &self.pods, |pod: &Pod| !state::is_terminal(pod)).await?;
        let mut failure = None;
        let now = self.scope.now();
        if caught_up && !owner.is_deleting() {
            let plan = plan::plan(&*owner, &pods, &self.family(&*owner), now, BURST);
            failure = self.apply(&key, &*owner, plan).await;
        }
        let difference = plan::difference(&*owner, &pods);
        let status = plan::status(&*owner, &pods, failure.as_ref().map(|e| (difference, e.message())), now);
        let stale = owner.status() != status || owner.observed_generation() != owner.generation();
        let available = status.available;
        let ready = status.ready;
        if stale {
            writer.update_status(&owner.with_status(status)).await?;
        }
        match failure {
            Some(error) if error.is_namespace_terminating() => Ok(None),
            Some(error) => Err(error),
            None if owner.min_ready_seconds() > 0 && ready == owner.replicas() && available != ready => {
                Ok(Some(Duration::from_secs(u64::from(owner.min_ready_seconds().unsigned_abs()))))
            }
            None => Ok(None),
        }
    }

    /// Active Pods of all owners under the same parent, whose nodes count as crowded when picking a victim.
    fn family(&self, owner: &R) -> Vec<Arc<Pod>> {
        let siblings = match owner.controller_uid() {
            Some(parent) => {
                let mut list = self.owners.list_in(owner.namespace());
                list.retain(|s| s.controller_uid() == Some(parent));
                list.iter().map(|s| s.uid().to_owned()).collect()
            }
            None => vec![owner.uid().to_owned()],
        };
        siblings.iter().flat_map(|uid| self.pods.by_index(meta::BY_CONTROLLER, uid)).collect()
    }

    async fn apply(&self, key: &Key, owner: &R, plan: Plan) -> Option<Error> {
        let control = PodWriter { writer: &self.scope.writer, recorder: &self.scope.recorder };
        match plan {
            Plan::Nothing => None,
            Plan::Create(count) => {
                let template = owner.template()?;
                let pod = template::pod(owner, template);
                self.pending.expect_creations(key, count);
                let (made, error) = batch::slow_start(count, |_| {
                    let (control, pod) = (&control, &pod);
                    async move { control.create(owner, pod).await.map(drop) }
                })
                .await;
                (made..count).for_each(|_| self.pending.creation_settled(key));
                error
            }
            Plan::Delete(victims) => {
                self.pending.expect_deletions(key, victims.iter().map(|p| p.uid().to_owned()));
                let results = futures::future::join_all(victims.iter().map(|pod| control.delete(owner, pod))).await;
                let mut first = None;
                for (pod, result) in victims.iter().zip(results) {
                    if let Err(error) = result {
                        self.pending.deletion_settled(key, pod.uid());
                        first = first.or(Some(error));
                    }
                }
                first
            }
        }
    }
}
