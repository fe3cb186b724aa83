use serde_json::json;

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-02T00:00:00Z";

fn request<'a>(manager: &'a str, now: &'a str) -> Request<'a> {
    Request { manager, api_version: "apps/v1", subresource: "", now, force: false, reset: &["status"] }
}

fn deployment() -> TypeRef<'static> {
    type_of("io.k8s.api.apps.v1.Deployment")
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"a": "b"}}, "spec": spec})
}

fn fields(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["manager"] == manager);
    entry.map(|entry| entry["fieldsV1"].clone()).unwrap_or_default()
}

fn container(image: &str) -> Value {
    json!({"template": {"spec": {"containers": [{"name": "c", "image": image, "ports": [{"containerPort": 80}]}]}}})
}

#[test]
fn an_apply_owns_what_it_names() {
    let applied = apply(deployment(), None, &config(container("1")), &request("me", NOW)).unwrap();
    assert_eq!(
        applied["metadata"]["managedFields"],
        json!([{"manager": "me", "operation": "Apply", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:image": {}, "f:name": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}}}])
    );
}

#[test]
fn conflicts_name_the_owner_and_force_takes_over() {
    let live = apply(deployment(), None, &config(json!({"replicas": 1})), &request("one", NOW)).unwrap();
    let other = config(json!({"replicas": 2}));
    let refused = apply(deployment(), Some(&live), &other, &request("two", LATER)).unwrap_err();
    assert_eq!(refused.code, 409);
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    assert_eq!(refused.details.unwrap().causes[0].field, ".spec.replicas");
    let forced = apply(deployment(), Some(&live), &other, &Request { force: true, ..request("two", LATER) }).unwrap();
    assert_eq!(forced["spec"]["replicas"], 2);
    assert_eq!(fields(&forced, "one"), json!({"f:metadata": {"f:labels": {"f:a": {}}}}));
    assert_eq!(fields(&forced, "two")["f:spec"], json!({"f:replicas": {}}));
}

#[test]
fn what_a_manager_gives_up_goes_unless_it_is_shared() {
    let live = apply(
        deployment(),
        None,
        &config(json!({"replicas": 1, "paused": true, "minReadySeconds": 3})),
        &request("one", NOW),
    )
    .unwrap();
    let shared = apply(deployment(), Some(&live), &config(json!({"paused": true})), &request("two", NOW)).unwrap();
    let less = apply(deployment(), Some(&shared), &config(json!({"replicas": 1})), &request("one", LATER)).unwrap();
    assert_eq!(less["spec"], json!({"replicas": 1, "paused": true}));
    assert_eq!(fields(&less, "one")["f:spec"], json!({"f:replicas": {}}));
    let same =
        apply(deployment(), Some(&less), &config(json!({"replicas": 1})), &request("one", "2026-01-03T00:00:00Z"))
            .unwrap();
    assert_eq!(same, less, "an apply that changes nothing keeps the time");
}

#[test]
fn updates_own_what_they_change() {
    let mut created = config(json!({"replicas": 1}));
    track_update(deployment(), None, &mut created, &request("maker", NOW));
    assert_eq!(
        fields(&created, "maker"),
        json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:replicas": {}}})
    );
    let mut scaled = created.clone();
    scaled["spec"]["replicas"] = 5.into();
    track_update(deployment(), Some(&created), &mut scaled, &request("scaler", LATER));
    assert_eq!(fields(&scaled, "scaler"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields(&scaled, "maker"), json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}));
    let refused =
        apply(deployment(), Some(&scaled), &config(json!({"replicas": 2})), &request("me", LATER)).unwrap_err();
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas");

    let mut reset = scaled.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    track_update(deployment(), Some(&scaled), &mut reset, &request("x", LATER));
    assert_eq!(reset["metadata"].get("managedFields"), None);
    let first = apply(deployment(), Some(&reset), &config(json!({"replicas": 5})), &request("me", LATER)).unwrap();
    assert_eq!(fields(&first, "before-first-apply")["f:spec"], json!({"f:replicas": {}}));
}

#[test]
fn status_is_not_the_main_endpoints() {
    let mut live = config(json!({"replicas": 1}));
    track_update(deployment(), None, &mut live, &request("maker", NOW));
    let mut new = live.clone();
    new["status"] = json!({"conditions": [{"type": "Available", "status": "True"}]});
    let request = Request { subresource: "status", reset: &["spec"], ..request("controller", LATER) };
    track_update(deployment(), Some(&live), &mut new, &request);
    let entry = &new["metadata"]["managedFields"][1];
    assert_eq!((&entry["subresource"], &entry["time"]), (&json!("status"), &json!(LATER)));
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:status": {"f:conditions": {".": {}, "k:{\"type\":\"Available\"}": {".": {}, "f:status": {}, "f:type": {}}}}})
    );
}

