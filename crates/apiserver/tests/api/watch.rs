//! Watches: order, selection, resumption and bookmarks.

use crate::support::Api;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"l": label}}})
}

async fn relabel(api: &Api, name: &str, label: &str) {
    let patch = json!({"metadata": {"labels": {"l": label}}});
    let answer = api.patch(&format!("{MAPS}/{name}"), "application/merge-patch+json", patch).await;
    assert_eq!(answer.code, 200, "{}", answer.message());
}

#[tokio::test]
async fn a_watch_tells_what_is_and_what_becomes() {
    let api = Api::start().await;
    api.create(MAPS, map("a", "1")).await;
    let mut watch = api.watch(&format!("{MAPS}?watch=1")).await;
    assert_eq!(watch.take(1).await, ["ADDED a"]);
    api.create(MAPS, map("b", "1")).await;
    relabel(&api, "a", "2").await;
    api.delete(&format!("{MAPS}/b")).await;
    api.create("/api/v1/namespaces/kube-system/configmaps", map("elsewhere", "1")).await;
    api.create(MAPS, map("c", "1")).await;
    assert_eq!(watch.take(4).await, ["ADDED b", "MODIFIED a", "DELETED b", "ADDED c"]);
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let api = Api::start().await;
    let mut watch = api.watch(&format!("{MAPS}?watch=1&labelSelector=l%3D1")).await;
    api.create(MAPS, map("a", "1")).await;
    relabel(&api, "a", "2").await;
    relabel(&api, "a", "3").await;
    relabel(&api, "a", "1").await;
    api.delete(&format!("{MAPS}/a")).await;
    assert_eq!(watch.take(4).await, ["ADDED a", "DELETED a", "ADDED a", "DELETED a"]);
}

#[tokio::test]
async fn a_watch_goes_on_from_a_revision() {
    let api = Api::start().await;
    let first = api.create(MAPS, map("a", "1")).await;
    api.create(MAPS, map("b", "1")).await;
    let from = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = api.watch(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
    api.create(MAPS, map("c", "1")).await;
    assert_eq!(watch.take(2).await, ["ADDED b", "ADDED c"]);
    let mut named = api.watch(&format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Db")).await;
    assert_eq!(named.take(1).await, ["ADDED b"]);
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let api = Api::start().await;
    api.create(MAPS, map("a", "1")).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = api.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.take(1).await, ["ADDED a"]);
    let (kind, bookmark) = watch.next().await;
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(api.get(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await.code, 422);
}

#[tokio::test]
async fn a_pod_is_watched_by_its_node() {
    let api = Api::start().await;
    api.create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let mut watch = api.watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1").await;
    for name in ["p", "q"] {
        let spec = json!({"containers": [{"name": "c", "image": "i"}]});
        api.create(pods, json!({"metadata": {"name": name}, "spec": spec})).await;
        let node = if name == "p" { "n1" } else { "n2" };
        let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": node}});
        assert_eq!(api.post(&format!("{pods}/{name}/binding"), binding).await.code, 201);
    }
    api.delete(&format!("{pods}/p?gracePeriodSeconds=0")).await;
    assert_eq!(watch.take(2).await, ["ADDED p", "DELETED p"]);
}
