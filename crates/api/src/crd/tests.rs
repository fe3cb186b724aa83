use serde_json::json;

use super::*;
use crate::{
    kind::{Context, Part},
    selector::FieldSelector,
};

fn definition(spec: Value) -> Value {
    json!({"spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
             "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
            {"name": "v1", "served": true, "storage": true,
             "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
             "selectableFields": [{"jsonPath": ".spec.color"}],
             "additionalPrinterColumns": [
                {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
                {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
             "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": spec}, "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}})
}

fn cx(part: Part) -> Context<'static> {
    Context { now: "2026-01-01T00:01:30Z", user: "u", groups: &[], version: "v1", part }
}

fn errors(spec_schema: Value, spec: Value) -> Vec<String> {
    let resource = resource(&definition(spec_schema)).unwrap();
    let object = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec});
    resource.hooks.validate(&object, &cx(Part::Main)).iter().map(ToString::to_string).collect()
}

#[test]
fn a_definition_makes_a_resource() {
    let resource =
        resource(&definition(json!({"color": {"type": "string"}, "replicas": {"type": "integer", "default": 1}})))
            .unwrap();
    let names: Vec<&str> = resource.versions.iter().map(|version| version.name.as_str()).collect();
    assert_eq!(names, ["v1", "v1beta1"]);
    assert_eq!(
        resource.versions[1].deprecation_warning.as_deref(),
        Some("example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget")
    );
    assert_eq!(resource.versions[0].subresources.len(), 2);
    assert_eq!((resource.singular.as_str(), resource.list_kind.as_str()), ("widget", "WidgetList"));

    let hooks = &resource.hooks;
    let mut object = json!({"apiVersion": "example.com/v1", "metadata": {"name": "w", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"color": "red"}, "status": {"conditions": [{"type": "A", "status": "x"}, {"type": "Ready", "status": "True"}]}});
    assert_eq!(
        hooks.row(&object, "2026-01-01T00:01:30Z").unwrap(),
        [json!("w"), json!("red"), json!("True"), json!("90s")]
    );
    assert_eq!(hooks.columns("v1").unwrap().len(), 4);
    assert_eq!(hooks.fields(&object), [("spec.color", "red".to_string())]);
    let selector = FieldSelector::parse("spec.color=red").unwrap();
    assert!(
        selector.matches(|name| hooks
            .fields(&object)
            .into_iter()
            .find(|(own, _)| *own == name)
            .map(|(_, value)| value))
    );
    hooks.default(&mut object, &cx(Part::Main));
    assert_eq!(object["spec"]["replicas"], 1);
    hooks.prepare_create(&mut object, &cx(Part::Main));
    assert_eq!((&object["status"], &object["metadata"]["generation"]), (&Value::Null, &json!(1)));
    assert_eq!(hooks.scale_paths().unwrap().spec_replicas, "spec.replicas");
}

#[test]
fn each_part_changes_what_it_may() {
    let resource = resource(&definition(json!({"color": {"type": "string"}}))).unwrap();
    let old = json!({"apiVersion": "example.com/v1", "metadata": {"name": "w", "generation": 1}, "spec": {"color": "red"}, "status": {"a": 1}});
    let mut new = old.clone();
    new["spec"]["color"] = "blue".into();
    new["status"]["a"] = 2.into();
    let mut main = new.clone();
    resource.hooks.prepare_update(&mut main, &old, &cx(Part::Main));
    assert_eq!(
        (&main["metadata"]["generation"], &main["status"]["a"], &main["spec"]["color"]),
        (&json!(2), &json!(1), &json!("blue"))
    );
    resource.hooks.prepare_update(&mut new, &old, &cx(Part::Status));
    assert_eq!(
        (&new["metadata"]["generation"], &new["status"]["a"], &new["spec"]["color"]),
        (&json!(1), &json!(2), &json!("red"))
    );
}

#[test]
fn values_get_upstreams_errors() {
    for (schema, spec, expected) in [
        (
            json!({"a": {"type": "integer"}}),
            json!({"a": "x"}),
            "spec.a: Invalid value: \"string\": spec.a in body must be of type integer: \"string\"",
        ),
        (
            json!({"a": {"type": "integer", "minimum": 3}}),
            json!({"a": 1}),
            "spec.a: Invalid value: 1: spec.a in body should be greater than or equal to 3",
        ),
        (
            json!({"a": {"type": "integer", "maximum": 3, "exclusiveMaximum": true}}),
            json!({"a": 3}),
            "spec.a: Invalid value: 3: spec.a in body should be less than 3",
        ),
        (
            json!({"a": {"type": "number", "multipleOf": 0.5}}),
            json!({"a": 0.7}),
            "spec.a: Invalid value: 0.7: spec.a in body should be a multiple of 0.5",
        ),
        (
            json!({"a": {"type": "string", "enum": ["x", "y"]}}),
            json!({"a": "z"}),
            "spec.a: Unsupported value: \"z\": supported values: \"x\", \"y\"",
        ),
        (
            json!({"a": {"type": "string", "pattern": "^b+$"}}),
            json!({"a": "c"}),
            "spec.a: Invalid value: \"c\": spec.a in body should match '^b+$'",
        ),
        (
            json!({"a": {"type": "string", "maxLength": 2}}),
            json!({"a": "ccc"}),
            "spec.a: Too long: may not be more than 2 bytes",
        ),
        (
            json!({"a": {"type": "string", "minLength": 2}}),
            json!({"a": "c"}),
            "spec.a: Invalid value: \"c\": spec.a in body should be at least 2 chars long",
        ),
        (
            json!({"a": {"type": "string", "format": "date-time"}}),
            json!({"a": "c"}),
            "spec.a: Invalid value: \"c\": spec.a in body must be of type date-time: \"c\"",
        ),
        (
            json!({"a": {"type": "array", "maxItems": 1, "items": {"type": "string"}}}),
            json!({"a": ["x", "y"]}),
            "spec.a: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"a": {"type": "array", "items": {"type": "string"}}}),
            json!({"a": [1]}),
            "spec.a[0]: Invalid value: \"integer\": spec.a[0] in body must be of type string: \"integer\"",
        ),
        (
            json!({"a": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}),
            json!({"a": ["x", "x"]}),
            "spec.a[1]: Duplicate value: \"x\"",
        ),
        (
            json!({"a": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}),
            json!({"a": [{"k": "x"}, {"k": "x"}]}),
            "spec.a[1]: Duplicate value: {\"k\":\"x\"}",
        ),
        (
            json!({"a": {"type": "object", "required": ["b"], "properties": {"b": {"type": "string"}}}}),
            json!({"a": {}}),
            "spec.a.b: Required value",
        ),
        (
            json!({"a": {"x-kubernetes-int-or-string": true}}),
            json!({"a": true}),
            "spec.a: Invalid value: \"boolean\": spec.a in body must be of type integer,string: \"boolean\"",
        ),
        (
            json!({"a": {"type": "string"}}),
            json!({"a": null}),
            "spec.a: Invalid value: \"null\": spec.a in body must be of type string: \"null\"",
        ),
        (
            json!({"a": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}),
            json!({"a": {"apiVersion": "v1"}}),
            "spec.a.kind: Required value",
        ),
        (
            json!({"a": {"type": "integer", "not": {"enum": [1]}}}),
            json!({"a": 1}),
            "<nil>: Invalid value: \"\": \"spec.a\" must not validate the schema (not)",
        ),
    ] {
        assert_eq!(errors(schema.clone(), spec.clone()), [expected], "{schema} {spec}");
        assert_eq!(errors(schema, json!({})), [] as [&str; 0]);
    }
}

#[test]
fn what_did_not_change_is_not_judged_again() {
    let resource =
        resource(&definition(json!({"a": {"type": "integer", "maximum": 3}, "b": {"type": "integer", "maximum": 3}})))
            .unwrap();
    let object = |a: i64, b: i64| json!({"apiVersion": "example.com/v1", "metadata": {}, "spec": {"a": a, "b": b}});
    assert!(resource.hooks.validate_update(&object(9, 1), &object(9, 2), &cx(Part::Main)).is_empty());
    assert_eq!(resource.hooks.validate_update(&object(9, 8), &object(9, 2), &cx(Part::Main)).len(), 1);
}

#[test]
fn rules_are_asked_about_what_changed() {
    let schema = json!({"color": {"type": "string"}, "n": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "must not shrink"}]},
        "min": {"type": "integer"}, "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "at": {"type": "string", "format": "date-time"}},
                "x-kubernetes-validations": [{"rule": "!has(self.at) || self.at.getFullYear() > 2000", "messageExpression": "'bad ' + self.k", "fieldPath": ".at", "reason": "FieldValueForbidden"}]}}});
    let mut definition = definition(schema);
    let spec = &mut definition["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["x-kubernetes-validations"] = json!([{"rule": "!has(self.min) || self.n >= self.min"}, {"rule": "!has(self.min) || 6 / self.min > 0", "message": "m"}]);
    assert_eq!(validate(&definition), []);
    let resource = resource(&definition).unwrap();
    let object = |spec: Value| json!({"apiVersion": "example.com/v1", "metadata": {"name": "w"}, "spec": spec});
    let check = |new: Value, old: Option<Value>| -> Vec<String> {
        let errors = match old {
            Some(old) => resource.hooks.validate_update(&object(new), &object(old), &cx(Part::Main)),
            None => resource.hooks.validate(&object(new), &cx(Part::Main)),
        };
        errors.iter().map(ToString::to_string).collect()
    };
    for (new, old, expected) in [
        (json!({"n": 3, "min": 1}), None, &[][..]),
        (json!({"n": 1, "min": 2}), None, &["spec: Invalid value: failed rule: !has(self.min) || self.n >= self.min"]),
        (json!({"n": 1, "min": 0}), None, &["spec: Invalid value: \"object\": division by zero evaluating rule: m"]),
        (json!({"n": 1}), Some(json!({"n": 2})), &["spec.n: Invalid value: 1: must not shrink"]),
        (json!({"list": [{"k": "x", "at": "1999-01-01T00:00:00Z"}]}), None, &["spec.list[0].at: Forbidden: bad x"]),
        (json!({"n": 1, "min": 2}), Some(json!({"n": 1, "min": 2})), &[]),
        (
            json!({"n": "x"}),
            None,
            &[
                "spec.n: Invalid value: \"string\": spec.n in body must be of type integer: \"string\"",
                "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
            ],
        ),
    ] {
        assert_eq!(check(new.clone(), old.clone()), expected, "{new} {old:?}");
    }
}

