//! The pod's line in a table: readiness, a one-word status, restarts.

use serde_json::Value;

use crate::{
    kinds::{
        access::Members,
        cells::{self, count},
    },
    validation::field::walk,
};

/// What the container statuses say of the pod as a whole.
#[derive(Default)]
struct Summary {
    reason: String,
    ready: usize,
    restarts: i64,
    /// When a container last ended before a restart.
    restarted: Option<String>,
}

impl Summary {
    fn add_restarts(&mut self, status: &Value) {
        self.restarts += count(status, "restartCount");
        let ended = walk(status, "lastState.terminated.finishedAt").as_str();
        self.restarted = self.restarted.take().max(ended.map(str::to_string));
    }
}

pub(super) fn row(pod: &Value, now: &str) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let sidecars: Vec<&str> = items(spec, "initContainers")
        .filter(|container| container.text("restartPolicy") == "Always")
        .map(|container| container.text("name"))
        .collect();
    let total = items(spec, "containers").count() + sidecars.len();
    let mut summary = Summary { reason: first_reason(status), ..Summary::default() };
    let initializing = add_init_containers(&mut summary, spec, status, &sidecars);
    if !initializing {
        add_containers(&mut summary, status);
    }
    if !walk(pod, "metadata.deletionTimestamp").is_null() {
        if status.text("reason") == "NodeLost" {
            summary.reason = "Unknown".into();
        } else if !matches!(status.text("phase"), "Failed" | "Succeeded") {
            summary.reason = "Terminating".into();
        }
    }
    let restarts = match (&summary.restarted, summary.restarts) {
        (Some(time), restarts) if restarts != 0 => {
            format!("{restarts} ({} ago)", cells::since(&Value::from(time.as_str()), now))
        }
        (_, restarts) => restarts.to_string(),
    };
    vec![
        cells::name(pod),
        format!("{}/{total}", summary.ready).into(),
        summary.reason.into(),
        restarts.into(),
        cells::age(pod, now),
        cells::or_none(walk(&status["podIPs"][0], "ip").as_str().unwrap_or_default()),
        cells::or_none(spec.text("nodeName")),
        cells::or_none(status.text("nominatedNodeName")),
        readiness_gates(spec, status),
    ]
}

fn items<'a>(object: &'a Value, list: &str) -> impl DoubleEndedIterator<Item = &'a Value> {
    object[list].as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

fn has_condition(status: &Value, kind: &str) -> bool {
    items(status, "conditions").any(|condition| condition.text("type") == kind && condition.text("status") == "True")
}

fn first_reason(status: &Value) -> String {
    let gated = items(status, "conditions")
        .any(|condition| condition.text("type") == "PodScheduled" && condition.text("reason") == "SchedulingGated");
    match status.text("reason") {
        _ if gated => "SchedulingGated",
        "" => status.text("phase"),
        reason => reason,
    }
    .to_string()
}

/// Walks the init containers; `true` when the pod has not got past them.
fn add_init_containers(summary: &mut Summary, spec: &Value, status: &Value, sidecars: &[&str]) -> bool {
    let mut of_sidecars = Summary::default();
    let mut initializing = false;
    for (index, container) in items(status, "initContainerStatuses").enumerate() {
        let sidecar = sidecars.contains(&container.text("name"));
        summary.add_restarts(container);
        if sidecar {
            of_sidecars.add_restarts(container);
        }
        let state = &container["state"];
        let terminated = &state["terminated"];
        let waiting = walk(state, "waiting.reason").as_str().unwrap_or_default();
        if terminated.is_object() && count(terminated, "exitCode") == 0 {
            continue;
        }
        if sidecar && container["started"] == true {
            summary.ready += usize::from(container["ready"] == true);
            continue;
        }
        summary.reason = if terminated.is_object() {
            format!("Init:{}", end_reason(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", items(spec, "initContainers").count())
        };
        initializing = true;
        break;
    }
    if !initializing || has_condition(status, "Initialized") {
        summary.restarts = of_sidecars.restarts;
        summary.restarted = of_sidecars.restarted;
        return false;
    }
    true
}

fn end_reason(terminated: &Value) -> String {
    match (terminated.text("reason"), count(terminated, "signal")) {
        ("", 0) => format!("ExitCode:{}", count(terminated, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_string(),
    }
}

fn add_containers(summary: &mut Summary, status: &Value) {
    let mut running = false;
    let mut error = None;
    for container in items(status, "containerStatuses").rev() {
        summary.add_restarts(container);
        let state = &container["state"];
        let terminated = &state["terminated"];
        let waiting = walk(state, "waiting.reason").as_str().unwrap_or_default();
        if !waiting.is_empty() {
            summary.reason = waiting.to_string();
        } else if terminated.is_object() {
            summary.reason = end_reason(terminated);
            if count(terminated, "exitCode") != 0 {
                error = Some(summary.reason.clone());
            }
        } else if container["ready"] == true && state["running"].is_object() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" {
        if running && has_condition(status, "Ready") {
            summary.reason = "Running".into();
        } else if let Some(error) = error {
            summary.reason = error;
        } else if running {
            summary.reason = "NotReady".into();
        }
    }
}

fn readiness_gates(spec: &Value, status: &Value) -> Value {
    let gates = items(spec, "readinessGates").count();
    if gates == 0 {
        return cells::NONE.into();
    }
    let open = items(spec, "readinessGates").filter(|gate| has_condition(status, gate.text("conditionType"))).count();
    format!("{open}/{gates}").into()
}
