//! A custom resource's behaviour, driven by its definition.

use serde_json::{Map, Value, json};

use super::{Compiled, expressions, intern, jsonpath::JsonPath};
use crate::{
    codec,
    kind::{Context, Hooks, Part, ScalePaths},
    schema::TypeRef,
    status::{FieldError, FieldErrorKind},
    validation::names,
};

/// All versions of one definition.
pub(super) struct Custom {
    versions: Vec<Compiled>,
    field_names: Vec<&'static str>,
}

impl Custom {
    pub(super) fn new(versions: Vec<Compiled>) -> Self {
        let mut field_names: Vec<&'static str> =
            versions.iter().flat_map(|version| version.fields.iter().map(|(name, _)| *name)).collect();
        field_names.sort_unstable();
        field_names.dedup();
        Self { versions, field_names }
    }

    fn version(&self, name: &str) -> Option<&Compiled> {
        self.versions.iter().find(|version| version.name == name).or(self.versions.first())
    }

    /// The version in which an object is written.
    fn version_of(&self, object: &Value) -> Option<&Compiled> {
        let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        self.version(api_version.rsplit('/').next().unwrap_or_default())
    }
}

fn metadata(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata")?.as_object_mut()
}

/// Copies a member, or its absence.
fn copy(name: &str, from: &Value, to: &mut Value) {
    let Value::Object(members) = to else { return };
    match from.get(name) {
        Some(value) => members.insert(name.to_string(), value.clone()),
        None => members.remove(name),
    };
}

/// Both say the same outside of metadata (and status).
fn is_same_intent(a: &Value, b: &Value, has_status: bool) -> bool {
    let ignored = |name: &str| name == "metadata" || name == "apiVersion" || has_status && name == "status";
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    let parts = |members: &'_ Map<String, Value>| members.keys().filter(|name| !ignored(name)).count();
    parts(a) == parts(b) && a.iter().filter(|(name, _)| !ignored(name)).all(|(name, value)| b.get(name) == Some(value))
}

