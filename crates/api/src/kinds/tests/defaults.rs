//! Each object of `defaults.json` becomes, by defaults and create strategy, what a stock API server stores for it.

use serde_json::Value;

use crate::{
    kind::{Context, Part},
    kinds::{self, access::Members},
    validation::field::same,
};

const CASES: &str = include_str!("defaults.json");

#[test]
fn created_objects_equal_those_of_a_stock_server() {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let groups = ["system:masters".to_string(), "system:authenticated".to_string()];
    let mut wrong = Vec::new();
    for case in &cases {
        let (mut object, want) = (case["in"].clone(), &case["out"]);
        let group = object.text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group).to_string();
        let resource = kinds::by_kind(&group, object.text("kind")).unwrap();
        let cx = Context {
            now: "2026-01-01T00:00:00Z",
            user: "admin",
            groups: &groups,
            version: &resource.versions[0].name,
            part: Part::Main,
        };
        object.member("metadata").set("uid", "UID");
        resource.hooks.default(&mut object, &cx);
        resource.hooks.prepare_create(&mut object, &cx);
        let again = {
            let mut again = object.clone();
            resource.hooks.default(&mut again, &cx);
            again
        };
        object.member("metadata").drop_member("uid");
        let name = format!("{} {}", object.text("kind"), object["metadata"].text("name"));
        let errors = resource.hooks.validate(&again, &cx);
        if !errors.is_empty() {
            wrong.push(format!("{name}: refused: {errors:?}"));
        }
        differences(&name, &object, want, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Lists where two objects differ, by path.
fn differences(path: &str, got: &Value, want: &Value, out: &mut Vec<String>) {
    match (got, want) {
        (Value::Object(left), Value::Object(right)) => {
            for name in left.keys().chain(right.keys().filter(|name| !left.contains_key(*name))) {
                let null = Value::Null;
                let (left, right) = (left.get(name).unwrap_or(&null), right.get(name).unwrap_or(&null));
                differences(&format!("{path}.{name}"), left, right, out);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                differences(&format!("{path}[{index}]"), left, right, out);
            }
        }
        _ if same(got, want) && got.is_null() == want.is_null() => {}
        _ => out.push(format!("{path}: {got}, not {want}")),
    }
}
