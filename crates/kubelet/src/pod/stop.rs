//! Stopping containers: the hook, the signal, the grace, and who goes first.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1 as core;
use tokio::time::Instant;
use tracing::warn;

use super::observed::{Instance, Observed, State};
use super::{Kind, PodExt};
use crate::cri;
use crate::shared::Shared;
use crate::{hooks, refer};

/// However little grace there is, a container gets this long after its hook.
const MINIMUM: Duration = Duration::from_secs(2);

/// Stops every running container: regular ones together, then sidecars from the last to the first, all within `grace`.
pub(crate) async fn everything(
    shared: &Arc<Shared>,
    pod: &core::Pod,
    observed: &Observed,
    grace: Duration,
    address: &str,
) -> Result<(), cri::Error> {
    let deadline = Instant::now() + grace;
    let kind = |instance: &Instance| pod.container(&instance.name).map_or(Kind::Regular, |(kind, _)| kind);
    let alive = || observed.instances.iter().filter(|instance| instance.state != State::Exited);
    let first = alive().filter(|instance| kind(instance) != Kind::Sidecar);
    let stops = join_all(first.map(|instance| one(shared, pod, instance, grace, address, None))).await;
    stops.into_iter().collect::<Result<(), _>>()?;

    let order: Vec<String> = pod.containers().iter().map(|(_, container)| container.name.clone()).collect();
    let mut sidecars: Vec<&Instance> = alive().filter(|instance| kind(instance) == Kind::Sidecar).collect();
    sidecars.sort_by_key(|instance| std::cmp::Reverse(order.iter().position(|name| *name == instance.name)));
    for instance in sidecars {
        let left = deadline.saturating_duration_since(Instant::now());
        one(shared, pod, instance, left, address, None).await?;
    }
    Ok(())
}

/// Stops one container. `message`: why, if there is more to say than that it stops.
pub(crate) async fn one(
    shared: &Arc<Shared>,
    pod: &core::Pod,
    instance: &Instance,
    grace: Duration,
    address: &str,
    message: Option<&str>,
) -> Result<(), cri::Error> {
    let began = Instant::now();
    if instance.state == State::Running {
        let text = message.map_or_else(|| format!("Stopping container {}", instance.name), str::to_owned);
        shared.recorder.normal(&refer::container(pod, &instance.name), "Killing", text);
    }
    let spec = pod.container(&instance.name);
    let hook = spec.as_ref().and_then(|(_, spec)| spec.lifecycle.as_ref()?.pre_stop.as_ref().map(|hook| (spec, hook)));
    if let Some((spec, hook)) = hook.filter(|_| instance.state == State::Running && !grace.is_zero()) {
        match tokio::time::timeout(grace, hooks::run(shared, hook, spec, &instance.id, address)).await {
            Ok(Ok(())) => {}
            Ok(Err(text)) => hooks::report(shared, pod, &instance.name, "FailedPreStopHook", &text),
            Err(_) => {
                warn!(pod = pod.full_name(), container = instance.name, "the preStop hook used up the grace period")
            }
        }
    }
    let used = began.elapsed();
    let left = if grace.is_zero() || used < Duration::from_millis(100) {
        grace
    } else {
        grace.saturating_sub(used).max(MINIMUM)
    };
    match shared.runtime.stop_container(&instance.id, left).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
