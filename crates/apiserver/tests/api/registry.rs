//! The one registry, driven by requests as clients send them.

use crate::support::Api;
use http::Method;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": name}}, "data": data})
}

#[tokio::test]
async fn objects_are_created_read_replaced_and_deleted() {
    let api = Api::start().await;
    let made = api.create(MAPS, map("a", json!({"k": "1"}))).await;
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["resourceVersion"].is_string());
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "test");

    let again = api.post(MAPS, map("a", json!({}))).await;
    assert_eq!((again.code, again.reason().as_str()), (409, "AlreadyExists"));
    assert_eq!(again.message(), "configmaps \"a\" already exists");

    let mut changed = made.clone();
    changed["data"]["k"] = "2".into();
    let put = api.put(&format!("{MAPS}/a"), changed.clone()).await;
    assert_eq!(put.code, 200, "{}", put.message());
    assert_eq!(put.json()["data"]["k"], "2");

    let stale = api.put(&format!("{MAPS}/a"), changed).await;
    assert_eq!((stale.code, stale.reason().as_str()), (409, "Conflict"));

    let same = api.put(&format!("{MAPS}/a"), put.json()).await;
    assert_eq!(
        same.json()["metadata"]["resourceVersion"],
        put.json()["metadata"]["resourceVersion"],
        "an update that changes nothing writes nothing"
    );

    let gone = api.delete(&format!("{MAPS}/a")).await;
    assert_eq!((gone.code, gone.json()["status"].as_str()), (200, Some("Success")));
    let missing = api.get(&format!("{MAPS}/a")).await;
    assert_eq!((missing.code, missing.message().as_str()), (404, "configmaps \"a\" not found"));
}

#[tokio::test]
async fn bad_input_is_told_what_is_wrong() {
    let api = Api::start().await;
    let cases: &[(Method, &str, &str, &str, u16, &str)] = &[
        (Method::POST, MAPS, "application/json", "{", 400, "BadRequest"),
        (Method::POST, MAPS, "text/csv", "a,b", 415, "UnsupportedMediaType"),
        (Method::POST, MAPS, "application/json", r#"{"kind":"Pod","apiVersion":"v1"}"#, 400, "BadRequest"),
        (Method::POST, MAPS, "application/json", r#"{"metadata":{"name":"UPPER"}}"#, 422, "Invalid"),
        (Method::POST, MAPS, "application/json", r#"{"metadata":{"name":"x","namespace":"other"}}"#, 400, "BadRequest"),
        (
            Method::POST,
            "/api/v1/namespaces/none/configmaps",
            "application/json",
            r#"{"metadata":{"name":"x"}}"#,
            404,
            "NotFound",
        ),
        (Method::GET, "/api/v1/namespaces/default/bogus", "", "", 404, "NotFound"),
        (Method::GET, "/apis/apps/v9/deployments", "", "", 404, "NotFound"),
        (Method::POST, "/api/v1/configmaps", "application/json", "{}", 405, "MethodNotAllowed"),
        (
            Method::PATCH,
            "/api/v1/namespaces/default/configmaps/x",
            "application/json",
            "{}",
            415,
            "UnsupportedMediaType",
        ),
        (Method::GET, "/api/v1/pods?fieldSelector=a%3Db", "", "", 400, "BadRequest"),
        (Method::GET, "/api/v1/pods?labelSelector=a%20in%20(", "", "", 400, "BadRequest"),
        (Method::GET, "/api/v1/pods?resourceVersion=x", "", "", 400, "BadRequest"),
        (Method::GET, "/api/v1/pods?continue=garbage", "", "", 400, "BadRequest"),
        (Method::DELETE, "/api/v1/namespaces/default", "", "", 403, "Forbidden"),
    ];
    for (method, path, content_type, body, code, reason) in cases {
        let answer = api.send(method.clone(), path, content_type, *body).await;
        assert_eq!(
            (answer.code, answer.reason().as_str()),
            (*code, *reason),
            "{method} {path} {body}: {}",
            answer.message()
        );
    }
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_about_or_ignored() {
    let api = Api::start().await;
    let object = json!({"metadata": {"generateName": "x-"}, "dataz": {}});
    let strict = api.post(&format!("{MAPS}?fieldValidation=Strict"), object.clone()).await;
    assert_eq!(strict.code, 400);
    assert!(strict.message().contains("strict decoding error: unknown field \"dataz\""), "{}", strict.message());
    let warned = api.post(&format!("{MAPS}?fieldValidation=Warn"), object.clone()).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"dataz\\\"\"");
    let ignored = api.post(&format!("{MAPS}?fieldValidation=Ignore"), object).await;
    assert_eq!((ignored.code, ignored.headers.get("warning")), (201, None));
    assert!(ignored.json()["metadata"]["name"].as_str().unwrap().starts_with("x-"));
}

#[tokio::test]
async fn patches_of_all_kinds_change_objects() {
    let api = Api::start().await;
    api.create(MAPS, map("a", json!({"x": "1", "y": "2"}))).await;
    let path = format!("{MAPS}/a");
    let merged = api.patch(&path, "application/merge-patch+json", json!({"data": {"x": null, "z": "3"}})).await;
    assert_eq!(merged.json()["data"], json!({"y": "2", "z": "3"}));
    let json_patch = json!([{"op": "replace", "path": "/data/y", "value": "9"}]);
    let patched = api.patch(&path, "application/json-patch+json", json_patch).await;
    assert_eq!(patched.json()["data"]["y"], "9");
    let strategic = api.patch(&path, "application/strategic-merge-patch+json", json!({"data": {"s": "t"}})).await;
    assert_eq!(strategic.json()["data"]["s"], "t");
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"s": "u"}});
    assert_eq!(api.patch(&path, "application/merge-patch+json", stale).await.code, 409);
    assert_eq!(api.patch(&format!("{MAPS}/none"), "application/merge-patch+json", json!({})).await.code, 404);
}

