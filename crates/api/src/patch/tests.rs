use serde_json::json;

use super::*;
use crate::schema::Schema;

fn run(kind: Kind, object: Value, patch: Value) -> Result<Value, String> {
    let of = Schema::builtin().find("io.k8s.api.core.v1.Pod").unwrap();
    let patch = Patch::parse(kind, patch.to_string().as_bytes()).map_err(|status| status.message)?;
    patch.apply(&object, of).map(|patched| patched.object).map_err(|status| status.message)
}

fn strategic(spec: Value, patch: Value) -> Result<Value, String> {
    run(Kind::Strategic, json!({"spec": spec}), json!({"spec": patch})).map(|pod| pod["spec"].clone())
}

#[test]
fn strategic_merges_lists_by_their_keys() {
    let containers = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]});
    for (patch, expected) in [
        (
            json!({"containers": [{"name": "b", "image": "2"}]}),
            json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]),
        ),
        (
            json!({"containers": [{"name": "c"}]}),
            json!([{"name": "c"}, {"name": "a", "image": "1"}, {"name": "b", "image": "1"}]),
        ),
        (json!({"containers": [{"name": "a", "$patch": "delete"}]}), json!([{"name": "b", "image": "1"}])),
        (json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}), json!([{"name": "z"}])),
        (
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}], "containers": [{"name": "c"}]}),
            json!([{"name": "b", "image": "1"}, {"name": "c"}, {"name": "a", "image": "1"}]),
        ),
    ] {
        assert_eq!(strategic(containers.clone(), patch.clone()).unwrap()["containers"], expected, "{patch}");
    }
}

#[test]
fn strategic_obeys_directives() {
    let volumes = json!({"volumes": [{"name": "v", "emptyDir": {}}], "nodeSelector": {"a": "b"}});
    for (patch, path, expected) in [
        (
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}),
            "/volumes",
            json!([{"name": "v", "hostPath": {"path": "/"}}]),
        ),
        (json!({"nodeSelector": {"$patch": "replace", "c": "d"}}), "/nodeSelector", json!({"c": "d"})),
        (json!({"nodeSelector": {"a": null, "c": "d"}}), "/nodeSelector", json!({"c": "d"})),
    ] {
        assert_eq!(strategic(volumes.clone(), patch.clone()).unwrap().pointer(path), Some(&expected), "{patch}");
    }
    assert_eq!(strategic(volumes, json!({"nodeSelector": {"$patch": "delete"}})).unwrap().get("nodeSelector"), None);
    let finalizers = json!({"metadata": {"finalizers": ["a", "b"]}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}});
    assert_eq!(run(Kind::Strategic, finalizers, patch).unwrap()["metadata"]["finalizers"], json!(["c", "b"]));
}

#[test]
fn wrong_strategic_patches_get_the_oracles_words() {
    for (patch, message) in [
        (json!({"nodeSelector": {"$patch": "x"}}), "unknown patch type: x in map: map[$patch:x]"),
        (json!({"$setElementOrder/containers": 3}), "expected a []interface {}, but received a int64"),
        (json!({"$retainKeys": ["a"], "nodeSelector": {}}), "invalid patch format of retainKeys"),
        (json!({"containers": [{"image": "x"}]}), "map: map[image:x] does not contain declared merge key: name"),
    ] {
        let spec = json!({"nodeSelector": {"a": "b"}, "containers": [{"name": "a"}]});
        assert_eq!(strategic(spec, patch.clone()).unwrap_err(), message, "{patch}");
    }
    assert!(Patch::parse(Kind::Strategic, b"[").unwrap_err().message == "unexpected end of JSON input");
}

#[test]
fn json_patches_apply_all_or_nothing() {
    let document = json!({"a": {"b": [1, 2]}, "c/d": "x"});
    let run = |operations: Value| {
        let operations: Vec<json::Operation> =
            operations.as_array().unwrap().iter().map(json::Operation::read).collect();
        json::apply(document.clone(), &operations).ok()
    };
    for (operations, expected) in [
        (json!([{"op": "add", "path": "/a/b/1", "value": 9}]), Some(json!({"a": {"b": [1, 9, 2]}, "c/d": "x"}))),
        (json!([{"op": "add", "path": "/a/b/-", "value": 9}]), Some(json!({"a": {"b": [1, 2, 9]}, "c/d": "x"}))),
        (json!([{"op": "remove", "path": "/c~1d"}]), Some(json!({"a": {"b": [1, 2]}}))),
        (json!([{"op": "move", "from": "/a/b/0", "path": "/e"}]), Some(json!({"a": {"b": [2]}, "c/d": "x", "e": 1}))),
        (
            json!([{"op": "copy", "from": "/a", "path": "/e"}, {"op": "replace", "path": "/a", "value": 0}]),
            Some(json!({"a": 0, "c/d": "x", "e": {"b": [1, 2]}})),
        ),
        (json!([{"op": "test", "path": "/a/b", "value": [1, 2.0]}]), Some(document.clone())),
        (json!([{"op": "test", "path": "/a/b", "value": [1]}]), None),
        (json!([{"op": "remove", "path": "/nope"}]), None),
        (json!([{"op": "add", "path": "/a/b/3", "value": 9}]), None),
        (json!([{"op": "add", "path": "/x/y", "value": 9}]), None),
        (json!([{"op": "do", "path": "/a"}]), None),
        (json!([{"op": "add", "value": 1}]), None),
    ] {
        assert_eq!(run(operations.clone()), expected, "{operations}");
    }
}

#[test]
fn results_are_read_along_the_type() {
    let patched = run(Kind::Merge, json!({"metadata": {"name": "c"}}), json!({"metadata": {"labels": {"a": 1}}}));
    assert_eq!(
        patched.unwrap_err(),
        " \"\" is invalid: patch: Invalid value: \"{\\\"metadata\\\":{\\\"labels\\\":{\\\"a\\\":1},\\\"name\\\":\\\"c\\\"}}\": \
         json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"
    );
    let of = Schema::builtin().find("io.k8s.api.core.v1.Pod").unwrap();
    let patch = Patch::parse(Kind::Merge, br#"{"foo":1,"spec":{"q":1,"q":2}}"#).unwrap();
    let patched = patch.apply(&json!({}), of).unwrap();
    assert_eq!(patched.problems, ["duplicate field \"spec.q\"", "unknown field \"foo\"", "unknown field \"spec.q\""]);
    assert_eq!(
        Patch::parse(Kind::Json, b"{}").unwrap_err().message,
        "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
    );
}