#[test]
fn old_updaters_are_merged() {
    let mut live = config(json!({}));
    track_update(deployment(), None, &mut live, &request("m00", NOW));
    for n in 1..14 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{n}")] = "x".into();
        let (manager, now) = (format!("m{n:02}"), format!("2026-01-01T00:00:{n:02}Z"));
        track_update(deployment(), Some(&live), &mut new, &request(&manager, &now));
        live = new;
    }
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    assert_eq!(entries[0]["manager"], "ancient-changes");
    assert_eq!(entries[9]["manager"], "m13");
}

#[test]
fn lists_keep_the_order_of_both() {
    let list = |names: &[&str]| {
        json!({"template": {"spec": {"containers":
        names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()}}})
    };
    for (live, applied, expected) in [
        (&["a", "b", "c"][..], &["c", "a"][..], &["b", "c", "a"][..]),
        (&["a", "b"], &["x", "b"], &["a", "x", "b"]),
        (&["a", "b", "c"], &["d"], &["a", "b", "c", "d"]),
        (&["a", "b", "c", "d"], &["d", "b"], &["a", "c", "d", "b"]),
    ] {
        let mut before = config(list(live));
        track_update(deployment(), None, &mut before, &request("maker", NOW));
        let after = apply(deployment(), Some(&before), &config(list(applied)), &request("me", LATER)).unwrap();
        let names: Vec<&str> = after["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|container| container["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected, "{live:?} + {applied:?}");
    }
}

#[test]
fn wrong_configurations_get_the_oracles_words() {
    let fail = |config: Value| apply(deployment(), None, &config, &request("me", NOW)).unwrap_err().message;
    assert_eq!(
        fail(config(json!({"foo": 1}))),
        "failed to create typed patch object (/d; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema"
    );
    assert_eq!(
        fail(config(json!({"replicas": "x"}))),
        "failed to create typed patch object (/d; apps/v1, Kind=Deployment): .spec.replicas: expected numeric (int or float), got string"
    );
    let mut managed = config(json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    assert_eq!(fail(managed), "metadata.managedFields must be nil");
}

#[test]
fn values_are_compared_as_they_are_stored() {
    let limits = |cpu: Value| json!({"template": {"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": cpu}}}]}}});
    let live = apply(deployment(), None, &config(limits(json!("1000m"))), &request("me", NOW)).unwrap();
    assert_eq!(live["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"], "1");
    let again = apply(deployment(), Some(&live), &config(limits(json!(1))), &request("me", LATER)).unwrap();
    assert_eq!(again, live);
}

#[test]
fn objects_without_a_schema_are_deduced() {
    let of = TypeRef::deduced();
    let config = json!({"apiVersion": "apps/v1", "kind": "Any", "metadata": {"name": "x"}, "spec": {"a": {"b": [1, 2]}, "c": null}});
    let applied = apply(of, None, &config, &request("me", NOW)).unwrap();
    assert_eq!(fields(&applied, "me"), json!({"f:spec": {".": {}, "f:a": {".": {}, "f:b": {}}, "f:c": {}}}));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn sets() -> impl Strategy<Value = Set> {
        prop::collection::vec(
            prop::collection::vec(prop::sample::select(vec!["f:a", "f:b", "v:1", "k:{\"x\":1}"]), 1..4),
            0..8,
        )
        .prop_map(|paths| {
            let mut set = Set::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn sets_survive_their_encoding(set in sets()) {
            prop_assert_eq!(Set::decode(&set.encode()).unwrap(), set);
        }

        #[test]
        fn algebra_holds(a in sets(), b in sets()) {
            let mut union = a.clone();
            union.unite(&b);
            let mut rest = union.clone();
            rest.subtract(&b);
            prop_assert!(rest.intersect(&b).is_empty());
            let mut again = rest.clone();
            again.unite(&b);
            prop_assert_eq!(again, union);
            let mut only_a = a.clone();
            only_a.subtract(&b);
            prop_assert_eq!(only_a, rest);
        }
    }
}