#[tokio::test]
async fn apply_creates_shares_and_refuses() {
    let api = Api::start().await;
    let apply = "application/apply-patch+yaml";
    let config = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": value}});
    let path = format!("{MAPS}/a?fieldManager");
    let made = api.patch(&format!("{path}=alice"), apply, config("1")).await;
    assert_eq!(made.code, 201, "{}", made.message());
    assert_eq!(api.patch(&format!("{path}=bob"), apply, config("1")).await.code, 200);
    let refused = api.patch(&format!("{path}=bob"), apply, config("2")).await;
    assert_eq!((refused.code, refused.reason().as_str()), (409, "Conflict"));
    let forced = api.patch(&format!("{path}=bob&force=true"), apply, config("2")).await;
    assert_eq!(forced.json()["data"]["k"], "2");
    assert_eq!(api.patch(&format!("{MAPS}/a"), apply, config("3")).await.code, 422, "a manager is required");
}

#[tokio::test]
async fn dry_runs_leave_nothing() {
    let api = Api::start().await;
    let shown = api.post(&format!("{MAPS}?dryRun=All"), map("a", json!({}))).await;
    assert_eq!(shown.code, 201);
    assert_eq!(api.get(&format!("{MAPS}/a")).await.code, 404);
    api.create(MAPS, map("a", json!({}))).await;
    assert_eq!(api.delete(&format!("{MAPS}/a?dryRun=All")).await.code, 200);
    assert_eq!(api.get(&format!("{MAPS}/a")).await.code, 200);
    assert_eq!(api.post(&format!("{MAPS}?dryRun=Some"), map("b", json!({}))).await.code, 422);
}

#[tokio::test]
async fn lists_come_in_pages_and_by_selector() {
    let api = Api::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        api.create(MAPS, map(name, json!({}))).await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().into()).collect()
    };
    let first = api.get(&format!("{MAPS}?limit=2")).await.json();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    api.delete(&format!("{MAPS}/c")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = api.get(&format!("{MAPS}?limit=2&continue={token}")).await.json();
    assert_eq!(names(&second), ["c", "d"], "pages show one revision");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);

    let labelled = api.get(&format!("{MAPS}?labelSelector=app%20in%20(a,e)")).await.json();
    assert_eq!(names(&labelled), ["a", "e"]);
    let named = api.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db")).await.json();
    assert_eq!(names(&named), ["b"]);
    let limited = api.get(&format!("{MAPS}?labelSelector=app!%3Da&limit=2")).await.json();
    assert_eq!(names(&limited), ["b", "d"]);
    let rest = limited["metadata"]["continue"].as_str().unwrap();
    let rest = api.get(&format!("{MAPS}?labelSelector=app!%3Da&limit=2&continue={rest}")).await.json();
    assert_eq!(names(&rest), ["e"]);
}