impl Hooks for Custom {
    fn default(&self, object: &mut Value, _cx: &Context<'_>) {
        if let Some(version) = self.version_of(object) {
            codec::drop_nulls(object, version.schema.root());
            codec::default(object, version.schema.root());
        }
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context<'_>) {
        let has_status = self.version_of(object).is_some_and(|version| version.has_status);
        if let (true, Value::Object(members)) = (has_status, &mut *object) {
            members.remove("status");
        }
        if let Some(metadata) = metadata(object) {
            metadata.insert("generation".into(), 1.into());
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context<'_>) {
        let has_status = self.version_of(new).is_some_and(|version| version.has_status);
        if cx.part == Part::Status {
            let status = new.get("status").cloned();
            let managed = metadata(new).and_then(|metadata| metadata.remove("managedFields"));
            let revision = metadata(new).and_then(|metadata| metadata.remove("resourceVersion"));
            *new = old.clone();
            if let Value::Object(members) = &mut *new {
                match status {
                    Some(status) => members.insert("status".into(), status),
                    None => members.remove("status"),
                };
            }
            if let Some(metadata) = metadata(new) {
                for (name, value) in [("managedFields", managed), ("resourceVersion", revision)] {
                    match value {
                        Some(value) => metadata.insert(name.into(), value),
                        None => metadata.remove(name),
                    };
                }
            }
            return;
        }
        if has_status {
            copy("status", old, new);
        }
        let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        let generation = if is_same_intent(new, old, has_status) { generation } else { generation + 1 };
        if let Some(metadata) = metadata(new) {
            metadata.insert("generation".into(), generation.into());
        }
    }

    fn validate(&self, object: &Value, _cx: &Context<'_>) -> Vec<FieldError> {
        self.version_of(object).map(|version| check(version, object, None)).unwrap_or_default()
    }

    fn validate_update(&self, new: &Value, old: &Value, _cx: &Context<'_>) -> Vec<FieldError> {
        self.version_of(new).map(|version| check(version, new, Some(old))).unwrap_or_default()
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::subdomain_name(name, prefix)
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let Some(version) = self.version_of(object) else { return Vec::new() };
        version
            .fields
            .iter()
            .map(|(name, path)| {
                let text = match path.find(object).first() {
                    Some(Value::String(text)) => text.clone(),
                    Some(Value::Null) | None => String::new(),
                    Some(other) => other.to_string(),
                };
                (*name, text)
            })
            .collect()
    }

    fn field_names(&self) -> &[&'static str] {
        &self.field_names
    }

    fn row(&self, object: &Value, now: &str) -> Option<Vec<Value>> {
        let version = self.version_of(object)?;
        let name = object.pointer("/metadata/name").cloned().unwrap_or_default();
        Some(std::iter::once(name).chain(version.columns.iter().map(|column| column.cell(object, now))).collect())
    }

    fn columns(&self, version: &str) -> Option<Vec<Value>> {
        let name = json!({"name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "Name must be unique within a namespace. Is required when creating resources, although some \
                            resources may allow a client to request the generation of an appropriate name automatically."});
        let version = self.version(version)?;
        Some(std::iter::once(name).chain(version.columns.iter().map(super::Column::definition)).collect())
    }

    fn schema(&self, version: &str) -> Option<TypeRef<'_>> {
        self.version(version).map(|version| version.schema.root())
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn scale_paths(&self) -> Option<ScalePaths> {
        self.versions.iter().find_map(|version| version.scale.clone())
    }
}

/// Values first; expressions only about values that have the types and members they rely on.
fn check(version: &Compiled, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    version.rules.check(new, old, "", &mut errors);
    if !version.rules.has_expressions {
        return errors;
    }
    let blocks = |error: &FieldError| {
        use FieldErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
        matches!(error.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
    };
    if errors.iter().any(blocks) {
        errors.push(FieldError::invalid(
            "<nil>",
            Value::Null,
            "some validation rules were not checked because the object was invalid; correct the existing errors to \
             complete validation",
        ));
    } else {
        errors.extend(expressions::check(&version.rules, new, old));
    }
    errors
}

/// The selectable fields of a version: `spec.color` for `.spec.color`.
pub(super) fn selectable(version: &Value) -> Vec<(&'static str, JsonPath)> {
    let fields = version.get("selectableFields").and_then(Value::as_array).into_iter().flatten();
    fields
        .filter_map(|field| {
            let text = field.get("jsonPath")?.as_str()?;
            Some((intern::name(text.trim_start_matches('.')), JsonPath::parse(text).ok()?))
        })
        .collect()
}

/// Field errors of the selectable fields of a version.
pub(super) fn check_fields(version: &Value, path: &str) -> Vec<FieldError> {
    const MOST: usize = 8;
    let fields = version.get("selectableFields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut errors = Vec::new();
    if fields.len() > MOST {
        let (actual, detail) = (fields.len(), format!("must have at most {MOST} items"));
        errors.push(FieldError::new(FieldErrorKind::TooMany, path, actual, detail));
    }
    let mut seen = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let at = format!("{path}[{index}].jsonPath");
        let text = field.get("jsonPath").and_then(Value::as_str).unwrap_or_default();
        if text.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        let parsed = JsonPath::parse(text);
        let members = match &parsed {
            Ok(parsed) => parsed.members(),
            Err(why) => {
                errors.push(FieldError::invalid(at, text, format!("is an invalid path: {why}")));
                continue;
            }
        };
        let Some(members) = members else {
            errors.push(FieldError::invalid(at, text, "is an invalid path: only field names are allowed"));
            continue;
        };
        if members.first() == Some(&"metadata") {
            errors.push(FieldError::invalid(at.as_str(), text, "must not point to fields in metadata"));
        }
        let root = version.pointer("/schema/openAPIV3Schema");
        let end = members.iter().try_fold(root, |node, name| Some(node?.get("properties")?.get(name)));
        let kind = end.flatten().and_then(|end| end.get("type")?.as_str());
        if !matches!(kind, Some("string" | "boolean" | "integer")) {
            errors.push(FieldError::invalid(
                at.as_str(),
                text,
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats \
                 are allowed.",
            ));
        }
        if seen.contains(&text) {
            errors.push(FieldError::duplicate(at, text));
        }
        seen.push(text);
    }
    errors
}

/// Where a version's `scale` reads and writes.
pub(super) fn scale(version: &Value) -> Option<ScalePaths> {
    let scale = version.pointer("/subresources/scale")?;
    let path =
        |name: &str| scale.get(name).and_then(Value::as_str).map(|path| path.trim_start_matches('.').to_string());
    Some(ScalePaths {
        spec_replicas: path("specReplicasPath")?,
        status_replicas: path("statusReplicasPath")?,
        selector: path("labelSelectorPath"),
    })
}
