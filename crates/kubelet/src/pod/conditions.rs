//! The conditions that a kubelet owns on a pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Kind, PodExt};

/// Types written here; all others are somebody else's and stay as they are.
pub(crate) const OWNED: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
];

/// Status, reason and message of one condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Finding {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Finding {
    fn holds() -> Self {
        Self { holds: true, ..Self::default() }
    }

    fn fails(reason: &'static str, message: String) -> Self {
        Self { holds: false, reason, message }
    }
}

/// All owned conditions, each with the transition time of `old` unless its status changed.
///
/// `sandboxed`: a sandbox with its network is up, so containers may start.
pub(crate) fn conditions(
    pod: &core::Pod,
    old: &[core::PodCondition],
    statuses: &[core::ContainerStatus],
    phase: &str,
    sandboxed: bool,
    now: Timestamp,
) -> Vec<core::PodCondition> {
    let containers = containers_ready(pod, statuses, phase);
    let ready = if containers.holds { gates(pod, old) } else { containers.clone() };
    let sandbox = if sandboxed { Finding::holds() } else { Finding::default() };
    let findings = [sandbox, initialized(pod, statuses, phase), ready, containers, Finding::holds()];
    OWNED.iter().zip(findings).map(|(name, finding)| condition(pod, old, name, finding, now)).collect()
}

/// A condition that is there only while a resize is on its way.
pub(crate) fn resizing(
    pod: &core::Pod,
    old: &[core::PodCondition],
    name: &str,
    reason: &'static str,
    message: &str,
    now: Timestamp,
) -> core::PodCondition {
    condition(pod, old, name, Finding { holds: true, reason, message: message.to_owned() }, now)
}

fn condition(
    pod: &core::Pod,
    old: &[core::PodCondition],
    name: &str,
    finding: Finding,
    now: Timestamp,
) -> core::PodCondition {
    let status = if finding.holds { "True" } else { "False" };
    let before = old.iter().find(|condition| condition.type_ == name);
    let since = before.filter(|before| before.status == status).and_then(|before| before.last_transition_time.clone());
    let some = |text: String| (!text.is_empty()).then_some(text);
    core::PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: some(finding.reason.to_owned()),
        message: some(finding.message),
        last_probe_time: None,
        last_transition_time: since.or(Some(Time(now))),
        observed_generation: pod.generation(),
    }
}

fn containers_ready(pod: &core::Pod, statuses: &[core::ContainerStatus], phase: &str) -> Finding {
    match phase {
        "Succeeded" => return Finding::fails("PodCompleted", String::new()),
        "Failed" => return Finding::fails("PodFailed", String::new()),
        _ => {}
    }
    let held = |kind: Kind| matches!(kind, Kind::Sidecar | Kind::Regular);
    missing(pod, statuses, held, |_, status| status.ready, "unready")
        .map_or_else(Finding::holds, |message| Finding::fails("ContainersNotReady", message))
}

fn initialized(pod: &core::Pod, statuses: &[core::ContainerStatus], phase: &str) -> Finding {
    if phase == "Succeeded" {
        return Finding { holds: true, reason: "PodCompleted", message: String::new() };
    }
    let regular_started = pod.specification().containers.iter().any(|container| {
        let status = statuses.iter().find(|status| status.name == container.name);
        status.is_some_and(|status| {
            let ran = |state: &Option<core::ContainerState>| {
                state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            };
            ran(&status.state) || ran(&status.last_state)
        })
    });
    if regular_started {
        return Finding::holds();
    }
    let held = |kind: Kind| matches!(kind, Kind::Init | Kind::Sidecar);
    let done = |kind: Kind, status: &core::ContainerStatus| match kind {
        Kind::Sidecar => status.started == Some(true),
        _ => status.ready,
    };
    missing(pod, statuses, held, done, "incomplete")
        .map_or_else(Finding::holds, |message| Finding::fails("ContainersNotInitialized", message))
}

