use serde_json::json;

use super::*;
use crate::kind::Hooks;

fn context(part: Part) -> Context<'static> {
    Context { now: "2026-01-01T00:10:00Z", user: "u", groups: &[], version: "v1", part }
}

#[test]
fn a_minimal_pod_gets_upstreams_defaults() {
    let mut pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    default(&mut pod);
    assert_eq!(
        pod["spec"],
        json!({
            "containers": [{
                "name": "c", "image": "i:1", "imagePullPolicy": "IfNotPresent", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
        })
    );
    let once = pod.clone();
    default(&mut pod);
    assert_eq!(pod, once, "defaults are idempotent");
}

#[test]
fn qos_follows_requests_and_limits() {
    let check = |resources: Value, want: &str| {
        let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}});
        default(&mut pod);
        create(&mut pod, &context(Part::Main));
        assert_eq!(pod["status"]["qosClass"], want, "{resources}");
    };
    check(json!({}), "BestEffort");
    check(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed");
    check(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}}), "Guaranteed");
    check(json!({"limits": {"cpu": "1"}}), "Burstable");
    check(json!({"requests": {"memory": "1"}}), "Burstable");
}

#[test]
fn a_status_write_changes_status_only() {
    let old = json!({
        "metadata": {"generation": 1, "ownerReferences": [{"uid": "1"}]},
        "spec": {"nodeName": "n"},
        "status": {"qosClass": "BestEffort", "conditions": [{"type": "Ready", "observedGeneration": 3}]},
    });
    let mut new = json!({
        "metadata": {"generation": 1},
        "spec": {"nodeName": "other"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    (&KIND).prepare_update(&mut new, &old, &context(Part::Status));
    assert_eq!(
        new,
        json!({
            "metadata": {"generation": 1, "ownerReferences": [{"uid": "1"}]},
            "spec": {"nodeName": "n"},
            "status": {
                "phase": "Running", "qosClass": "BestEffort",
                "conditions": [{"type": "Ready", "status": "True", "observedGeneration": 3}],
            },
        })
    );
}

#[test]
fn resize_takes_resources_and_counts_a_generation() {
    let old = json!({"metadata": {"generation": 1}, "spec": {"containers": [{"name": "c", "image": "a"}]}});
    let mut new = json!({
        "metadata": {"generation": 1},
        "spec": {"containers": [{"name": "c", "image": "b", "resources": {"limits": {"cpu": "1"}}}]},
    });
    (&KIND).prepare_update(&mut new, &old, &context(Part::Other("resize")));
    assert_eq!(
        new["spec"],
        json!({"containers": [{"name": "c", "image": "a", "resources": {"limits": {"cpu": "1"}}}]})
    );
    assert_eq!(new["metadata"]["generation"], 2);
}

#[test]
fn grace_is_for_running_pods() {
    let check = |node: &str, phase: &str, requested: Option<i64>, want: i64| {
        let pod = json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": phase}});
        assert_eq!(grace(&pod, requested), Some(want), "{node} {phase} {requested:?}");
    };
    check("n", "Running", None, 30);
    check("n", "Running", Some(5), 5);
    check("n", "Running", Some(-2), 1);
    check("", "Pending", None, 0);
    check("n", "Succeeded", Some(5), 0);
}

#[test]
fn rows_read_like_kubectl_get() {
    let check = |spec: Value, status: Value, want: [&str; 3]| {
        let pod = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status});
        let cells = row::row(&pod, "2026-01-01T00:10:00Z");
        assert_eq!([&cells[1], &cells[2], &cells[3]], want.map(Value::from).each_ref(), "{status}");
    };
    let one = json!({"containers": [{"name": "c"}]});
    check(one.clone(), json!({"phase": "Pending"}), ["0/1", "Pending", "0"]);
    check(
        one.clone(),
        json!({"phase": "Running", "containerStatuses": [
            {"name": "c", "ready": true, "restartCount": 2, "state": {"running": {}},
             "lastState": {"terminated": {"finishedAt": "2026-01-01T00:05:00Z"}}}]}),
        ["1/1", "Running", "2 (5m ago)"],
    );
    check(
        one.clone(),
        json!({"phase": "Running", "containerStatuses": [
            {"name": "c", "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
        ["0/1", "CrashLoopBackOff", "1"],
    );
    check(
        json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}),
        json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"terminated": {"exitCode": 0}}},
            {"name": "s", "started": false, "state": {"waiting": {"reason": "PodInitializing"}}}]}),
        ["0/2", "Init:1/2", "0"],
    );
}
