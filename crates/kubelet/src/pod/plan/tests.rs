use serde_json::{Value, json};

use super::*;
use crate::pod::observed::Sandbox;

fn pod(policy: &str, init: Value) -> core::Pod {
    serde_json::from_value(json!({
        "metadata": {"uid": "u", "name": "p", "namespace": "n"},
        "spec": {"restartPolicy": policy, "initContainers": init, "containers": [{"name": "a"}, {"name": "b"}]},
    }))
    .unwrap()
}

/// `name state[=code]` of containers in sandbox `s`, newest attempt last.
fn observed(containers: &[&str]) -> Observed {
    let mut instances: Vec<Instance> =
        containers.iter().enumerate().map(|(index, text)| instance(index, text)).collect();
    instances.reverse();
    let sandbox = Sandbox {
        id: "s".into(),
        attempt: 0,
        ready: true,
        created: 1,
        addresses: vec!["10.0.0.1".into()],
        host_network: false,
    };
    Observed { sandboxes: vec![sandbox], instances }
}

pub(crate) fn instance(index: usize, text: &str) -> Instance {
    let (name, state) = text.split_once(' ').unwrap();
    let (state, code) = state.split_once('=').unwrap_or((state, "0"));
    let state = match state {
        "created" => State::Created,
        "running" => State::Running,
        "exited" => State::Exited,
        other => panic!("{other}"),
    };
    let at = |second| jiff::Timestamp::from_second(second).unwrap();
    Instance {
        id: format!("{name}-{index}"),
        name: name.into(),
        sandbox: "s".into(),
        attempt: u32::try_from(index).unwrap(),
        state,
        created: at(10),
        started: Some(at(11)),
        finished: (state == State::Exited).then(|| at(12)),
        exit_code: code.parse().unwrap(),
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_ref: "i@sha256:0".into(),
        hash: String::new(),
        log_path: String::new(),
        resources: None,
        user: None,
        grace: None,
    }
}

/// `start a,b; stop c; sandbox 1; stop pod; reset`, in that order, empty parts left out.
fn show(plan: &Plan) -> String {
    let mut parts = Vec::new();
    if !plan.start.is_empty() {
        parts.push(format!("start {}", plan.start.join(",")));
    }
    if !plan.stop.is_empty() {
        let names: Vec<&str> = plan.stop.iter().map(|stop| stop.name.as_str()).collect();
        parts.push(format!("stop {}", names.join(",")));
    }
    parts.extend(plan.sandbox.map(|attempt| format!("sandbox {attempt}")));
    parts.extend(plan.stop_pod.then(|| "stop pod".to_owned()));
    parts.extend(plan.reset.then(|| "reset".to_owned()));
    parts.join("; ")
}

