//! Each case of `refused.json` lays members over an object of `defaults.json`; a stock API server answers the result with
//! these causes, and so do the kinds. A `null` takes a member away.

use serde_json::Value;

use crate::{
    kind::{Context, Part},
    kinds::{self, access::Members},
    status::FieldError,
    validation::metadata,
};

const OBJECTS: &str = include_str!("defaults.json");
const CASES: &str = include_str!("refused.json");

#[test]
fn wrong_objects_get_the_causes_of_a_stock_server() {
    let objects: Vec<Value> = serde_json::from_str(OBJECTS).unwrap();
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let of = case.text("of");
        let named = |object: &&Value| {
            let object = &object["in"];
            format!("{} {}", object.text("kind"), object["metadata"].text("name")) == of
        };
        let mut object = objects.iter().find(named).expect(of)["in"].clone();
        for (path, value) in case["set"].as_object().unwrap() {
            lay(&mut object, path, value);
        }
        let mut got = causes(object);
        let mut want: Vec<String> = case["causes"].as_array().unwrap().iter().map(cause).collect();
        got.sort();
        want.sort();
        if got != want {
            let missing: Vec<&String> = want.iter().filter(|cause| !got.contains(cause)).collect();
            let extra: Vec<&String> = got.iter().filter(|cause| !want.contains(cause)).collect();
            wrong.push(format!("{of} {}\n  missing {missing:#?}\n  extra {extra:#?}", case["set"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

pub(super) fn cause(value: &Value) -> String {
    format!("{} {}: {}", value.text("reason"), value.text("field"), value.text("message"))
}

/// What creating the object is answered with.
fn causes(mut object: Value) -> Vec<String> {
    let group = object.text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group).to_string();
    let resource = kinds::by_kind(&group, object.text("kind")).unwrap();
    let groups = ["system:masters".to_string()];
    let version = &resource.versions[0].name;
    let cx = Context { now: "2026-01-01T00:00:00Z", user: "admin", groups: &groups, version, part: Part::Main };
    object.member("metadata").set("uid", "UID");
    let hooks = &resource.hooks;
    hooks.default(&mut object, &cx);
    hooks.prepare_create(&mut object, &cx);
    let mut errors = metadata::create(&object, resource.namespaced, |name, prefix| hooks.validate_name(name, prefix));
    errors.extend(hooks.validate(&object, &cx));
    errors.iter().map(text).collect()
}

/// Reason, field and message. Lists and objects as values are left out on both sides: a stock server prints its own
/// structs.
pub(super) fn text(error: &FieldError) -> String {
    let mut body = error.body();
    if error.value.is_object() || error.value.is_array() {
        let value = error.value.to_string();
        body = body.replacen(&format!("{value}: "), "", 1).replacen(&value, "", 1);
    }
    // Differences are printed in a form of the server's own, below the first line.
    let body = body.lines().next().unwrap_or_default();
    format!("{} {}: {body}", error.kind.reason(), error.field)
}

/// Sets the member at a path like `spec.containers[0].name`, or takes it away.
pub(super) fn lay(object: &mut Value, path: &str, value: &Value) {
    let steps = path.replace('[', ".[");
    let mut steps: Vec<&str> = steps.split('.').collect();
    let last = steps.pop().unwrap();
    let mut place = object;
    for step in steps {
        place = match step.strip_prefix('[') {
            Some(index) => &mut place[index.trim_end_matches(']').parse::<usize>().unwrap()],
            None => place.member(step),
        };
    }
    match (last.strip_prefix('['), value) {
        (Some(index), value) => place[index.trim_end_matches(']').parse::<usize>().unwrap()] = value.clone(),
        (None, Value::Null) => {
            place.drop_member(last);
        }
        (None, value) => place.set(last, value.clone()),
    }
}
