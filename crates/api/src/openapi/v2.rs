//! Operations in the form of version 2: bodies are parameters, media types stand beside responses.

use serde_json::{Map, Value, json};

/// Converts version 3 paths. Schemas in them must be in the form of version 2 already.
pub(super) fn paths(paths: Map<String, Value>) -> Map<String, Value> {
    paths.into_iter().map(|(path, item)| (path, item_of(item))).collect()
}

fn item_of(item: Value) -> Value {
    let Value::Object(item) = item else { return item };
    let convert = |(name, value): (String, Value)| match (name.as_str(), value) {
        ("parameters", Value::Array(parameters)) => (name, parameters.into_iter().map(parameter).collect()),
        (_, operation) => (name, operation_of(operation)),
    };
    item.into_iter().map(convert).collect::<Map<_, _>>().into()
}

fn operation_of(mut operation: Value) -> Value {
    let Some(members) = operation.as_object_mut() else { return operation };
    let mut parameters = Vec::new();
    let mut consumes = vec![Value::from("*/*")];
    if let Some(mut body) = members.remove("requestBody") {
        let content = body["content"].as_object().cloned().unwrap_or_default();
        consumes = content.keys().cloned().map(Value::from).collect();
        let schema = content.into_iter().next().map(|(_, mut media)| media["schema"].take()).unwrap_or_default();
        let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
        if body["required"].take() == Value::Bool(true) {
            parameter["required"] = true.into();
        }
        parameters.push(parameter);
    }
    if let Some(Value::Array(own)) = members.remove("parameters") {
        parameters.extend(own.into_iter().map(parameter));
    }
    let mut produces: Vec<Value> = Vec::new();
    for response in members.get_mut("responses").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        let Some(Value::Object(content)) = response.as_object_mut().and_then(|members| members.remove("content"))
        else {
            continue;
        };
        if produces.is_empty() {
            produces = content.keys().cloned().map(Value::from).collect();
        }
        response["schema"] =
            content.into_iter().next().map(|(_, mut media)| media["schema"].take()).unwrap_or_default();
    }
    members.insert("consumes".into(), consumes.into());
    members.insert("produces".into(), produces.into());
    members.insert("schemes".into(), json!(["https"]));
    if !parameters.is_empty() {
        members.insert("parameters".into(), parameters.into());
    }
    operation
}

/// The schema's members stand in the parameter itself.
fn parameter(mut parameter: Value) -> Value {
    if parameter["in"] != "body"
        && let Some(members) = parameter.as_object_mut()
        && let Some(Value::Object(schema)) = members.remove("schema")
    {
        members.extend(schema);
    }
    parameter
}