/// Names the containers of the kinds in question without a status, and those that are not `good`.
fn missing(
    pod: &core::Pod,
    statuses: &[core::ContainerStatus],
    held: impl Fn(Kind) -> bool,
    good: impl Fn(Kind, &core::ContainerStatus) -> bool,
    bad: &str,
) -> Option<String> {
    let (mut unknown, mut not_good) = (Vec::new(), Vec::new());
    for (kind, container) in pod.containers().iter().filter(|(kind, _)| held(*kind)) {
        match statuses.iter().find(|status| status.name == container.name) {
            None => unknown.push(container.name.clone()),
            Some(status) if !good(*kind, status) => not_good.push(container.name.clone()),
            Some(_) => {}
        }
    }
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: [{}]", unknown.join(" ")));
    }
    if !not_good.is_empty() {
        parts.push(format!("containers with {bad} status: [{}]", not_good.join(" ")));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn gates(pod: &core::Pod, conditions: &[core::PodCondition]) -> Finding {
    let mut messages = Vec::new();
    for gate in pod.specification().readiness_gates.iter().flatten() {
        let name = &gate.condition_type;
        match conditions.iter().find(|condition| condition.type_ == *name) {
            None => {
                messages.push(format!("corresponding condition of pod readiness gate \"{name}\" does not exist."));
            }
            Some(condition) if condition.status != "True" => messages
                .push(format!("the status of pod readiness gate \"{name}\" is not \"True\", but {}", condition.status)),
            Some(_) => {}
        }
    }
    if messages.is_empty() {
        return Finding::holds();
    }
    Finding::fails("ReadinessGatesNotReady", messages.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_needs_containers_and_gates() {
        let pod: core::Pod = serde_json::from_value(json!({
            "metadata": {"generation": 3},
            "spec": {"readinessGates": [{"conditionType": "x/gate"}], "initContainers": [{"name": "i"}],
                     "containers": [{"name": "a"}, {"name": "b"}]},
        }))
        .unwrap();
        let status = |name: &str, ready: bool| -> core::ContainerStatus {
            serde_json::from_value(json!({"name": name, "image": "", "imageID": "", "ready": ready, "restartCount": 0}))
                .unwrap()
        };
        let show = |old: &[core::PodCondition], statuses: &[core::ContainerStatus], phase: &str| {
            let at = Timestamp::from_second(5).unwrap();
            let all = conditions(&pod, old, statuses, phase, true, at);
            let ready = all.iter().find(|condition| condition.type_ == "Ready").unwrap().clone();
            assert_eq!(ready.observed_generation, Some(3));
            let initialized = all.iter().find(|condition| condition.type_ == "Initialized").unwrap();
            let message = ready.message.unwrap_or_default();
            format!("{} {} {} | {}", initialized.status, ready.status, ready.reason.unwrap_or_default(), message)
        };
        let gate =
            |status: &str| core::PodCondition { type_: "x/gate".into(), status: status.into(), ..Default::default() };
        assert_eq!(
            show(&[], &[status("a", true)], "Pending"),
            "False False ContainersNotReady | containers with unknown status: [b]"
        );
        assert_eq!(
            show(&[], &[status("i", true), status("a", true), status("b", false)], "Running"),
            "True False ContainersNotReady | containers with unready status: [b]"
        );
        let all = [status("i", true), status("a", true), status("b", true)];
        assert_eq!(
            show(&[], &all, "Running"),
            "True False ReadinessGatesNotReady | corresponding condition of pod readiness gate \"x/gate\" does not exist."
        );
        assert_eq!(
            show(&[gate("False")], &all, "Running"),
            "True False ReadinessGatesNotReady | the status of pod readiness gate \"x/gate\" is not \"True\", but False"
        );
        assert_eq!(show(&[gate("True")], &all, "Running"), "True True  | ");
        assert_eq!(show(&[gate("True")], &all, "Succeeded"), "True False PodCompleted | ");
    }

    #[test]
    fn transition_time_moves_with_the_status() {
        let pod = core::Pod::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = conditions(&pod, &[], &[], "Running", false, at(1));
        let second = conditions(&pod, &first, &[], "Running", true, at(2));
        let times: Vec<_> = second.iter().map(|c| c.last_transition_time.as_ref().unwrap().0.as_second()).collect();
        assert_eq!(times, [2, 1, 1, 1, 1]);
    }
}
