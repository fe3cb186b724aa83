//! Rolls Deployments out: one ReplicaSet for each Pod template, scaled against each other within the strategy's limits.
//!
//! Reads: Deployment, ReplicaSet, Pod.  Writes: ReplicaSet, Deployment/status.
//! Invariant: ReplicaSets are written with the version that was read, so a plan made from a stale cache changes
//! nothing. The name of a new ReplicaSet follows from the template, so it is never created twice.

mod revision;
mod rollout;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Change, Informer, Key, reference};
use tokio::task::JoinHandle;

use self::rollout::Op;
use crate::{
    Error,
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::{
        apps::{Deployment, ReplicaSet},
        core::Pod,
    },
    meta::{self, Meta},
    pods::{claim, state},
};

const WORKERS: usize = 5;

struct Loop {
    scope: Scope,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let deployments = driver.watch::<Deployment>(driver::wake);
    let sets = driver.watch::<ReplicaSet>({
        let deployments = deployments.clone();
        move |change, queue| {
            driver::wake_owner::<Deployment, _>(change, queue);
            if let Some(set) = change.new.as_deref().filter(|s| s.controller().is_none()) {
                let near = deployments.list_in(set.namespace()).into_iter();
                let selects =
                    |d: &Deployment| d.spec.as_ref().is_some_and(|s| meta::selects(&s.selector, set.labels()));
                near.filter(|d| selects(d)).for_each(|d| queue.add(d.key()));
            }
        }
    });
    let pods = driver.watch::<Pod>({
        let (sets, deployments) = (sets.clone(), deployments.clone());
        move |change, queue| {
            // Only a Recreate rollout waits for Pods themselves, and only for their end.
            let Some(pod) = ended(change) else { return };
            let set = meta::owner_key::<ReplicaSet>(pod).and_then(|key| sets.get(&key));
            let owner = set.as_deref().and_then(meta::owner_key::<Deployment>);
            if let Some(owner) = owner
                && deployments.get(&owner).is_some_and(|d| rollout::is_recreate(&d))
            {
                queue.add(owner);
            }
        }
    });
    claim::index(&sets);
    claim::index(&pods);
    let this = Arc::new(Loop { scope, deployments, sets, pods });
    vec![driver.run(WORKERS, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

fn ended(change: &Change<Pod>) -> Option<&Pod> {
    match &change.new {
        None => change.old.as_deref(),
        Some(pod) => Some(&**pod).filter(|p| state::is_terminal(p)),
    }
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let Some(deployment) = self.deployments.get(&key) else { return Ok(None) };
        let Some(spec) = &deployment.spec else { return Ok(None) };
        if meta::is_empty_selector(&spec.selector) {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            self.scope.recorder.warning(&reference(&*deployment), "SelectingAll", text);
            return Ok(None);
        }
        let writer = &self.scope.writer;
        let sets = claim::claim(writer, &*deployment, &spec.selector, &self.sets, |_| true).await?;
        let running = |set: &ReplicaSet| {
            let pods = self.pods.by_index(meta::BY_CONTROLLER, set.uid());
            pods.iter().any(|p| !state::is_terminal(p))
        };
        let plan = rollout::plan(&deployment, &sets, running, self.scope.now());
        for op in plan.ops {
            self.apply(&deployment, op).await?;
        }
        Ok(plan.again)
    }

    async fn apply(&self, deployment: &Deployment, op: Op) -> Result<(), Error> {
        let Scope { writer, recorder, .. } = &self.scope;
        let about = reference(deployment);
        match op {
            Op::Create(set) => self.create(deployment, &set).await,
            Op::Update { set, scaled_from } => {
                writer.update(&*set).await?;
                let to = rollout::size(&set);
                if let Some(from) = scaled_from {
                    let way = if from < to { "up" } else { "down" };
                    let text = format!("Scaled {way} replica set {} from {from} to {to}", set.name());
                    recorder.normal(&about, "ScalingReplicaSet", text);
                }
                Ok(())
            }
            Op::Delete(key) => writer.delete::<ReplicaSet>(&key, None).await,
            Op::Status(updated) => writer.update_status(&*updated).await.map(drop),
        }
    }

    async fn create(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<(), Error> {
        let Scope { writer, recorder, .. } = &self.scope;
        let about = reference(deployment);
        let error = match writer.create(set).await {
            Ok(_) => {
                let to = rollout::size(set);
                if to > 0 {
                    let text = format!("Scaled up replica set {} from 0 to {to}", set.name());
                    recorder.normal(&about, "ScalingReplicaSet", text);
                }
                return Ok(());
            }
            Err(error) => error,
        };
        if error.is_already_exists() {
            let existing = writer.get::<ReplicaSet>(&set.key()).await?;
            let ours = existing.as_ref().is_some_and(|e| {
                e.controller_uid() == Some(deployment.uid()) && revision::same_template(deployment, e)
            });
            if !ours {
                writer.update_status(&status::with_collision(deployment)).await?;
            }
            return Err(Error::Waiting(format!("replica set {} exists already", set.key())));
        }
        if !error.is_namespace_terminating() {
            let text = format!("Failed to create new replica set \"{}\": {}", set.name(), error.message());
            if let Some(failed) = status::with_failed_create(deployment, &text, self.scope.now()) {
                writer.update_status(&failed).await?;
            }
            recorder.warning(&about, "ReplicaSetCreateError", text);
        }
        Err(error)
    }
}
