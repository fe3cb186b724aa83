//! Each case of `updates.json` is a write to an object of `defaults.json`, or to one of its subresources. A stock API
//! server refuses it with these causes, or takes over the members in `took` and counts `generation` up by so much.

use serde_json::{Value, json};

use super::refused::{cause, lay, text};
use crate::{
    kind::{Context, Part},
    kinds::{self, access::Members},
    validation::{field::walk, metadata},
};

const OBJECTS: &str = include_str!("defaults.json");
const CASES: &str = include_str!("updates.json");

#[test]
fn updates_change_and_refuse_what_a_stock_server_does() {
    let objects: Vec<Value> = serde_json::from_str(OBJECTS).unwrap();
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let of = case.text("of");
        let named = |object: &&Value| {
            let object = &object["out"];
            format!("{} {}", object.text("kind"), object["metadata"].text("name")) == of
        };
        let old = stored(objects.iter().find(named).expect(of)["out"].clone());
        let mut new = old.clone();
        for (path, value) in case["set"].as_object().unwrap() {
            lay(&mut new, path, value);
        }
        let part = match case.text("part") {
            "" => Part::Main,
            "status" => Part::Status,
            "resize" => Part::Other("resize"),
            "approval" => Part::Other("approval"),
            _ => Part::Other("ephemeralcontainers"),
        };
        let got = outcome(case, new, &old, part);
        let mut want = json!({"causes": [], "generation": case["generation"], "took": case["took"]});
        if case["causes"].is_array() {
            let mut causes: Vec<String> = case["causes"].as_array().unwrap().iter().map(cause).collect();
            causes.sort();
            causes.dedup();
            want = json!({ "causes": causes });
        }
        if got != want {
            wrong.push(format!("{of} {} {}\n  got  {got:#}\n  want {want:#}", case.text("part"), case["set"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The object as it stands in the store, with what the registry adds.
fn stored(mut object: Value) -> Value {
    let metadata = object.member("metadata");
    metadata.set("uid", "UID");
    metadata.set("resourceVersion", "5");
    metadata.set("creationTimestamp", "2026-01-01T00:00:00Z");
    if object["kind"] == "Service" && object["spec"]["type"] != "ExternalName" && object["spec"]["clusterIP"].is_null()
    {
        object.member("spec").set("clusterIP", "10.43.5.5");
        object.member("spec").set("clusterIPs", json!(["10.43.5.5"]));
    }
    object
}

fn outcome(case: &Value, mut new: Value, old: &Value, part: Part) -> Value {
    let group = old.text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group).to_string();
    let resource = kinds::by_kind(&group, old.text("kind")).unwrap();
    let cx =
        Context { now: "2026-01-01T00:00:00Z", user: "admin", groups: &[], version: &resource.versions[0].name, part };
    let hooks = &resource.hooks;
    hooks.default(&mut new, &cx);
    // As the registry does: the generation is the server's.
    kinds::access::keep(new.member("metadata"), &old["metadata"], "generation");
    hooks.prepare_update(&mut new, old, &cx);
    let mut errors = metadata::update(&new, old);
    errors.extend(hooks.validate_update(&new, old, &cx));
    if !errors.is_empty() {
        let mut causes: Vec<String> = errors.iter().map(text).collect();
        causes.sort();
        causes.dedup();
        return json!({ "causes": causes });
    }
    let generation = |object: &Value| walk(object, "metadata.generation").as_i64().unwrap_or(0);
    let set = case["set"].as_object().unwrap();
    let mut took: Vec<&String> = set.keys().filter(|path| holds(at(&new, path), &set[path.as_str()])).collect();
    took.sort();
    json!({"causes": [], "generation": generation(&new) - generation(old), "took": took})
}

fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    let pointer = format!("/{}", path.replace("].", "/").replace(['.', '['], "/").replace(']', ""));
    object.pointer(&pointer).unwrap_or(&Value::Null)
}

/// Whether `wanted` is in `got`, defaults beside it aside.
fn holds(got: &Value, wanted: &Value) -> bool {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match (got, wanted) {
        (got, wanted) if empty(wanted) => empty(got),
        (Value::Object(got), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| holds(got.get(name).unwrap_or(&Value::Null), value))
        }
        (Value::Array(got), Value::Array(wanted)) => {
            got.len() == wanted.len() && got.iter().zip(wanted).all(|(got, wanted)| holds(got, wanted))
        }
        (got, wanted) => got == wanted,
    }
}
