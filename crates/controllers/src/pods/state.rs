//! In which state a Pod is, as the controllers see it.

use jiff::Timestamp;

use crate::{
    kinds::core::{Pod, PodCondition},
    meta::{Meta, seconds},
};

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

pub(crate) fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

pub(crate) fn is_succeeded(pod: &Pod) -> bool {
    phase(pod) == "Succeeded"
}

pub(crate) fn is_failed(pod: &Pod) -> bool {
    phase(pod) == "Failed"
}

pub(crate) fn is_terminal(pod: &Pod) -> bool {
    is_succeeded(pod) || is_failed(pod)
}

/// Neither finished nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !pod.is_deleting()
}

/// Being deleted with containers that may still run.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.is_deleting()
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Since when the Pod has been ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}

/// Ready for at least `min_ready` seconds.
pub(crate) fn is_available(pod: &Pod, min_ready: i32, now: Timestamp) -> bool {
    is_ready(pod) && (min_ready == 0 || ready_since(pod).is_some_and(|since| since + seconds(min_ready) <= now))
}

pub(crate) fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let plain = status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
    plain.map(|c| c.restart_count).max().unwrap_or(0)
}
