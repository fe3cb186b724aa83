//! Custom resources, from definition to removal; admission of pods by LimitRanges.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::Api;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/test.dev/v1/namespaces/default/widgets";

fn definition() -> Value {
    let size = json!({"type": "integer", "maximum": 10, "default": 3});
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"size": size, "replicas": {"type": "integer"}}},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    }});
    let scale = json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"});
    json!({
        "metadata": {"name": "widgets.test.dev"},
        "spec": {
            "group": "test.dev",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": scale},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            }],
        },
    })
}

/// Waits for a condition of the definition by its own watch.
async fn established(api: &Api) {
    let mut watch = api.watch(&format!("{CRDS}?watch=1")).await;
    let wait = async {
        loop {
            let (_, object) = watch.next().await;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if conditions.iter().any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the definition was not established");
}

/// Asks until a path answers with `code`: what is served follows a definition at once, but not in the same breath.
async fn eventually(api: &Api, path: &str, code: u16) {
    let mut last = 0;
    for _ in 0..400 {
        last = api.get(path).await.code;
        if last == code {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{path}: {last} and not {code}");
}

#[tokio::test]
async fn a_definition_makes_a_resource_and_takes_it_away() {
    let api = Api::start().await;
    assert_eq!(api.get(WIDGETS).await.code, 404);
    api.create(CRDS, definition()).await;
    established(&api).await;
    eventually(&api, WIDGETS, 200).await;
    let listed = api.get("/apis/test.dev/v1").await.json();
    let names: Vec<&str> = listed["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);

    let widget =
        |spec: Value| json!({"apiVersion": "test.dev/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec});
    let refused = api.post(WIDGETS, widget(json!({"size": 11}))).await;
    assert_eq!(refused.code, 422, "{}", refused.message());
    let strict = api.post(&format!("{WIDGETS}?fieldValidation=Strict"), widget(json!({"bogus": 1}))).await;
    assert_eq!(strict.code, 400, "{}", strict.message());
    let made = api.create(WIDGETS, widget(json!({"replicas": 2, "bogus": 1}))).await;
    assert_eq!(made["spec"], json!({"size": 3, "replicas": 2}), "defaults come in and unknown fields go");

    let scaled = api
        .patch(&format!("{WIDGETS}/w/scale"), "application/merge-patch+json", json!({"spec": {"replicas": 4}}))
        .await;
    assert_eq!(scaled.code, 200, "{}", scaled.message());
    let status = api
        .patch(
            &format!("{WIDGETS}/w/status"),
            "application/merge-patch+json",
            json!({"status": {"replicas": 4}, "spec": {"size": 9}}),
        )
        .await;
    assert_eq!((&status.json()["status"]["replicas"], &status.json()["spec"]["size"]), (&json!(4), &json!(3)));

    assert_eq!(api.delete(&format!("{CRDS}/widgets.test.dev")).await.code, 200);
    eventually(&api, &format!("{CRDS}/widgets.test.dev"), 404).await;
    eventually(&api, WIDGETS, 404).await;
    api.create(CRDS, definition()).await;
    eventually(&api, WIDGETS, 200).await;
    assert_eq!(api.get(WIDGETS).await.json()["items"], json!([]), "the objects went with their definition");
}

#[tokio::test]
async fn pods_get_limits_accounts_and_tolerations() {
    let api = Api::start().await;
    api.create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let limits = json!([{"type": "Container", "default": {"cpu": "200m"}, "max": {"cpu": "1"}}]);
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": limits}});
    api.create("/api/v1/namespaces/default/limitranges", range).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |cpu: Value| {
        let container = json!({"name": "c", "image": "i", "resources": {"limits": cpu}});
        json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}})
    };
    let refused = api.post(pods, pod(json!({"cpu": "2"}))).await;
    assert_eq!(refused.code, 403);
    assert!(
        refused.message().contains("maximum cpu usage per Container is 1, but limit is 2"),
        "{}",
        refused.message()
    );
    let made = api.create(pods, pod(json!({}))).await;
    let spec = &made["spec"];
    assert_eq!(spec["containers"][0]["resources"]["limits"]["cpu"], "200m");
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!((spec["priority"].as_i64(), spec["tolerations"].as_array().map(Vec::len)), (Some(0), Some(2)));
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
}

#[tokio::test]
async fn services_get_addresses_and_ports_that_nobody_else_has() {
    let api = Api::start().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, port: Value| {
        let mut ports = json!([{"port": 80}]);
        if !port.is_null() {
            ports[0]["nodePort"] = port;
        }
        json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": ports}})
    };
    let first = api.create(services, service("a", Value::Null)).await;
    let port = first["spec"]["ports"][0]["nodePort"].clone();
    assert!(first["spec"]["clusterIP"].as_str().unwrap().starts_with("10.43."));
    let taken = api.post(services, service("b", port.clone())).await;
    assert_eq!(taken.code, 422);
    assert!(taken.message().contains("provided port is already allocated"), "{}", taken.message());
    api.delete(&format!("{services}/a")).await;
    api.create(services, service("b", port)).await;
}
