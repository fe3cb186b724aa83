//! Deletes finished Jobs when their `ttlSecondsAfterFinished` is over.
//!
//! Reads: Job.  Writes: deletes Job (after its Pods).

use client::Key;
use jiff::Timestamp;
use kube::api::DeleteParams;
use tokio::task::JoinHandle;

use crate::{
    context::Scope,
    driver::{self, Driver},
    kinds::batch::Job,
    meta::{Meta, seconds, until},
};

/// When the Job may go: its end plus its time to live.
fn expiry(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let end = conditions.iter().find(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))?;
    Some(end.last_transition_time.as_ref()?.0 + seconds(ttl))
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let jobs = driver.watch::<Job>(|change, queue| {
        if change.new.as_ref().is_some_and(|j| expiry(j).is_some()) {
            driver::wake(change, queue);
        }
    });
    vec![driver.run(5, move |key| {
        let (jobs, scope) = (jobs.clone(), scope.clone());
        async move {
            let Some(job) = jobs.get(&key).filter(|j| !j.is_deleting()) else { return Ok(None) };
            let Some(expiry) = expiry(&job) else { return Ok(None) };
            if let Some(left) = until(expiry, scope.now()) {
                return Ok(Some(left));
            }
            // The limit may have been raised since the cache was filled.
            let live = scope.writer.get::<Job>(&key).await?;
            if live.is_some_and(|j| j.uid() == job.uid() && self::expiry(&j) == Some(expiry)) {
                let params = DeleteParams::foreground();
                scope.writer.delete_with::<Job>(&key, Some(job.uid()), params).await?;
            }
            Ok(None)
        }
    })]
}
