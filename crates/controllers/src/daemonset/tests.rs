//! Plans for small clusters.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, from_value, json};

use super::plan::{Plan, View};
use crate::{
    kinds::{
        apps::DaemonSet,
        core::{Node, Pod},
    },
    meta::Meta,
};

fn set(strategy: Value, pod: Value) -> DaemonSet {
    let mut spec = json!({"containers": []});
    spec.as_object_mut().expect("spec").extend(pod.as_object().cloned().unwrap_or_default());
    from_value(json!({"metadata": {"name": "d", "namespace": "ns"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "updateStrategy": strategy, "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}}}))
    .expect("set")
}

fn node(name: &str, taints: Value) -> Arc<Node> {
    Arc::new(
        from_value(json!({"metadata": {"name": name, "labels": {"name": name}}, "spec": {"taints": taints}}))
            .expect("node"),
    )
}

/// `NODE:STATE`, where the state is a letter for the template (`n`ew, `o`ld) and one for what it does
/// (`r`eady, `u`nready, `f`ailed, `d`eleting).
fn pod(text: &str) -> Arc<Pod> {
    let (node, state) = text.split_once(':').expect("node:state");
    let hash = if state.starts_with('n') { "new" } else { "old" };
    let mut value = json!({"metadata": {"name": text, "uid": text, "labels": {"a": "b", "controller-revision-hash": hash}},
        "spec": {"containers": [], "nodeName": node}, "status": {"phase": "Running", "conditions": []}});
    match &state[1..] {
        "r" => value["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]),
        "f" => value["status"]["phase"] = json!("Failed"),
        "d" => value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
        _ => {}
    }
    Arc::new(from_value(value).expect("pod"))
}

fn show(plan: &Plan) -> String {
    let mut delete: Vec<_> = plan.delete.iter().map(|p| format!("-{}", p.name())).collect();
    delete.sort();
    plan.create.iter().map(|n| format!("+{n}")).chain(delete).collect::<Vec<_>>().join(" ")
}

fn now() -> Timestamp {
    "2026-01-01T00:01:00Z".parse().expect("time")
}

#[test]
fn one_pod_on_each_fitting_node() {
    let no_schedule = json!([{"key": "k", "effect": "NoSchedule"}]);
    let no_execute = json!([{"key": "k", "effect": "NoExecute"}]);
    let pressure = json!([{"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}]);
    let cases: [(Value, Value, &[&str], &str); 10] = [
        (json!({}), json!([]), &[], "+n1"),
        (json!({}), json!([]), &["n1:nr"], ""),
        (json!({}), json!([]), &["n1:nr", "n1:nu"], "-n1:nu"),
        (json!({}), json!([]), &["n1:nf"], "-n1:nf"),
        (json!({}), json!([]), &["n1:nd"], ""),
        (json!({}), no_schedule.clone(), &[], ""),
        (json!({}), no_schedule, &["n1:nr"], ""),
        (json!({}), no_execute, &["n1:nr"], "-n1:nr"),
        (json!({}), pressure, &[], "+n1"),
        (json!({"nodeSelector": {"name": "other"}}), json!([]), &["n1:nr"], "-n1:nr"),
    ];
    for (template, taints, pods, expected) in cases {
        let set = set(json!({"type": "RollingUpdate"}), template.clone());
        let pods: Vec<_> = pods.iter().map(|p| pod(p)).collect();
        let nodes = [node("n1", taints.clone())];
        let view = View::new(&set, "new", &nodes, &pods, now());
        assert_eq!(show(&view.manage(|_| None)), expected, "{template} {taints} {pods:?}");
    }
}

#[test]
fn updates_within_limits() {
    let rolling = |surge: Value, unavailable: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    let cases: [(Value, &[&str], &str); 9] = [
        (json!({"type": "OnDelete"}), &["n1:or", "n2:or", "n3:or"], ""),
        (rolling(json!(0), json!(1)), &["n1:or", "n2:or", "n3:or"], "-n1:or"),
        (rolling(json!(0), json!("50%")), &["n1:or", "n2:or", "n3:or"], "-n1:or -n2:or"),
        (rolling(json!(0), json!(1)), &["n1:nu", "n2:or", "n3:or"], ""),
        (rolling(json!(0), json!(1)), &["n1:nr", "n2:ou", "n3:or"], "-n2:ou"),
        (rolling(json!(1), json!(0)), &["n1:or", "n2:or", "n3:or"], "+n1"),
        (rolling(json!(1), json!(0)), &["n1:or", "n1:nu", "n2:or", "n3:or"], ""),
        (rolling(json!(1), json!(0)), &["n1:or", "n1:nr", "n2:or", "n3:or"], "+n2 -n1:or"),
        (rolling(json!(1), json!(0)), &["n1:ou", "n2:ou", "n3:or"], "+n1 +n2 +n3"),
    ];
    for (strategy, pods, expected) in cases {
        let set = set(strategy.clone(), json!({}));
        let pods: Vec<_> = pods.iter().map(|p| pod(p)).collect();
        let nodes = ["n1", "n2", "n3"].map(|n| node(n, json!([])));
        let view = View::new(&set, "new", &nodes, &pods, now());
        assert_eq!(show(&view.update()), expected, "{strategy} {pods:?}");
    }
}

#[test]
fn pods_are_pinned_and_tolerant() {
    let set = set(json!({}), json!({"hostNetwork": true}));
    let pod = super::nodes::daemon_pod(&set, "n1", "h").expect("pod");
    assert_eq!(super::nodes::node_of(&pod), Some("n1"));
    assert_eq!(pod.spec.expect("spec").tolerations.expect("tolerations").len(), 7);
}
