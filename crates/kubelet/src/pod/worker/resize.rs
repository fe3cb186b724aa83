//! Applies accepted resizes to containers that run.

use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use tracing::info;

use super::Worker;
use crate::cri;
use crate::pod::observed::{Instance, State};
use crate::pod::{Kind, PodExt, resize, resources, stop};
use crate::refer;

impl Worker {
    /// Brings running containers to the resources of the pod. True: one was stopped to start anew with them.
    pub(super) async fn resize(&mut self, pod: &core::Pod) -> Result<bool, cri::Error> {
        self.applied.retain(|id, _| self.observed.running().any(|instance| instance.id == *id));
        self.resize_error = None;
        let mut stopped = false;
        let running: Vec<Instance> = self.observed.running().cloned().collect();
        for instance in running {
            let Some((kind, container)) = pod.container(&instance.name) else { continue };
            if matches!(kind, Kind::Ephemeral) || instance.state != State::Running {
                continue;
            }
            let wanted = resources::for_container(pod, &container, self.shared.machine.memory);
            let applied = self.applied.entry(instance.id.clone());
            // Of a container that another kubelet started, the runtime tells; one that does not is taken as it should be.
            let applied = applied.or_insert_with(|| instance.resources.clone().unwrap_or_else(|| wanted.clone()));
            let changed = resize::differs(applied, &wanted);
            if changed == (false, false) {
                continue;
            }
            if resize::needs_restart(&container, changed) {
                let grace = Duration::from_secs(u64::try_from(pod.grace()).unwrap_or(0));
                let message = format!("Container {} resize requires restart, will be restarted", instance.name);
                let address = self.address(pod).to_owned();
                stop::one(&self.shared, pod, &instance, grace, &address, Some(&message)).await?;
                stopped = true;
                continue;
            }
            match self.shared.runtime.update_container(&instance.id, wanted.clone()).await {
                Ok(()) => {
                    info!(container = instance.name, "resized");
                    self.applied.insert(instance.id.clone(), wanted);
                    let text = format!("Pod resize completed: container {}", instance.name);
                    self.shared.recorder.normal(&refer::pod(pod), "ResizeCompleted", text);
                }
                Err(error) => {
                    self.shared.recorder.warning(&refer::pod(pod), "ResizeError", error.message());
                    self.resize_error = Some(error.message());
                }
            }
        }
        Ok(stopped)
    }
}