#[test]
fn containers_follow_their_state() {
    let none = || json!([]);
    let one = || json!([{"name": "i"}]);
    let side = || json!([{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]);
    let cases: Vec<(&str, Value, Vec<&str>, &str)> = vec![
        ("Always", none(), vec![], "start a,b"),
        ("Always", none(), vec!["a running", "b running"], ""),
        ("Always", none(), vec!["a running", "b exited"], "start b"),
        ("Always", none(), vec!["a running", "b created"], "start b"),
        ("OnFailure", none(), vec!["a exited", "b exited=1"], "start b"),
        ("OnFailure", none(), vec!["a exited", "b exited"], "stop pod"),
        ("Never", none(), vec!["a exited=1", "b running"], ""),
        ("Never", none(), vec!["a exited=1", "b exited"], "stop pod"),
        ("Always", one(), vec![], "start i"),
        ("Always", one(), vec!["i running"], ""),
        ("Always", one(), vec!["i exited"], "start a,b"),
        ("Always", one(), vec!["i exited=1"], "start i"),
        ("Never", one(), vec!["i exited=1"], "stop pod"),
        ("Always", one(), vec!["a running", "b running"], ""),
        ("Always", side(), vec!["i exited"], "start s"),
        ("Always", side(), vec!["i exited", "s running"], "start a,b"),
        ("Always", side(), vec!["i exited", "s exited"], "start s"),
        ("Always", side(), vec!["i exited", "s exited", "a running", "b running"], "start s"),
        ("Never", side(), vec!["i exited", "s running", "a exited", "b exited"], "stop pod"),
    ];
    for (policy, init, containers, expect) in cases {
        let plan = plan(&pod(policy, init.clone()), &observed(&containers), &|_| None);
        assert_eq!(show(&plan), expect, "{policy} {init} {containers:?}");
    }
}

#[test]
fn a_sidecar_must_have_started() {
    let pod = pod("Always", json!([{"name": "s", "restartPolicy": "Always"}]));
    let starting = Health { started: false, ready: false, ..Health::NO_PROBES };
    assert_eq!(show(&plan(&pod, &observed(&["s running"]), &|_| Some(starting))), "");
    assert_eq!(show(&plan(&pod, &observed(&["s running"]), &|_| Some(Health::NO_PROBES))), "start a,b");
}

#[test]
fn sandboxes_are_replaced() {
    let mut lost = observed(&["a running", "b running"]);
    lost.sandboxes[0].ready = false;
    let cases = [
        ("Always", Observed::default(), "start a,b; sandbox 0"),
        ("Always", lost.clone(), "start a,b; sandbox 1; stop pod"),
        ("Never", lost, "stop pod"),
    ];
    for (policy, observed, expect) in cases {
        assert_eq!(show(&plan(&pod(policy, json!([])), &observed, &|_| None)), expect, "{policy}");
    }
    let mut finished = observed(&["a exited", "b exited"]);
    finished.sandboxes[0].ready = false;
    assert_eq!(show(&plan(&pod("OnFailure", json!([])), &finished, &|_| None)), "stop pod");
    let mut none_left = observed(&["a exited", "b exited=3"]);
    none_left.sandboxes[0].ready = false;
    assert_eq!(show(&plan(&pod("OnFailure", json!([])), &none_left, &|_| None)), "start b; sandbox 1; stop pod");
}

#[test]
fn sick_and_changed_containers_are_replaced() {
    let failed = Health { liveness_failed: true, ..Health::NO_PROBES };
    let sick = |id: &str| id.starts_with("a-").then_some(failed);
    let state = observed(&["a running", "b running"]);
    let restarted = plan(&pod("Always", json!([])), &state, &sick);
    assert_eq!(show(&restarted), "start a; stop a");
    assert_eq!(restarted.stop[0].message, "Container a failed liveness probe, will be restarted");
    let stopped = plan(&pod("Never", json!([])), &state, &sick);
    assert_eq!(show(&stopped), "stop a");
    assert_eq!(stopped.stop[0].cause, Cause::Liveness);

    let mut changed = observed(&["a running", "b running"]);
    changed.instances[0].hash = "old".into();
    assert_eq!(show(&plan(&pod("Never", json!([])), &changed, &|_| None)), "start b; stop b");
}

#[test]
fn a_rule_restarts_everything() {
    let pod: core::Pod = serde_json::from_value(json!({"spec": {"restartPolicy": "Never", "containers": [
        {"name": "a", "restartPolicy": "Never", "restartPolicyRules": [
            {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [7]}}]},
        {"name": "b"}]}}))
    .unwrap();
    assert_eq!(show(&plan(&pod, &observed(&["a exited=7", "b running"]), &|_| None)), "reset");
    assert_eq!(show(&plan(&pod, &observed(&["a exited=8", "b running"]), &|_| None)), "");
}

#[test]
fn debuggers_start_once() {
    let mut pod = pod("Always", json!([{"name": "i"}]));
    let debugger = serde_json::from_value(json!({"name": "d"})).unwrap();
    pod.spec.as_mut().unwrap().ephemeral_containers = Some(vec![debugger]);
    assert_eq!(show(&plan(&pod, &observed(&["i running"]), &|_| None)), "start d");
    assert_eq!(show(&plan(&pod, &observed(&["i running", "d exited"]), &|_| None)), "");
}
