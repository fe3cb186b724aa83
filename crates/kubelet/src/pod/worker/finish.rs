//! The end of a pod: stop what runs, say how it ended, remove every trace.

use std::time::Duration;

use client::ErrorExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, DeleteParams, Preconditions};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Next, Orders, Stage, Worker, must_stop};
use crate::pod::observed::State;
use crate::pod::{PodExt, sandbox, stop};
use crate::refer;
use crate::volumes::teardown;

impl Worker {
    /// A turn of a pod whose containers must stop.
    pub(super) async fn stop(&mut self, orders: &Orders) -> Next {
        let pod = &orders.pod;
        if let Err(error) = self.observe().await {
            warn!(error = &error as &dyn std::error::Error, "failed to read the pod from the runtime");
            return self.back_off();
        }
        if self.observed.instances.iter().any(|instance| instance.state == State::Running) {
            self.publish(pod, false);
        }
        let grace = self.grace(orders);
        let address = self.address(pod).to_owned();
        let shared = self.shared.clone();
        let observed = self.observed.clone();
        let stopped = {
            let stopping = stop::everything(&shared, pod, &observed, grace, &address);
            let mut news = self.orders.clone();
            let given = grace_of(orders);
            tokio::select! {
                result = stopping => Some(result),
                // Less grace than before: begin again with what is left of it.
                _ = news.wait_for(|news| grace_of(news) < given || news.removed), if !orders.removed => None,
            }
        };
        match stopped {
            None => {
                self.deadline = None;
                return Next::Again;
            }
            Some(Err(error)) => {
                let text = format!("error killing pod: {}", error.message());
                self.shared.recorder.warning(&refer::pod(pod), "FailedKillPod", text);
                return self.back_off();
            }
            Some(Ok(())) => {}
        }
        self.probes.stop();
        for sandbox in &self.observed.sandboxes {
            if let Err(error) = self.shared.runtime.stop_sandbox(&sandbox.id).await {
                let text = format!("error stopping sandbox: {}", error.message());
                self.shared.recorder.warning(&refer::pod(pod), "FailedKillPod", text);
                return self.back_off();
            }
        }
        if let Err(error) = self.observe().await {
            warn!(error = &error as &dyn std::error::Error, "failed to read the pod from the runtime");
            return self.back_off();
        }
        self.waiting.clear();
        if !orders.removed || pod.is_static() {
            self.publish(pod, true);
        }
        if let Err(error) = self.release(pod) {
            warn!(error = &error as &dyn std::error::Error, "failed to clean up after a pod; will try again");
            return self.back_off();
        }
        info!("stopped");
        self.stage = Stage::Stopped;
        self.retry = super::RETRY_MIN;
        Next::Again
    }

    /// Gives back volumes and cgroup; the directory stays while dead containers refer to it.
    fn release(&mut self, pod: &core::Pod) -> Result<(), std::io::Error> {
        let pod_dir = self.shared.config.pod_dir(&self.uid);
        for part in ["volume-subpaths", "volumes"] {
            teardown::remove(&pod_dir.join(part))?;
        }
        self.volumes.clear();
        self.objects.release(&self.uid);
        self.shared.cgroups.remove_pod(pod.uid()).map_err(std::io::Error::other)
    }

    /// Grace that is left: counted from when the pod was first told to stop.
    fn grace(&mut self, orders: &Orders) -> Duration {
        let now = Instant::now();
        // Of a pod that no source knows, its containers tell what grace they were promised.
        let promised = self.observed.instances.iter().filter_map(|instance| instance.grace).max();
        let seconds = promised.filter(|_| orders.pod.spec.is_none()).unwrap_or_else(|| grace_of(orders));
        let all = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let deadline = *self.deadline.get_or_insert(now + all);
        // A second at least, unless none was asked for on this node.
        deadline.saturating_duration_since(now).max(if orders.grace == Some(0) {
            Duration::ZERO
        } else {
            Duration::from_secs(1)
        })
    }

    /// A turn of a pod that has stopped: it stays for its logs and status until it is deleted.
    pub(super) async fn finish(&mut self, orders: &Orders) -> Next {
        let pod = &orders.pod;
        if !must_stop(orders) {
            self.publish(pod, true);
            return Next::Wait(None);
        }
        if let Err(error) = self.erase(pod).await {
            warn!(error = error.as_ref(), "failed to remove a pod from this node; will try again");
            return self.back_off();
        }
        if orders.removed || pod.is_static() {
            return Next::Gone;
        }
        self.publisher.flush().await;
        let api: Api<core::Pod> = Api::namespaced(self.shared.client.clone(), pod.namespace());
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
            ..Default::default()
        };
        match api.delete(pod.name(), &parameters).await {
            Ok(_) => Next::Gone,
            // Another pod of that name: this one is gone.
            Err(error) if error.is_not_found() || error.is_conflict() => Next::Gone,
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to delete the pod from the API; will try again"
                );
                self.back_off()
            }
        }
    }

    /// Removes containers, sandboxes, directory and logs.
    async fn erase(&mut self, pod: &core::Pod) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.observe().await?;
        for instance in &self.observed.instances {
            match self.shared.runtime.remove_container(&instance.id).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        for sandbox in &self.observed.sandboxes {
            match self.shared.runtime.remove_sandbox(&sandbox.id).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        teardown::remove(&self.shared.config.pod_dir(&self.uid))?;
        self.shared.cgroups.remove_pod(&self.uid)?;
        teardown::remove(&sandbox::log_directory(&self.shared.config.log_dir, pod))?;
        info!(at = %Timestamp::now(), "removed");
        Ok(())
    }
}

/// Seconds of grace that the orders give.
fn grace_of(orders: &Orders) -> i64 {
    orders.grace.unwrap_or_else(|| orders.pod.grace()).max(0)
}