#[tokio::test]
async fn finalizers_and_grace_hold_objects() {
    let api = Api::start().await;
    let mut object = map("a", json!({}));
    object["metadata"]["finalizers"] = json!(["test.dev/hold"]);
    api.create(MAPS, object).await;
    let path = format!("{MAPS}/a");
    let held = api.delete(&path).await.json();
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let added = json!({"metadata": {"finalizers": ["test.dev/hold", "test.dev/more"]}});
    assert_eq!(api.patch(&path, "application/merge-patch+json", added).await.code, 422);
    let released = api.patch(&path, "application/merge-patch+json", json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(released.code, 200, "{}", released.message());
    assert_eq!(api.get(&path).await.code, 404);

    let wrong = json!({"preconditions": {"uid": "nobody"}});
    api.create(MAPS, map("b", json!({}))).await;
    let path = format!("{MAPS}/b");
    let refused = api.send(Method::DELETE, &path, "application/json", wrong.to_string()).await;
    assert_eq!(refused.code, 409, "{}", refused.message());
    let foreground = json!({"propagationPolicy": "Foreground"});
    let waits = api.send(Method::DELETE, &path, "application/json", foreground.to_string()).await.json();
    assert_eq!(waits["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let api = Api::start().await;
    for name in ["a", "b", "c"] {
        api.create(MAPS, map(name, json!({}))).await;
    }
    let gone = api.delete(&format!("{MAPS}?labelSelector=app!%3Db")).await;
    assert_eq!(gone.json()["items"].as_array().unwrap().len(), 2);
    assert_eq!(api.get(MAPS).await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_namespace_waits_for_its_finalizer() {
    let api = Api::start().await;
    let spaces = "/api/v1/namespaces";
    let made = api.create(spaces, json!({"metadata": {"name": "x"}})).await;
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    let going = api.delete(&format!("{spaces}/x")).await.json();
    assert_eq!(going["status"]["phase"], "Terminating");
    let refused = api.post(&format!("{spaces}/x/configmaps"), map("a", json!({}))).await;
    assert_eq!(refused.code, 403);
    assert!(refused.message().contains("because it is being terminated"), "{}", refused.message());
    let mut done = api.get(&format!("{spaces}/x")).await.json();
    done["spec"]["finalizers"] = json!([]);
    let finalized = api.put(&format!("{spaces}/x/finalize"), done).await;
    assert_eq!(finalized.code, 200, "{}", finalized.message());
    assert_eq!(api.get(&format!("{spaces}/x")).await.code, 404);
}

#[tokio::test]
async fn scale_reads_and_writes_replicas() {
    let api = Api::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template});
    api.create(path, json!({"metadata": {"name": "d"}, "spec": spec})).await;
    let path = format!("{path}/d");
    let mut scale = api.get(&format!("{path}/scale")).await.json();
    assert_eq!((scale["kind"].as_str(), &scale["spec"]["replicas"]), (Some("Scale"), &json!(2)));
    assert_eq!(scale["status"]["selector"], "a=b");
    scale["spec"]["replicas"] = 5.into();
    let set = api.put(&format!("{path}/scale"), scale).await;
    assert_eq!(set.code, 200, "{}", set.message());
    let patched =
        api.patch(&format!("{path}/scale"), "application/merge-patch+json", json!({"spec": {"replicas": 7}})).await;
    assert_eq!(patched.json()["spec"]["replicas"], 7);
    let deployment = api.get(&path).await.json();
    assert_eq!((&deployment["spec"]["replicas"], &deployment["metadata"]["generation"]), (&json!(7), &json!(3)));
}

#[tokio::test]
async fn tables_and_metadata_are_shown_when_asked_for() {
    let api = Api::start().await;
    api.create(MAPS, map("a", json!({"k": "v"}))).await;
    let ask = |accept: &'static str, path: String| {
        http::Request::get(path).header("accept", accept).body(http_body_util::Full::default()).unwrap()
    };
    let read = async |request| {
        use http_body_util::BodyExt;
        let bytes = api.raw(request).await.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    let table = read(ask("application/json;as=Table;v=v1;g=meta.k8s.io", MAPS.into())).await;
    assert_eq!(table["kind"], "Table");
    assert_eq!((&table["rows"][0]["cells"][0], &table["rows"][0]["cells"][1]), (&json!("a"), &json!(1)));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = read(ask(partial, MAPS.into())).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["data"], Value::Null);
    let refused = api.raw(ask("text/html", MAPS.into())).await;
    assert_eq!(refused.status(), 406);
}
