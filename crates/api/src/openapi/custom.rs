//! Definitions of custom resources: their own schemas, with what every object has.

use serde_json::{Map, Value, json};

use super::{Dialect, Published, definitions::Definitions};

/// Keywords of structural schemas that version 2 does not know, or that its readers get wrong.
const V3_ONLY: [&str; 7] = ["nullable", "oneOf", "anyOf", "allOf", "not", "x-kubernetes-validations", "default"];

/// `com.example.stable.v1.CronTab`.
pub(super) fn name(published: &Published<'_>) -> String {
    let reversed: Vec<&str> = published.resource.group.rsplit('.').collect();
    format!("{}.{}.{}", reversed.join("."), published.version.name, published.resource.kind)
}

/// Adds the definitions of a custom resource and of its list: references to both.
pub(super) fn define(published: &Published<'_>, definitions: &mut Definitions<'_>) -> (Value, Value) {
    let (resource, dialect) = (published.resource, definitions.dialect());
    let mut schema = published.schema.cloned().unwrap_or_else(|| json!({"type": "object"}));
    if dialect == Dialect::V2 {
        simplify(&mut schema);
    }
    let kind = |kind: &str| json!([{"group": resource.group, "kind": kind, "version": published.version.name}]);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("x-kubernetes-group-version-kind".into(), kind(&resource.kind));
        // A definition without properties that keeps everything stays open.
        let open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        if !open || schema.contains_key("properties") {
            let properties = schema.entry("properties").or_insert_with(|| json!({}));
            common(properties, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", definitions);
        }
    }
    let name = name(published);
    let object = definitions.insert(&name, schema);
    let mut list = json!({
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "items": {
                "description": format!("List of {}.", resource.plural),
                "type": "array",
                "items": object,
            },
        },
        "x-kubernetes-group-version-kind": kind(&resource.list_kind),
    });
    common(&mut list["properties"], "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta", definitions);
    let list_name = format!("{}{}", name.trim_end_matches(&resource.kind), resource.list_kind);
    let list = definitions.insert(&list_name, list);
    (object, list)
}

/// Adds the members that every object or list has.
fn common(properties: &mut Value, metadata: &str, definitions: &mut Definitions<'_>) {
    properties["apiVersion"] = json!({
        "description": "Group and version of the schema of this object.",
        "type": "string",
    });
    properties["kind"] = json!({"description": "Name of the type of this object.", "type": "string"});
    let text = "Standard metadata: names, labels, annotations and what the server keeps.";
    if let Some(reference) = definitions.refer(metadata) {
        properties["metadata"] = match definitions.dialect() {
            Dialect::V3 => json!({"description": text, "allOf": [reference]}),
            Dialect::V2 => json!({"description": text, "$ref": reference["$ref"]}),
        };
    }
}

/// Takes out of a schema what version 2 cannot say. What may be anything then has no type.
fn simplify(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    let set = |object: &Map<String, Value>, name: &str| object.get(name) == Some(&Value::Bool(true));
    let any = set(object, "x-kubernetes-preserve-unknown-fields") || set(object, "nullable");
    if set(object, "x-kubernetes-int-or-string") || any {
        for name in ["type", "items", "properties", "additionalProperties"] {
            object.remove(name);
        }
    }
    for name in V3_ONLY {
        object.remove(name);
    }
    for name in ["items", "additionalProperties"] {
        object.get_mut(name).into_iter().for_each(simplify);
    }
    let properties = object.get_mut("properties").and_then(Value::as_object_mut);
    properties.into_iter().flat_map(Map::values_mut).for_each(simplify);
}
