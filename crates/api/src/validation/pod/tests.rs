use serde_json::json;

use super::*;

/// A valid Pod with `spec` laid over it.
fn pod(spec: Value) -> Value {
    let mut object = json!({
        "metadata": {"name": "a", "namespace": "n"},
        "spec": {
            "containers": [container(json!({}))], "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30, "securityContext": {},
        },
    });
    for (name, value) in spec.as_object().unwrap() {
        object["spec"][name] = value.clone();
    }
    object
}

fn container(more: Value) -> Value {
    let mut object = json!({
        "name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
    });
    for (name, value) in more.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

fn texts(errors: &Errors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(spec: Value, want: &[&str]) {
    let object = pod(spec);
    let mut errors = Errors::new();
    create(&mut errors, &Field::root(&object));
    assert_eq!(texts(&errors), want);
}

#[test]
fn a_plain_pod_is_fine() {
    check(json!({}), &[]);
}

#[test]
fn containers() {
    check(json!({"containers": []}), &["spec.containers: Required value"]);
    check(
        json!({"containers": [container(json!({"name": "C", "image": ""}))]}),
        &[
            "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case \
             alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
             '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.containers[0].image: Required value",
        ],
    );
    check(
        json!({"containers": [container(json!({})), container(json!({}))]}),
        &["spec.containers[1].name: Duplicate value: \"c\""],
    );
    check(
        json!({"containers": [container(json!({"ports": [{"containerPort": 0, "protocol": "TCP"}, {"containerPort": 70000, "protocol": "X"}]}))]}),
        &[
            "spec.containers[0].ports[0].containerPort: Required value",
            "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ],
    );
    check(
        json!({"containers": [container(json!({"volumeMounts": [{"name": "x", "mountPath": "/x"}]}))]}),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"x\""],
    );
    check(
        json!({"containers": [container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}))]}),
        &["spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
    );
    check(
        json!({"containers": [container(json!({"livenessProbe": {"successThreshold": 2}}))]}),
        &[
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ],
    );
}

#[test]
fn the_rest_of_the_spec() {
    check(
        json!({"restartPolicy": "Sometimes"}),
        &[
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    );
    check(
        json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]}),
        &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
    );
    check(
        json!({"tolerations": [{"operator": "Equal", "tolerationSeconds": 3}]}),
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which \
             means \"match all values and all keys\"",
            "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ],
    );
    check(
        json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": ""}]}}}),
        &[
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can \
             not be empty",
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"\": \
             name part must be non-empty",
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"\": \
             name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
             '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ],
    );
    check(
        json!({"ephemeralContainers": [container(json!({"name": "e"}))]}),
        &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
    );
}

#[track_caller]
fn check_update(old: Value, new: Value, want: &[&str]) {
    let (old, new) = (pod(old), pod(new));
    let mut errors = Errors::new();
    update::main(&mut errors, &Field::root(&new), &Field::root(&old));
    let got = texts(&errors);
    assert_eq!(got.len(), want.len(), "{got:?}");
    for (got, want) in got.iter().zip(want) {
        assert!(got.starts_with(want), "{got} does not start with {want}");
    }
}

#[test]
fn updates_may_change_little() {
    check_update(json!({}), json!({"containers": [container(json!({"image": "other"}))]}), &[]);
    check_update(json!({}), json!({"tolerations": [{"key": "k", "operator": "Exists"}]}), &[]);
    check_update(
        json!({}),
        json!({"nodeName": "n"}),
        &["spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"],
    );
    check_update(
        json!({}),
        json!({"containers": []}),
        &[
            "spec.containers: Required value",
            "spec.containers: Forbidden: pod updates may not add or remove containers",
        ],
    );
    check_update(
        json!({"activeDeadlineSeconds": 5}),
        json!({"activeDeadlineSeconds": 6}),
        &["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"],
    );
    check_update(
        json!({"schedulingGates": [{"name": "a"}]}),
        json!({"schedulingGates": [], "nodeSelector": {"a": "b"}}),
        &[],
    );
    check_update(
        json!({}),
        json!({"schedulingGates": [{"name": "a"}]}),
        &["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'a'"],
    );
}
