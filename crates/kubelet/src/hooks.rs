//! Lifecycle hooks: what runs right after a container's start and right before its stop.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;

use crate::probes::action::{Outcome, Target};
use crate::refer;
use crate::shared::Shared;

/// Longest wait for an HTTP or TCP hook.
const NETWORK: Duration = Duration::from_secs(30);

/// Runs one hook to its end. The error is what an event says.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    handler: &core::LifecycleHandler,
    container: &core::Container,
    id: &str,
    address: &str,
) -> Result<(), String> {
    let target =
        |timeout| Target { runtime: &shared.runtime, container, id, address, timeout, agent: "kube-lifecycle/1.36" };
    let outcome = if let Some(exec) = &handler.exec {
        // Zero: the command may take as long as it likes.
        target(Duration::ZERO).exec(exec).await
    } else if let Some(get) = &handler.http_get {
        target(NETWORK).http(get).await
    } else if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        Outcome::Success
    } else if let Some(tcp) = &handler.tcp_socket {
        target(NETWORK).tcp(tcp).await
    } else {
        Outcome::Unknown("invalid handler: no action".to_owned())
    };
    match outcome {
        Outcome::Success | Outcome::Warning(_) => Ok(()),
        Outcome::Failure(text) | Outcome::Unknown(text) => Err(text),
    }
}

/// Tells of a hook that failed.
pub(crate) fn report(shared: &Shared, pod: &core::Pod, container: &str, reason: &str, text: &str) {
    let name = if reason == "FailedPreStopHook" { "PreStopHook" } else { "PostStartHook" };
    shared.recorder.warning(&refer::container(pod, container), reason, format!("{name} failed: {text}"));
}
