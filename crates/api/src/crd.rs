//! Custom resources: from a CustomResourceDefinition to the same [`Resource`] that a built-in kind is.
//!
//! [`resource`] compiles a definition once: a schema per version for decoding, pruning, defaulting and server-side
//! apply, value validations, printer columns, selectable fields and scale paths. What is compiled is shared by all
//! requests and goes with the last of them.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{
    kind::{Resource, Subresource, Version},
    schema::{Schema, SchemaError},
    status::FieldError,
};

mod columns;
mod expressions;
mod formats;
mod hooks;
mod intern;
mod jsonpath;
mod list_items;
mod structural;
mod values;

pub(crate) use formats::{duration, is as is_format};
pub use jsonpath::JsonPath;

use columns::Column;
use hooks::Custom;
use values::Rules;

/// What one version of a custom resource is made of.
struct Compiled {
    name: String,
    schema: Schema,
    rules: Rules,
    columns: Vec<Column>,
    /// Name as in a field selector, and where its value is.
    fields: Vec<(&'static str, JsonPath)>,
    has_status: bool,
    scale: Option<crate::kind::ScalePaths>,
}

/// Field errors of the schema, columns and selectable fields of each version of a definition.
///
/// What all versions say alike upstream tells once, at the place where the first version of the API had it.
pub fn validate(definition: &Value) -> Vec<FieldError> {
    let all = versions(definition);
    let places = |member: &str, shared: &str| -> Vec<(usize, String)> {
        let alike = all.iter().all(|version| version.get(member) == all[0].get(member));
        match alike {
            true if !all.is_empty() => vec![(0, shared.to_string())],
            _ => (0..all.len()).map(|index| (index, format!("spec.versions[{index}].{member}"))).collect(),
        }
    };
    let mut errors = Vec::new();
    for (index, path) in places("schema", "spec.validation") {
        let Some(schema) = all[index].pointer("/schema/openAPIV3Schema") else { continue };
        let at = format!("{path}.openAPIV3Schema");
        let mut found = structural::check(schema, &at);
        if found.is_empty() {
            found = check_defaults(schema, &at);
            found.extend(expressions::validate(schema, &Rules::compile(&with_meta(schema)), &at));
        }
        errors.extend(found);
    }
    for (index, path) in places("additionalPrinterColumns", "spec.additionalPrinterColumns") {
        errors.extend(columns::check(&all[index], &path));
    }
    for (index, path) in places("selectableFields", "spec.selectableFields") {
        errors.extend(hooks::check_fields(&all[index], &path));
    }
    errors
}

/// Compiles a definition.
///
/// # Errors
/// The field errors for which the definition should have been refused.
pub fn resource(definition: &Value) -> Result<Resource, Vec<FieldError>> {
    let text = |path: &str| definition.pointer(path).and_then(Value::as_str).unwrap_or_default().to_string();
    let texts = |path: &str| -> Vec<String> {
        let all = definition.pointer(path).and_then(Value::as_array).into_iter().flatten();
        all.filter_map(|text| text.as_str().map(str::to_string)).collect()
    };
    let mut served = Vec::new();
    let mut compiled = Vec::new();
    for (index, version) in versions(definition).iter().enumerate() {
        let flag = |name: &str| version.get(name).and_then(Value::as_bool).unwrap_or(false);
        let name = version.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
        let one = compile(version, &name).map_err(|error| {
            let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
            vec![FieldError::invalid(field, "", error.to_string())]
        })?;
        if flag("served") || flag("storage") {
            let default_warning = || deprecation(definition, &name);
            let warning = version.get("deprecationWarning").and_then(Value::as_str).map(str::to_string);
            served.push((
                flag("served"),
                Version {
                    storage: flag("storage"),
                    definition: String::new(),
                    subresources: subresources(&one),
                    deprecation_warning: flag("deprecated").then(|| warning.unwrap_or_else(default_warning)),
                    name,
                },
            ));
        }
        compiled.push(one);
    }
    // What is stored may be a version that is not served: it is known, but comes last and is not offered.
    served.sort_by_key(|(is_served, version)| (!is_served, preference(&version.name)));
    let plural = text("/spec/names/plural");
    let kind = text("/spec/names/kind");
    let or = |given: String, other: String| if given.is_empty() { other } else { given };
    Ok(Resource {
        group: text("/spec/group"),
        singular: or(text("/spec/names/singular"), kind.to_lowercase()),
        list_kind: or(text("/spec/names/listKind"), format!("{kind}List")),
        short_names: texts("/spec/names/shortNames"),
        categories: texts("/spec/names/categories"),
        namespaced: text("/spec/scope") == "Namespaced",
        verbs: ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
            .map(String::from)
            .into(),
        versions: served.into_iter().map(|(_, version)| version).collect(),
        hooks: Arc::new(Custom::new(compiled)),
        plural,
        kind,
    })
}

fn versions(definition: &Value) -> &[Value] {
    definition.pointer("/spec/versions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Upstream's words for a deprecated version without words of its own: the best newer version is named.
fn deprecation(definition: &Value, name: &str) -> String {
    let text = |path: &str| definition.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (group, kind) = (text("/spec/group"), text("/spec/names/kind"));
    let flag = |version: &Value, name: &str| version.get(name).and_then(Value::as_bool).unwrap_or(false);
    let newer = versions(definition)
        .iter()
        .filter(|version| flag(version, "served") && !flag(version, "deprecated"))
        .filter_map(|version| version.get("name")?.as_str())
        .filter(|other| preference(other) < preference(name))
        .min_by_key(|other| preference(other));
    let instead = newer.map(|newer| format!("; use {group}/{newer} {kind}")).unwrap_or_default();
    format!("{group}/{name} {kind} is deprecated{instead}")
}

fn compile(version: &Value, name: &str) -> Result<Compiled, SchemaError> {
    let anything = serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let source = version.pointer("/schema/openAPIV3Schema").unwrap_or(&anything);
    Ok(Compiled {
        name: name.to_string(),
        schema: Schema::from_openapi(source)?,
        rules: Rules::compile(&with_meta(source)),
        columns: columns::read(version),
        fields: hooks::selectable(version),
        has_status: version.pointer("/subresources/status").is_some(),
        scale: hooks::scale(version),
    })
}

/// The schema with the parts that every object has: of metadata a definition knows the names only.
fn with_meta(source: &Value) -> Value {
    let text = || serde_json::json!({"type": "string"});
    let mut out = source.clone();
    let Some(Value::Object(properties)) = out.get_mut("properties") else { return out };
    properties.insert("apiVersion".into(), text());
    properties.insert("kind".into(), text());
    let metadata = properties.entry("metadata").or_insert_with(|| serde_json::json!({"type": "object"}));
    if let Value::Object(metadata) = metadata {
        let names = metadata.entry("properties").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(names) = names {
            names.entry("name").or_insert_with(text);
            names.entry("generateName").or_insert_with(text);
        }
    }
    out
}

/// Defaults must be pruned and valid themselves.
fn check_defaults(schema: &Value, path: &str) -> Vec<FieldError> {
    fn walk(node: &Value, path: &str, errors: &mut Vec<FieldError>) {
        if let Some(default) = node.get("default") {
            let at = format!("{path}.default");
            let mut found = Vec::new();
            Rules::compile(node).check(default, None, "", &mut found);
            errors.extend(found.into_iter().map(|error| {
                let dot = if error.field.is_empty() || error.field.starts_with('[') { "" } else { "." };
                FieldError { field: format!("{at}{dot}{}", error.field), ..error }
            }));
            let wrapped = serde_json::json!({"type": "object", "properties": {"value": node}});
            if let Ok(schema) = Schema::from_openapi(&wrapped) {
                let mut object = Value::Object(Map::from_iter([("value".to_string(), default.clone())]));
                if !crate::codec::prune(&mut object, schema.root()).is_empty() {
                    errors.push(FieldError::invalid(at, default.clone(), "must not have unknown fields"));
                }
            }
        }
        for (name, of) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
            walk(of, &format!("{path}.properties[{name}]"), errors);
        }
        for name in ["items", "additionalProperties"] {
            if let Some(of) = node.get(name).filter(|of| of.is_object()) {
                walk(of, &format!("{path}.{name}"), errors);
            }
        }
    }
    let mut errors = Vec::new();
    walk(schema, path, &mut errors);
    errors
}

fn subresources(version: &Compiled) -> Vec<Subresource> {
    let verbs = || ["get", "patch", "update"].map(String::from).to_vec();
    let mut out = Vec::new();
    if version.has_status {
        out.push(Subresource { name: "status".into(), response: Default::default(), verbs: verbs() });
    }
    if version.scale.is_some() {
        let response = ("autoscaling".into(), "v1".into(), "Scale".into());
        out.push(Subresource { name: "scale".into(), response, verbs: verbs() });
    }
    out
}

/// Order in which versions are preferred: GA before beta before alpha, newer first, other names last by alphabet.
fn preference(name: &str) -> (u8, std::cmp::Reverse<u64>, std::cmp::Reverse<u64>, String) {
    use std::cmp::Reverse;
    let parse = || -> Option<(u8, u64, u64)> {
        let rest = name.strip_prefix('v')?;
        let (major, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let major = major.parse().ok()?;
        if tail.is_empty() {
            return Some((0, major, 0));
        }
        let (rank, minor) = match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(minor), _) => (1, minor),
            (_, Some(minor)) => (2, minor),
            _ => return None,
        };
        Some((rank, major, minor.parse().ok()?))
    };
    match parse() {
        Some((rank, major, minor)) => (rank, Reverse(major), Reverse(minor), String::new()),
        None => (3, Reverse(0), Reverse(0), name.to_string()),
    }
}

#[cfg(test)]
mod tests;