#[test]
fn rules_must_compile() {
    let check = |rule: &str| -> Vec<String> {
        let schema = json!({"color": {"type": "string"}, "list": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": rule}]}}});
        validate(&definition(schema)).into_iter().map(|error| error.detail).collect()
    };
    assert_eq!(check("self.size() > 1"), [] as [&str; 0]);
    assert!(check("self.size( > 1")[0].starts_with("compilation failed: ERROR: <input>:1:"));
    assert_eq!(
        check("foo > 1"),
        ["compilation failed: ERROR: <input>: undeclared reference to 'foo' (in container '')"]
    );
    assert!(
        check("self == oldSelf")[0]
            .starts_with("oldSelf cannot be used on the uncorrelatable portion of the schema within")
    );
    let mut definition = definition(json!({"color": {"type": "string"}}));
    let root = &mut definition["spec"]["versions"][1]["schema"]["openAPIV3Schema"];
    root["x-kubernetes-validations"] =
        json!([{"rule": "self.metadata.name == self.spec.color"}, {"rule": "self.spec.colour == ''"}]);
    let errors: Vec<String> = validate(&definition).into_iter().map(|error| error.detail).collect();
    assert_eq!(errors, ["compilation failed: ERROR: <input>: undefined field 'colour'"]);
}

#[test]
fn schemas_must_be_structural() {
    let check = |properties: Value| -> Vec<String> {
        validate(&definition(properties))
            .iter()
            .map(|error| {
                error.to_string().replace("spec.versions[1].schema.openAPIV3Schema.properties[spec].properties", "S")
            })
            .collect()
    };
    assert_eq!(check(json!({"color": {"type": "string"}})), [] as [&str; 0]);
    for (property, expected) in [
        (json!({}), "S[a].type: Required value: must not be empty for specified object fields"),
        (
            json!({"type": "foo"}),
            "S[a].type: Unsupported value: \"foo\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ),
        (json!({"type": "array"}), "S[a].items: Required value: must be specified"),
        (
            json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}}),
            "S[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (
            json!({"type": "integer", "default": "x"}),
            "S[a].default: Invalid value: \"string\":  in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "string", "anyOf": [{"type": "string"}]}),
            "S[a].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (json!({"$ref": "x", "type": "string"}), "S[a].$ref: Forbidden: $ref is not supported"),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}),
            "S[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
    ] {
        assert_eq!(check(json!({"color": {"type": "string"}, "a": property})), [expected], "{property}");
    }
    assert!(
        check(json!({}))
            .iter()
            .any(|error| error.contains("selectableFields[0].jsonPath: Invalid value: \".spec.color\": must point to"))
    );
}

#[test]
fn json_paths_find_what_kubectl_finds() {
    let object = json!({"a": {"b.c": 1, "list": [{"n": 1, "t": "x"}, {"n": 2, "t": "y"}]}});
    for (path, expected) in [
        (".a['b.c']", json!([1])),
        (".a.b\\.c", json!([1])),
        (".a.list[0].t", json!(["x"])),
        (".a.list[-1].n", json!([2])),
        (".a.list[*].n", json!([1, 2])),
        (".a.list[?(@.n>1)].t", json!(["y"])),
        (".a.list[?(@.t=='x')].n", json!([1])),
        ("..t", json!(["x", "y"])),
        (".nope", json!([])),
    ] {
        let found: Vec<Value> = JsonPath::parse(path).unwrap().find(&object).into_iter().cloned().collect();
        assert_eq!(Value::Array(found), expected, "{path}");
    }
    assert!(JsonPath::parse("spec").is_err() && JsonPath::parse(".a[").is_err());
}
