//! Who may do what: RBAC, impersonation, tokens, nodes.

use crate::support::Api;
use navarch_apiserver::UserInfo;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Asks until the answer is `code`: rights take effect a moment after they are written.
async fn eventually(api: &Api, path: &str, code: u16) {
    let mut last = 0;
    for _ in 0..200 {
        last = api.get(path).await.code;
        if last == code {
            return;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{path}: {last} and not {code}");
}

#[tokio::test]
async fn rights_come_with_bindings_and_go_with_them() {
    let api = Api::start().await;
    let jane = api.as_user(UserInfo::new("jane", &["dev"]));
    let refused = jane.get(PODS).await;
    assert_eq!(
        refused.message(),
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]);
    api.create(&format!("{RBAC}/clusterroles"), json!({"metadata": {"name": "r"}, "rules": rules})).await;
    let binding = json!({
        "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "dev"}],
    });
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    api.create(&bindings, binding).await;
    eventually(&jane, PODS, 200).await;
    assert_eq!(jane.get("/api/v1/pods").await.code, 403, "a RoleBinding counts in its namespace only");
    assert_eq!(jane.get("/api/v1/namespaces/default/secrets").await.code, 403);
    api.delete(&format!("{bindings}/b")).await;
    eventually(&jane, PODS, 403).await;
}

#[tokio::test]
async fn nobody_grants_more_than_they_hold() {
    let api = Api::start().await;
    let jane = api.as_user(UserInfo::new("jane", &[]));
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let bind = |name: &str, role: &str| {
        json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}],
        })
    };
    api.create(&bindings, bind("a", "admin")).await;
    eventually(&jane, PODS, 200).await;
    let role = |name: &str, resource: &str| json!({"metadata": {"name": name}, "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]});
    let roles = format!("{RBAC}/namespaces/default/roles");
    assert_eq!(jane.post(&roles, role("held", "pods")).await.code, 201);
    let refused = jane.post(&roles, role("more", "nodes")).await;
    assert_eq!(refused.code, 403);
    assert!(
        refused.message().contains("attempting to grant RBAC permissions not currently held"),
        "{}",
        refused.message()
    );
    assert_eq!(jane.post(&bindings, bind("up", "cluster-admin")).await.code, 403);
    assert_eq!(jane.post(&bindings, bind("down", "view")).await.code, 201);
}

#[tokio::test]
async fn anonymous_users_see_versions_and_health_only() {
    let api = Api::start().await;
    let nobody = api.as_user(UserInfo::anonymous());
    for (path, code) in [("/version", 200), ("/healthz", 200), ("/livez", 200), ("/api", 403), ("/api/v1/pods", 403)] {
        assert_eq!(nobody.get(path).await.code, code, "{path}");
    }
}

#[tokio::test]
async fn tokens_are_bound_to_living_objects() {
    let api = Api::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    api.create(accounts, json!({"metadata": {"name": "s"}})).await;
    let token = api.create(&format!("{accounts}/s/token"), json!({"spec": {"expirationSeconds": 600}})).await;
    let token = token["status"]["token"].as_str().unwrap().to_string();
    let review = |token: &str, audience: Value| json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": token, "audiences": audience}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let known = api.create(reviews, review(&token, json!([]))).await;
    assert_eq!(known["status"]["user"]["username"], "system:serviceaccount:default:s");
    let elsewhere = api.create(reviews, review(&token, json!(["vault"]))).await;
    assert_ne!(elsewhere["status"]["authenticated"], true);
    api.delete(&format!("{accounts}/s")).await;
    let issuer = json!(["https://issuer.test"]);
    let gone = api.create(reviews, review(&token, issuer)).await;
    assert_ne!(gone["status"]["authenticated"], true, "a token dies with its account");
    let short = api.post(&format!("{accounts}/s/token"), json!({"spec": {"expirationSeconds": 5}})).await;
    assert_eq!(short.code, 404);
}

#[tokio::test]
async fn a_node_reads_what_its_pods_need() {
    let api = Api::start().await;
    api.create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    api.create(secrets, json!({"metadata": {"name": "wanted"}})).await;
    api.create(secrets, json!({"metadata": {"name": "other"}})).await;
    let volume = json!({"name": "v", "secret": {"secretName": "wanted"}});
    let spec = json!({"containers": [{"name": "c", "image": "i"}], "volumes": [volume]});
    api.create(PODS, json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let node = api.as_user(UserInfo::new("system:node:n1", &["system:nodes"]));
    assert_eq!(node.get(&format!("{secrets}/wanted")).await.code, 403);
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(api.post(&format!("{PODS}/p/binding"), binding).await.code, 201);
    assert_eq!(node.get(&format!("{secrets}/wanted")).await.code, 200);
    assert_eq!(node.get(&format!("{secrets}/other")).await.code, 403);
    let other = api.as_user(UserInfo::new("system:node:n2", &["system:nodes"]));
    assert_eq!(other.get(&format!("{secrets}/wanted")).await.code, 403);
}

#[tokio::test]
async fn who_acts_for_another_needs_the_right_to() {
    let api = Api::start().await;
    let asks = |user: &str| {
        http::Request::get(PODS).header("impersonate-user", user).body(http_body_util::Full::default()).unwrap()
    };
    let as_jane = api.raw(asks("jane")).await;
    assert_eq!(as_jane.status(), 403, "the master acts as jane, who may not list pods");
    let bob = api.as_user(UserInfo::new("bob", &[]));
    let refused = bob.raw(asks("admin")).await;
    assert_eq!(refused.status(), 403);
}

#[tokio::test]
async fn reviews_tell_rights() {
    let api = Api::start().await;
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let ask = |user: &str, groups: Value| json!({"spec": {"user": user, "groups": groups, "resourceAttributes": {"verb": "delete", "resource": "nodes"}}});
    let master = api.create(reviews, ask("x", json!(["system:masters"]))).await;
    assert_eq!(master["status"]["allowed"], true);
    let other = api.create(reviews, ask("x", json!([]))).await;
    assert_eq!(other["status"]["allowed"], false);
    let own = api.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
    assert_eq!(own["status"]["userInfo"]["username"], "admin");
}
