//! Leader election on a `coordination.k8s.io` Lease: one of several processes does a thing at a time.

use std::{future::Future, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease as Record, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::ErrorExt;

/// Candidates wait up to this much longer, as a share of the time between attempts.
const JITTER: f64 = 1.2;

/// Which lease, and who wants it. Timings as upstream's components have them.
#[derive(Clone, Debug)]
pub struct Lease {
    pub namespace: String,
    pub name: String,
    /// Unique to the process.
    pub identity: String,
    /// A leader that has not renewed for this long has lost.
    pub duration: Duration,
    /// A leader that cannot renew for this long gives up.
    pub deadline: Duration,
    /// Between attempts.
    pub retry: Duration,
}

impl Lease {
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// The lease as last seen: a holder is alive while its record keeps changing, whatever its clock says.
struct Seen {
    spec: LeaseSpec,
    at: Instant,
}

/// Waits for the lease, runs `lead` while it is held, and gives it up at the end. `lead` is told by its token when the
/// lease is lost; it must then stop.
pub async fn elect<F, R>(client: Client, lease: Lease, cancel: CancellationToken, lead: F)
where
    F: Fn(CancellationToken) -> R,
    R: Future<Output = ()>,
{
    let api: Api<Record> = Api::namespaced(client, &lease.namespace);
    let mut seen = None;
    while !cancel.is_cancelled() {
        if !attempt(&api, &lease, &mut seen).await {
            tokio::select! {
                // Candidates that started together do not go on in step.
                () = tokio::time::sleep(lease.retry.mul_f64(1.0 + rand::random::<f64>() * JITTER)) => continue,
                () = cancel.cancelled() => return,
            }
        }
        let held = cancel.child_token();
        tokio::select! {
            () = lead(held.clone()) => {}
            () = keep(&api, &lease, &mut seen) => tracing::warn!(lease = lease.name, "leadership lost"),
            () = cancel.cancelled() => {}
        }
        held.cancel();
        release(&api, &lease).await;
    }
}

/// Renews until that fails for longer than the deadline; a request that hangs has failed, too.
async fn keep(api: &Api<Record>, lease: &Lease, seen: &mut Option<Seen>) {
    let renew = async |seen: &mut Option<Seen>| {
        loop {
            tokio::time::sleep(lease.retry).await;
            if attempt(api, lease, seen).await {
                return;
            }
        }
    };
    while tokio::time::timeout(lease.deadline, renew(seen)).await.is_ok() {}
}

/// Takes or renews the lease; false while another holds it, or when the API cannot be reached.
async fn attempt(api: &Api<Record>, lease: &Lease, seen: &mut Option<Seen>) -> bool {
    match try_attempt(api, lease, seen).await {
        Ok(held) => held,
        Err(error) if error.is_conflict() || error.is_already_exists() => false,
        Err(error) => {
            tracing::debug!(lease = lease.name, error = &error as &dyn std::error::Error, "lease not renewed");
            false
        }
    }
}

async fn try_attempt(api: &Api<Record>, lease: &Lease, seen: &mut Option<Seen>) -> Result<bool, kube::Error> {
    let now = MicroTime(Timestamp::now());
    let mine = |acquired: MicroTime, transitions: i32| LeaseSpec {
        holder_identity: Some(lease.identity.clone()),
        lease_duration_seconds: i32::try_from(lease.duration.as_secs()).ok(),
        acquire_time: Some(acquired),
        renew_time: Some(now.clone()),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    };
    let Some(mut record) = api.get_opt(&lease.name).await? else {
        let mut record = Record { spec: Some(mine(now.clone(), 0)), ..Record::default() };
        record.metadata.name = Some(lease.name.clone());
        record.metadata.namespace = Some(lease.namespace.clone());
        api.create(&PostParams::default(), &record).await?;
        return Ok(true);
    };
    let spec = record.spec.clone().unwrap_or_default();
    if seen.as_ref().is_none_or(|seen| seen.spec != spec) {
        *seen = Some(Seen { spec: spec.clone(), at: Instant::now() });
    }
    let holder = spec.holder_identity.clone().unwrap_or_default();
    let held = holder == lease.identity;
    let alive = seen.as_ref().is_some_and(|seen| seen.at.elapsed() < lease.duration);
    if !held && !holder.is_empty() && alive {
        return Ok(false);
    }
    let transitions = spec.lease_transitions.unwrap_or(0) + i32::from(!held);
    let acquired = spec.acquire_time.filter(|_| held).unwrap_or(now.clone());
    record.spec = Some(mine(acquired, transitions));
    api.replace(&lease.name, &PostParams::default(), &record).await?;
    Ok(true)
}

/// Empties the lease if it is ours, so that another need not wait.
async fn release(api: &Api<Record>, lease: &Lease) {
    let Ok(Some(mut record)) = api.get_opt(&lease.name).await else { return };
    let Some(spec) = record.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&lease.identity))
    else {
        return;
    };
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    if let Err(error) = api.replace(&lease.name, &PostParams::default(), &record).await {
        tracing::debug!(lease = lease.name, error = &error as &dyn std::error::Error, "lease not released");
    }
}

#[cfg(test)]
mod tests;
