//! Gives the Pods of a StatefulSet lasting names, claims and an order.
//!
//! Reads: StatefulSet, Pod, PersistentVolumeClaim, ControllerRevision.
//! Writes: Pod, PersistentVolumeClaim, ControllerRevision, StatefulSet/status.
//! Invariant: names are fixed by ordinal, so a stale cache can make a creation fail but never make two of a kind, and
//! deletions carry the uid.

mod identity;
mod plan;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use client::{Informer, Key, reference};
use tokio::task::JoinHandle;

use self::plan::{Op, View};
use crate::{
    Error,
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::{
        LabelSelector,
        apps::{ControllerRevision, StatefulSet},
        core::{PersistentVolumeClaim, Pod},
    },
    meta::{self, Meta},
    pods::{
        batch, claim,
        expectations::Expectations,
        state,
        wake::{self, PodOwner},
    },
    revisions,
};

const WORKERS: usize = 5;
const REVISION_HASH_LABEL: &str = "controller.kubernetes.io/hash";

impl PodOwner for StatefulSet {
    fn selector(&self) -> Option<LabelSelector> {
        self.spec.as_ref().map(|s| s.selector.clone())
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }
}

struct Loop {
    scope: Scope,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    revisions: Informer<ControllerRevision>,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let sets = driver.watch::<StatefulSet>(driver::wake);
    let pods = driver.watch::<Pod>({
        let sets = sets.clone();
        let nothing_expected = Expectations::default();
        move |change, queue| wake::pod_changed(change, queue, &nothing_expected, &sets)
    });
    let revisions = driver.watch::<ControllerRevision>(driver::wake_owner::<StatefulSet, _>);
    let claims = driver.read::<PersistentVolumeClaim>();
    claim::index(&pods);
    claim::index(&revisions);
    let this = Arc::new(Loop { scope, sets, pods, claims, revisions });
    vec![driver.run(WORKERS, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let Some(set) = self.sets.get(&key) else { return Ok(None) };
        let Some(spec) = &set.spec else { return Ok(None) };
        if meta::is_empty_selector(&spec.selector) {
            return Ok(None);
        }
        let writer = &self.scope.writer;
        let status = set.status.clone().unwrap_or_default();
        let source = revisions::Source {
            owner: &*set,
            selector: &spec.selector,
            template: &spec.template,
            collisions: status.collision_count,
            hash_label: REVISION_HASH_LABEL,
        };
        let history = match revisions::sync(writer, &self.revisions, source).await {
            Err(error) if error.is_namespace_terminating() => return Ok(None),
            other => other?,
        };
        let named = |p: &Pod| identity::ordinal(&set, p.name()).is_some();
        let pods = claim::claim(writer, &*set, &spec.selector, &self.pods, named).await?;
        let current = history.others.iter().find(|r| Some(r.name()) == status.current_revision.as_deref());
        let current = current.unwrap_or(&history.latest);
        let now = self.scope.now();
        let view = View { set: &set, current, update: &history.latest, pods: &pods, now };
        let plan = view.plan();
        let outcome = self.apply(&set, plan.ops).await;
        let mut next = StatefulSet::clone(&set);
        let mut reported = plan.status;
        reported.collision_count = history.collisions;
        next.status = Some(reported);
        if next.status != set.status {
            writer.update_status(&next).await?;
        }
        let in_use = |r: &ControllerRevision| {
            let names = [status.current_revision.as_deref(), status.update_revision.as_deref()];
            names.contains(&Some(r.name()))
                || r.name() == current.name()
                || pods.iter().any(|p| p.label(revisions::HASH_LABEL) == Some(r.name()))
        };
        revisions::clean_up(writer, &history, spec.revision_history_limit.unwrap_or(10), in_use).await?;
        match outcome {
            Err(error) if error.is_namespace_terminating() => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(self.next_check(&set, &pods)),
        }
    }

    /// When a ready Pod may have become available.
    fn next_check(&self, set: &StatefulSet, pods: &[Arc<Pod>]) -> Option<Duration> {
        let patience = set.min_ready_seconds();
        let now = self.scope.now();
        let waiting = pods.iter().any(|p| state::is_ready(p) && !state::is_available(p, patience, now));
        waiting.then(|| Duration::from_secs(u64::from(patience.unsigned_abs()).max(1)))
    }

    async fn apply(&self, set: &StatefulSet, ops: Vec<Op>) -> Result<(), Error> {
        let count = ops.len();
        let (_, error) = batch::slow_start(count, |index| self.apply_one(set, &ops[index])).await;
        error.map_or(Ok(()), Err)
    }

    async fn apply_one(&self, set: &StatefulSet, op: &Op) -> Result<(), Error> {
        let Scope { writer, recorder, .. } = &self.scope;
        let about = reference(set);
        match op {
            Op::Create(pod) => {
                if !self.ensure_claims(set, pod).await? {
                    return Err(Error::Waiting(format!("a claim of {} is being deleted", pod.name())));
                }
                match writer.create(&**pod).await {
                    Err(error) if error.is_already_exists() => Ok(()),
                    result => self.tell(set, "create", pod.name(), result.map(drop)),
                }
            }
            Op::EnsureClaims(pod) => self.ensure_claims(set, pod).await.map(drop),
            Op::Repair(pod) => {
                self.ensure_claims(set, pod).await?;
                let result = writer.update(&**pod).await.map(drop);
                self.tell(set, "update", pod.name(), result)
            }
            Op::Delete(pod) => {
                self.own_claims_of_condemned(set, pod).await?;
                let result = writer.delete::<Pod>(&pod.key(), Some(pod.uid())).await;
                if result.is_err() {
                    return self.tell(set, "delete", pod.name(), result);
                }
                let text = format!("delete Pod {} in StatefulSet {} successful", pod.name(), set.name());
                recorder.normal(&about, "SuccessfulDelete", text);
                Ok(())
            }
        }
    }

    fn tell(&self, set: &StatefulSet, verb: &str, pod: &str, result: Result<(), Error>) -> Result<(), Error> {
        let (about, recorder) = (reference(set), &self.scope.recorder);
        let word: String = verb[..1].to_uppercase() + &verb[1..];
        let what = format!("{verb} Pod {pod} in StatefulSet {}", set.name());
        match &result {
            Ok(()) => recorder.normal(&about, &format!("Successful{word}"), format!("{what} successful")),
            Err(error) if error.is_namespace_terminating() || error.is_conflict() => {}
            Err(error) => {
                let text = format!("{what} failed error: {}", error.message());
                recorder.warning(&about, &format!("Failed{word}"), text);
            }
        }
        result
    }

    /// Makes the Pod's claims that are missing and keeps their owners as the retention policy says. False if one of
    /// them is on its way out and the Pod has to wait for a fresh one.
    async fn ensure_claims(&self, set: &StatefulSet, pod: &Pod) -> Result<bool, Error> {
        let Scope { writer, recorder, .. } = &self.scope;
        for wanted in identity::claims(set, pod) {
            match self.claims.get(&wanted.key()) {
                Some(claim) if claim.is_deleting() => return Ok(false),
                Some(claim) => {
                    if let Some(next) = identity::with_owners(set, &claim, None) {
                        writer.update(&next).await?;
                    }
                }
                None => {
                    let what =
                        format!("create Claim {} Pod {} in StatefulSet {}", wanted.name(), pod.name(), set.name());
                    match writer.create(&wanted).await {
                        Ok(_) => recorder.normal(&reference(set), "SuccessfulCreate", format!("{what} success")),
                        Err(error) if error.is_already_exists() => {}
                        Err(error) => {
                            let text = format!("{what} failed error: {}", error.message());
                            recorder.warning(&reference(set), "FailedCreate", text);
                            return Err(error);
                        }
                    }
                }
            }
        }
        Ok(true)
    }

    /// With retention policy `whenScaled: Delete` the claims of a Pod beyond the replicas go with it.
    async fn own_claims_of_condemned(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        if identity::is_in_range(set, pod.name()) {
            return Ok(());
        }
        for wanted in identity::claims(set, pod) {
            if let Some(claim) = self.claims.get(&wanted.key())
                && let Some(next) = identity::with_owners(set, &claim, Some(pod))
            {
                self.scope.writer.update(&next).await?;
            }
        }
        Ok(())
    }
}
