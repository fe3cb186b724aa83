//! Whether a definition's schema is structural: what every part of it says is known without looking at objects.
//!
//! Source: API reference "Specifying a structural schema".

use serde_json::Value;

use crate::status::{FieldError, FieldErrorKind};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// What is refused wherever it stands.
const REFUSED: [(&str, &str); 8] = [
    ("id", "id is not supported"),
    ("additionalItems", "additionalItems is not supported"),
    ("patternProperties", "patternProperties is not supported"),
    ("definitions", "definitions is not supported"),
    ("dependencies", "dependencies is not supported"),
    ("$ref", "$ref is not supported"),
    ("$schema", "$schema is not supported"),
    ("deprecated", "deprecated is not supported"),
];
/// What shapes objects and therefore has no place in the branches of `allOf`, `anyOf`, `oneOf` and `not`.
const SHAPING: [(&str, &str); 9] = [
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("default", "must be undefined to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("type", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
];

/// Field errors of the schema at `path`.
pub(super) fn check(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !text(schema, "type").eq("object") {
        let found = text(schema, "type");
        errors.push(if found.is_empty() {
            FieldError::required(format!("{path}.type"), "must not be empty at the root")
        } else {
            FieldError::invalid(format!("{path}.type"), found, "must be object at the root")
        });
    }
    if flag(schema, "nullable") {
        errors.push(FieldError::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    node(schema, path, true, &mut errors);
    errors
}

fn text<'v>(schema: &'v Value, name: &str) -> &'v str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn is_set(value: Option<&Value>) -> bool {
    !matches!(value, None | Some(Value::Null | Value::Bool(false))) && value.is_some_and(|value| value != "")
}

/// `typed`: the node is no branch of a composite, and must say its type.
fn node(schema: &Value, path: &str, typed: bool, errors: &mut Vec<FieldError>) {
    let kind = text(schema, "type");
    for (name, why) in REFUSED {
        if is_set(schema.get(name)) {
            errors.push(FieldError::forbidden(format!("{path}.{name}"), why));
        }
    }
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(match kind {
            "null" => FieldError::forbidden(
                format!("{path}.type"),
                "type cannot be set to null, use nullable as an alternative",
            ),
            _ => FieldError::not_supported(format!("{path}.type"), kind, &TYPES),
        });
    }
    if flag(schema, "uniqueItems") {
        errors.push(FieldError::forbidden(
            format!("{path}.uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && let Err(error) = regex::Regex::new(pattern)
    {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
        errors.push(FieldError::invalid(
            format!("{path}.pattern"),
            pattern,
            format!("must be a valid regular expression, but isn't: {why}"),
        ));
    }
    if typed {
        shape(schema, kind, path, errors);
    } else {
        for (name, why) in SHAPING {
            if is_set(schema.get(name)) {
                errors.push(FieldError::forbidden(format!("{path}.{name}"), why));
            }
        }
    }
    lists(schema, kind, path, errors);
    rules(schema, path, errors);
    children(schema, path, typed, errors);
}

fn shape(schema: &Value, kind: &str, path: &str, errors: &mut Vec<FieldError>) {
    let int_or_string = flag(schema, "x-kubernetes-int-or-string");
    let preserve = schema.get("x-kubernetes-preserve-unknown-fields");
    if preserve == Some(&Value::Bool(false)) {
        errors.push(FieldError::invalid(
            format!("{path}.x-kubernetes-preserve-unknown-fields"),
            false,
            "must be true or undefined",
        ));
    }
    if kind.is_empty() && !int_or_string && preserve != Some(&Value::Bool(true)) {
        errors.push(FieldError::required(format!("{path}.type"), "must not be empty for specified object fields"));
    }
    let has_properties = schema.get("properties").and_then(Value::as_object).is_some_and(|all| !all.is_empty());
    if has_properties && is_set(schema.get("additionalProperties")) {
        errors.push(FieldError::forbidden(
            format!("{path}.additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        ));
    }
    if kind == "array" && schema.get("items").is_none() {
        errors.push(FieldError::required(format!("{path}.items"), "must be specified"));
    }
    if schema.get("items").is_some_and(Value::is_array) {
        errors.push(FieldError::forbidden(format!("{path}.items"), "items must be a schema object and not an array"));
    }
    if flag(schema, "x-kubernetes-embedded-resource") {
        if kind != "object" {
            let field = format!("{path}.type");
            let why = "must be object if x-kubernetes-embedded-resource is true";
            errors.push(if kind.is_empty() {
                FieldError::required(field, why)
            } else {
                FieldError::invalid(field, kind, why)
            });
        }
        if !has_properties && preserve != Some(&Value::Bool(true)) {
            errors.push(FieldError::required(
                format!("{path}.properties"),
                "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
            ));
        }
    }
    if let Some(kind_of_map) = schema.get("x-kubernetes-map-type").and_then(Value::as_str) {
        if kind != "object" {
            let why = "must be object if x-kubernetes-map-type is specified";
            let field = format!("{path}.type");
            errors.push(if kind.is_empty() {
                FieldError::required(field, why)
            } else {
                FieldError::invalid(field, kind, why)
            });
        }
        if !matches!(kind_of_map, "atomic" | "granular") {
            let field = format!("{path}.x-kubernetes-map-type");
            errors.push(FieldError::not_supported(field, kind_of_map, &["atomic", "granular"]));
        }
    }
}

fn lists(schema: &Value, kind: &str, path: &str, errors: &mut Vec<FieldError>) {
    let list_type = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    let list_path = format!("{path}.x-kubernetes-list-type");
    let keys_path = format!("{path}.x-kubernetes-list-map-keys");
    let keys = schema.get("x-kubernetes-list-map-keys");
    let names: Vec<&str> = keys.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if let Some(list_type) = list_type {
        if kind != "array" {
            let why = "must be array if x-kubernetes-list-type is specified";
            let field = format!("{path}.type");
            errors.push(if kind.is_empty() {
                FieldError::required(field, why)
            } else {
                FieldError::invalid(field, kind, why)
            });
        }
        if !matches!(list_type, "atomic" | "set" | "map") {
            errors.push(FieldError::new(
                FieldErrorKind::NotSupported,
                list_path.as_str(),
                list_type,
                "supported values: \"atomic\", \"set\", \"map\"",
            ));
        }
    }
    if !names.is_empty() && list_type != Some("map") {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(match list_type {
            None => FieldError::required(list_path, why),
            Some(found) => FieldError::invalid(list_path, found, why),
        });
    }
    let Some(items) = schema.get("items").filter(|_| list_type.is_some_and(|of| of != "atomic")) else { return };
    if list_type == Some("set") {
        let atomic = |name: &str| items.get(name).and_then(Value::as_str).is_none_or(|of| of == "atomic");
        for (of, name) in [("array", "x-kubernetes-list-type"), ("object", "x-kubernetes-map-type")] {
            let is_missing = of == "object" && items.get(name).is_none();
            if text(items, "type") == of && (!atomic(name) || is_missing) {
                errors.push(FieldError::invalid(
                    format!("{path}.items.{name}"),
                    items.get(name).cloned().unwrap_or_default(),
                    "must be atomic as item of a list with x-kubernetes-list-type=set",
                ));
            }
        }
    }
    if flag(items, "nullable") {
        errors.push(FieldError::forbidden(
            format!("{path}.items.nullable"),
            format!("cannot be nullable when x-kubernetes-list-type is {}", list_type.unwrap_or_default()),
        ));
    }
    if list_type != Some("map") {
        return;
    }
    if names.is_empty() {
        errors.push(FieldError::required(keys_path.as_str(), "must not be empty if x-kubernetes-list-type is map"));
    }
    if text(items, "type") != "object" {
        errors.push(FieldError::invalid(
            format!("{path}.items.type"),
            text(items, "type"),
            "must be object if parent array's x-kubernetes-list-type is map",
        ));
    }
    let required = items.get("required").and_then(Value::as_array);
    for (index, name) in names.iter().enumerate() {
        let key_path = format!("{path}.items.properties[{name}]");
        match items.get("properties").and_then(|all| all.get(name)) {
            None => errors.push(FieldError::invalid(
                keys_path.as_str(),
                keys.cloned().unwrap_or_default(),
                "entries must all be names of item properties",
            )),
            Some(property) => {
                if matches!(text(property, "type"), "array" | "object") {
                    errors.push(FieldError::invalid(
                        format!("{key_path}.type"),
                        text(property, "type"),
                        "must be a scalar type if parent array's x-kubernetes-list-type is map",
                    ));
                }
                let is_required = required.is_some_and(|all| all.iter().any(|of| of == name));
                if !is_required && property.get("default").is_none() {
                    errors.push(FieldError::required(
                        format!("{key_path}.default"),
                        "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                         property",
                    ));
                }
                if flag(property, "nullable") {
                    errors.push(FieldError::forbidden(
                        format!("{key_path}.nullable"),
                        "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
                    ));
                }
            }
        }
        if names[..index].contains(name) {
            let given = keys.cloned().unwrap_or_default();
            errors.push(FieldError::invalid(keys_path.as_str(), given, "must not contain duplicate entries"));
        }
    }
}

/// The parts of `x-kubernetes-validations` that are not expressions.
fn rules(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const REASONS: [&str; 4] =
        ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    let all = schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
    for (index, rule) in all.enumerate() {
        let path = format!("{path}.x-kubernetes-validations[{index}]");
        let message = rule.get("message").and_then(Value::as_str);
        if text(rule, "rule").trim().is_empty() {
            errors.push(FieldError::required(format!("{path}.rule"), "rule is not specified"));
        }
        match message {
            Some(message) if !message.is_empty() && message.trim().is_empty() => {
                errors.push(FieldError::invalid(format!("{path}.message"), message, "must be non-empty if specified"));
            }
            Some(message) if message.contains('\n') => {
                errors.push(FieldError::invalid(format!("{path}.message"), message, "must not contain line breaks"));
            }
            None | Some("") if text(rule, "rule").trim().contains('\n') => errors.push(FieldError::required(
                format!("{path}.message"),
                "message must be specified if rule contains line breaks",
            )),
            _ => {}
        }
        let reason = text(rule, "reason");
        if !reason.is_empty() && !REASONS.contains(&reason) {
            errors.push(FieldError::not_supported(format!("{path}.reason"), reason, &REASONS));
        }
        let place = text(rule, "fieldPath");
        if place.contains('\n') {
            errors.push(FieldError::invalid(format!("{path}.fieldPath"), place, "must not contain line breaks"));
        }
    }
}

fn children(schema: &Value, path: &str, typed: bool, errors: &mut Vec<FieldError>) {
    for (name, of) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let child = format!("{path}.properties[{name}]");
        if typed && name == "metadata" && !path.contains(".properties") {
            metadata(of, &child, errors);
        }
        node(of, &child, typed, errors);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(of) = schema.get(name).filter(|of| of.is_object()) {
            node(of, &format!("{path}.{name}"), typed, errors);
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        for (index, of) in schema.get(name).and_then(Value::as_array).into_iter().flatten().enumerate() {
            // The one idiom that may name types in branches.
            if !flag(schema, "x-kubernetes-int-or-string") {
                node(of, &format!("{path}.{name}[{index}]"), false, errors);
            }
        }
    }
    if let Some(of) = schema.get("not") {
        node(of, &format!("{path}.not"), false, errors);
    }
}

/// A definition may restrict the name only.
fn metadata(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let names = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    if names.into_iter().any(|(name, _)| name != "name" && name != "generateName") {
        errors.push(FieldError::forbidden(
            path,
            "must not specify anything other than name and generateName, but metadata is implicitly specified",
        ));
    }
}
